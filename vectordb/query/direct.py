"""The commonest search, gone straight: one query, where one part has all the rows.

What surrounds the search of a part costs by how much code and how many objects it touches, more than by what it
computes: a walk through a graph drives all else from the processor's caches. The general way (``executor.py``) touches
what any search may need. Here all that is the same for each query of a kind is worked out once for a snapshot, and
kept with it; a query without a filter over an indexed part has a way of its own.

The answer is the general way's to the last bit, and so is the plan. Where this way cannot tell that (candidates are
missing, or equal scores reach past the last one), it leaves the query to that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from vectordb.index.base import single_search
from vectordb.query import merge
from vectordb.query.executor import described, empty_plan, search_part
from vectordb.query.indexed import living, ranked
from vectordb.query.planner import Way
from vectordb.query.routes import ask_of, planned, route_of
from vectordb.query.run import Run
from vectordb.query.spec import SearchSpec
from vectordb.results import Plan, PlanMaker, RepeatedPlan, SegmentPlan
from vectordb.types import FilterMode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.filter import Filter
    from vectordb.index.base import SingleSearch
    from vectordb.query.deadline import Deadline
    from vectordb.query.planner import Step
    from vectordb.segments.part import Part


class Nearest(NamedTuple):
    """The answer to one query, best first, equal scores by id.

    Attributes:
        part: Where all of it was found.
        rows: int64[k], of that part.
        scores: In the metric's own direction.
        plan: Makes the plan; holds no part.
    """

    part: Part
    rows: NDArray[np.int64]
    ids: list[str]
    scores: list[float]
    plan: PlanMaker


class Direct:
    """How all searches of one kind go over one snapshot. Immutable, thread-safe.

    Args:
        parts: The snapshot's.
        number: Of the only one that has rows.
        dim: d of the vectors.
        spec: The kind; whatever filter it has.
    """

    __slots__ = (
        "_ask", "_find", "_frame", "_like", "_limit", "_metric", "_mode", "_number", "_part", "_parts", "_seconds",
        "_step",
    )  # fmt: skip

    def __init__(self, parts: Sequence[Part], number: int, dim: int, spec: SearchSpec) -> None:
        part = parts[number]
        self._parts, self._number, self._part = parts, number, part
        self._limit, self._metric, self._mode = spec.limit, spec.metric, spec.filter_mode
        self._ask = ask_of(spec)
        self._frame = _Frame([part.name for part in parts], number, spec.filter_mode, spec.version)
        _, step = planned(part, dim, self._ask)
        facts = part.name, step.strategy, part.rows, step.estimated
        self._like = self._frame.plan(SegmentPlan(*facts, fallback_reason=step.reason, params=dict(step.params)), {})
        # Without a filter only the index's own way is gone here.
        self._step = self._find = None
        if step.way is Way.INDEX and not step.probe and part.index is not None:
            self._step, self._find = step, single_search(part.index, step.k, step.params)
        self._seconds = step.cost * 1e-6

    @classmethod
    def of(cls, parts: Sequence[Part], dim: int, spec: SearchSpec) -> Direct | None:
        """The way of single queries over these parts; None where they have to take the general one.

        Args:
            spec: Neither exact nor with a least score, and no partial answer is wanted.
        """
        numbers = [number for number, part in enumerate(parts) if part.rows]
        if len(numbers) != 1:
            return None
        return cls(parts, numbers[0], dim, spec)

    def search(self, queries: NDArray[np.float32], where: Filter | None, deadline: Deadline) -> Nearest | None:
        """The best of the only query, float32[1, d], prepared; None where the general way has to find them.

        Raises:
            DeadlineExceeded: The time ran out.
        """
        if where is not None:
            return self._filtered(queries, where, deadline)
        step, find = self._step, self._find
        # One walk cannot be interrupted: it has to end in time.
        if step is None or find is None or (deadline.bounded and deadline.remaining() <= self._seconds):
            return None
        return self._walk(queries, step, find)

    def _walk(self, queries: NDArray[np.float32], step: Step, find: SingleSearch) -> Nearest | None:
        part, limit = self._part, self._limit
        started = perf_counter()
        positions, scored = find(queries)
        candidates = living(part, positions, step.rescored)
        found = None if candidates is None else ranked(part, candidates, queries[0], limit, self._metric)
        if found is None:
            return None
        rows, far = found
        searched = perf_counter()
        keys = far.tolist()
        if len(set(keys[: limit + 1])) <= limit:
            best = merge.winners([merge.Found(self._number, rows, far)], self._parts, limit, self._metric)
            ids, rows, values = best.ids, best.rows, best.scores.tolist()
        else:
            rows = rows[:limit]
            ids = part.ids(rows)
            # Not -key, which has a zero with a sign.
            values = [0.0 - key for key in keys[:limit]] if self._metric.higher_is_better else keys[:limit]
        took = (searched - started) * 1e3, (perf_counter() - searched) * 1e3
        return Nearest(part, rows, ids, values, RepeatedPlan(self._like, self._number, max(scored, 0), *took))

    def _filtered(self, queries: NDArray[np.float32], where: Filter, deadline: Deadline) -> Nearest:
        started = perf_counter()
        number, part = self._number, self._part
        spec = SearchSpec(self._limit, where, self._mode, metric=self._metric)
        run = Run(self._parts, queries, spec, deadline)
        run.expired()  # raises: no partial answer is wanted
        route = route_of(run, number, self._ask)
        filtered = perf_counter()
        report = search_part(run, number, route)
        searched = perf_counter()
        best = merge.winners(run.found[0], self._parts, self._limit, self._metric)
        own = described(run, number, route, report)
        seconds = {"search": searched - filtered, "merge": perf_counter() - searched, "filter": filtered - started}
        plan = partial(self._frame.plan, own, seconds)
        return Nearest(part, best.rows, best.ids, best.scores.tolist(), plan)


class _Frame(NamedTuple):
    """What is around a part's own plan in the plans of all searches of a kind. Holds no part."""

    names: Sequence[str]
    number: int
    mode: FilterMode
    version: int

    def plan(self, own: SegmentPlan, seconds: Mapping[str, float]) -> Plan:
        """That of a search: of the part that was searched, and the seconds of each stage."""
        segments = [empty_plan(name, 0, own.filtered) for name in self.names]
        segments[self.number] = own
        return Plan(tuple(segments), self.mode, self.version, {stage: took * 1e3 for stage, took in seconds.items()})
