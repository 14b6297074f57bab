"""Runs a search over the parts of one snapshot: plan each part, search it, merge, all under one deadline.

Reads no storage: it ends with ids, scores and (part, row) of the winners; payloads are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from vectordb.index.base import capabilities_of
from vectordb.index.copies import METRICS as COPIED_METRICS
from vectordb.index.registry import TARGET_RECALL
from vectordb.metadata.estimate import Estimate
from vectordb.query import costs, exact, indexed, merge, parallel
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.parallel import Sizes
from vectordb.query.planner import Ask, PartFacts, Step, Way, plan
from vectordb.query.run import Report, Run
from vectordb.query.spec import Outcome, SearchSpec
from vectordb.types import Plan, SegmentPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.query.spec import Winners
    from vectordb.segments.part import Part
    from vectordb.segments.selection import Selection

DEADLINE = "deadline"


class Route(NamedTuple):
    """How one part is searched.

    Attributes:
        selection: What the filter selects there; ``None`` without one.
        cost: Microseconds that a query is estimated to take.
    """

    facts: PartFacts
    step: Step
    selection: Selection | None
    cost: float


class _Routes:
    """How each part is searched: planned when the first thread comes to it, and the same for a whole batch.

    Thread-safe.

    Attributes:
        known: The ways of the parts that were come to, by number.
        filter_seconds: Time spent in estimating and evaluating the filter.
    """

    __slots__ = ("_ask", "_lock", "_run", "filter_seconds", "known")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ask = ask_of(run.spec)
        self._lock = Lock()
        self.known: dict[int, Route] = {}
        self.filter_seconds = 0.0

    def of(self, number: int) -> Route:
        route = self.known.get(number)
        if route is None:
            with self._lock:
                route = self.known.get(number)
                if route is None:
                    route = self.known[number] = self._planned(number)
        return route

    def _planned(self, number: int) -> Route:
        before = perf_counter()
        route = route_of(self._run, number, self._ask)
        if route.selection is not None:
            self.filter_seconds += perf_counter() - before
        return route


class _Answer(NamedTuple):
    """The answer to some of the queries.

    Attributes:
        reports: How the search of each part went, by number; those are missing that the time did not suffice for.
        made: What was made of the winners.
        seconds: Spent in searching, in merging, and in making that.
    """

    queries: int
    incomplete: bool
    reports: dict[int, Report]
    winners: list[Winners]
    made: list[Any]
    seconds: tuple[float, float, float]

    @classmethod
    def joined(cls, answers: Sequence[_Answer]) -> _Answer:
        """One answer to all queries, of those to stretches of them in their order."""
        if len(answers) == 1:
            return answers[0]
        parts = dict.fromkeys(number for answer in answers for number in answer.reports)
        searching, merging, making = map(sum, zip(*(answer.seconds for answer in answers), strict=True))
        return cls(
            sum(answer.queries for answer in answers),
            any(answer.incomplete for answer in answers),
            {part: Report.joined([(answer.queries, answer.reports.get(part)) for answer in answers]) for part in parts},
            [hits for answer in answers for hits in answer.winners],
            [made for answer in answers for made in answer.made],
            (searching, merging, making),
        )


def execute(
    parts: Sequence[Part],
    queries: NDArray[np.float32],
    spec: SearchSpec,
    deadline: Deadline = NO_DEADLINE,
    make: Callable[[list[Winners]], list[Any]] | None = None,
) -> Outcome:
    """Searches the nearest rows of each query.

    A batch is cut into stretches of its queries, each of which one thread takes all the way: while it merges, or makes
    hits, which holds the GIL, others search.

    Args:
        parts: One snapshot's segments and tail; no id is alive in two of them.
        queries: float32[q, d], prepared (``vectordb.metric.prepared``), C-contiguous.
        make: What the caller wants of the winners of some queries, one thing each; called by several threads at once.

    Returns:
        For each query ``min(limit, living matches with a vector)`` winners, fewer only by ``min_score`` or past the
        deadline.

    Raises:
        DeadlineExceeded: The time ran out and ``spec.allow_partial`` is false, or the caller went away.

    Thread-safe: all state is the call's own.
    """
    started = perf_counter()
    run = Run(parts, queries, spec, deadline)
    routes = _Routes(run)
    # Indexed parts first: when time is short, they cover most rows for it.
    order = [number for number in _indexed_first(parts) if parts[number].rows]
    if len(queries) == 1:
        answer = _answered(run, routes, order, make)
    else:
        sizes = _together(run, routes, order)
        answer = _Answer.joined(parallel.over_queries(run, sizes, lambda run: _answered(run, routes, order, make)))
    reports, known = answer.reports, routes.known
    plans = tuple([described(run, number, known.get(number), reports.get(number)) for number in range(len(parts))])
    timings = _timings(answer, perf_counter() - started, None if spec.where is None else routes.filter_seconds)
    outcome = Outcome(answer.winners, Plan(plans, spec.filter_mode, spec.version, timings), answer.made)
    if answer.incomplete:
        outcome.incomplete_reason = DEADLINE
        searched: float = sum(parts[number].rows * report.fraction for number, report in reports.items())
        outcome.searched_fraction = searched / sum(part.rows for part in parts)
    return outcome


def _together(run: Run, routes: _Routes, order: Sequence[int]) -> Sizes:
    """How many queries to search at a time: enough to hide what handing them over costs, and that all but the index
    has left the caches while it was searched; and few to wait for at the end."""
    if not order or run.expired():
        return Sizes(len(run.queries), 1)
    first = routes.of(order[0])
    scanned = first.step.way in (Way.EXACT, Way.EXACT_FILTERED) or run.parts[order[-1]].index is None
    least, cost = exact.QUERIES if scanned else _LEAST_QUERIES, max(first.cost, 1.0)
    return Sizes(max(least, int(_ALONE_MICROSECONDS / cost)), max(least, int(_CHUNK_MICROSECONDS / cost)))


def _answered(
    run: Run, routes: _Routes, order: Sequence[int], make: Callable[[list[Winners]], list[Any]] | None
) -> _Answer:
    """All parts searched for some queries."""
    parts, spec = run.parts, run.spec
    reports: dict[int, Report] = {}
    searching = 0.0
    for number in order:
        if run.incomplete or run.expired():
            break
        route = routes.of(number)
        started = perf_counter()
        reports[number] = search_part(run, number, route)
        searching += perf_counter() - started
    searched = perf_counter()
    if run.alike is None:
        winners = merge.all_winners(run.found, parts, spec.limit, spec.metric)
    else:
        winners = merge.winners_alike(run.alike, parts, spec.limit, spec.metric)
    if spec.min_score is not None:
        winners = [merge.at_least(hits, spec.min_score, spec.metric) for hits in winners]
    merged = perf_counter()
    made = [] if make is None else make(winners)
    seconds = (searching, merged - searched, perf_counter() - merged)
    return _Answer(len(run.queries), run.incomplete, reports, winners, made, seconds)


def route_of(run: Run, number: int, ask: Ask) -> Route:
    """How a part is searched, planned or as it was planned before."""
    part, where, dim = run.parts[number], run.spec.where, run.queries.shape[1]
    if where is None:
        facts, step = planned(part, dim, ask)
        cost = costs.scan(facts.vectors, dim) if step.way is Way.EXACT else step.cost
        return Route(facts, step, None, cost)
    selection = part.selection(where)
    facts, step = _planned_filtered(run, number, ask, selection)
    scanned = step.way is Way.EXACT or step.way is Way.EXACT_FILTERED
    cost = costs.scan_matches(len(selection), facts.vectors, dim) if scanned else step.cost
    return Route(facts, step, selection, cost)


def search_part(run: Run, number: int, route: Route) -> Report:
    """Searches one part as it was planned: adds what it finds to ``run.found``."""
    facts, step, selection, _ = route
    if step.way is Way.EMPTY:
        return Report()
    if step.way is Way.EXACT or step.way is Way.EXACT_FILTERED:
        return exact.report(run, number, selection)
    return indexed.search(run, number, facts, step, selection)


def _timings(answer: _Answer, wall: float, filter_seconds: float | None) -> dict[str, float]:
    """Milliseconds by stage: of what evaluating the filter left of the time that passed, each has the share that it has
    of the threads' time."""
    searching, merging, making = answer.seconds
    scale = 1e3 * (wall - (filter_seconds or 0.0)) / (searching + merging + making)
    timings = {"search": searching * scale, "merge": merging * scale}
    if filter_seconds is not None:
        timings["filter"] = filter_seconds * 1e3
    return timings


