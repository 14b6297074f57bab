"""What surrounds every RPC: messages that cannot be read, errors to statuses, caps, sizes.

An error of this library becomes its gRPC status with ``google.rpc`` details. Anything else is a defect: the client is
told a request id and nothing more, the log has the traceback under that id.
"""

from __future__ import annotations

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from vectordb.errors import Internal, InvalidArgument, ResourceExhausted, VectorDBError
from vectordb.server.admission import Admission
from vectordb.server.arrivals import HERE, ArrivalPool
from vectordb.server.calls import CALL
from vectordb.server.cost import COMPUTING, reader_of
from vectordb.server.streams import Streams
from vectordb.wire.errors import DETAILS_KEY, REQUEST_ID_KEY, error_to_status
from vectordb.wire.search import search_from_bytes
from vectordb.wire.write import write_from_bytes
from vectordb_proto.v1 import service_pb2, service_pb2_grpc

log = logging.getLogger("vectordb.server")

SERVICE = service_pb2.DESCRIPTOR.services_by_name["VectorDBService"].full_name

_LONG = frozenset({"Optimize", "Reindex", "Backup", "Verify", "Repair", "Erase"})
"""Calls with one message each way that may hold a thread for long; streams may anyway."""
_Behaviour = Callable[..., Any]
T = TypeVar("T")


_CODECS: Mapping[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    "Search": (search_from_bytes, bytes),
    "Write": (write_from_bytes, service_pb2.WriteResponse.SerializeToString),
}
"""What reads the requests and writes the answers of RPCs that do without protobuf's objects."""


