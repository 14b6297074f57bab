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

from vectordb.index import calibration
from vectordb.index.base import Capabilities
from vectordb.index.calibration import Calibration
from vectordb.metadata.estimate import Estimate
from vectordb.query import costs, targets
from vectordb.query.widths import OVERSAMPLING, SLACK, candidates, settings, spanned, spanning, width_of
from vectordb.types import FilterMode

MARGIN = 1.5
"""How many more candidates than the expectation are fetched where some of them will be dropped."""

SPAN = 1.7
"""How many times the rows among which ``limit`` matches are expected the beam of a filtered walk spans."""

WIDENING = 4
"""Factor from one attempt to the next where too few candidates passed."""

BEAM = 1.5
BEAM_EXTRA = 48
"""An index, where the request sets no width, spans at least ``1.5 limit + 48`` rows (198 finds 0.99 of 100)."""

POST_BEAM = 1.25
"""Rows spanned over candidates under ``post``, where few of them become hits."""

USUAL_SPAN = 64
"""The default span (``ef``) that ``POST_BEAM`` was measured with."""

LARGE_SHARE = 0.25
"""A limit beyond this share of the vectors is served exactly: a walk would meet nearly all of them anyway."""

PATIENCE = 2.0
"""An index that exists, or a mode that was asked for, is kept until it costs this many times the exact search."""

RISK = 0.45
"""Share of the exact search's cost that an index search may cost where neither was asked for: it may have to be
widened, or be replaced in the end, if the filter is correlated with the query ..."""

RISK_SCATTERED = 0.85
"""... which it is not where its rows lie scattered among all."""

PROBE = 48
DOUBT = 0.2
"""Where an index costs more than this share of the exact search, it matters whether the matching rows are scattered.
Where they are not, ``PROBE`` candidates are looked at before (a walk of half the usual width). The share that matches
is the selectivity near this query: the index is searched more widely from the start, or not at all."""

PROBE_EXPECTED = 3.0
"""A probe that expects fewer matches than this tells nothing."""

