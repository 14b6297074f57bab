"""Calls between their arrival and their answer: seen while they still wait for the interpreter.

Places (``admission.py``) bound what computes. A quick search computes for less time than the rest of its call takes:
under overload its kind waits in front of the interpreter, where no place is asked for yet. So transports tell of each
call that computes as soon as they know of it, and again when it has been answered.

crowd     the calls that have come and are not answered, without those that the room of long computations has: these
          do not need the interpreter. A call whose message has not come within ``PATIENCE`` is left out until it has:
          a stalled client keeps nobody waiting
standing  more of them than ``calm`` on average (of about ``_MEMORY`` seconds: the interpreter takes them up in
          fits), for ``STANDING`` seconds without a break. Then only ``strict`` are let in, until for ``CALM`` seconds
          they and those that were refused and are to come again have not been more than ``calm``

Who is refused is decided at arrival, before the message is read, and said by whoever handles the call: the request has
its id, its count and its check of the key as always. The time to come again follows from how many were answered a
second: one after the other, half as fast.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from vectordb.server.pools import CallPool

STANDING, CALM = 0.2, 1.0
PATIENCE = 0.1
_WINDOW = 0.1
_MEMORY = 0.1
_SPACING = 2.0
"""A refusal costs up to as much as an answer, and those that were answered come again by themselves."""
SHORTEST_DELAY, LONGEST_DELAY = 0.005, 5.0


class Arrival:
    """One call.

    Attributes:
        delay: Seconds after which it is to come again; None where it is let in.
    """

    __slots__ = ("at", "begun", "counted", "delay")

    def __init__(self, at: float, delay: float | None) -> None:
        self.at = at
        self.delay = delay
        self.begun = False
        self.counted = delay is None


class Arrivals:
    """Who has come and who is refused for it. Thread-safe.

    Args:
        calm: So many calls stay without being a crowd.
        strict: So many are let in while a crowd stands.
        apart: Counts those of them that do not need the interpreter.
    """

    def __init__(
        self, calm: int, strict: int, apart: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.calm, self.strict = calm, min(calm, strict)
        self._apart = apart
        self._clock = clock
        self._lock = threading.Lock()
        # All guarded by self._lock.
        self._present = 0
        self._unread: deque[Arrival] = deque()
        self._average, self._looked, self._seen = 0.0, 0.0, 0
        self._since: float | None = None
        self._strict_until = 0.0
        self._rate, self._window, self._answered = 0.0, 0.0, 0
        self._horizon = 0.0
        self._away: deque[float] = deque()  # when those that were refused are to come again

    @property
    def crowd(self) -> int:
        """Calls that have come and need the interpreter."""
        return self._present - self._apart()

    def come(self) -> Arrival:
        """A call has arrived; :meth:`begin` and :meth:`end` follow."""
        now = self._clock()
        with self._lock:
            crowd = self._look(now)
            if self._since is not None and now - self._since > STANDING:
                self._strict_until = now + CALM
            if now < self._strict_until and crowd >= self.strict:
                delay = self._promised(now)
                self._away.append(now + delay)
                while self._away[0] <= now:
                    self._away.popleft()
                if crowd + len(self._away) > self.calm:
                    self._strict_until = now + CALM
                return Arrival(now, delay)
            arrival = Arrival(now, None)
            self._present += 1
            self._unread.append(arrival)
            return arrival

    def begin(self, arrival: Arrival) -> None:
        """Its message is there, and a thread has begun with it."""
        arrival.begun = True
        if arrival.delay is None and not arrival.counted:
            with self._lock:
                arrival.counted = True
                self._present += 1

    def end(self, arrival: Arrival) -> None:
        """It has been answered, or will not be."""
        if arrival.delay is not None:
            return
        arrival.begun = True
        with self._lock:
            if arrival.counted:
                arrival.counted = False
                self._present -= 1
            self._answered += 1
            now = self._clock()
            self._look(now)
            if now - self._window >= _WINDOW:
                rate = self._answered / (now - self._window)
                self._rate = rate if self._rate == 0.0 else 0.7 * self._rate + 0.3 * rate
                self._window, self._answered = now, 0

    def _look(self, now: float) -> int:
        """The crowd; noted is since when it has been one, on average."""
        if not (self._present or self._seen or self._average):
            # One call after the other: none of those that came before is left.
            self._unread.clear()
            self._looked, self._since = now, None
            return 0
        if self._seen or self._average:
            self._average += _share(now - self._looked) * (self._seen - self._average)
        self._forget_stalled(now)
        crowd = self.crowd if self._present else 0
        self._looked, self._seen = now, crowd
        if self._average <= self.calm:
            self._since = None
        elif self._since is None:
            self._since = now
        return crowd

    def _forget_stalled(self, now: float) -> None:
        unread = self._unread
        while unread and (unread[0].begun or now - unread[0].at > PATIENCE):
            arrival = unread.popleft()
            if not arrival.begun and arrival.counted:
                arrival.counted = False
                self._present -= 1
                self._average -= _share(now - arrival.at)  # what it was of it

    def _promised(self, now: float) -> float:
        """When it is this one's turn, the others that were refused being served before."""
        start = max(self._horizon, now + self.strict / max(self._rate, 1.0))
        if start - now > LONGEST_DELAY:
            start = now + LONGEST_DELAY
        self._horizon = start + _SPACING / max(self._rate, 1.0)
        return max(SHORTEST_DELAY, start - now)


def _share(seconds: float) -> float:
    """What the last seconds are of the average."""
    return 1.0 - math.exp(-seconds / _MEMORY)


class _Here(threading.local):
    arrival: Arrival | None = None


HERE = _Here()
"""The arrival of the call that this thread handles."""


class ArrivalPool(CallPool):
    """Threads of grpcio for calls that compute; the submission of a call is its arrival."""

    def __init__(self, arrivals: Arrivals, threads: int, name: str) -> None:
        super().__init__(threads, name)
        self.arrivals = arrivals

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._run, self.arrivals.come(), fn, *args, **kwargs)

    def _run(self, arrival: Arrival, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        HERE.arrival = arrival
        try:
            return fn(*args, **kwargs)
        finally:
            HERE.arrival = None
            self.arrivals.end(arrival)