def ask_of(spec: SearchSpec) -> Ask:
    """What a request says to the planner."""
    params = spec.params
    if not params or TARGET_RECALL not in params:
        return Ask(spec.limit, spec.filter_mode, spec.exact, params)
    others = {name: value for name, value in params.items() if name != TARGET_RECALL}
    return Ask(spec.limit, spec.filter_mode, spec.exact, others, float(params[TARGET_RECALL]))


def _planned_filtered(run: Run, number: int, ask: Ask, selection: Selection) -> tuple[PartFacts, Step]:
    """The plan of a part under a filter, kept with what the filter selects there.

    Where rows were selected so often that a copy of their vectors would be searched from now on, each search makes a
    piece of it. Until then nobody looks whether they are scattered: that takes longer than most searches.
    """
    part, where = run.parts[number], run.spec.where
    assert where is not None
    copyable = selection.copyable and run.spec.metric in COPIED_METRICS
    selection.uses += 1
    scattered = part.spread.get(where)
    facts, step = _kept_plan(run, number, ask, selection, scattered)
    if copyable and selection.copied is None:
        if selection.uses <= COPIED_AFTER:
            return facts, step
        if plan(facts._replace(copied=True), ask).way is Way.EXACT_FILTERED:
            for _ in range(0, len(run.queries), _COPIED_FOR):
                if selection.copied is None and run.deadline.remaining() > COPIED_WITHIN:
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
    # As in planned(), the kept facts keep what the address stands for alive.
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