PROBE_TRUSTED = 0.7
"""A probe in which at least this part of the expected matches turns up changes no plan."""

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
        calibration: What recall the index has at which width; ``None`` where it was not measured.
        scattered: Whether the matching rows lie scattered among all; ``None`` where nobody looked.
        copied: The vectors of the matching rows were copied together.
    """

    rows: int
    dead: int
    vectors: int
    dim: int
    capabilities: Capabilities | None
    estimate: Estimate | None = None
    counted: bool = False
    calibration: Calibration | None = None
    scattered: bool | None = None
    copied: bool = False


class Ask(NamedTuple):
    """What the request says to the planner.

    Attributes:
        params: Search parameters of the index, checked.
        target: The recall to reach, in place of a width and an oversampling among them.
    """

    limit: int
    mode: FilterMode = FilterMode.AUTO
    exact: bool = False
    params: Mapping[str, Any] | None = None
    target: float | None = None


class Step(NamedTuple):
    """How to search one part.

    Attributes:
        strategy: The word for ``types.SegmentPlan``.
        estimated: Rows expected to match, be alive and have a vector.
        k: Candidates to ask of the index, each query; of a filtered walk the rows that it spans, matching or not. 0
            where the index is not used.
        rescored: Of the candidates that pass, how many are scored from their full vectors.
        params: Parameters for the index.
        reason: Why this is not what was asked for, or ``None``.
        cost: Microseconds that the index is expected to take for one query; 0 where it is not used.
        recall: What the calibration promises, where a target was set; else 0.
        probe: Candidates to look at before the index is searched in earnest; 0 for none.
        patience: How many times the exact search another attempt may cost.
        doubt: The choice hangs on whether the matching rows are scattered, and nobody looked.
    """

    way: Way
    strategy: str
    estimated: int
    k: int = 0
    rescored: int = 0
    params: Mapping[str, Any] = {}
    reason: str | None = None
    cost: float = 0.0
    recall: float = 0.0
    probe: int = 0
    patience: float = PATIENCE
    doubt: bool = False


def plan(facts: PartFacts, ask: Ask) -> Step:
    """Chooses the way of one part."""
    if ask.target is not None and (ask.target >= 1.0 or facts.calibration is None) and not ask.exact:
        return _untargeted(facts, ask)
    alive = facts.rows - facts.dead
    if alive <= 0 or facts.vectors <= 0:
        return Step(Way.EMPTY, "empty", 0)
    if facts.estimate is None:
        return _unfiltered(facts, ask)
    if facts.estimate.high <= 0:
        return Step(Way.EMPTY, "empty", 0)
    matches = expected(facts)
    exact = Step(Way.EXACT_FILTERED, "exact_filtered", round(matches))
    if ask.exact or ask.mode is FilterMode.PRE:
        return exact
    capabilities = facts.capabilities
    if capabilities is None or capabilities.exact:
        return exact if ask.mode is FilterMode.AUTO else exact._replace(reason=NOT_INDEXED)
    # A mode that was asked for is not given up for a copy.
    most = PATIENCE * costs.scan_matches(matches, facts.vectors, facts.dim)
    if ask.mode is FilterMode.IN:
        return _within(facts, ask, matches, exact, most)
    if ask.mode is FilterMode.POST:
        return _after(facts, ask, matches, exact, most)
    return _cheapest(facts, ask, matches, exact)


def one_way(facts: PartFacts, ask: Ask, mode: FilterMode) -> Step:
    """The step of a filtered search through the index under ``in`` or ``post``, whatever it costs; the exact step with
    the reason where it cannot be gone."""
    if ask.target is not None and facts.calibration is None:
        return _untargeted(facts, ask._replace(mode=mode))
    matches = expected(facts)
    exact = Step(Way.EXACT_FILTERED, "exact_filtered", round(matches))
    return (_within if mode is FilterMode.IN else _after)(facts, ask, matches, exact, math.inf)


def _untargeted(facts: PartFacts, ask: Ask) -> Step:
    """A target of 1, or one that no calibration tells how to reach."""
    step = plan(facts, ask._replace(exact=True, target=None))
    if step.way is Way.EMPTY or facts.capabilities is None or facts.capabilities.exact or ask.mode is FilterMode.PRE:
        return step
    assert ask.target is not None
    return step._replace(reason=targets.ALL_WANTED if ask.target >= 1.0 else targets.UNCALIBRATED)


def _aimed(facts: PartFacts, ask: Ask, way: str, share: float) -> tuple[Ask, float] | None:
    """The request with the setting that reaches its target that way, and the recall to expect; None where none does."""
    if ask.target is None:
        return ask, 0.0
    capabilities = facts.capabilities
    assert capabilities is not None
    assert facts.calibration is not None
    wanted = (way, share, ask.limit, ask.target)
    point = targets.setting(facts.calibration, capabilities, (facts.vectors, facts.dim), wanted)
    if point is None:
        return None
    params = dict(ask.params or ())
    if capabilities.width is not None and point.width is not None:
        params[capabilities.width] = point.width
    if OVERSAMPLING in capabilities.search_params:
        params[OVERSAMPLING] = point.oversampling
    return ask._replace(params=params), point.recall


def _unfiltered(facts: PartFacts, ask: Ask) -> Step:
    alive = facts.rows - facts.dead
    vectors = facts.vectors
    expected = min(alive, vectors) if vectors == facts.rows else round(vectors * alive / facts.rows)
    capabilities = facts.capabilities
    if ask.exact or capabilities is None or capabilities.exact:
        return Step(Way.EXACT, "exact", expected)
    aimed = _aimed(facts, ask, calibration.ALL, 1.0)
    if aimed is None:
        return Step(Way.EXACT, "exact", expected, reason=targets.MISSED)
    ask, recall = aimed
    k = rescored = candidates(capabilities, ask.limit, ask.params)
    if facts.dead:
        # Dropping them shows whether deaths are crowded around the query; a bitmap of the living would hide it.
        k = math.ceil(k * MARGIN * facts.rows / alive)
    if k > vectors * LARGE_SHARE:
        return Step(Way.EXACT, "exact", expected, reason=LARGE_LIMIT)
    params = settings(capabilities, ask.params, k, ask.limit * BEAM + BEAM_EXTRA)
    cost = _cost(facts, capabilities, params, rescored)
    if cost > PATIENCE * costs.scan(vectors, facts.dim):
        return Step(Way.EXACT, "exact", expected, reason="exact search costs less at this limit and these parameters")
    return Step(Way.INDEX, capabilities.family, expected, k, rescored, params, None, cost, recall)


def expected(facts: PartFacts) -> float:
    """Rows that match, are alive and have a vector: the estimate thinned by the shares of living rows and vectors."""
    estimate = facts.estimate
    assert estimate is not None
    if facts.counted:
        return float(estimate.expected)
    alive = (facts.rows - facts.dead) / facts.rows
    return float(estimate.expected) * alive * (facts.vectors / facts.rows)


def exact_cost(facts: PartFacts, matches: float) -> float:
    """Microseconds of an exact search over so many matching rows for one query, where they lie or in their copy."""
    picked = costs.scan_matches(matches, facts.vectors, facts.dim)
    return min(picked, costs.scan_copied(matches, facts.dim)) if facts.copied else picked


def _within(facts: PartFacts, ask: Ask, matches: float, exact: Step, most: float) -> Step:
    """The index restricted to matching rows where it takes ``most`` microseconds at most, or the exact search with the
    reason why not."""
    capabilities = facts.capabilities
    assert capabilities is not None
    if not capabilities.filtered:
        return exact._replace(reason=CANNOT_FILTER)
    # A filter may be expected to match no row, and match one all the same.
    selectivity = max(matches, 1.0) / facts.vectors
    least = capabilities.min_filtered_selectivity
    if selectivity < least:
        return exact._replace(reason=f"{selectivity:.1%} of the rows match, under {least:.0%} the index loses recall")
    aimed = _aimed(facts, ask, calibration.WITHIN, selectivity)
    if aimed is None:
        return exact._replace(reason=targets.MISSED)
    ask, recall = aimed
    rescored = candidates(capabilities, ask.limit, ask.params)
    # The index has to span so many rows that enough of them match.
    span = math.ceil((rescored - SLACK) * SPAN / selectivity)
    if span > facts.vectors * LARGE_SHARE:
        return exact._replace(reason=LARGE_LIMIT)
    params = settings(capabilities, ask.params, rescored, max(span, ask.limit * BEAM + BEAM_EXTRA))
    k = max(rescored, spanned(capabilities, params, span))
    cost = _cost(facts, capabilities, params, rescored, filtered=True) + costs.BITMAP
    if cost > most:
        return exact._replace(reason=f"exact search over {matches:.0f} rows costs less")
    return Step(Way.INDEX_FILTERED, capabilities.family, exact.estimated, k, rescored, params, None, cost, recall)


def _after(facts: PartFacts, ask: Ask, matches: float, exact: Step, most: float) -> Step:
    """The index, then the filter, likewise."""
    capabilities = facts.capabilities
    assert capabilities is not None
    aimed = _aimed(facts, ask, calibration.AFTER, matches / facts.vectors)
    if aimed is None:
        return exact._replace(reason=targets.MISSED)
    ask, recall = aimed
    rescored = candidates(capabilities, ask.limit, ask.params)
    k = first_k(rescored - SLACK, matches, facts.vectors)
    if k > facts.vectors * LARGE_SHARE:
        return exact._replace(reason=f"{matches:.0f} matching rows: exact search over them costs less than widening")
    params = settings(capabilities, ask.params, k, max(k * _post_span(capabilities), ask.limit * BEAM + BEAM_EXTRA))
    cost = _cost(facts, capabilities, params, rescored) + k * costs.MEMBERSHIP
    if cost > most:
        return exact._replace(reason=f"exact search over {matches:.0f} rows costs less")
    family = capabilities.family + "_post"
    return Step(Way.INDEX_POST, family, exact.estimated, k, rescored, params, None, cost, recall)


def _cost(
    facts: PartFacts, capabilities: Capabilities, params: Mapping[str, Any], rescored: int, *, filtered: bool = False
) -> float:
    """Microseconds of one search of the index, with the scoring of its candidates where those are many."""
    effort = costs.effort_of(capabilities, facts.vectors)
    walk = costs.walk(effort, facts.vectors, facts.dim, width_of(capabilities, params), filtered=filtered)
    return walk + rescored * facts.dim * costs.RESCORE if capabilities.oversampling > 1.0 else walk


def _post_span(capabilities: Capabilities) -> float:
    """Rows to span over candidates; an index whose default is wider than usual (inner products) needs more here too."""
    if capabilities.width is None:
        return POST_BEAM
    usual = float(capabilities.search_params[capabilities.width].default) / capabilities.width_per_row
    return POST_BEAM * max(1.0, usual / USUAL_SPAN) if capabilities.has_beam else POST_BEAM


def _cheapest(facts: PartFacts, ask: Ask, matches: float, exact: Step) -> Step:
    """The cheaper of both ways through the index where it undercuts the exact search; its reasons are no fallbacks."""
    total = exact_cost(facts, matches)
    within = _within(facts, ask, matches, exact, RISK_SCATTERED * total)
    after = _after(facts, ask, matches, exact, RISK_SCATTERED * total)
    if within.way is Way.INDEX_FILTERED and (after.way is not Way.INDEX_POST or within.cost <= after.cost):
        chosen = within
    elif after.way is Way.INDEX_POST:
        chosen = after
    else:
        return exact
    # Neither was asked for: a retry has to be cheaper than the exact search.
    chosen = chosen._replace(patience=1.0)
    if facts.scattered or chosen.cost <= DOUBT * total:
        return chosen
    doubt = facts.scattered is None
    if chosen.cost > RISK * total:
        return exact._replace(doubt=doubt)
    probed = PROBE * matches / facts.vectors >= PROBE_EXPECTED
    return chosen._replace(probe=PROBE if probed else 0, doubt=doubt)


def after_probe(passed: int, step: Step, facts: PartFacts, wanted: int) -> int:
    """How many candidates to ask for after ``passed`` of a probe's matched; 0 where the exact search costs less."""
    share = max(passed, 0.5) / step.probe
    if share >= PROBE_TRUSTED * step.estimated / facts.vectors:
        return step.k
    if step.way is Way.INDEX_FILTERED:
        k = max(step.k, math.ceil(wanted * SPAN / share))
    else:
        k = max(step.k, first_k(wanted, share * facts.vectors, facts.vectors))
    return k if affordable(k, step._replace(patience=RISK), facts) else 0


