"""Search of one part through its index: fetch candidates, drop what may not be returned, score the rest exactly.

An index promises nothing: not that it finds enough rows, not that it finds the right ones under a filter. Each query's
candidates are therefore judged, and those of a query that fails are fetched more widely or replaced by an exact search:

- too few rows passed (dead ones, ones that do not match): widen, by the share that passed, while that is cheaper;
- the hits of a filtered walk lie farther out than its beam spans (``probe``): the filter is correlated with the query,
  and nearer matches may have been missed: a wider beam, then exact;
- equal scores reach past the last candidate: which of them have the smallest ids is unknown: widen, then exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.metric import nearest_first
from vectordb.query import costs, exact, planner, probe, widths
from vectordb.query.merge import Found
from vectordb.query.planner import PartFacts, Step, Way
from vectordb.query.run import Report, Run
from vectordb.query.together import unjudged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.metric import Metric
    from vectordb.segments.part import Part
    from vectordb.segments.selection import Selection

SLICE_MICROSECONDS = 5_000.0
"""Queries are handed to the index in slices of about this much work, with a look at the deadline between them."""

SHORT = "the index returned too few matching rows"
CORRELATED = "the filter is correlated with the query"
TIES = "equal scores at the cut"
COSTLY = "widening costs more than exact search"


class Search:
    """What stays the same for all queries of one part.

    Attributes:
        selection: Rows that match, are alive and have a vector; ``None`` without a filter.
        bits: Those rows as packed bits over positions.
        told: What a filtered walk is allowed to return: ``bits`` and the markers; ``None`` in the other ways.
        share: Of the rows that do not match, those that are markers.
        available: How many rows may be returned.
        needed: How many each query must get.
        wanted: How many each query should get to choose from: more than ``needed`` where the index ranks coarsely.
    """

    __slots__ = (
        "available",
        "bits",
        "capabilities",
        "facts",
        "index",
        "needed",
        "number",
        "part",
        "report",
        "run",
        "selection",
        "share",
        "step",
        "told",
        "wanted",
    )

    def __init__(
        self, run: Run, number: int, facts: PartFacts, step: Step, selection: Selection | None, report: Report
    ) -> None:
        part = run.parts[number]
        assert part.index is not None
        assert facts.capabilities is not None
        self.run, self.number, self.part, self.index = run, number, part, part.index
        self.facts, self.step, self.selection, self.capabilities = facts, step, selection, facts.capabilities
        self.report = report
        self.bits: NDArray[np.uint8] | None = None
        self.told: NDArray[np.uint8] | None = None
        self.share = 1.0
        if selection is not None:
            self.available = len(selection)
            self.bits = selection.bits(part)
            if step.way is Way.INDEX_FILTERED:
                marked = probe.markers(part.vector_count, self.available / part.vector_count)
                self.told, self.share = self.bits | marked.bits, marked.share
        elif part.dead == 0:
            self.available = part.vector_count
        else:
            self.available = part.vector_count - len(part.with_vector(part.dead_rows()))
        self.needed = min(run.limit, self.available)
        self.wanted = min(step.rescored - widths.SLACK, self.available)


class _Retry(NamedTuple):
    """How a query is answered once more: by ``k`` candidates, or exactly where ``k`` is 0."""

    k: int
    reason: str


def search(run: Run, number: int, facts: PartFacts, step: Step, selection: Selection | None) -> Report:
    """Adds the candidates of every query to ``run.found``.

    Args:
        selection: What the filter selects; ``None`` without a filter.
    """
    report = Report()
    single = len(run.queries) == 1 and not step.probe and _fits(run, step)
    if single and step.way is Way.INDEX and _at_once(run, number, step, report):
        return report
    if single and step.way is Way.INDEX_POST and selection is not None:
        return _matching_at_once(run, number, facts, step, selection)
    state = Search(run, number, facts, step, selection, report)
    if state.needed == 0:
        return state.report
    failed: dict[str, list[int]] = {}
    pending: list[tuple[int, Sequence[int]]] = [(step.k, range(len(run.queries)))]
    if step.probe:
        pending = _probed(state, failed)
    return _rounds(state, pending, failed)


def _rounds(state: Search, pending: list[tuple[int, Sequence[int]]], failed: dict[str, list[int]]) -> Report:
    """Attempts until every query is answered or the time is over: for each of them how many candidates to ask for, and
    those that are answered exactly in the end, by the reason."""
    run = state.run
    while pending and not run.incomplete:
        k, chosen = pending.pop()
        for retry, again in _round(state, k, chosen).items():
            if retry.k:
                pending.append((retry.k, again))
            else:
                failed.setdefault(retry.reason, []).extend(again)
    unanswered: float = sum(len(chosen) for _, chosen in pending)
    if failed:
        unanswered += _exactly(state, failed)
    state.report.fraction -= unanswered / len(run.queries)
    return state.report


def _probed(state: Search, failed: dict[str, list[int]]) -> list[tuple[int, Sequence[int]]]:
    """For each query how many candidates to ask for, by the filter's selectivity near it; those that are better
    answered exactly are added to the failed ones."""
    run, step, capabilities = state.run, state.step, state.capabilities
    assert state.bits is not None
    params = dict(step.params)
    if capabilities.width is not None:
        params[capabilities.width] = math.ceil(step.probe * capabilities.width_per_row)
    chosen: dict[int, list[int]] = {}
    for query in range(len(run.queries)):
        k = step.k
        # Past the deadline they are left to the rounds, which count what stays unanswered.
        if not run.expired():
            found = state.index.search(run.queries[query : query + 1], step.probe, params=params)
            state.report.scored += found.scored
            positions = found.rows[0]
            positions = positions[positions >= 0]
            passed = int(np.count_nonzero((state.bits[positions >> 3] >> (positions & 7)) & 1))
            k = planner.after_probe(passed, step, state.facts, state.wanted)
        if k:
            chosen.setdefault(k, []).append(query)
        else:
            failed.setdefault(CORRELATED, []).append(query)
    return list(chosen.items())


def is_scattered(run: Run, number: int, facts: PartFacts, selection: Selection) -> bool:
    """Whether the matching rows of an indexed part lie scattered among all: looks at neighbours of a few of them."""
    part, capabilities = run.parts[number], facts.capabilities
    assert part.index is not None
    assert capabilities is not None
    rows = probe.sample(selection.rows())
    params = widths.settings(capabilities, None, probe.NEIGHBOURS + 1, 0.0)
    found = part.index.search(part.vectors_at(rows), probe.NEIGHBOURS + 1, params=params).rows
    near = part.rows_of(found[found >= 0])
    near = near[~np.isin(near, rows)]
    matching = int(np.isin(near, selection.rows()).sum())
    return probe.scattered(matching, len(near), len(selection) / facts.vectors)


def _fits(run: Run, step: Step) -> bool:
    """Whether one query ends before the deadline, so that nothing has to be bounded."""
    return not run.deadline.bounded or step.cost < run.deadline.remaining() * 1e6


def living(part: Part, positions: NDArray[np.int64], most: int) -> NDArray[np.int64] | None:
    """The rows of those candidates that are alive, at most so many; ``None`` where some candidates are missing."""
    if positions[-1] < 0:
        return None
    rows = part.rows_of(positions)
    return rows[part.alive(rows)][:most] if part.dead else rows


def ranked(
    part: Part, rows: NDArray[np.int64], query: NDArray[np.float32], limit: int, metric: Metric
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Candidates best first, and their final distances, where these are more than enough and the cut falls between two
    scores.

    Args:
        query: float32[d], prepared.
    """
    if len(rows) <= limit:
        return None
    order, far = nearest_first(query, part.vectors_at(rows), metric)
    return None if far[limit - 1] == far[-1] else (rows.take(order), far)


