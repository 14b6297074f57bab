"""Other wordings of a question, searched beside it: more ways to meet a passage that says it differently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vectordb.errors import InvalidArgument
from vectordb_client.rag.llm.base import LLM, Message, Role
from vectordb_client.rag.llm.calls import completed
from vectordb_client.transport.retry import Clock

Rewriter = Callable[[str, float | None], Sequence[str]]
"""From a question and the seconds that it may take to further queries."""

_INSTRUCTION = (
    "You turn a question into {count} search queries that would find its answer: other words for the same thing, one "
    "query a line, without numbers, quotes or explanations. Never answer the question."
)
_LIST_MARK = re.compile(r"^\s*(?:[-*\u2022]|\d+[.):])\s*")
_MAX_QUERY = 500


def as_rewriter(rewrite: Any, count: int = 3) -> Rewriter:
    """A rewriter from what users give.

    Args:
        rewrite: An :class:`LLM`, or a function of the question that returns queries, or one as a string.
        count: Queries that an LLM is asked for.

    Raises:
        InvalidArgument: Neither; and when it is called, where the function returns something else.
    """
    if isinstance(rewrite, LLM):
        model = rewrite
        return lambda question, timeout: _asked(model, question, count, timeout)
    if callable(rewrite):
        return lambda question, _: _queries(rewrite(question))
    raise InvalidArgument(
        f"rewrite is a function of the question or an LLM, got {type(rewrite).__name__}", field="rewrite"
    )


def _queries(written: Any) -> list[str]:
    """What a user's function returned, as a list: a string is one query, not its characters."""
    if isinstance(written, str):
        return [written]
    if isinstance(written, Iterable) and not isinstance(written, Mapping | bytes):
        found = list(written)
        if all(isinstance(one, str) for one in found):
            return found
        written = next(one for one in found if not isinstance(one, str))
    raise InvalidArgument(
        f"rewrite returns a query or a list of queries as strings, got {type(written).__name__} {written!r:.60}",
        field="rewrite",
    )


def _asked(model: LLM, question: str, count: int, timeout: float | None) -> list[str]:
    messages = [Message(Role.SYSTEM, _INSTRUCTION.format(count=count)), Message(Role.USER, question)]
    written = completed(model, messages, Clock(timeout), max_tokens=40 * count, temperature=0.0, seed=0).text
    lines = (_LIST_MARK.sub("", line).strip().strip('"') for line in written.splitlines())
    return [line[:_MAX_QUERY] for line in lines if line][:count]