def described(run: Run, number: int, route: Route | None, report: Report | None) -> SegmentPlan:
    """How a part was searched; not at all without a route or a report."""
    part, filtered = run.parts[number], run.spec.where is not None
    if not part.rows:
        return empty_plan(part.name, 0, filtered)
    if route is None or report is None:
        return SegmentPlan(part.name, "skipped", part.rows, 0, filtered=filtered)
    _, step, selection, _ = route
    if step.way is Way.EMPTY:
        return empty_plan(part.name, part.rows, filtered, None if selection is None else selection.matched)
    estimated, matched = step.estimated, None
    if selection is not None:
        estimated, matched = selection.estimated, selection.matched
    elif step.way is Way.EXACT:
        matched = part.rows - part.dead
    filtered = selection is not None and step.way is not Way.EXACT
    strategy, queries = step.strategy, len(run.queries)
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


def planned(part: Part, dim: int, ask: Ask) -> tuple[PartFacts, Step]:
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
"""After so many searches with one filter the vectors of the rows that it selects may be copied ..."""
COPIED_WITHIN = 0.1
"""... by searches that have so many seconds left ..."""
_COPIED_FOR = 32
"""... one piece for so many queries of a batch, which gain as much."""
_LEAST_QUERIES = 8
_ALONE_MICROSECONDS, _CHUNK_MICROSECONDS = 2_500.0, 6_000.0
_KEPT_PLANS = 512
_KEPT_SPREADS = 128
_plans: dict[tuple[Any, ...], tuple[PartFacts, Step]] = {}


def _indexed_first(parts: Sequence[Part]) -> Sequence[int]:
    if len(parts) < 2 or (len(parts) == 2 and parts[1].index is None):
        return range(len(parts))
    return sorted(range(len(parts)), key=lambda number: parts[number].index is None)


@lru_cache(maxsize=256)
def empty_plan(name: str, rows: int, filtered: bool, matched: int | None = 0) -> SegmentPlan:
    """The plan of a part in which nothing can match; an empty tail needs one in every search."""
    return SegmentPlan(name, "empty", rows, 0, matched, filtered=filtered)
