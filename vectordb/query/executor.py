"""Runs a search over the parts of one snapshot: each planned (``routes.py``) and searched, merged, under one deadline.

Reads no storage: it ends with ids, scores and (part, row) of the winners; payloads are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from vectordb.query import exact, indexed, merge, parallel
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.parallel import Sizes
from vectordb.query.planner import Way
from vectordb.query.routes import Route, ask_of, route_of
from vectordb.query.run import Report, Run
from vectordb.query.spec import Outcome, SearchSpec
from vectordb.results import Plan, SegmentPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.query.spec import Winners
    from vectordb.segments.part import Part

DEADLINE = "deadline"
_LEAST_QUERIES = 8
_ALONE_MICROSECONDS, _CHUNK_MICROSECONDS = 2_500.0, 6_000.0


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
    if not spec.allow_partial:
        # The last call may have ended late; merging and making what nobody waits for would take as long again.
        run.deadline.check()
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
        max(report.scored, 0),
        report.reason(queries) or step.reason,
        filtered,
        # A copy: the step may be kept for later searches.
        dict(step.params if report.params is None else report.params),
    )


def _indexed_first(parts: Sequence[Part]) -> Sequence[int]:
    if len(parts) < 2 or (len(parts) == 2 and parts[1].index is None):
        return range(len(parts))
    return sorted(range(len(parts)), key=lambda number: parts[number].index is None)


@lru_cache(maxsize=256)
def empty_plan(name: str, rows: int, filtered: bool, matched: int | None = 0) -> SegmentPlan:
    """The plan of a part in which nothing can match; an empty tail needs one in every search."""
    return SegmentPlan(name, "empty", rows, 0, matched, filtered=filtered)
