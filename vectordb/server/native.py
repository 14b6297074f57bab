"""The unary calls of this protocol over pygrpc-native: HTTP/2 and framing in Rust, outside the GIL.

The package's low-level front hands out calls as events. Its own drop-in for ``grpc.server`` is not used: it has no cap
on calls, gives every call to one pool whatever its handler asks for, runs the interceptors a call, and hands each call
from a dispatching thread to a worker. Here the workers receive by themselves, which is a third of a bare call's cost.

What the front does not speak (streams from the client, reflection, health) it passes, HTTP/2 stream by stream, to a
grpcio server behind it on a private socket. Seen of pygrpc-native 0.5, and therefore done here: ``close`` wakes one of
several threads in ``recv_batch``; the others come back by its timeout. A message is read whole before its size is
known. Calls that went to the server behind have that socket for a peer.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from vectordb.errors import ResourceExhausted, Unavailable, VectorDBError
from vectordb.server.arrivals import HERE, ArrivalPool, Arrivals
from vectordb.server.config import Config
from vectordb.server.pools import tell_of_no_threads
from vectordb.server.transports import CallBounds, Transport
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
_EARLY_ENDS = 256
_IO_THREADS = 1
"""Frames far more than Python can answer; with a second one every call would be handed between them."""
_UNKNOWN = grpc.StatusCode.UNKNOWN
_KEEPALIVE_TIMEOUT_MS = 20_000
_LINGER = 0.1
"""Seconds between the last answer and the end of all connections, within the grace: ``close`` drops what is still on
its way out, and the front does not tell when that has gone."""


class _Method:
    """What answers the calls of one method: by threads of the server, or by a pool."""

    __slots__ = ("arrivals", "behaviour", "pool")

    def __init__(self, behaviour: _Behaviour) -> None:
        pool = getattr(behaviour, "experimental_thread_pool", None)
        self.behaviour = behaviour
        self.arrivals: Arrivals | None = pool.arrivals if isinstance(pool, ArrivalPool) else None
        self.pool: Any = None if self.arrivals is not None else pool


class Call(UnaryCall):
    """One call of the front, by its number there."""

    def __init__(self, number: int, data: bytes, details: Any, front: NativeGrpcFront) -> None:
        super().__init__(data, *details)
        self.number = number
        self._front = front

    def cancel(self) -> None:
        self._front.fail(self.number, grpc.StatusCode.CANCELLED.value[0], "cancelled by the server")
        self.end()


class NativeServer:
    """A server with the methods of ``grpc.Server`` that are used here. Thread-safe.

    Args:
        handlers: By method; from bytes to bytes, wrapped in whatever is to surround them. Those for one message each
            way are answered here. One whose behaviour names an ``experimental_thread_pool`` runs there, the others in
            threads of this server, which are started as they are needed.
        behind: Answers everything else; not bound yet, started and stopped from here.
        bounds: How many calls run, and how many run and wait.
    """

    def __init__(
        self, handlers: Mapping[str, grpc.RpcMethodHandler], behind: Transport, bounds: CallBounds, config: Config
    ) -> None:
        unary = {path: handler.unary_unary for path, handler in handlers.items() if handler.unary_unary is not None}
        self._paths = list(unary)
        self._methods = [_Method(behaviour) for behaviour in unary.values()]
        self._behind = behind
        self._workers, self._most_calls = bounds
        self._most_bytes: int = config.max_message_bytes
        self._keepalive_ms = int(config.keepalive_seconds * 1000)
        self._front: Any = None
        self._socket_folder: str | None = None
        # Added to under self._lock, and not after self._stopping: from then on they only become fewer.
        self._calls: dict[int, Call] = {}
        self._lock = threading.Lock()
        self._threads = 0  # guarded by self._lock
        self._running = 0  # guarded by self._lock
        self._receiving = 0  # guarded by self._lock
        self._idle = 0  # guarded by self._lock; threads that wait at self._parked
        # Guarded by self._lock: threads that will look for a call in a moment. One that is about to answer counts: its
        # client may send the next call before it gets the GIL again, and a thread more would only make that harder.
        self._coming = 0
        self._parked: SimpleQueue[None] = SimpleQueue()
        self._waiting: deque[tuple[_Method, Call]] = deque()  # guarded by self._lock; calls without a thread
        # Calls that ended before the thread that received them had noted them, the oldest first. Numbers never come
        # again. Changed under self._lock.
        self._ended_early: dict[int, None] = {}
        self._stopping = False  # set under self._lock
        self._closed = False
        self._drained = threading.Event()

    def add_insecure_port(self, listen: str) -> int:
        """Binds; the port.

        Raises:
            RuntimeError: It cannot be bound.
        """
        try:
            self._front = NativeGrpcFront(
                listen,
                [(path, False) for path in self._paths],
                io_threads=_IO_THREADS,
                call_details=True,
                keepalive_time_ms=self._keepalive_ms,
                keepalive_timeout_ms=_KEEPALIVE_TIMEOUT_MS,
                keepalive_permit_without_calls=True,
            )
        except OSError as error:
            raise RuntimeError(f"cannot bind {listen}") from error
        return int(self._front.bound_port)

    def add_secure_port(self, listen: str, credentials: grpc.ServerCredentials) -> int:
        """Not had.

        Raises:
            RuntimeError: Always; :func:`vectordb.server.transports.chosen` does not let it come to this.
        """
        raise RuntimeError("the native transport speaks no TLS")

    def start(self) -> None:
        self._socket_folder = tempfile.mkdtemp(prefix="vectordb-")
        path = str(Path(self._socket_folder) / "behind")
        self._behind.add_insecure_port(f"unix:{path}")
        self._behind.start()
        self._front.set_fallback(path)
        for _ in range(_RECEIVERS):
            self._add_thread()
        self._front.start()

    def _add_thread(self) -> None:
        with self._lock:
            # One more than may run calls: while all do, it notes who went away, and lets calls wait.
            if self._threads > self._workers:
                return
            self._threads += 1
            self._coming += 1
            number = self._threads
        try:
            threading.Thread(target=self._work, name=f"vectordb-rpc_{number}").start()
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
        behind = self._behind.stop(grace)

        def finish() -> None:
            end = time.monotonic() + (grace or 0.0)
            self._drained.wait(grace or 0.0)
            time.sleep(max(0.0, min(_LINGER, end - time.monotonic())))
            # It lingers by itself.
            behind.wait(max(0.0, end - time.monotonic()))
            self._closed = True
            if self._front is not None:
                self._front.close()
            if self._socket_folder is not None:
                shutil.rmtree(self._socket_folder, ignore_errors=True)
            for call in list(self._calls.values()):
                call.end()
            done.set()

        threading.Thread(target=finish, name="vectordb-drain", daemon=True).start()
        return done

    def _work(self) -> None:
        receive, main = self._front.recv_batch_details, threading.main_thread()
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

    def _received(self, events: Sequence[Any]) -> tuple[_Method, Call] | None:
        """Refuses what is refused at once; for the rest there are threads afterwards. The call that this one is to
        carry out itself, if it is clear by now; otherwise it looks for one."""
        taken: list[tuple[_Method, Call]] = []
        taken += [call for event in events if (call := self._handle(*event)) is not None]
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

    def _handle(self, kind: int, number: int, method: int, data: Any, _: Any, details: Any) -> Any:
        """A call that needs a thread now, with its method."""
        try:
            if kind == EVENT_CANCEL:
                self._cancelled(number)
                return None
            return self._take(self._methods[method], Call(number, data, details, self._front))
        except Exception:
            log.exception("a call could not be begun")
            begun = self._calls.get(number)
            if begun is not None:
                self._forget(begun)
            self._front.fail(number, _UNKNOWN.value[0], "the call failed in the server")
            return None

    def _cancelled(self, number: int) -> None:
        call = self._calls.get(number)
        if call is None:
            with self._lock:
                self._ended_early[number] = None
                if len(self._ended_early) > _EARLY_ENDS:
                    del self._ended_early[next(iter(self._ended_early))]
            # It may have been noted just now, by a thread that had looked before.
            call = self._calls.get(number)
        if call is not None:
            call.end()

    def _take(self, method: _Method, call: Call) -> tuple[_Method, Call] | None:
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
        if call.number in self._ended_early:
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

    def _run(self, method: _Method, call: Call, ended: Callable[[], None] | None = None) -> None:
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
            self._front.fail(call.number, _UNKNOWN.value[0], "the call failed in the server")
        finally:
            if call.arrival is not None and method.arrivals is not None:
                method.arrivals.end(call.arrival)
            self._forget(call)

    def _forget(self, call: Call) -> None:
        """A call is over, however it ended."""
        # Without the lock: `stop` looks after it set `_stopping`, and so does this after it made them fewer.
        self._calls.pop(call.number, None)
        call.end()
        if self._stopping and not self._calls:
            self._drained.set()

    def _answer(self, method: _Method, call: Call) -> Callable[[], object]:
        """Carries out a call; what sends its answer."""
        front, number = self._front, call.number
        # Who went away while the call waited needs no answer.
        if not call.active:
            return lambda: None
        try:
            data = method.behaviour(call.data, call)
            if call.status in (None, grpc.StatusCode.OK):
                return partial(front.respond, number, data, call.initial, call.trailing)
            return partial(front.fail, number, call.status.value[0], call.text, call.trailing)
        except Abortion:
            assert call.status is not None
            return partial(front.fail, number, call.status.value[0], call.text, call.trailing)
        except Exception:
            log.exception("a handler failed")
            return partial(front.fail, number, _UNKNOWN.value[0], "the call failed in the server")

    def _refuse(self, call: Call, error: VectorDBError) -> None:
        code, message, details = error_to_status(error)
        self._front.fail(call.number, grpc.StatusCode[code].value[0], message, ((DETAILS_KEY, details),))