class Wrapper(ABC):
    """Puts something around the handlers of this protocol. Thread-safe.

    Each handler is wrapped once, when the server is built, and not by an interceptor of grpc, which would be run a
    call: what is done a call should be the call.
    """

    def wrap(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """The handler of ``method`` (``/package.Service/Name``) with this around it; from bytes to bytes."""
        return self._stream(method, handler) if handler.request_streaming else self._unary(method, handler)

    @abstractmethod
    def _unary(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler: ...

    @abstractmethod
    def _stream(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler: ...


class Guard(Wrapper):
    """The innermost wrapper: messages, errors, caps, sizes.

    Args:
        admission: Places for the others.
        streams: Places for calls that hold a thread for long.
        pool: The threads of those calls, so that they never keep short ones waiting.
        computing: The threads of calls that compute, which tells of their arrival.
        max_message_bytes: Longer answers are ``ResourceExhausted``.
    """

    def __init__(
        self,
        admission: Admission,
        streams: Streams,
        pool: ThreadPoolExecutor,
        computing: ArrivalPool,
        max_message_bytes: int,
    ) -> None:
        self._admission = admission
        self._computing = computing
        self._streams = streams
        self._pool = pool
        self._limit = max_message_bytes

    def _unary(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        parse, call, serialize = handler.request_deserializer, handler.unary_unary, handler.response_serializer
        rpc, begin = method.rpartition("/")[2], self._computing.arrivals.begin
        enter, leave, asked = self._admission.enter, self._admission.leave, reader_of(rpc)
        checked, limit = self._checked, self._limit

        def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                message, size = parse(data), len(data)
                ticket = enter(asked(message, size), size, context)
                try:
                    response = serialize(call(message, context))
                    return response if len(response) <= limit else checked(response)
                finally:
                    leave(ticket)
            except DecodeError:
                fail(context, method, _unreadable())
            except Exception as error:
                fail(context, method, error)

        def crowded_answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            arrival = HERE.arrival
            if arrival is None:
                return answer(data, context)
            if arrival.delay is None:
                begin(arrival)
                return answer(data, context)
            fail(context, method, self._admission.crowded(arrival.delay))

        def long_answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                with self._streams.entered(context):
                    return self._checked(serialize(call(_parsed(parse, data), context)))
            except Exception as error:
                fail(context, method, error)

        if rpc in _LONG:
            return grpc.unary_unary_rpc_method_handler(_run_by(self._pool, long_answer))
        if rpc in COMPUTING:
            return grpc.unary_unary_rpc_method_handler(_run_by(self._computing, crowded_answer))
        return grpc.unary_unary_rpc_method_handler(answer)

    def _stream(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        parse, call, serialize = handler.request_deserializer, handler.stream_stream, handler.response_serializer

        def answers(data: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            try:
                with self._streams.entered(context) as stream:

                    def messages() -> Iterator[Any]:
                        while True:
                            stream.wait()
                            item = next(data, None)
                            stream.work()
                            if item is None:
                                return
                            yield _parsed(parse, item)

                    for response in call(messages(), context):
                        stream.wait()
                        yield self._checked(serialize(response))
            except grpc.RpcError:
                # The client went away, or was cancelled for its silence: grpc knows already.
                raise
            except Exception as error:
                fail(context, method, error)

        return grpc.stream_stream_rpc_method_handler(_run_by(self._pool, answers))

    def _checked(self, data: bytes) -> bytes:
        if len(data) > self._limit:
            raise ResourceExhausted(
                f"the answer has {len(data)} bytes, more than the server's max_message_bytes = {self._limit}; ask for "
                "less: fewer queries or ids, a smaller limit or page_size, or include less",
                limit=self._limit,
                got=len(data),
            )
        return data


def _run_by(pool: ThreadPoolExecutor, behaviour: _Behaviour) -> _Behaviour:
    behaviour.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return behaviour


def in_its_pool(inner: Callable[..., Any], outer: Callable[..., Any]) -> Callable[..., Any]:
    """The outer behaviour, run by the threads that the inner one asks for."""
    pool = getattr(inner, "experimental_thread_pool", None)
    if pool is not None:
        outer.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return outer


@contextmanager
def bound(variable: ContextVar[T], value: T) -> Iterator[None]:
    """A block in which a context variable has this value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def stepwise(answers: Iterator[Any], around: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
    """The answers of a stream, each made inside a context of its own: between them the thread may serve others."""
    try:
        while True:
            with around():
                item = next(answers, None)
            if item is None:
                return
            yield item
    finally:
        answers.close()  # type: ignore[attr-defined]


def _parsed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError:
        raise _unreadable() from None


def _unreadable() -> InvalidArgument:
    return InvalidArgument(
        "the request cannot be read: it is no message of its type, has text that is not UTF-8, or is nested too deep",
        field="request",
    )


def fail(context: grpc.ServicerContext, method: str, error: Exception) -> NoReturn:
    """Ends the call with the status of an error."""
    call = CALL.get()
    request = uuid.uuid4().hex[:12] if call is None else call.request_id
    extra = {"fields": {"request_id": request}}
    if not isinstance(error, VectorDBError):
        log.error("request %s: %s failed", request, method, exc_info=error, extra=extra)
        error = Internal(f"internal error; the server's log has it under request {request}", request=request)
    elif isinstance(error, Internal):
        log.error("request %s: %s failed", request, method, exc_info=error, extra=extra)
    else:
        log.debug("request %s: %s: %s: %s", request, method, type(error).__name__, error.message, extra=extra)
    code, message, details = error_to_status(error, request)
    context.set_trailing_metadata(((DETAILS_KEY, details), (REQUEST_ID_KEY, request)))
    context.abort(grpc.StatusCode[code], message)
    raise AssertionError("abort raises")


class _Handlers:
    """Takes the place of a server in generated code, to get at the handlers."""

    def __init__(self) -> None:
        self.found: dict[str, grpc.RpcMethodHandler] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """They come a second time, by name."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
        self.found = handlers


def wrapped_handlers(servicer: Any, wrappers: Sequence[Wrapper]) -> dict[str, grpc.RpcMethodHandler]:
    """The servicer's handlers by name, with the wrappers around them, the innermost first; from bytes to bytes."""
    collected = _Handlers()
    service_pb2_grpc.add_VectorDBServiceServicer_to_server(servicer, collected)
    handlers = {}
    for name, handler in collected.found.items():
        if name in _CODECS:
            parse, serialize = _CODECS[name]
            handler = grpc.unary_unary_rpc_method_handler(handler.unary_unary, parse, serialize)
        for wrapper in wrappers:
            handler = wrapper.wrap(f"/{SERVICE}/{name}", handler)
        handlers[name] = handler
    return handlers
