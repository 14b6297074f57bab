"""Spans of OpenTelemetry: one a call, under the span that the client sent (W3C ``traceparent``).

Needs opentelemetry-api (extra ``telemetry``). Where the spans go is the process's to set up: run the server by
``opentelemetry-instrument vectordb serve``, or set a tracer provider before ``Server`` is made. Names follow the
semantic conventions for RPC and databases; no filter, vector, id or text is an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from vectordb.errors import FailedPrecondition
from vectordb.server.interceptors import SERVICE

if TYPE_CHECKING:
    from vectordb.server.calls import Call
    from vectordb.server.watch import Done

_DEFECTS = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"})
"""Codes that make the span of a *server* an error; the others are answers to wrong requests."""


class Spans:
    """Makes the spans; also an observer of :mod:`vectordb.server.watch`, which describes them. Thread-safe.

    Args:
        tracer: A tracer; by default that of the global provider.

    Raises:
        FailedPrecondition: opentelemetry-api is not installed.
    """

    def __init__(self, tracer: Any = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as missing:
            raise FailedPrecondition(
                "tracing needs opentelemetry-api: pip install 'vectordb-engine[telemetry]'"
            ) from missing
        self._api: Any = trace
        self._tracer = trace.get_tracer("vectordb.server") if tracer is None else tracer
        self._propagator = TraceContextTextMapPropagator()

    def begun(self, call: Call) -> Any:
        """A span for a call that begins; give it to :meth:`ended`."""
        return self._tracer.start_span(
            f"{SERVICE}/{call.rpc}",
            context=None if call.trace is None else self._propagator.extract(call.trace),
            kind=self._api.SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": SERVICE,
                "rpc.method": call.rpc,
                "vectordb.request_id": call.request_id,
            },
        )

    def current(self, span: Any) -> Any:
        """A context in which it is the current span."""
        return self._api.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    def ended(self, span: Any, context: grpc.ServicerContext) -> None:
        """Ends it with the call's status."""
        code = context.code() or grpc.StatusCode.OK
        span.set_attribute("rpc.grpc.status_code", code.value[0])
        if code.name in _DEFECTS:
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, code.name))
        span.end()

    @contextmanager
    def around(self, call: Call, context: grpc.ServicerContext) -> Iterator[None]:
        """A span around a unary call."""
        span = self.begun(call)
        try:
            with self.current(span):
                yield
        finally:
            self.ended(span, context)

    def __call__(self, done: Done) -> None:
        span = self._api.get_current_span()
        if not span.is_recording():
            return
        span.set_attribute("db.system.name", "vectordb")
        span.set_attribute("db.operation.name", done.operation)
        span.set_attribute("db.collection.name", done.collection)
        span.set_attribute("db.response.returned_rows", done.rows)
        if done.error is not None:
            span.set_attribute("error.type", type(done.error).__name__)
        if done.plan is not None:
            span.set_attribute("vectordb.plan.strategies", sorted({part.strategy for part in done.plan}))
            span.set_attribute("vectordb.plan.rows_scored", done.plan.rows_scored)
