"""Which calls run, which wait and which are refused, by what they cost.

A call has a thread of the transport's pool from its arrival on: threads are many and cheap, *places* are few
(``max_workers``). A call that finds one free runs at once. Else it joins a queue in front of the places, or, where it
would wait too long there, is refused: by its own thread, so at once, whatever the others do.

lane      which calls                                          places
light     those that read little (``cost.py``)                 its own, so that nothing keeps them waiting
usual     the others                                           ``max_workers``
heavy     those estimated to hold a place for longer than      all but a quarter of these
          ``HEAVY`` seconds

What a call costs (seconds of one place) is the moving average over earlier calls of its kind. How much of that is
worked off a second is measured while calls wait, and both together say how long a new call would wait. It is refused if

* that is longer than ``max_queue_seconds``, or than its deadline leaves;
* ``max_pending_calls`` run and wait, or the messages of those that wait have ``max_queued_bytes``;
* the queue is a *standing* one: not empty for ``STANDING`` seconds. A burst is absorbed; under lasting overload every
  call would only wait longer, so that then at most twice as many wait as there are places.

A refusal names the time after which to come again: when what waits is worked off, and what was refused before has
come. So the refused ones come back one by one, at the pace at which they can be served.

Sources: K. Nichols, V. Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012 (good and standing queues);
B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015 (the same for requests).
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from vectordb.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from vectordb.server.cost import Ask

HEAVY = 0.25
STANDING = 0.2
_LONGEST_DELAY, _SHORTEST_DELAY = 5.0, 0.005
_WINDOW = 0.1
_KINDS = 4096
_FOREVER = 1e9
_LIGHT, _USUAL, _HEAVY = range(3)


class Waiter(Protocol):
    """The part of a grpc context that is used here."""

    def time_remaining(self) -> float | None: ...
    def is_active(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many calls run and wait; see the settings of the same names."""

    max_workers: int = 8
    max_pending_calls: int = 1000
    max_queue_seconds: float = 2.0
    max_queued_bytes: int = 512 << 20


class Ticket:
    """One call's place, or its place in the queue."""

    __slots__ = ("cost", "gate", "granted", "kind", "lane", "number", "size", "started")

    def __init__(self, kind: tuple[Any, ...], cost: float, lane: int, size: int) -> None:
        self.kind = kind
        self.cost = cost
        self.lane = lane
        self.size = size
        self.started = 0.0
        self.number = 0
        self.granted = False
        self.gate: Any = None