def _at_once(run: Run, number: int, step: Step, report: Report) -> bool:
    """One query of all rows, without the bookkeeping of retries: false where one is needed."""
    part = run.parts[number]
    assert part.index is not None
    found = part.index.search(run.queries, step.k, params=step.params)
    report.scored = found.scored
    rows = living(part, found.rows[0], step.rescored)
    return rows is not None and _take(run, number, rows)


def _take(run: Run, number: int, rows: NDArray[np.int64]) -> bool:
    """Adds the candidates of the only query, where they will do."""
    found = ranked(run.parts[number], rows, run.queries[0], run.limit, run.spec.metric)
    if found is None:
        return False
    run.found[0].append(Found(number, *found))
    return True


def _matching_at_once(run: Run, number: int, facts: PartFacts, step: Step, selection: Selection) -> Report:
    """One query of all rows, the matching ones picked out after; bookkeeping only where it needs another attempt."""
    part, report = run.parts[number], Report()
    assert part.index is not None
    found = part.index.search(run.queries, step.k, params=step.params)
    report.scored = found.scored
    positions, bits = found.rows[0], selection.bits(part)
    if positions[-1] >= 0:
        # Set bits are those of living rows.
        passed = positions[(bits[positions >> 3] >> (positions & 7)) & 1 == 1]
        if _take(run, number, part.rows_of(passed[: step.rescored])):
            return report
    state = Search(run, number, facts, step, selection, report)
    retry = _judge(state, 0, positions, step.k)
    if retry is None:
        return report
    return _rounds(state, [(retry.k, [0])], {}) if retry.k else _rounds(state, [], {retry.reason: [0]})


