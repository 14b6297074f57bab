"""The outermost wrapper: gives each call its identity, a span where calls are traced, and the lane who asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from vectordb.server.calls import CALL, Call
from vectordb.server.interceptors import Wrapper, bound, in_its_pool, stepwise
from vectordb.wire.errors import REQUEST_ID_KEY
from vectordb.wire.http2 import LANE_KEY

if TYPE_CHECKING:
    from vectordb.server.tracing import Spans


class Entry(Wrapper):
    """Sets ``CALL`` for the handlers that it wraps. Thread-safe.

    Args:
        spans: Makes the spans; None where calls are not traced.
        tell: Whether answers carry request ids that the client did not send.
        lane: The address that clients are told who ask for the lane; empty where there is none.
    """

    def __init__(self, spans: Spans | None = None, tell: bool = False, lane: Callable[[], str] = str) -> None:
        self._spans = spans
        self._tell = tell
        self._lane = lane

    def _unary(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        rpc, answer, spans = method.rpartition("/")[2], handler.unary_unary, self._spans
        tell, lane = self._tell, self._lane

        def entered(data: bytes, context: grpc.ServicerContext) -> Any:
            call = Call(rpc, context.invocation_metadata())
            named = tell or call.named
            if named or call.asks_for_lane:
                trailing = [(REQUEST_ID_KEY, call.request_id)] if named else []
                if call.asks_for_lane and (address := lane()):
                    trailing.append((LANE_KEY, address))
                context.set_trailing_metadata(tuple(trailing))
            token = CALL.set(call)
            try:
                if spans is None:
                    return answer(data, context)
                with spans.around(call, context):
                    return answer(data, context)
            finally:
                CALL.reset(token)

        return grpc.unary_unary_rpc_method_handler(in_its_pool(answer, entered))

    def _stream(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        rpc, answer, spans = method.rpartition("/")[2], handler.stream_stream, self._spans
        tell = self._tell

        def entered(data: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            call = Call(rpc, context.invocation_metadata())
            if tell or call.named:
                context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            answers = answer(data, context)
            if spans is None:
                yield from stepwise(answers, lambda: bound(CALL, call))
                return
            span = spans.begun(call)
            try:
                yield from stepwise(stepwise(answers, lambda: spans.current(span)), lambda: bound(CALL, call))
            finally:
                spans.ended(span, context)

        return grpc.stream_stream_rpc_method_handler(in_its_pool(answer, entered))