class Admission:
    """The places and the queues of one server. Thread-safe.

    Attributes:
        shed: Calls refused, by reason: ``calls``, ``seconds``, ``bytes``, ``deadline``, ``standing``. Of calls whose
            time ran out while they waited: ``expired``.
    """

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        workers = bounds.max_workers
        self._bounds = bounds
        self._clock = clock
        self._places = (max(2, workers // 2), workers, max(1, workers - max(1, workers // 4)))
        self._lock = threading.Lock()
        # All that follows is guarded by self._lock, but for the averages, of which a lost one does not matter.
        self._running = [0, 0, 0]
        self._queues: tuple[deque[Ticket], ...] = (deque(), deque(), deque())
        self._queued_cost = 0.0
        self._queued_bytes = 0
        self._number = 0
        self._standing_since: float | None = None
        self._drained = 0.0
        self._window: float | None = None
        self._rate = float(workers)
        self._horizon = 0.0
        self._closed = False
        self._averages: dict[tuple[Any, ...], float] = {}
        self.shed: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Calls that have a place."""
        return sum(self._running)

    @property
    def waiting(self) -> int:
        """Calls in the queues."""
        return sum(map(len, self._queues))

    @property
    def waiting_seconds(self) -> float:
        """How long a call that came now would wait, as estimated."""
        return self._queued_cost / self._rate

    def enter(self, ask: Ask, size: int, context: Waiter) -> Ticket:
        """Returns once the call has a place, which :meth:`leave` gives back.

        Args:
            ask: What it asks for.
            size: Bytes of its message.
            context: Asked for the deadline where the call has to wait.

        Raises:
            ResourceExhausted: It would wait too long; ``retry_after`` says when to come again.
            DeadlineExceeded: Its time ran out while it waited. Unavailable: The server stops.
        """
        kind, guess, light = ask
        cost = self._averages.get(kind, guess)
        ticket = Ticket(kind, cost, _LIGHT if light else _HEAVY if cost > HEAVY else _USUAL, size)
        with self._lock:
            if self._has_place(ticket):
                self._running[ticket.lane] += 1
                ticket.started = self._clock()
                return ticket
            left = _time_left(context)
            self._check(ticket, left)
            self._queue(ticket)
        self._wait(ticket, left)
        if not context.is_active():
            self.leave(ticket, measured=False)
            raise Unavailable("the call was broken off while it waited")
        return ticket

    def leave(self, ticket: Ticket, measured: bool = True) -> None:
        """The call is over; ``measured``: what it took says something about its kind."""
        if measured:
            self._learn(ticket.kind, self._clock() - ticket.started)
        with self._lock:
            self._running[ticket.lane] -= 1
            if self._standing_since is not None:
                self._drained += ticket.cost
                self._grant()

    def close(self) -> None:
        """Calls that wait, and that come from now on, end as ``Unavailable``."""
        with self._lock:
            self._closed = True
            waiting = [ticket for queue in self._queues for ticket in queue]
            for queue in self._queues:
                queue.clear()
        for ticket in waiting:
            ticket.gate.release()

    # Under self._lock

    def _has_place(self, ticket: Ticket) -> bool:
        """Whether there is a place that nobody waits for."""
        return not self._queues[ticket.lane] and self._is_free(ticket.lane)

    def _is_free(self, lane: int) -> bool:
        light, usual, heavy = self._running
        if lane == _LIGHT:
            return light < self._places[_LIGHT]
        return usual + heavy < self._places[_USUAL] and (lane == _USUAL or heavy < self._places[_HEAVY])

    def _check(self, ticket: Ticket, left: float | None) -> None:
        bounds, waiting = self._bounds, self.waiting
        wait = self._queued_cost / self._rate
        if self._closed:
            raise Unavailable("the server is stopping; try again in a moment", retry_after=1.0)
        if self.running + waiting >= bounds.max_pending_calls:
            self._refuse(ticket, "calls", f"max_pending_calls = {bounds.max_pending_calls} calls run and wait")
        if wait > bounds.max_queue_seconds:
            what = f"the call would wait {wait:.2g} s, longer than max_queue_seconds = {bounds.max_queue_seconds:g}"
            self._refuse(ticket, "seconds", what)
        if left is not None and wait > left:
            self._refuse(ticket, "deadline", f"the call would wait {wait:.2g} s, longer than its time of {left:.2g} s")
        if waiting and self._queued_bytes + ticket.size > bounds.max_queued_bytes:
            what = f"the calls that wait have max_queued_bytes = {bounds.max_queued_bytes} bytes"
            self._refuse(ticket, "bytes", what)
        since, most = self._standing_since, 2 * bounds.max_workers
        if since is not None and waiting >= most and self._clock() - since > STANDING:
            what = f"{waiting} calls wait for max_workers = {bounds.max_workers}, and have not become fewer"
            self._refuse(ticket, "standing", what)

    def _refuse(self, ticket: Ticket, reason: str, what: str) -> None:
        self.shed[reason] += 1
        delay = self._promised(ticket)
        raise ResourceExhausted(
            f"the server is overloaded: {what}; try again in {delay:.2g} s",
            reason=reason,
            admitted=False,
            retry_after=delay,
        )

    def _promised(self, ticket: Ticket) -> float:
        """Seconds after which what waits is worked off, and what was refused before has come."""
        now = self._clock()
        start = max(self._horizon, now + self._queued_cost / self._rate)
        if start - now > _LONGEST_DELAY:
            # They would come all at once.
            return _LONGEST_DELAY * random.uniform(0.5, 1.0)
        self._horizon = start + ticket.cost / self._rate
        return max(_SHORTEST_DELAY, start - now)

    def _queue(self, ticket: Ticket) -> None:
        self._number += 1
        ticket.number = self._number
        ticket.gate = threading.Lock()
        ticket.gate.acquire()
        self._queues[ticket.lane].append(ticket)
        self._queued_cost += ticket.cost
        self._queued_bytes += ticket.size
        if self._standing_since is None:
            self._standing_since = self._window = self._clock()
            self._drained = 0.0

    def _unqueue(self, ticket: Ticket) -> None:
        self._queued_cost = max(0.0, self._queued_cost - ticket.cost)
        self._queued_bytes -= ticket.size
        if not any(self._queues):
            self._standing_since = None
            self._queued_cost = 0.0

    def _grant(self) -> None:
        """Gives free places to those that wait, the first come first."""
        self._measure()
        while True:
            heads = [queue[0] for lane, queue in enumerate(self._queues) if queue and self._is_free(lane)]
            if not heads:
                return
            ticket = min(heads, key=lambda head: head.number)
            self._queues[ticket.lane].popleft()
            self._running[ticket.lane] += 1
            self._unqueue(ticket)
            ticket.granted = True
            ticket.started = self._clock()
            ticket.gate.release()

    def _measure(self) -> None:
        """What is worked off a second, as long as there is always something to work off."""
        now = self._clock()
        if self._window is not None and now - self._window >= _WINDOW:
            rate = self._drained / (now - self._window)
            self._rate = min(4.0 * self._places[_USUAL], max(0.05, 0.7 * self._rate + 0.3 * rate))
            self._window, self._drained = now, 0.0

    # Without it

    def _wait(self, ticket: Ticket, left: float | None) -> None:
        if not ticket.gate.acquire(timeout=-1 if left is None else max(0.0, left)):
            with self._lock:
                if not ticket.granted and not self._closed:
                    self._queues[ticket.lane].remove(ticket)
                    self._unqueue(ticket)
                    self.shed["expired"] += 1
                    raise DeadlineExceeded(f"the call waited {left:.2g} s for its turn, all its time", timeout=left)
        if not ticket.granted:
            raise Unavailable("the server is stopping; try again in a moment", retry_after=1.0)

    def _learn(self, kind: tuple[Any, ...], took: float) -> None:
        average = self._averages.get(kind)
        if average is None:
            if len(self._averages) >= _KINDS:
                self._averages.clear()
            self._averages[kind] = took
        else:
            self._averages[kind] = average + 0.2 * (took - average)


def _time_left(context: Waiter) -> float | None:
    left = context.time_remaining()
    return None if left is None or left > _FOREVER else left
