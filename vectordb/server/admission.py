"""Which calls run, which wait and which are refused, by what they cost.

A call has a thread of the transport's pool from its arrival on: threads are many and cheap, *places* are few. A call
that finds one free runs at once. Else it joins a queue in front of the places, or, where it would wait too long there,
is refused: by its own thread, so at once, whatever the others do.

room      which calls                                              places
light     those that read little (``cost.py``)                     its own, so that nothing keeps them waiting
waiting   writes, and whatever else waits for the disk             ``max_workers``
quick     searches, counts, scans of less than ``QUICK`` seconds   ``max_workers``: handing on a place costs as much
          of a processor                                           as they do
busy      those that compute for longer                            ``max_searches``: more would only share processors
          heavy ones among them, that are estimated to hold a      all but a quarter of these
          place for longer than ``HEAVY`` seconds

What a call costs (seconds of one place, and of a processor) is the moving average over earlier calls of its kind. How
much is worked off a second is measured while calls wait, and both together say how long a new call would wait. It is
refused if

* that is longer than ``max_queue_seconds``, or than its deadline leaves;
* ``max_pending_calls`` run and wait, or the messages of those that wait have ``max_queued_bytes``;
* the queue is a *standing* one: not empty for ``STANDING`` seconds. A burst is absorbed; under lasting overload every
  call would only wait longer, so that then half as many wait as there are places, or what is worked off in ``TARGET``
  seconds, until that has refused none for ``CALM`` seconds.

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
from vectordb.server.arrivals import CALM, LONGEST_DELAY, SHORTEST_DELAY, STANDING, Arrivals
from vectordb.server.cost import Ask, Work

HEAVY, QUICK = 0.25, 0.003
TARGET = 0.005
_WINDOW = 0.1
_KINDS = 4096
_MEASURED = 8
"""The first so many calls of a kind, and later one in so many, have their processor time measured."""
_FOREVER = 1e9


class Waiter(Protocol):
    """The part of a grpc context that is used here."""

    def time_remaining(self) -> float | None: ...
    def is_active(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many calls run and wait; see the settings of the same names. ``max_searches`` 0: as many as workers."""

    max_workers: int = 8
    max_searches: int = 0
    max_pending_calls: int = 1000
    max_queue_seconds: float = 2.0
    max_queued_bytes: int = 512 << 20


class _Average:
    """What calls of one kind cost: seconds of a place, and of a processor. A lost change does not matter."""

    __slots__ = ("calls", "computed", "guessed", "took")

    def __init__(self, took: float, computed: float) -> None:
        self.took, self.computed = took, computed
        self.calls = 0
        self.guessed = True

    def learn(self, took: float, computed: float | None) -> None:
        if self.guessed:
            self.guessed = False
            self.took, self.computed = took, took if computed is None else computed
            return
        # The first calls of a kind find cold caches: theirs count no longer than until one takes less.
        warming = self.calls <= _MEASURED
        self.took = _moved(self.took, took, warming)
        if computed is not None:
            self.computed = _moved(self.computed, computed, warming)


def _moved(average: float, seen: float, warming: bool) -> float:
    return seen if warming and seen < average else average + 0.2 * (seen - average)


class Ticket:
    """One call's place, or its place in the queue. ``begun``: the processor time at its beginning; ``None``: it is not
    measured."""

    __slots__ = ("average", "begun", "cost", "gate", "granted", "heavy", "number", "room", "size", "started")

    begun: float | None
    gate: threading.Lock
    number: int
    started: float

    def __init__(self, average: _Average, room: _Room, size: int) -> None:
        self.average = average
        self.cost = average.took
        self.room = room
        self.size = size
        self.heavy = room.splits and average.took > HEAVY
        self.granted = False


