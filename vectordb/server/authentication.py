"""Who calls: the API key of each call, checked before its message is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from vectordb.errors import Unauthenticated
from vectordb.server.access import CALLER, Caller
from vectordb.server.audit import AuditLog
from vectordb.server.interceptors import Wrapper, bound, fail, in_its_pool, stepwise
from vectordb.server.keys import EVERYONE, KeyRing

_BEARER = "bearer "


class Authentication(Wrapper):
    """Sets ``CALLER`` for the handlers that it wraps. Thread-safe.

    Args:
        keys: Whose calls are answered; None for everybody's.
        audit: Told of calls without a valid key.
    """

    def __init__(self, keys: KeyRing | None, audit: AuditLog | None) -> None:
        self._keys = keys
        self._audit = audit

    def _caller(self, method: str, context: grpc.ServicerContext) -> Caller:
        """Who calls; ends the call of who is not known."""
        try:
            return self._checked(method, context)
        except Unauthenticated as error:
            fail(context, method, error)

    def _checked(self, method: str, context: grpc.ServicerContext) -> Caller:
        """Who calls.

        Raises:
            Unauthenticated: Nobody who may; the audit log has it.
        """
        if self._keys is None:
            return Caller(EVERYONE, context.peer())
        try:
            return Caller(self._keys.authenticate(_bearer(context)), context.peer())
        except Unauthenticated as error:
            if self._audit is not None:
                self._audit.note(context.peer(), None, method.rpartition("/")[2], None, error)
            raise

    def _unary(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        answer = handler.unary_unary

        def known(data: bytes, context: grpc.ServicerContext) -> Any:
            token = CALLER.set(self._caller(method, context))
            try:
                return answer(data, context)
            finally:
                CALLER.reset(token)

        return grpc.unary_unary_rpc_method_handler(in_its_pool(answer, known))

    def _stream(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        answer = handler.stream_stream

        def known(data: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            caller = self._caller(method, context)

            def messages() -> Iterator[bytes]:
                for message in data:
                    # A stream may go on for hours: a key that was taken away meanwhile, or changed, is so for it too.
                    if self._checked(method, context).key != caller.key:
                        raise Unauthenticated("what the API key may do was changed; begin the stream again")
                    yield message

            yield from stepwise(answer(messages(), context), lambda: bound(CALLER, caller))

        return grpc.stream_stream_rpc_method_handler(in_its_pool(answer, known))


def _bearer(context: grpc.ServicerContext) -> str | None:
    for name, value in context.invocation_metadata():
        if name == "authorization" and isinstance(value, str) and value.lower().startswith(_BEARER):
            return str(value[len(_BEARER) :])
    return None
