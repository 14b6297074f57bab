"""Spans for OpenTelemetry by its conventions for generative AI: one for the question, one for each stage under it.

The attributes are written out here because their names move between releases of the conventions' package. Questions,
passages and answers are content: they leave the process only where ``content=True`` says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vectordb_client.rag.extras import load

if TYPE_CHECKING:
    from vectordb_client.rag.trace import Stage
    from vectordb_client.rag.types import Answer

_OPERATIONS = {"retrieve": "retrieval", "generate": "chat", "missing": "chat"}
_FACTS = {
    "model": "gen_ai.request.model",
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "seed": "gen_ai.request.seed",
    "response_model": "gen_ai.response.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "collection": "gen_ai.data_source.id",
}
_CONTENT = {"query": "gen_ai.retrieval.query.text", "text": "gen_ai.output.messages"}


class Telemetry:
    """Sends spans to whatever OpenTelemetry is set up to export to. Thread-safe.

    Args:
        tracer: A tracer; by default that of the global provider.
        content: Whether questions, queries and answers are attributes too.

    Raises:
        FailedPrecondition: No tracer is given and ``opentelemetry-api`` is not installed.
    """

    def __init__(self, tracer: Any = None, *, content: bool = False) -> None:
        if tracer is None:
            api = load("opentelemetry.trace", "telemetry", "sending spans")
            tracer = api.get_tracer("vectordb_client.rag")
        self._tracer = tracer
        self._content = content

    @contextmanager
    def question(self, question: str, collection: str) -> Iterator[Any]:
        """The span around one question; the answer is told to :meth:`answered`."""
        attributes = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.data_source.id": collection}
        if self._content:
            attributes["gen_ai.input.messages"] = question
        with self._tracer.start_as_current_span("invoke_workflow ask", attributes=attributes) as span:
            yield span

    def answered(self, span: Any, answer: Answer) -> None:
        """Puts the outcome on the question's span."""
        span.set_attribute("vectordb.answer.id", answer.id)
        span.set_attribute("vectordb.answer.refused", answer.refused)
        span.set_attribute("vectordb.answer.grounded", answer.grounded)
        span.set_attribute("gen_ai.usage.input_tokens", answer.trace.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", answer.trace.completion_tokens)
        if answer.refusal_reason is not None:
            span.set_attribute("vectordb.answer.refusal_reason", answer.refusal_reason)
        if self._content:
            span.set_attribute("gen_ai.output.messages", answer.text)

    def stage(self, stage: Stage) -> None:
        """One span for a stage that has just ended, under the current one."""
        operation = _OPERATIONS.get(stage.name)
        end = time.time_ns()
        name = f"{operation} {stage.facts.get('model') or stage.facts.get('collection') or ''}".strip()
        span = self._tracer.start_span(name if operation else stage.name, start_time=end - int(stage.took_ms * 1e6))
        if operation:
            span.set_attribute("gen_ai.operation.name", operation)
        for fact, value in stage.facts.items():
            if value is None or not isinstance(value, str | int | float | bool):
                continue
            if fact in _FACTS:
                span.set_attribute(_FACTS[fact], value)
            elif fact == "finish_reason":
                span.set_attribute("gen_ai.response.finish_reasons", [value])
            elif fact == "error":
                span.set_attribute("error.type", str(value).partition(":")[0])
            elif fact in _CONTENT and self._content:
                span.set_attribute(_CONTENT[fact], value)
        span.end(end_time=end)
