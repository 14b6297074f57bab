"""Chooses how to search each part. Pure: from sizes, estimates and the request to a plan, without I/O or state.

The choices, for one part:

    no filter     index if there is one and it costs less than ``PATIENCE`` exact scans, else exact
    ``pre``       evaluate the filter, exact search over what matches
    ``in``        the index returns only matching rows, where its kind can and enough of the rows match
    ``post``      index without the filter, then the filter, widening until the limit is reached
    ``auto``      the cheapest of the three that keeps its recall

The number of queries of a request plays no part in it, so that a query has the same answer alone and in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from vectordb.index.base import Capabilities
from vectordb.metadata.estimate import Estimate
from vectordb.query import costs
from vectordb.types import FilterMode

SLACK = 4
"""Candidates fetched from an index beyond the limit, since exact scores may order them otherwise."""

MARGIN = 1.5
"""How many more candidates than the expectation are fetched where some of them will be dropped."""

SPAN = 1.7
"""How many times the rows among which ``limit`` matches are expected the beam of a filtered walk spans."""

WIDENING = 4
"""Factor from one attempt to the next where too few candidates passed."""

BEAM = 1.5
BEAM_EXTRA = 48
"""A beam, where the request sets none, is at least ``1.5 limit + 48`` wide (198 finds 0.99 of 100)."""

POST_BEAM = 1.25
"""Beam over candidates under ``post``, where few of them become hits."""

USUAL_EF = 64
"""The default ``ef`` that ``POST_BEAM`` was measured with."""

LARGE_SHARE = 0.25
"""A limit beyond this share of the vectors is served exactly: a walk would meet nearly all of them anyway."""

PATIENCE = 2.0
"""An index that exists, or a mode that was asked for, is kept until it costs this many times the exact search."""

RISK = 0.5
"""Share of the exact search's cost that an index search may cost where neither was asked for: it may have to be
widened, or be replaced in the end."""

NOT_INDEXED = "not indexed"
CANNOT_FILTER = "this kind of index cannot search with a filter"
LARGE_LIMIT = "the limit is a large share of the rows"


class Way(IntEnum):
    """The procedures of the executor."""

    EMPTY = 0
    EXACT = 1
    EXACT_FILTERED = 2
    INDEX = 3
    """The index over all its rows; dead ones are over-fetched and dropped, widening."""
    INDEX_FILTERED = 4
    """The index told which rows match and are alive."""
    INDEX_POST = 5
    """The index over all its rows; those that do not match are dropped, widening."""


class PartFacts(NamedTuple):
    """What the planner knows of a part.

    Attributes:
        rows: All rows, dead ones included.
        dead: Dead rows.
        vectors: Rows with a vector, dead ones included.
        capabilities: Of its index; ``None`` without one.
        estimate: Rows that meet the filter, dead ones included; ``None`` without a filter.
        counted: The estimate is the exact number of rows that match, are alive and have a vector.
    """

    rows: int
    dead: int
    vectors: int
    dim: int
    capabilities: Capabilities | None
    estimate: Estimate | None = None
    counted: bool = False


class Ask(NamedTuple):
    """What the request says to the planner. ``params``: search parameters of the index, checked."""

    limit: int
    mode: FilterMode = FilterMode.AUTO
    exact: bool = False
    params: Mapping[str, Any] | None = None


class Step(NamedTuple):
    """How to search one part.

    Attributes:
        strategy: The word for ``types.SegmentPlan``.
        estimated: Rows expected to match, be alive and have a vector.
        k: Candidates to ask of the index, each query; of a filtered walk the rows that its beam spans, matching or not.
            0 where the index is not used.
        params: Parameters for the index.
        reason: Why this is not what was asked for, or ``None``.
        cost: Microseconds that the index is expected to take for one query; 0 where it is not used.
    """

    way: Way
    strategy: str
    estimated: int
    k: int = 0
    params: Mapping[str, Any] = {}
    reason: str | None = None
    cost: float = 0.0


def plan(facts: PartFacts, ask: Ask) -> Step:
    """Chooses the way of one part."""
    alive = facts.rows - facts.dead
    if alive <= 0 or facts.vectors <= 0:
        return Step(Way.EMPTY, "empty", 0)
    if facts.estimate is None:
        return _unfiltered(facts, ask)
    if facts.estimate.high <= 0:
        return Step(Way.EMPTY, "empty", 0)
    matches = _expected(facts)
    exact = Step(Way.EXACT_FILTERED, "exact_filtered", round(matches))
    if ask.exact or ask.mode is FilterMode.PRE:
        return exact
    capabilities = facts.capabilities
    if capabilities is None or capabilities.exact:
        return exact if ask.mode is FilterMode.AUTO else exact._replace(reason=NOT_INDEXED)
    if ask.mode is FilterMode.IN:
        return _within(facts, ask, matches, exact, PATIENCE)
    if ask.mode is FilterMode.POST:
        return _after(facts, ask, matches, exact, PATIENCE)
    return _cheapest(facts, ask, matches, exact)


def _unfiltered(facts: PartFacts, ask: Ask) -> Step:
    alive = facts.rows - facts.dead
    vectors = facts.vectors
    expected = min(alive, vectors) if vectors == facts.rows else round(vectors * alive / facts.rows)
    capabilities = facts.capabilities
    if ask.exact or capabilities is None or capabilities.exact:
        return Step(Way.EXACT, "exact", expected)
    k = ask.limit + SLACK
    if facts.dead:
        # Dropping them shows whether deaths are crowded around the query; a bitmap of the living would hide it.
        k = math.ceil(k * MARGIN * facts.rows / alive)
    if k > vectors * LARGE_SHARE:
        return Step(Way.EXACT, "exact", expected, reason=LARGE_LIMIT)
    params = beam(capabilities, ask.params, k, ask.limit * BEAM + BEAM_EXTRA)
    cost = costs.walk(vectors, facts.dim, _ef(params))
    if cost > PATIENCE * costs.scan(vectors, facts.dim):
        return Step(Way.EXACT, "exact", expected, reason="exact search costs less at this limit and these parameters")
    return Step(Way.INDEX, capabilities.family, expected, k, params, None, cost)


def _expected(facts: PartFacts) -> float:
    """Rows that match, are alive and have a vector: the estimate thinned by the shares of living rows and vectors."""
    estimate = facts.estimate
    assert estimate is not None
    if facts.counted:
        return float(estimate.expected)
    alive = (facts.rows - facts.dead) / facts.rows
    return float(estimate.expected) * alive * (facts.vectors / facts.rows)


def _within(facts: PartFacts, ask: Ask, matches: float, exact: Step, patience: float) -> Step:
    """The index restricted to matching rows, or the exact search with the reason why not."""
    capabilities = facts.capabilities
    assert capabilities is not None
    if not capabilities.filtered:
        return exact._replace(reason=CANNOT_FILTER)
    selectivity = matches / facts.vectors
    least = capabilities.min_filtered_selectivity
    if selectivity < least:
        return exact._replace(reason=f"{selectivity:.1%} of the rows match, under {least:.0%} the index loses recall")
    # The beam has to span so many rows that enough of them match.
    span = math.ceil(ask.limit * SPAN / selectivity)
    if span > facts.vectors * LARGE_SHARE:
        return exact._replace(reason=LARGE_LIMIT)
    k = ask.limit + SLACK
    params = beam(capabilities, ask.params, k, max(span, ask.limit * BEAM + BEAM_EXTRA))
    ef = _ef(params)
    k = max(k, span, costs.visits(facts.vectors, None) // 4) if ef is None else ef
    cost = costs.walk(facts.vectors, facts.dim, ef) + costs.BITMAP
    if cost > patience * costs.scan_matches(matches, facts.vectors, facts.dim):
        return exact._replace(reason=f"exact search over {matches:.0f} rows costs less")
    return Step(Way.INDEX_FILTERED, capabilities.family, exact.estimated, k, params, None, cost)


def _after(facts: PartFacts, ask: Ask, matches: float, exact: Step, patience: float) -> Step:
    """The index, then the filter, or the exact search with the reason why not."""
    capabilities = facts.capabilities
    assert capabilities is not None
    k = first_k(ask.limit, matches, facts.vectors)
    if k > facts.vectors * LARGE_SHARE:
        return exact._replace(reason=f"{matches:.0f} matching rows: exact search over them costs less than widening")
    params = beam(capabilities, ask.params, k, max(k * _post_beam(capabilities), ask.limit * BEAM + BEAM_EXTRA))
    cost = costs.walk(facts.vectors, facts.dim, _ef(params)) + k * costs.MEMBERSHIP
    if cost > patience * costs.scan_matches(matches, facts.vectors, facts.dim):
        return exact._replace(reason=f"exact search over {matches:.0f} rows costs less")
    return Step(Way.INDEX_POST, capabilities.family + "_post", exact.estimated, k, params, None, cost)


def _post_beam(capabilities: Capabilities) -> float:
    """Beam over candidates; an index whose default is wider than usual (inner products) needs more here as well."""
    ef = capabilities.search_params.get("ef")
    return POST_BEAM if ef is None else POST_BEAM * max(1.0, float(ef.default) / USUAL_EF)


def _cheapest(facts: PartFacts, ask: Ask, matches: float, exact: Step) -> Step:
    """The cheaper of both ways through the index where it undercuts the exact search; its reasons are no fallbacks."""
    within = _within(facts, ask, matches, exact, RISK)
    after = _after(facts, ask, matches, exact, RISK)
    if within.way is not Way.INDEX_FILTERED:
        return after if after.way is Way.INDEX_POST else exact
    if after.way is not Way.INDEX_POST:
        return within
    return min((within, after), key=lambda step: step.cost)


def first_k(limit: int, matches: float, vectors: int) -> int:
    """How many candidates to fetch so that ``limit`` of them pass, at an even spread of the matches, with a margin."""
    if matches < 1.0:
        return vectors
    return min(vectors, math.ceil(limit * MARGIN * vectors / matches) + SLACK)


def widened(k: int, passed: int, step: Step, facts: PartFacts, limit: int) -> int | None:
    """The next number of candidates after ``passed`` of ``k`` passed; ``None`` where the exact search costs less.

    The share that passed is the selectivity near this query, so a filter that is correlated with the query shows here.
    """
    needed = k * WIDENING if passed == 0 else math.ceil(limit * MARGIN * k / passed)
    wider = min(facts.vectors, max(needed, k + limit))
    return wider if wider <= k * WIDENING * WIDENING and affordable(wider, step, facts) else None


def affordable(k: int, step: Step, facts: PartFacts) -> bool:
    """Whether another search for ``k`` candidates is to be preferred to the exact one."""
    if k > facts.vectors * LARGE_SHARE:
        return False
    ef = _ef(step.params)
    cost = costs.walk(facts.vectors, facts.dim, None if ef is None else max(ef, k))
    if facts.estimate is None:
        return cost <= PATIENCE * costs.scan(facts.vectors, facts.dim)
    return cost <= PATIENCE * costs.scan_matches(step.estimated, facts.vectors, facts.dim)


def beam(capabilities: Capabilities, params: Mapping[str, Any] | None, k: int, least: float) -> Mapping[str, Any]:
    """Those of the request's parameters that the index knows, with ``ef`` at least ``k``.

    Args:
        least: What ``ef`` should be at least where the request does not set it.
    """
    known = capabilities.search_params
    out: dict[str, Any] = {} if not params else {name: value for name, value in params.items() if name in known}
    if "ef" in known:
        ef = int(out["ef"]) if "ef" in out else max(int(known["ef"].default), math.ceil(least))
        out["ef"] = max(ef, k)
    return out


def _ef(params: Mapping[str, Any]) -> int | None:
    ef = params.get("ef")
    return None if ef is None else int(ef)
