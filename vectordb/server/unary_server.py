"""Threads of a server for calls with one message each way, where grpcio does not answer them.

The threads that carry calls out receive them by themselves: handing each call from a dispatching thread to a worker is
a third of a bare call's cost. Two of those that are free wait for calls, and whoever receives one alone carries it out;
what comes in numbers is counted, refused or noted at once, and wakes others.

Not as many as there are calls: threads that compute take the interpreter's lock from each other, a dozen times a
search, and each time costs more than what it is taken for. A *crew* of one more than there are processors gets through
a fifth more calls than a thread for each. Calls that may wait for the disk (writes) do not count. Whether the crew is
stuck, with calls that last, is looked at every few milliseconds, and while it is it grows.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any

import grpc

from vectordb.errors import ResourceExhausted, Unavailable, VectorDBError
from vectordb.server.arrivals import HERE, ArrivalPool, Arrivals
from vectordb.server.pools import tell_of_no_threads
from vectordb.server.transports import CallBounds
from vectordb.server.unary_call import Abortion, UnaryCall, oversized
from vectordb.wire.errors import DETAILS_KEY, error_to_status

log = logging.getLogger("vectordb.server")

_Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]

_WAIT_MS = 200
"""How soon idle threads notice that the server stopped: a process that stopped it ends no earlier."""
_RECEIVERS = 2
"""So many of the free threads wait for calls: the front gives calls to all that wait in turn, and few stay warm."""
_BATCH = 64
"""Calls taken from the front at once: under load they would wait there unseen for a thread to receive them."""
_TURNS = 64
"""A busy thread looks so seldom whether the process ends; one that got no call, each time."""
FAILED = grpc.StatusCode.UNKNOWN, "the call failed in the server"
"""What a client is told of a handler's defect."""
_STUCK, _CALM = 0.005, 40
"""Seconds without a call that begins or ends, and looks without anything to see before nobody looks any more."""
_LINGER = 0.1
"""Seconds between the last answer and the end of all connections, within the grace: ``close`` drops what is still on
its way out, and the front does not tell when that has gone."""


class Method:
    """What answers the calls of one method: by threads of the server, or by a pool."""

    __slots__ = ("arrivals", "behaviour", "pool")

    def __init__(self, behaviour: _Behaviour) -> None:
        pool = getattr(behaviour, "experimental_thread_pool", None)
        self.behaviour = behaviour
        self.arrivals: Arrivals | None = pool.arrivals if isinstance(pool, ArrivalPool) else None
        self.pool: Any = None if self.arrivals is not None else pool


