"""The slow-query log: a line with the plan for each operation that took longer than ``slow_query_seconds``.

    {"time": ..., "level": "warning", "logger": "vectordb.slow", "message": "slow search of 'docs': ...",
     "request_id": "9f86d081-2a", "operation": "search", "collection": "docs", "key": "app", "seconds": 1.27,
     "queue_seconds": 0.01, "rows": 10, "queries": 1, "limit": 10, "filter": "year >= ? and lang in ?x3",
     "plan": [{"segment": "tail", "strategy": "exact_filtered", "rows": 5120, ...}], "timings_ms": {...}}

A filter is told by its shape: fields and operators. Values are data of users, and only there where
``slow_query_values`` asks for them; vectors, texts, ids and records never are.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from vectordb.filter import And, Condition, Filter, Not, Op, Or
from vectordb.server.access import CALLER
from vectordb.server.calls import CALL

if TYPE_CHECKING:
    from vectordb.results import Plan
    from vectordb.server.watch import Done

_log = logging.getLogger("vectordb.slow")
_LINES_A_SECOND = 20
_LONGEST_SHAPE = 500


def shape(where: Filter) -> str:
    """A filter without its values: ``year >= ? and not (lang in ?x3)``."""
    if isinstance(where, And | Or):
        word = " and " if isinstance(where, And) else " or "
        return word.join(f"({shape(c)})" if isinstance(c, And | Or) else shape(c) for c in where.children)
    if isinstance(where, Not):
        return f"not ({shape(where.child)})"
    assert isinstance(where, Condition)
    if where.op in (Op.EXISTS, Op.IS_NULL):
        return f"{where.field} {where.op}"
    return f"{where.field} {where.op} ?" + (f"x{len(where.value)}" if isinstance(where.value, tuple) else "")


class SlowLog:
    """An observer of :mod:`vectordb.server.watch`. Thread-safe; writes at most twenty lines a second.

    Args:
        seconds: Operations that took at least so long are logged; waiting for their turn included.
        values: Whether the filter is logged with its values.
    """

    def __init__(self, seconds: float, values: bool = False) -> None:
        self._seconds = seconds
        self._values = values
        self._lock = threading.Lock()
        self._second = 0  # guarded by self._lock
        self._lines = 0  # guarded by self._lock
        self._left_out = 0  # guarded by self._lock

    def __call__(self, done: Done) -> None:
        call = CALL.get()
        # A stream's later messages wait for their client.
        queued = max(0.0, done.started - call.started) if call is not None and call.rpc != "BulkWrite" else 0.0
        if done.seconds + queued < self._seconds or not self._may():
            return
        fields: dict[str, Any] = {
            "request_id": None if call is None else call.request_id,
            "operation": done.operation,
            "collection": done.collection,
            "seconds": round(done.seconds, 6),
            "queue_seconds": round(queued, 6),
            "rows": done.rows,
        }
        caller = CALLER.get()
        if caller is not None:
            fields["key"] = caller.key.name
        fields.update(self._asked(done))
        if done.plan is not None:
            fields.update(_planned(done.plan))
        if done.error is not None:
            fields["outcome"] = type(done.error).__name__
        with self._lock:
            left_out, self._left_out = self._left_out, 0
        if left_out:
            fields["left_out"] = left_out
        told = json.dumps(fields, default=str)
        _log.warning(
            "slow %s of %r: %.3f s %s", done.operation, done.collection, done.seconds, told, extra={"fields": fields}
        )

    def _may(self) -> bool:
        """Whether a line may be written now: else the log would make an overloaded server slower still."""
        now = int(time.monotonic())
        with self._lock:
            if now != self._second:
                self._second, self._lines = now, 0
            self._lines += 1
            if self._lines > _LINES_A_SECOND:
                self._left_out += 1
                return False
            return True

    def _asked(self, done: Done) -> dict[str, Any]:
        asked: dict[str, Any] = {}
        request = done.request
        if done.operation in ("search", "explain"):
            asked["queries"] = len(request.texts) if request.vectors is None else len(request.vectors)
            asked.update(limit=request.limit, exact=request.exact, hybrid=bool(request.texts), params=request.params)
        ids = getattr(done.selector, "ids", None)
        if ids is not None:
            asked["ids"] = len(ids)
        if done.where is not None:
            told = shape(done.where)
            asked["filter"] = told if len(told) <= _LONGEST_SHAPE else told[: _LONGEST_SHAPE - 3] + "..."
            if self._values:
                asked["where"] = done.where.to_json()
        return asked


def _planned(plan: Plan) -> dict[str, Any]:
    parts = [
        {
            "segment": part.segment,
            "strategy": part.strategy,
            "rows": part.rows,
            "estimated": part.estimated,
            "matched": part.matched,
            "rows_scored": part.rows_scored,
            "fallback_reason": part.fallback_reason,
            "params": dict(part.params),
        }
        for part in plan
    ]
    return {"plan": parts, "timings_ms": {name: round(ms, 3) for name, ms in plan.timings_ms.items()}}
