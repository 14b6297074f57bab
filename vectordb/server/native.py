"""The unary calls of this protocol over pygrpc-native: HTTP/2 and framing in Rust, outside the GIL.

The package's low-level front hands out calls as events. Its own drop-in for ``grpc.server`` is not used: it has no cap
on calls, gives every call to one pool whatever its handler asks for, runs the interceptors a call, and hands each call
from a dispatching thread to a worker.

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from vectordb.server.config import Config
from vectordb.server.transports import CallBounds, Transport
from vectordb.server.unary_call import Metadata, UnaryCall
from vectordb.server.unary_server import FAILED, Method, UnaryServer

log = logging.getLogger("vectordb.server")

_EARLY_ENDS = 256
_IO_THREADS = 1
"""Frames far more than Python can answer; with a second one every call would be handed between them."""
_KEEPALIVE_TIMEOUT_MS = 20_000


class Call(UnaryCall):
    """One call of the front."""

    def __init__(self, number: int, data: bytes, details: Any, front: NativeGrpcFront) -> None:
        super().__init__(number, data, *details)
        self._front = front

    def respond(self, data: bytes, initial: Metadata | None, trailing: Metadata) -> None:
        self._front.respond(self.number, data, initial, trailing)

    def fail(self, status: grpc.StatusCode, text: str, trailing: Metadata = ()) -> None:
        self._front.fail(self.number, status.value[0], text, trailing)


class NativeServer(UnaryServer):
    """A server with the methods of ``grpc.Server`` that are used here. Thread-safe.

    Args:
        handlers: See :class:`~vectordb.server.unary_server.UnaryServer`.
        behind: Answers everything else; not bound yet, started and stopped from here.
    """

    def __init__(
        self, handlers: Mapping[str, grpc.RpcMethodHandler], behind: Transport, bounds: CallBounds, config: Config
    ) -> None:
        super().__init__(handlers, bounds, config.max_message_bytes)
        self._behind = behind
        self._behind_ended: threading.Event | None = None
        self._keepalive_ms = int(config.keepalive_seconds * 1000)
        self._front: Any = None
        self._socket_folder: str | None = None
        # Calls that ended before the thread that received them had noted them, the oldest first. Numbers never come
        # again. Changed under self._lock.
        self._ended_early: dict[int, None] = {}

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
        self._begin()
        self._front.start()

    def stop(self, grace: float | None) -> threading.Event:
        """As of ``grpc.Server``."""
        self._behind_ended = self._behind.stop(grace)
        return super().stop(grace)

    def _close(self, seconds: float) -> None:
        if self._behind_ended is not None:
            # It lingers by itself.
            self._behind_ended.wait(seconds)
        self._closed = True
        if self._front is not None:
            self._front.close()
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _receive(self, most: int, wait_ms: int) -> Sequence[Any] | None:
        return self._front.recv_batch_details(most, wait_ms)  # type: ignore[no-any-return]

    def _handle(self, event: Any) -> tuple[Method, UnaryCall] | None:
        kind, number, method, data, _, details = event
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
            status, text = FAILED
            self._front.fail(number, status.value[0], text)
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

    def _is_over(self, call: UnaryCall) -> bool:
        return call.number in self._ended_early