def _round(state: Search, k: int, chosen: Sequence[int]) -> dict[_Retry, list[int]]:
    """One attempt for some queries, in slices; those that have to be retried, by how."""
    run, step = state.run, state.step
    params = widths.spanning(state.capabilities, step.params, k)
    if params is not step.params:
        state.report.params = dict(params)
    asked = k
    if state.told is not None:
        # Room for the hits, and for as many markers as are met before they are no longer believed.
        asked = min(k, step.rescored + math.ceil(state.share * probe.BELIEVED * k))
    retries: dict[_Retry, list[int]] = {}
    done = 0
    while done < len(chosen) and not run.expired():
        count, fitting = _fitting(state, params, k, len(chosen) - done)
        if count == 0:
            run.give_up()
            break
        numbers = chosen[done : done + count]
        queries = run.queries if count == len(run.queries) else run.queries[np.asarray(numbers)]
        found = state.index.search(queries, asked, allowed=state.told, params=fitting)
        state.report.scored += found.scored
        for query, positions in unjudged(state, numbers, found.rows, k):
            retry = _judge(state, query, positions, k)
            if retry is not None:
                retries.setdefault(retry, []).append(query)
        done += count
    state.report.fraction -= (len(chosen) - done) / len(run.queries)
    return retries


def _fitting(state: Search, params: Mapping[str, Any], k: int, queries: int) -> tuple[int, Mapping[str, Any]]:
    """How many queries to hand to the index at once, and with which parameters, so that the call ends in time."""
    deadline, facts, capabilities = state.run.deadline, state.facts, state.capabilities
    if queries == 1 and not deadline.bounded:
        return 1, params
    width = widths.width_of(capabilities, params)
    effort = costs.effort_of(capabilities, facts.vectors)
    cost = costs.walk(effort, facts.vectors, facts.dim, width, filtered=state.told is not None)
    left = deadline.remaining() * 1e6
    if cost <= left:
        return max(1, min(queries, int(min(SLICE_MICROSECONDS, left) / cost))), params
    # Not even one query fits, and a call cannot be interrupted: its width is narrowed beforehand.
    narrow = 0 if width is None else costs.widest(effort, left, facts.vectors, facts.dim)
    if capabilities.width is None or narrow < k * capabilities.width_per_row:
        return 0, params
    state.run.give_up()
    name = capabilities.width
    state.report.reasons = (f"{name} lowered from {width} to {narrow} to end before the deadline",)
    state.report.params = {**params, name: narrow}
    return 1, state.report.params


def _judge(state: Search, query: int, positions: NDArray[np.int64], k: int) -> _Retry | None:
    """Takes over a query's candidates, and says how to go on where they will not do."""
    part, limit = state.part, state.run.limit
    padded = bool(positions[-1] < 0)
    if padded:
        positions = positions[positions >= 0]
    span = 0.0
    if state.bits is not None:
        places = np.flatnonzero((state.bits[positions >> 3] >> (positions & 7)) & 1)
        positions = positions[places]
        if state.told is not None and len(places) >= state.needed:
            span = probe.rank(int(places[state.needed - 1]), state.needed, state.share)
    rows = part.rows_of(positions)
    if part.dead and state.bits is None:
        rows = rows[part.alive(rows)]
    passed = len(rows)
    found = _scored(state, query, rows[: state.step.rescored])
    if passed >= state.available:
        return None
    if passed < state.needed:
        # A beam that is not full has nowhere left to go; of anything else more can be read.
        if padded and state.capabilities.has_beam:
            return _Retry(0, SHORT)
        return _wider(state, k, passed, COSTLY) if state.told is None else _spanning(state, k * planner.WIDENING)
    if span > probe.BELIEVED * k:
        return _spanning(state, math.ceil(span * planner.MARGIN))
    if passed > limit and found[limit - 1] == found[-1]:
        found = found if len(found) == passed else _scored(state, query, rows)
        if found[limit - 1] == found[-1]:
            return _Retry(0, TIES) if padded else _wider(state, k, 0, TIES)
    return None


def _scored(state: Search, query: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Puts a query's candidates among those found, best first, in place of an earlier attempt's: their distances."""
    run = state.run
    order, distances = nearest_first(run.queries[query], state.part.vectors_at(rows), run.spec.metric)
    run.put(query, Found(state.number, rows.take(order), distances))
    return distances


def _wider(state: Search, k: int, passed: int, otherwise: str) -> _Retry:
    wider = planner.widened(k, passed, state.step, state.facts, state.wanted)
    return _Retry(0, otherwise) if wider is None else _Retry(wider, otherwise)


def _spanning(state: Search, k: int) -> _Retry:
    """Another filtered walk whose beam spans ``k`` rows, where there is a beam to widen and it is worth it."""
    worth = state.capabilities.width is not None and planner.affordable(k, state.step, state.facts)
    return _Retry(k if worth else 0, CORRELATED)


def _exactly(state: Search, failed: Mapping[str, list[int]]) -> float:
    """Answers the queries that the index failed by an exact search: how many of them the deadline left unanswered."""
    run, report = state.run, state.report
    chosen = sorted(query for queries in failed.values() for query in queries)
    if run.incomplete:
        return len(chosen)
    scan = exact.scan(run, state.number, state.selection, chosen)
    report.scored += scan.scored
    report.exact_queries = len(chosen)
    report.reasons = tuple(failed)
    return len(chosen) * (1.0 - scan.fraction)
