"""When a failed call is tried again, and how long to wait before: pure functions of what happened.

Exponential backoff with jitter, bounded by the number of retries and by the call's time. What may be retried:

    error                                       idempotent call   other call
    Unavailable, nothing was sent               yes               yes
    Unavailable, the outcome is unknown         yes               no
    ResourceExhausted that names retry_after    yes               no
    the same with admitted=False (overload)     yes               yes

An overloaded server says when there will be a place for this very call: it is asked again then, neither sooner nor
much later, and `OVERLOADED` times as often.

Reads are idempotent, and so are writes that carry an idempotency key: the server answers a repeated key with the
first call's result. What is not is named by :func:`is_repeatable`, for servers as for folders whose owner went.
``DeadlineExceeded`` is never retried: there is no time left to do it in.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015 ("equal jitter").
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from vectordb.errors import ResourceExhausted, Unavailable, VectorDBError

FIRST_DELAY = 0.2
"""Seconds before the first retry, before jitter."""
MAX_DELAY = 5.0
"""Longest wait between two attempts, in seconds, unless the server asks for a longer one."""


OVERLOADED = 5
"""Times as many retries where a server that works, but has no place for the call, says when to come again."""
_SPREAD = 0.1


class Clock:
    """The time that one call has left. Not thread-safe; one a call."""

    __slots__ = ("_end", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, never negative; ``None`` without a bound."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


_ONCE = {
    "create_collection": "a repeat could find what the lost first attempt created, and call that a failure",
    "delete_collection": "a repeat could find it gone, or delete one that was created since",
    "cancel_reindex": "a repeat would say that there was none",
    "repair": "a repeat finds nothing left to do, and what was done would not be told",
}
"""Operations of ``vectordb.requests.Backend`` that are not repeated where nobody knows how they ended, and why."""


def is_repeatable(operation: str, *, harmless: bool = False) -> bool:
    """Whether an operation may be carried out again where nobody knows whether it was.

    Args:
        harmless: Its arguments make it so: ``exist_ok``, ``dry_run``.
    """
    return harmless or operation not in _ONCE


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a call may be repeated after its first attempt."""

    retries: int

    def delay(self, error: VectorDBError, attempt: int, *, idempotent: bool, clock: Clock) -> float | None:
        """Seconds to wait before the next attempt, or ``None`` to raise ``error``.

        Args:
            error: What the last attempt ended with.
            attempt: Attempts that failed so far, 1 after the first.
            idempotent: Whether repeating the call is harmless even if it was carried out.
            clock: The call's time; a wait that would use it up is not begun.
        """
        asked = error.fields.get("retry_after")
        named = float(asked) if isinstance(asked, int | float) else 0.0
        refused = error.fields.get("admitted") is False and named > 0.0
        if attempt > self.retries * (OVERLOADED if refused else 1) or not _may_repeat(error, idempotent):
            return None
        if refused:
            wait = named * random.uniform(1.0, 1.0 + _SPREAD)
        else:
            backoff = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(attempt - 1, 30))
            wait = max(named, backoff / 2 + random.uniform(0, backoff / 2))
        left = clock.remaining()
        return wait if left is None or wait < left else None


def _may_repeat(error: VectorDBError, idempotent: bool) -> bool:
    if isinstance(error, Unavailable):
        return idempotent or error.fields.get("sent") is False
    safe = idempotent or error.fields.get("admitted") is False
    return isinstance(error, ResourceExhausted) and safe and "retry_after" in error.fields
