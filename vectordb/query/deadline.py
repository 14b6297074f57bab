"""The time a request may take, and whether anybody still waits for its answer.

Work is cut into slices (parts, row blocks, query batches) and the deadline is asked between them, because a native call
that runs cannot be interrupted. Reading the monotonic clock costs 50 ns; without a limit not even that is paid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from time import monotonic

from vectordb.errors import DeadlineExceeded


class Deadline:
    """A moment on the monotonic clock, or none. Immutable, thread-safe.

    Args:
        at: ``time.monotonic()`` at which the time is up, in seconds; ``math.inf`` for never.
        timeout: The seconds that were given to the whole request, for the message; ``None`` without a limit.
        cancelled: True once the caller went away. Must be cheap and thread-safe.
    """

    __slots__ = ("_at", "_cancelled", "_timeout", "bounded")

    def __init__(
        self, at: float = math.inf, timeout: float | None = None, cancelled: Callable[[], bool] | None = None
    ) -> None:
        self._at = at
        self._timeout = timeout
        self._cancelled = cancelled
        self.bounded = at != math.inf
        """Whether there is a limit of time at all."""

    @classmethod
    def after(cls, seconds: float | None, cancelled: Callable[[], bool] | None = None) -> Deadline:
        """The moment ``seconds`` from now; ``None`` for no limit."""
        if seconds is None:
            return NO_DEADLINE if cancelled is None else cls(cancelled=cancelled)
        return cls(monotonic() + seconds, seconds, cancelled)

    def remaining(self) -> float:
        """Seconds left, never negative; ``math.inf`` without a limit, 0 once the caller went away."""
        if self._cancelled is not None and self._cancelled():
            return 0.0
        if not self.bounded:
            return math.inf
        left = self._at - monotonic()
        return max(0.0, left)

    def expired(self) -> bool:
        """Whether the time is up or the caller went away."""
        if self._cancelled is not None and self._cancelled():
            return True
        return self.bounded and monotonic() >= self._at

    def cancelled(self) -> bool:
        """Whether the caller went away: nobody would read even a partial answer."""
        return self._cancelled is not None and self._cancelled()

    def check(self) -> None:
        """Returns while there is time.

        Raises:
            DeadlineExceeded: The time is up or the caller went away.
        """
        if self.expired():
            raise self.error()

    def error(self) -> DeadlineExceeded:
        """The error to raise once the time is up."""
        if self.cancelled():
            return DeadlineExceeded("the caller cancelled the request before it was answered", timeout=self._timeout)
        if self._timeout is None:
            return DeadlineExceeded("the time allowed ran out before the answer was complete", timeout=None)
        return DeadlineExceeded(
            f"the answer was not complete within {self._timeout:g} s; raise timeout, or set allow_partial=True to get "
            "what was found by then",
            timeout=self._timeout,
        )


NO_DEADLINE = Deadline()
"""Never expires."""
