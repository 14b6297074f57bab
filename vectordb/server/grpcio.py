"""``grpc.Server`` with an end: its grace is over once no call runs, and not only when every client has gone.

grpcio lets a stopped server wait for its connections. Those of clients that call nothing stay open for as long as
nobody reads there that the server goes, so that an idle client would hold it for all of the grace.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import grpc

from vectordb.server.interceptors import in_its_pool

_LINGER = 0.1
"""Seconds in which no call runs before the grace ends: the last answers are on their way out."""


class GrpcioServer:
    """A server with the methods of ``grpc.Server`` that are used here. Thread-safe.

    Args:
        server: Not started yet. What else was added to it (health, reflection) does not prolong the grace: those who
            watch it never end by themselves.
        service: Its name.
        handlers: By method. Their calls run until the last byte of the answer has left, not only the handler.
    """

    def __init__(self, server: grpc.Server, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        self._server = server
        # Adding and removing are single steps of the interpreter: a lock would be taken twice a call.
        self._running: set[grpc.ServicerContext] = set()
        server.add_registered_method_handlers(
            service, {name: self._counted(handler) for name, handler in handlers.items()}
        )

    def add_insecure_port(self, listen: str) -> int:
        """As of ``grpc.Server``."""
        return int(self._server.add_insecure_port(listen))

    def add_secure_port(self, listen: str, credentials: grpc.ServerCredentials) -> int:
        """As of ``grpc.Server``."""
        return int(self._server.add_secure_port(listen, credentials))

    def start(self) -> None:
        """As of ``grpc.Server``."""
        self._server.start()

    def stop(self, grace: float | None) -> threading.Event:
        """Refuses new calls; what runs has ``grace`` seconds. The event is set when all has ended."""
        ended: threading.Event = self._server.stop(grace)
        if grace:
            threading.Thread(target=self._end_when_quiet, args=(ended,), name="vectordb-quiet", daemon=True).start()
        return ended

    def _end_when_quiet(self, ended: threading.Event) -> None:
        ran = bool(self._running)
        while not ended.wait(_LINGER):
            runs = bool(self._running)
            if not (ran or runs):
                # A second stop ends the grace of the first.
                self._server.stop(None)
                return
            ran = runs

    def _counted(self, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        running, streams = self._running, handler.request_streaming
        answer = handler.stream_stream if streams else handler.unary_unary

        def counted(data: Any, context: grpc.ServicerContext) -> Any:
            running.add(context)
            if not context.add_callback(partial(running.discard, context)):
                running.discard(context)
            return answer(data, context)

        kind = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return kind(in_its_pool(answer, counted))
