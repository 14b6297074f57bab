"""The commonest search, gone straight: one query, no filter, one indexed part beside which none has rows.

A walk through a graph drives all else from the processor's caches, so that what surrounds it costs by how much code and
how many objects it touches, more than by what it computes. The general way (``executor.py``) touches what any search
may need. Here all that is the same for each query of a kind is worked out once for a snapshot, and kept with it.

The answer is the general way's to the last bit, and so is the plan. Where this way cannot tell that (candidates are
missing, or equal scores reach past the last one), it leaves the query to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from vectordb.metric import distances, scores
from vectordb.query import merge
from vectordb.query.executor import ask_of, empty_plan, planned
from vectordb.query.planner import Way
from vectordb.types import FilterMode, Plan, SegmentPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.query.planner import Step
    from vectordb.query.spec import SearchSpec
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
    plan: Callable[[], Plan]


class Direct:
    """How all searches of one kind go over one snapshot. Immutable, thread-safe."""

    __slots__ = ("_limit", "_metric", "_number", "_part", "_parts", "_plans", "_seconds", "_step")

    def __init__(self, parts: Sequence[Part], number: int, step: Step, spec: SearchSpec) -> None:
        self._parts, self._number, self._part = parts, number, parts[number]
        self._step, self._limit, self._metric = step, spec.limit, spec.metric
        self._seconds = step.cost * 1e-6
        plans = [empty_plan(part.name, 0, False) for part in parts]
        plans[number] = SegmentPlan(
            self._part.name, step.strategy, self._part.rows, step.estimated, None, 0, step.reason, False, step.params
        )
        self._plans = _Plans(tuple(plans), number, spec.filter_mode, spec.version)

    @classmethod
    def of(cls, parts: Sequence[Part], dim: int, spec: SearchSpec) -> Direct | None:
        """The way of single queries over these parts; None where they have to take the general one."""
        numbers = [number for number, part in enumerate(parts) if part.rows]
        if len(numbers) != 1 or spec.where is not None or spec.exact or spec.min_score is not None:
            return None
        _, step = planned(parts[numbers[0]], dim, ask_of(spec))
        return cls(parts, numbers[0], step, spec) if step.way is Way.INDEX and not step.probe else None

    def ends_within(self, timeout: float | None) -> bool:
        """Whether a search ends before so many seconds are over, so that nothing has to be bounded."""
        return timeout is None or self._seconds < timeout

    def search(self, queries: NDArray[np.float32]) -> Nearest | None:
        """The best of the only query, float32[1, d], prepared; None where the general way has to find them."""
        part, step, limit = self._part, self._step, self._limit
        assert part.index is not None
        started = perf_counter()
        found = part.index.search(queries, step.k, params=step.params)
        positions = found.rows[0]
        if positions[-1] < 0:
            return None
        rows = part.rows_of(positions)
        if part.dead:
            rows = rows[part.alive(rows)][: step.rescored]
        if len(rows) <= limit:
            return None
        far = distances(scores(queries[0], part.vectors_at(rows), self._metric), self._metric)
        order = far.argsort(kind="stable")
        far, rows = far.take(order), rows.take(order)
        searched = perf_counter()
        keys = far.tolist()
        if keys[limit - 1] == keys[-1]:
            return None
        if len(set(keys[: limit + 1])) <= limit:
            best = merge.winners([merge.Found(self._number, rows, far)], self._parts, limit, self._metric)
            ids, rows, values = best.ids, best.rows, best.scores.tolist()
        else:
            rows = rows[:limit]
            ids = part.ids(rows)
            values = [-key for key in keys[:limit]] if self._metric.higher_is_better else keys[:limit]
        plan = partial(self._plans.plan, found.scored, searched - started, perf_counter() - searched)
        return Nearest(part, rows, ids, values, plan)


class _Plans(NamedTuple):
    """What the plans of all searches of a kind have in common.

    Attributes:
        segments: All parts', as if nothing was compared.
        number: Of the one that is searched.
    """

    segments: tuple[SegmentPlan, ...]
    number: int
    mode: FilterMode
    version: int

    def plan(self, scored: int, searching: float, merging: float) -> Plan:
        """That of a search that compared so many rows, in so many seconds."""
        segments = list(self.segments)
        own = segments[self.number]
        # A copy of the parameters: those of the step are kept for later searches.
        segments[self.number] = own._replace(rows_scored=scored, params=dict(own.params))
        timings = {"search": searching * 1e3, "merge": merging * 1e3}
        return Plan(tuple(segments), self.mode, self.version, timings)