class _Room:
    """Places and the queue in front of them. Guarded by the admission's lock.

    Attributes:
        queues: Usual calls and heavy ones, each in the order of arrival.
        cost: Seconds that those in the queues are estimated to hold a place; ``size``: bytes of their messages.
        since: When the queue became one; None while it is empty.
        rate: Estimated seconds that are worked off a second while calls wait.
        horizon: When the last of those that were refused is to come again.
        strict_until: Until when the queue is kept as short as a standing one.
    """

    __slots__ = (
        "cost", "drained", "heavy_places", "heavy_running", "horizon", "most", "places", "queues", "rate", "running",
        "since", "size", "splits", "strict_until", "window",
    )  # fmt: skip

    def __init__(self, places: int, splits: bool = False) -> None:
        self.places = places
        self.splits = splits
        self.heavy_places = max(1, places - max(1, places // 4))
        self.most = max(1, places // 2)
        self.running = self.heavy_running = 0
        self.queues: tuple[deque[Ticket], deque[Ticket]] = (deque(), deque())
        self.cost, self.size = 0.0, 0
        self.since: float | None = None
        self.rate = float(places)
        self.window, self.drained = 0.0, 0.0
        self.horizon = 0.0
        self.strict_until = 0.0

    @property
    def waiting(self) -> int:
        return len(self.queues[0]) + len(self.queues[1])

    @property
    def wait(self) -> float:
        """Seconds that a new call would wait."""
        return self.cost / self.rate

    def has_place(self, heavy: bool) -> bool:
        return self.running < self.places and not (heavy and self.heavy_running >= self.heavy_places)

    def take(self, ticket: Ticket, now: float) -> None:
        self.running += 1
        self.heavy_running += ticket.heavy
        ticket.started = now

    def give_back(self, ticket: Ticket) -> None:
        self.running -= 1
        self.heavy_running -= ticket.heavy

    def queue(self, ticket: Ticket, now: float) -> None:
        self.queues[ticket.heavy].append(ticket)
        self.cost += ticket.cost
        self.size += ticket.size
        if self.since is None:
            self.since = self.window = now
            self.drained = 0.0

    def unqueue(self, ticket: Ticket) -> None:
        self.queues[ticket.heavy].remove(ticket)  # mostly the first
        self.cost = max(0.0, self.cost - ticket.cost)
        self.size -= ticket.size
        if not self.waiting:
            self.since, self.cost = None, 0.0

    def next_one(self) -> Ticket | None:
        """The first come of those for whom there is a place."""
        heads = [queue[0] for queue in self.queues if queue and self.has_place(queue[0].heavy)]
        return min(heads, key=lambda head: head.number, default=None)

    def measure(self, cost: float, now: float) -> None:
        """A call of this cost ended while others wait."""
        self.drained += cost
        if now - self.window >= _WINDOW:
            rate = self.drained / (now - self.window)
            self.rate = min(4.0 * self.places, max(0.05, 0.7 * self.rate + 0.3 * rate))
            self.window, self.drained = now, 0.0

    def stands(self, now: float) -> bool:
        """Whether the queue is a standing one, or was a moment ago: refusing empties it, and the refused come back."""
        if now < self.strict_until or (self.since is not None and now - self.since > STANDING):
            self.strict_until = now + CALM
            return True
        return False

    def promised(self, cost: float, now: float) -> float:
        """Seconds after which what waits is worked off, and what was refused before has come."""
        start = max(self.horizon, now + self.wait)
        if start - now > LONGEST_DELAY:
            # They would come all at once.
            return LONGEST_DELAY * random.uniform(0.5, 1.0)
        self.horizon = start + cost / self.rate
        return max(SHORTEST_DELAY, start - now)


class Admission:
    """The rooms of one server. Thread-safe.

    Attributes:
        arrivals: Calls that compute, from their arrival on.
        shed: Calls refused, by reason: ``crowd``, ``calls``, ``seconds``, ``bytes``, ``deadline``, ``standing``. Of
            calls whose time ran out while they waited: ``expired``.
    """

    def __init__(
        self,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
        computed: Callable[[], float] = time.thread_time,
    ) -> None:
        self._computed = computed
        workers = bounds.max_workers
        self._bounds = bounds
        self._clock = clock
        self._lock = threading.Lock()
        busy = _Room(min(workers, bounds.max_searches or workers), splits=True)
        self._rooms = {Work.LIGHT: _Room(max(2, workers // 2)), Work.WAITING: _Room(workers), Work.BUSY: busy}
        self._quick = _Room(workers)
        self.arrivals = Arrivals(workers, busy.places, lambda: busy.running + busy.waiting, clock)
        self._all = (*self._rooms.values(), self._quick)
        self._number = 0  # guarded by self._lock
        self._closed = False  # guarded by self._lock
        # A lost average does not matter: not guarded.
        self._averages: dict[tuple[Any, ...], _Average] = {}
        self.shed: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Calls that have a place."""
        return sum(room.running for room in self._all)

    @property
    def waiting(self) -> int:
        """Calls in the queues."""
        return sum(room.waiting for room in self._all)

    @property
    def waiting_seconds(self) -> float:
        """How long a call that came now would wait, as estimated, in the fullest queue."""
        return max(room.wait for room in self._all)

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
        kind, guess, work = ask
        average = self._averages.get(kind)
        if average is None:
            average = self._first_of(kind, guess)
        room = self._quick if work is Work.BUSY and average.computed < QUICK else self._rooms[work]
        ticket = Ticket(average, room, size)
        with self._lock:
            if self._closed:
                raise _stopping()
            if not room.queues[ticket.heavy] and room.has_place(ticket.heavy):
                room.take(ticket, self._clock())
                self._measure(ticket)
                return ticket
            left = until_deadline(context)
            self._check(ticket, left)
            self._number += 1
            ticket.number = self._number
            ticket.gate = threading.Lock()
            ticket.gate.acquire()
            room.queue(ticket, self._clock())
        self._wait(ticket, left)
        if not context.is_active():
            self.leave(ticket, measured=False)
            raise Unavailable("the call was broken off while it waited")
        self._measure(ticket)
        return ticket

    def leave(self, ticket: Ticket, measured: bool = True) -> None:
        """The call is over; ``measured``: what it took says something about its kind."""
        room, now = ticket.room, self._clock()
        if measured:
            begun = ticket.begun
            ticket.average.learn(now - ticket.started, None if begun is None else self._computed() - begun)
        with self._lock:
            room.give_back(ticket)
            if room.since is None:
                return
            room.measure(ticket.cost, now)
            while (chosen := room.next_one()) is not None:
                room.unqueue(chosen)
                room.take(chosen, now)
                chosen.granted = True
                chosen.gate.release()

    def crowded(self, delay: float) -> ResourceExhausted:
        """The refusal of a call that ``arrivals`` did not let in."""
        self.shed["crowd"] += 1
        most = self.arrivals.strict
        return _overloaded("crowd", f"calls keep coming, and {most} at a time are carried out of those", delay)

    def close(self) -> None:
        """Calls that wait, and that come from now on, end as ``Unavailable``."""
        with self._lock:
            self._closed = True
            waiting = [ticket for room in self._all for queue in room.queues for ticket in queue]
            for ticket in waiting:
                ticket.room.unqueue(ticket)
        for ticket in waiting:
            ticket.gate.release()

    def _check(self, ticket: Ticket, left: float | None) -> None:
        """Whether a call may wait (under self._lock)."""
        bounds, room = self._bounds, ticket.room
        wait = room.wait
        if self.running + self.waiting >= bounds.max_pending_calls:
            self._refuse(ticket, "calls", f"max_pending_calls = {bounds.max_pending_calls} calls run and wait")
        if wait > bounds.max_queue_seconds:
            what = f"the call would wait {wait:.2g} s, longer than max_queue_seconds = {bounds.max_queue_seconds:g}"
            self._refuse(ticket, "seconds", what)
        if left is not None and wait > left:
            self._refuse(ticket, "deadline", f"the call would wait {wait:.2g} s, longer than its time of {left:.2g} s")
        if room.waiting and sum(each.size for each in self._all) + ticket.size > bounds.max_queued_bytes:
            what = f"the calls that wait have max_queued_bytes = {bounds.max_queued_bytes} bytes"
            self._refuse(ticket, "bytes", what)
        if room.waiting >= room.most and wait > TARGET and room.stands(self._clock()):
            what = f"{room.waiting} calls wait for {room.places} places (max_workers, max_searches), and keep coming"
            self._refuse(ticket, "standing", what)

    def _refuse(self, ticket: Ticket, reason: str, what: str) -> None:
        self.shed[reason] += 1
        delay = ticket.room.promised(ticket.cost, self._clock())
        raise _overloaded(reason, what, delay)

    def _wait(self, ticket: Ticket, left: float | None) -> None:
        if not ticket.gate.acquire(timeout=-1 if left is None else max(0.0, left)):
            with self._lock:
                if not ticket.granted and not self._closed:
                    ticket.room.unqueue(ticket)
                    self.shed["expired"] += 1
                    raise DeadlineExceeded(f"the call waited {left:.2g} s for its turn, all its time", timeout=left)
        if not ticket.granted:
            raise _stopping()

    def _first_of(self, kind: tuple[Any, ...], guess: float) -> _Average:
        if len(self._averages) >= _KINDS:
            self._averages.clear()
        average = self._averages[kind] = _Average(guess, guess)
        return average

    def _measure(self, ticket: Ticket) -> None:
        """Notes the processor time at a call's beginning, where it is a call to be measured: asking for it is a system
        call, and the average of some is as good as that of all."""
        average = ticket.average
        average.calls = calls = average.calls + 1
        ticket.begun = self._computed() if calls <= _MEASURED or not calls % _MEASURED else None


def _stopping() -> Unavailable:
    return Unavailable("the server is stopping; try again in a moment", retry_after=1.0)


def _overloaded(reason: str, what: str, delay: float) -> ResourceExhausted:
    return ResourceExhausted(
        f"the server is overloaded: {what}; try again in {delay:.2g} s",
        reason=reason,
        admitted=False,
        retry_after=delay,
    )


def until_deadline(context: Waiter) -> float | None:
    """Seconds until the call's deadline; None without one, of which grpc says that it is centuries away."""
    left = context.time_remaining()
    return None if left is None or left > _FOREVER else left
