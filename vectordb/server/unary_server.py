"""Threads of a server for calls with one message each way, where grpcio does not answer them.

The threads that carry calls out receive them by themselves: handing each call from a dispatching thread to a worker is
a third of a bare call's cost. Two of those that are free wait for calls, and whoever receives one alone carries it out;
what comes in numbers is counted, refused or noted at once, and wakes as many others as it needs.
"""

from __future__ import annotations

import logging
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
        # Guarded by self._lock: threads that will look for a call in a moment. One that is about to answer counts: its
        # client may send the next call before it gets the GIL again, and a thread more would only make that harder.
        self._coming = 0
        self._parked: SimpleQueue[None] = SimpleQueue()
        self._waiting: deque[tuple[Method, UnaryCall]] = deque()  # guarded by self._lock; calls without a thread
        self._stopping = False  # set under self._lock
        self._closed = False
        self._drained = threading.Event()

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
        """Starts the threads that receive."""
        for _ in range(_RECEIVERS):
            self._add_thread()

    def _add_thread(self) -> None:
        with self._lock:
            # One more than may run calls: while all do, it notes who went away, and lets calls wait.
            if self._threads > self._workers:
                return
            self._threads += 1
            self._coming += 1
            number = self._threads
        try:
            threading.Thread(target=self._work, name=f"{self._name}_{number}").start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
                self._coming -= 1
            tell_of_no_threads()

    def stop(self, grace: float | None) -> threading.Event:
        """Refuses new calls; what runs has ``grace`` seconds. The event is set when all has ended."""
        done = threading.Event()
        with self._lock:
            self._stopping = True
            if not self._calls:
                self._drained.set()

        def finish() -> None:
            end = time.monotonic() + (grace or 0.0)
            self._drained.wait(grace or 0.0)
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
        while not self._closed and (turn % _TURNS or main.is_alive()):
            turn += 1
            with self._lock:
                self._coming -= 1
                found = self._waiting.popleft() if self._waiting and self._running < self._workers else None
                enough = self._receiving >= _RECEIVERS
                if found is not None:
                    self._running += 1
                elif enough:
                    self._idle += 1
                else:
                    self._receiving += 1
            if found is None:
                if enough:
                    self._parked.get()
                    continue
                events = receive(_BATCH, _WAIT_MS)
                if not events:
                    turn = 0
                found = self._received(events or ())
            if found is not None:
                self._run(*found, self._ended)
        for _ in range(self._threads):
            self._parked.put(None)

    def _ended(self) -> None:
        """A thread of this server has carried out its call, and will look for another once it has answered."""
        with self._lock:
            self._running -= 1
            self._coming += 1

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
                self._running += 1
                return taken[0]
            self._coming += 1
            self._waiting.extend(taken)
            # For each call that waits one thread, and another to receive where nobody does.
            needed = max(0, waiting + (self._receiving == 0) - self._coming)
            wake = min(self._idle, needed)
            self._idle -= wake
            self._coming += wake
        for _ in range(wake):
            self._parked.put(None)
        for _ in range(needed - wake):
            self._add_thread()
        return None

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
            self._drained.set()

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
        except Exception:
            log.exception("a handler failed")
            return partial(call.fail, *FAILED)

    def _refuse(self, call: UnaryCall, error: VectorDBError) -> None:
        code, message, details = error_to_status(error)
        call.fail(grpc.StatusCode[code], message, ((DETAILS_KEY, details),))
