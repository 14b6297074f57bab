"""Runs a search over the parts of one snapshot: plan each part, search it, merge, all under one deadline.

Reads no storage: it ends with ids, scores and (part, row) of the winners; payloads are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

from vectordb.index.base import capabilities_of
from vectordb.index.copies import METRICS as COPIED_METRICS
from vectordb.index.registry import TARGET_RECALL
from vectordb.metadata.estimate import Estimate
from vectordb.query import costs, exact, indexed, merge, parallel
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.planner import Ask, PartFacts, Step, Way, plan
from vectordb.query.run import Report, Run
from vectordb.query.spec import Outcome, SearchSpec
from vectordb.types import Plan, SegmentPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.segments.part import Part
    from vectordb.segments.selection import Selection

DEADLINE = "deadline"


def execute(
    parts: Sequence[Part], queries: NDArray[np.float32], spec: SearchSpec, deadline: Deadline = NO_DEADLINE
) -> Outcome:
    """Searches the nearest rows of each query.

    Args:
        parts: One snapshot's segments and tail; no id is alive in two of them.
        queries: float32[q, d], prepared (``vectordb.metric.prepared``), C-contiguous.

    Returns:
        For each query ``min(limit, living matches with a vector)`` winners, fewer only by ``min_score`` or past the
        deadline.

    Raises:
        DeadlineExceeded: The time ran out and ``spec.allow_partial`` is false, or the caller went away.

    Thread-safe: all state is the call's own.
    """
    started = perf_counter()
    run = Run(parts, queries, spec, deadline)
    ask = ask_of(spec)
    plans: list[SegmentPlan] = [_EMPTY] * len(parts)
    # Indexed parts first: when time is short, they cover most rows for it.
    for number in _indexed_first(parts):
        part = parts[number]
        if part.rows == 0:
            plans[number] = _empty(part.name, 0, spec.where is not None)
        elif run.incomplete or run.expired():
            plans[number] = SegmentPlan(part.name, "skipped", part.rows, 0, filtered=spec.where is not None)
        else:
            plans[number] = _search(run, number, ask)
    searched = perf_counter()
    winners = merge.all_winners(run.found, parts, spec.limit, spec.metric)
    if spec.min_score is not None:
        winners = [merge.at_least(hits, spec.min_score, spec.metric) for hits in winners]
    ended = perf_counter()
    timings = {"search": (searched - started) * 1e3, "merge": (ended - searched) * 1e3}
    if spec.where is not None:
        timings["filter"] = run.filter_seconds * 1e3
        timings["search"] -= timings["filter"]
    outcome = Outcome(winners, Plan(tuple(plans), spec.filter_mode, spec.version, timings))
    if run.incomplete:
        outcome.incomplete_reason = DEADLINE
        outcome.searched_fraction = run.searched / sum(part.rows for part in parts)
    return outcome


def ask_of(spec: SearchSpec) -> Ask:
    """What a request says to the planner."""
    params = spec.params
    if not params or TARGET_RECALL not in params:
        return Ask(spec.limit, spec.filter_mode, spec.exact, params)
    others = {name: value for name, value in params.items() if name != TARGET_RECALL}
    return Ask(spec.limit, spec.filter_mode, spec.exact, others, float(params[TARGET_RECALL]))


def _search(run: Run, number: int, ask: Ask) -> SegmentPlan:
    """Plans one part, searches it, and tells how."""
    part, spec = run.parts[number], run.spec
    dim = run.queries.shape[1]
    selection: Selection | None = None
    if spec.where is None:
        facts, step = _planned(part, dim, ask)
        estimated, matched = step.estimated, None
    else:
        before = perf_counter()
        selection = part.selection(spec.where)
        facts, step = _planned_filtered(run, number, ask, selection)
        estimated, matched = selection.estimated, selection.matched
        run.filter_seconds += perf_counter() - before
    if step.way is Way.EMPTY:
        run.searched += part.rows
        return _empty(part.name, part.rows, spec.where is not None, matched)
    if step.way is Way.EXACT or step.way is Way.EXACT_FILTERED:
        if selection is None:
            cost, matched = costs.scan(facts.vectors, dim), part.rows - part.dead
        else:
            cost = costs.scan_matches(len(selection), facts.vectors, dim)
        report = parallel.over_queries(
            run, max(exact.QUERIES, _chunk(cost)), lambda run: exact.report(run, number, selection)
        )
    else:
        report = parallel.over_queries(
            run, _chunk(step.cost), lambda run: indexed.search(run, number, facts, step, selection)
        )
    run.searched += part.rows * report.fraction
    return _described(part, step, report, estimated, matched, len(run.queries))


def _planned_filtered(run: Run, number: int, ask: Ask, selection: Selection) -> tuple[PartFacts, Step]:
    """The plan of a part under a filter, kept with what the filter selects there.

    Where rows were selected so often that a copy of their vectors would be searched from now on, each search makes a
    piece of it. Until then nobody looks whether they are scattered: that takes longer than most searches.
    """
    part, where = run.parts[number], run.spec.where
    assert where is not None
    copyable = selection.copyable and run.spec.metric in COPIED_METRICS
    if len(run.queries) == 1:
        selection.uses += 1
    scattered = part.spread.get(where)
    facts, step = _kept_plan(run, number, ask, selection, scattered)
    if copyable and selection.copied is None:
        if selection.uses <= COPIED_AFTER:
            return facts, step
        if plan(facts._replace(copied=True), ask).way is Way.EXACT_FILTERED:
            if run.deadline.remaining() > COPIED_WITHIN:
                part.copy_on(selection, run.spec.metric)
            return facts, step
    if step.doubt:
        return _kept_plan(run, number, ask, selection, _is_scattered(run, number, facts, selection))
    return facts, step


def _kept_plan(run: Run, number: int, ask: Ask, selection: Selection, scattered: bool | None) -> tuple[PartFacts, Step]:
    """The plan of a part by the number of selected rows, made once."""
    part, dim = run.parts[number], run.queries.shape[1]
    index, kind = part.index, part.kind
    capabilities = None if index is None or kind is None else capabilities_of(index, kind)
    copied = selection.copied is not None
    params = tuple(ask.params.items()) if ask.params else None
    # As in _planned, the kept facts keep what the address stands for alive.
    key = (id(capabilities), id(part.calibration), *ask[:3], params, ask.target, scattered, copied)

    def make() -> tuple[PartFacts, Step]:
        count = len(selection)
        facts = facts_of(part, dim, Estimate.exact(count))
        facts = facts._replace(counted=True, scattered=scattered, copied=copied)
        return facts, plan(facts, ask)

    found: tuple[PartFacts, Step] = selection.planned(key, make)
    return found


def _is_scattered(run: Run, number: int, facts: PartFacts, selection: Selection) -> bool:
    """Whether the matches lie scattered, as it was found when the filter was first looked at; it changes slowly."""
    spread, where = run.parts[number].spread, run.spec.where
    assert where is not None
    known = spread.get(where)
    if known is None:
        if len(spread) >= _KEPT_SPREADS:
            spread.clear()
        known = spread[where] = indexed.is_scattered(run, number, facts, selection)
    return known


def _chunk(cost: float) -> int:
    """How many queries of so many microseconds each to search at a time: enough to hide what handing them over costs,
    and little to wait for at the end."""
    return max(_CHUNK_QUERIES, int(_CHUNK_MICROSECONDS / max(cost, 1.0)))


def _described(
    part: Part, step: Step, report: Report, estimated: int, matched: int | None, queries: int
) -> SegmentPlan:
    filtered = matched is not None and step.way is not Way.EXACT
    strategy = step.strategy
    if report.exact_queries == queries:
        strategy = "exact_filtered" if filtered else "exact"
    elif report.fraction <= 0.0:
        strategy = "skipped"
    return SegmentPlan(
        part.name,
        strategy,
        part.rows,
        estimated,
        matched,
        report.scored,
        report.reason(queries) or step.reason,
        filtered,
        # A copy: the step may be kept for later searches.
        dict(step.params if report.params is None else report.params),
    )


def facts_of(part: Part, dim: int, estimate: Estimate | None) -> PartFacts:
    """What the planner knows of a part."""
    index, kind = part.index, part.kind
    capabilities = None if index is None or kind is None else capabilities_of(index, kind)
    return PartFacts(part.rows, part.dead, part.vector_count, dim, capabilities, estimate, False, part.calibration)


def counted(plan: SegmentPlan, filtered: bool) -> Estimate | None:
    """The estimate that a part was planned with in the end: the count, where there was one."""
    if not filtered:
        return None
    return Estimate.exact(plan.estimated if plan.matched is None else plan.matched)


def _planned(part: Part, dim: int, ask: Ask) -> tuple[PartFacts, Step]:
    """The plan of a part without a filter, kept: planning takes longer than all else around an index search."""
    index, kind = part.index, part.kind
    if index is None or kind is None:
        facts = facts_of(part, dim, None)
        return facts, plan(facts, ask)
    capabilities = capabilities_of(index, kind)
    params = tuple(ask.params.items()) if ask.params else None
    # Capabilities hold dicts and have no hash. The kept facts keep them alive, so that their address is theirs alone.
    sizes = (part.rows, part.dead, part.vector_count, dim)
    key: tuple[Any, ...] = (id(capabilities), *sizes, ask.limit, ask.exact, params)
    if ask.target is not None:
        key = (*key, id(part.calibration), ask.target)
    known = _plans.get(key)
    if known is None:
        facts = facts_of(part, dim, None)
        known = (facts, plan(facts, ask))
        if len(_plans) >= _KEPT_PLANS:
            _plans.clear()
        _plans[key] = known
    return known


COPIED_AFTER = 4
"""After so many single searches with one filter the vectors of the rows that it selects may be copied ..."""
COPIED_WITHIN = 0.1
"""... by searches that have so many seconds left."""
_CHUNK_QUERIES = 8
_CHUNK_MICROSECONDS = 2_500.0
_KEPT_PLANS = 512
_KEPT_SPREADS = 128
_plans: dict[tuple[Any, ...], tuple[PartFacts, Step]] = {}


def _indexed_first(parts: Sequence[Part]) -> Sequence[int]:
    if len(parts) < 2 or (len(parts) == 2 and parts[1].index is None):
        return range(len(parts))
    return sorted(range(len(parts)), key=lambda number: parts[number].index is None)


@lru_cache(maxsize=256)
def _empty(name: str, rows: int, filtered: bool, matched: int | None = 0) -> SegmentPlan:
    """The plan of a part in which nothing can match; an empty tail needs one in every search."""
    return SegmentPlan(name, "empty", rows, 0, matched, filtered=filtered)


_EMPTY = SegmentPlan("", "empty", 0, 0)