class UnaryServer(ABC):
    """Threads that take up calls from what receives them, carry them out and answer them. Thread-safe.

    What receives is a subclass's: :meth:`_receive` waits for calls, :meth:`_handle` gives one to :meth:`_take`.

    Args:
        handlers: By method; from bytes to bytes, wrapped in whatever is to surround them. Those for one message each
            way are answered here. One whose behaviour names an ``experimental_thread_pool`` runs there, the others in
            threads of this server, which are started as they are needed.
        bounds: How many calls run, and how many run and wait.
        most_bytes: Longer messages are refused.
    """

    _name = "vectordb-rpc"
    """What its threads are called."""
    _outlives_main = False
    """Whether it serves on when the main thread has ended, for as long as others keep the process."""

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler], bounds: CallBounds, most_bytes: int) -> None:
        unary = {path: handler.unary_unary for path, handler in handlers.items() if handler.unary_unary is not None}
        self._paths = list(unary)
        self._methods = [Method(behaviour) for behaviour in unary.values()]
        self._workers, self._most_calls = bounds
        self._most_bytes = most_bytes
        # Added to under self._lock, and not after self._stopping: from then on they only become fewer.
        self._calls: dict[int, UnaryCall] = {}
        self._lock = threading.Lock()
        self._threads = 0  # guarded by self._lock
        self._running = 0  # guarded by self._lock
        self._receiving = 0  # guarded by self._lock
        self._idle = 0  # guarded by self._lock; threads that wait at self._parked
        self._away = 0  # guarded by self._lock; threads that carry out calls which do not compute
        # All of the next guarded by self._lock.
        self._usual = self._crew = len(os.sched_getaffinity(0)) + 1
        self._progress = 0  # calls that were begun, and that ended
        self._watched = False  # whether somebody looks after the crew, or waits for this to be released:
        self._watch = threading.Lock()
        self._watch.acquire()
        # Guarded by self._lock: threads that will look for a call in a moment. One that is about to answer counts: its
        # client may send the next call before it gets the GIL again, and a thread more would only make that harder.
        self._coming = 0
        self._parked: SimpleQueue[None] = SimpleQueue()
        self._waiting: deque[tuple[Method, UnaryCall]] = deque()  # guarded by self._lock; calls without a thread
        self._stopping = False  # set under self._lock
        self._closed = False
        self.drained = threading.Event()

    @abstractmethod
    def _receive(self, most: int, wait_ms: int) -> Sequence[Any] | None:
        """What has come, at most so much; waits for it a while, and without the GIL."""

    @abstractmethod
    def _handle(self, event: Any) -> tuple[Method, UnaryCall] | None:
        """Does what something that came asks for; a call that needs a thread now, with its method."""

    @abstractmethod
    def _close(self, seconds: float) -> None:
        """Ends all connections, once no call runs any more, or their time is over; ``seconds`` of it are left."""

    def _begin(self) -> None:
        """Starts the threads that receive, and the one that looks after the crew."""
        for _ in range(_RECEIVERS):
            self._add_thread()
        try:
            threading.Thread(target=self._look_after, name="vectordb-crew", daemon=True).start()
        except RuntimeError:
            tell_of_no_threads()
            self._crew = self._workers

    def _add_thread(self) -> None:
        with self._lock:
            # One more than may run calls: while all do, it notes who went away, and lets calls wait.
            if self._threads > self._workers:
                return
            self._threads += 1
            self._coming += 1
            number = self._threads
        try:
            name, daemon = f"{self._name}_{number}", self._outlives_main
            threading.Thread(target=self._work, name=name, daemon=daemon).start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
                self._coming -= 1
            tell_of_no_threads()

    def refuse(self) -> None:
        """Refuses new calls; ``drained`` is set when those that run have ended."""
        with self._lock:
            self._stopping = True
            if not self._calls:
                self.drained.set()

    def stop(self, grace: float | None) -> threading.Event:
        """Refuses new calls; what runs has ``grace`` seconds. The event is set when all has ended."""
        done = threading.Event()
        self.refuse()

        def finish() -> None:
            end = time.monotonic() + (grace or 0.0)
            self.drained.wait(grace or 0.0)
            time.sleep(max(0.0, min(_LINGER, end - time.monotonic())))
            self._close(max(0.0, end - time.monotonic()))
            for call in list(self._calls.values()):
                call.end()
            done.set()

        threading.Thread(target=finish, name="vectordb-drain", daemon=True).start()
        return done

    def _work(self) -> None:
        receive, main = self._receive, threading.main_thread()
        turn = 0
        # A process that ends without having stopped its server is not kept by these threads.
        while not self._closed and (self._outlives_main or turn % _TURNS or main.is_alive()):
            turn += 1
            with self._lock:
                self._coming -= 1
                found, more = None, 0
                parks = self._threads - self._idle - self._away > self._crew
                if not parks and self._waiting and self._running < self._workers:
                    found = self._waiting.popleft()
                    more = self._begun(found[0])
                elif parks or self._receiving >= _RECEIVERS:
                    parks = True
                    self._idle += 1
                    if self._waiting or not self._receiving + self._coming:
                        self._need_watch()
                else:
                    self._receiving += 1
            if parks:
                self._parked.get()
                continue
            if found is None:
                events = receive(_BATCH, _WAIT_MS)
                if not events:
                    turn = 0
                found = self._received(events or ())
            if found is not None:
                self._wake(more)
                self._run(*found, partial(self._ended, found[0]))
        with self._lock:
            self._need_watch()
        for _ in range(self._threads):
            self._parked.put(None)

    def _begun(self, method: Method) -> int:
        """A thread begins with a call (under self._lock); how many others it takes now."""
        self._running += 1
        self._progress += 1
        if method.arrivals is None:
            self._away += 1
            return self._needed()
        if not self._receiving + self._coming:
            self._need_watch()
        return 0

    def _ended(self, method: Method) -> None:
        """A thread of this server has carried out its call, and will look for another once it has answered."""
        with self._lock:
            self._running -= 1
            self._coming += 1
            self._progress += 1
            if method.arrivals is None:
                self._away -= 1

    def patiently(self, send: Callable[[], object]) -> None:
        """Sends what a peer takes in its own time, in a thread that answers its call: it will not look for another
        in a moment."""
        with self._lock:
            self._coming -= 1
            self._away += 1
            more = self._needed()
        self._wake(more)
        try:
            send()
        finally:
            with self._lock:
                self._coming += 1
                self._away -= 1

    def _needed(self) -> int:
        """How many threads are to be woken (under self._lock): one for each call that waits, and another to receive
        where nobody does, as far as the crew goes."""
        needed = len(self._waiting) + (self._receiving == 0) - self._coming
        room = self._crew - (self._threads - self._idle - self._away)
        if needed > room:
            self._need_watch()
        return max(0, min(needed, room))

    def _wake(self, needed: int) -> None:
        """Wakes so many threads, or starts them."""
        if not needed:
            return
        with self._lock:
            wake = min(self._idle, needed)
            self._idle -= wake
            self._coming += wake
        for _ in range(wake):
            self._parked.put(None)
        for _ in range(needed - wake):
            self._add_thread()

    def _need_watch(self) -> None:
        """All of the crew are busy, or about to be (under self._lock)."""
        if not self._watched:
            self._watched = True
            self._watch.release()

    def _look_after(self) -> None:
        """Lets the crew grow while it is stuck, and shrink to its usual size again."""
        while not self._closed:
            self._watch.acquire()
            before, calm = -1, 0
            while calm < _CALM and not self._closed:
                time.sleep(_STUCK)
                with self._lock:
                    busy = bool(self._waiting) or not self._receiving + self._coming
                    stuck = busy and self._progress == before
                    before = self._progress
                    calm = 0 if busy else calm + 1
                    if stuck:
                        active = self._threads - self._idle - self._away
                        self._crew = max(self._crew, active + max(1, len(self._waiting)))
                    elif self._crew > self._usual:
                        self._crew -= 1
                    if calm == _CALM:
                        self._watched, self._crew = False, self._usual
                    needed = self._needed() if stuck else 0
                self._wake(needed)

    def _received(self, events: Sequence[Any]) -> tuple[Method, UnaryCall] | None:
        """Refuses what is refused at once; for the rest there are threads afterwards. The call that this one is to
        carry out itself, if it is clear by now; otherwise it looks for one."""
        taken: list[tuple[Method, UnaryCall]] = []
        taken += [call for event in events if (call := self._handle(event)) is not None]
        with self._lock:
            self._receiving -= 1
            waiting = len(self._waiting) + len(taken)
            if waiting == len(taken) == 1 and self._receiving + self._coming and self._running < self._workers:
                # As mostly: nobody has to be woken.
                more = self._begun(taken[0][0])
            else:
                self._coming += 1
                self._waiting.extend(taken)
                more = self._needed()
                taken = []
        self._wake(more)
        return taken[0] if taken else None

    def _take(self, method: Method, call: UnaryCall) -> tuple[Method, UnaryCall] | None:
        """Notes a call; refuses it, or hands it to the pool of its method, or returns it."""
        if len(call.data) > self._most_bytes:
            self._refuse(call, oversized(len(call.data), self._most_bytes))
            return None
        limit = self._most_calls
        with self._lock:
            stopping, full = self._stopping, len(self._calls) >= limit
            if not stopping and not full:
                self._calls[call.number] = call
        if stopping:
            self._refuse(call, Unavailable("the server is stopping; another may answer", retry_after=1.0))
            return None
        if full:
            text = f"{limit} calls run or wait, as many as max_pending_calls allows; try again later"
            self._refuse(call, ResourceExhausted(text, limit=limit, retry_after=0.5))
            return None
        if self._is_over(call):
            call.end()
        if method.arrivals is not None:
            call.arrival = method.arrivals.come()
            if call.arrival.delay is not None:
                # The handler only says so.
                self._run(method, call)
                return None
        elif method.pool is not None:
            method.pool.submit(self._run, method, call)
            return None
        return method, call

    def _is_over(self, call: UnaryCall) -> bool:
        """Whether a call has ended before it was noted."""
        return False

    def _run(self, method: Method, call: UnaryCall, ended: Callable[[], None] | None = None) -> None:
        """Carries out a call and answers it. ``ended``: called in between."""
        HERE.arrival = call.arrival
        try:
            answer = self._answer(method, call)
        finally:
            HERE.arrival = None
            if ended is not None:
                ended()
        try:
            answer()
        except Exception:
            # It gave something that cannot be sent.
            log.exception("a handler failed")
            call.fail(*FAILED)
        finally:
            if call.arrival is not None and method.arrivals is not None:
                method.arrivals.end(call.arrival)
            self._forget(call)

    def _forget(self, call: UnaryCall) -> None:
        """A call is over, however it ended."""
        # Without the lock: `stop` looks after it set `_stopping`, and so does this after it made them fewer.
        self._calls.pop(call.number, None)
        call.end()
        if self._stopping and not self._calls:
            self.drained.set()

    def _answer(self, method: Method, call: UnaryCall) -> Callable[[], object]:
        """Carries out a call; what sends its answer."""
        # Who went away while the call waited needs no answer.
        if not call.active:
            return lambda: None
        try:
            data = method.behaviour(call.data, call)
            if call.status in (None, grpc.StatusCode.OK):
                return partial(call.respond, data, call.initial, call.trailing)
            return partial(call.fail, call.status, call.text, call.trailing)
        except Abortion:
            assert call.status is not None
            return partial(call.fail, call.status, call.text, call.trailing)
        except BaseException:
            # SystemExit too, and what native code raises when it panics: the thread would be missing for ever.
            log.exception("a handler failed")
            return partial(call.fail, *FAILED)

    def _refuse(self, call: UnaryCall, error: VectorDBError) -> None:
        code, message, details = error_to_status(error)
        call.fail(grpc.StatusCode[code], message, ((DETAILS_KEY, details),))