def first_k(limit: int, matches: float, vectors: int) -> int:
    """How many candidates to fetch so that ``limit`` of them pass, at an even spread of the matches, with a margin."""
    if matches < 1.0:
        return vectors
    return min(vectors, math.ceil(limit * MARGIN * vectors / matches) + SLACK)


def widened(k: int, passed: int, step: Step, facts: PartFacts, wanted: int) -> int | None:
    """The next number of candidates after ``passed`` of ``k`` passed; ``None`` where the exact search costs less.

    The share that passed is the selectivity near this query, so a filter that is correlated with the query shows here.

    Args:
        wanted: How many are to pass.
    """
    needed = k * WIDENING if passed == 0 else math.ceil(wanted * MARGIN * k / passed)
    wider = min(facts.vectors, max(needed, k + wanted))
    return wider if wider <= k * WIDENING * WIDENING and affordable(wider, step, facts) else None


def affordable(k: int, step: Step, facts: PartFacts) -> bool:
    """Whether another search for ``k`` candidates is to be preferred to the exact one."""
    if k > facts.vectors * LARGE_SHARE:
        return False
    assert facts.capabilities is not None
    params, filtered = spanning(facts.capabilities, step.params, k), step.way is Way.INDEX_FILTERED
    cost = _cost(facts, facts.capabilities, params, step.rescored, filtered=filtered)
    if facts.estimate is None:
        return cost <= step.patience * costs.scan(facts.vectors, facts.dim)
    return cost <= step.patience * exact_cost(facts, step.estimated)
