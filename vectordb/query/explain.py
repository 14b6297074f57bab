"""Plans for people: why each part is searched as it is, what else was possible, and how good an answer was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from vectordb.metadata.estimate import Estimate
from vectordb.query import costs, planner, routes, sampling
from vectordb.query.planner import Ask, PartFacts, Step, Way
from vectordb.query.run import Run
from vectordb.results import Alternative, Plan, SegmentPlan
from vectordb.types import FilterMode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.query.deadline import Deadline
    from vectordb.query.spec import Outcome, SearchSpec
    from vectordb.segments.part import Part

_EXACT = frozenset({"exact", "exact_filtered", "empty"})


class _Reasons(NamedTuple):
    """Why a step was chosen, its estimated cost in microseconds, and the ways that were not."""

    reason: str
    cost: float
    alternatives: tuple[Alternative, ...]


def explain(parts: Sequence[Part], spec: SearchSpec, dim: int) -> tuple[SegmentPlan, ...]:
    """How each part would be searched, by estimates, without running anything.

    Args:
        dim: Length of the vectors.
    """
    ask = routes.ask_of(spec)
    plans = []
    for part in parts:
        estimate = None if spec.where is None or part.rows == 0 else part.estimate(spec.where)
        facts = routes.facts_of(part, dim, estimate)
        step = planner.plan(facts, ask)
        found = SegmentPlan(
            part.name,
            step.strategy,
            part.rows,
            step.estimated,
            fallback_reason=step.reason,
            filtered=spec.where is not None,
            params=step.params,
        )
        plans.append(_with_reasons(found, facts, ask))
    return tuple(plans)


def analyzed(
    parts: Sequence[Part], query: NDArray[np.float32], spec: SearchSpec, outcome: Outcome, deadline: Deadline
) -> Plan:
    """The plan of a search that ran, with the reasons of each choice and an estimate of the answer's recall.

    The estimate (``query/sampling.py``) compares all rows, or in random blocks as many as a quarter of a second
    allows; after an exact search nothing is compared: its recall is 1.

    Args:
        query: float32[1, d], prepared: the only one of the search.
        spec: The search, without ``min_score``.
        outcome: What it found.

    Raises:
        DeadlineExceeded: The time of the whole request is up, and no partial answer is wanted.
    """
    ask = routes.ask_of(spec)
    plans = []
    for part, plan in zip(parts, outcome.plan.segments, strict=True):
        facts = routes.facts_of(part, query.shape[1], None)
        if spec.where is not None and part.rows:
            # As the search was planned: by the matching rows that have a vector. ``plan.matched`` has all of them.
            selection = part.selection(spec.where)
            facts = facts._replace(
                estimate=Estimate.exact(len(selection)),
                counted=True,
                scattered=part.spread.get(spec.where),
                copied=selection.copied is not None,
            )
        plans.append(_with_reasons(plan, facts, ask))
    started = perf_counter()
    whole = outcome.incomplete_reason is None
    if whole and all(plan.strategy in _EXACT for plan in plans):
        recall: sampling.RecallEstimate | None = sampling.RecallEstimate(1.0, 1.0, 1.0)
    else:
        recall = sampling.estimate(Run(parts, query, spec, deadline), outcome.winners[0])
    timings = {**outcome.plan.timings_ms, "recall": (perf_counter() - started) * 1e3}
    whole_plan = replace(outcome.plan, segments=tuple(plans), timings_ms=timings)
    if recall is None:
        return whole_plan
    return replace(whole_plan, recall=recall.recall, recall_low=recall.low, recall_sampled=recall.sampled)


def _with_reasons(plan: SegmentPlan, facts: PartFacts, ask: Ask) -> SegmentPlan:
    reasons = _reasons(facts, ask)
    reason = plan.fallback_reason or reasons.reason
    return plan._replace(reason=reason, cost_us=reasons.cost, alternatives=reasons.alternatives)


def _reasons(facts: PartFacts, ask: Ask) -> _Reasons:
    step = planner.plan(facts, ask)
    if step.way is Way.EMPTY:
        return _Reasons("nothing in it can match", 0.0, ())
    exact, others = _ways(facts, ask)
    if step.way in (Way.EXACT, Way.EXACT_FILTERED):
        return _Reasons(step.reason or _why_exact(facts, ask), exact.cost_us or 0.0, others)
    alternatives = (exact, *(other for other in others if other.strategy != step.strategy))
    if step.recall:
        width = None if facts.capabilities is None else facts.capabilities.width
        setting = "its search" if width is None else f"{width} {step.params[width]}"
        return _Reasons(f"{setting} is calibrated to a recall of {step.recall:.3f}", step.cost, alternatives)
    if facts.estimate is not None and ask.mode is not FilterMode.AUTO:
        return _Reasons(f"filter_mode is '{ask.mode.value}'", step.cost, alternatives)
    return _Reasons("the least estimated cost", step.cost, alternatives)


def _why_exact(facts: PartFacts, ask: Ask) -> str:
    if ask.exact:
        return "exact search was asked for"
    if facts.capabilities is None:
        return "it has no index"
    if facts.capabilities.exact:
        return "its index is exact"
    return "filter_mode is 'pre'" if ask.mode is FilterMode.PRE else "the least estimated cost"


def _ways(facts: PartFacts, ask: Ask) -> tuple[Alternative, tuple[Alternative, ...]]:
    """The exact way, and those through the index: each with its estimated cost, or why it cannot be gone."""
    vectors, dim = facts.vectors, facts.dim
    if facts.estimate is None:
        exact = Alternative("exact", costs.scan(vectors, dim))
    else:
        exact = Alternative("exact_filtered", planner.exact_cost(facts, planner.expected(facts)))
    capabilities = facts.capabilities
    if capabilities is None or capabilities.exact:
        return exact, ()
    free = ask._replace(exact=False)
    if facts.estimate is None:
        steps = {capabilities.family: planner.plan(facts, free)}
    else:
        steps = {
            capabilities.family: planner.one_way(facts, free, FilterMode.IN),
            capabilities.family + "_post": planner.one_way(facts, free, FilterMode.POST),
        }
    return exact, tuple(_alternative(name, step) for name, step in steps.items())


def _alternative(strategy: str, step: Step) -> Alternative:
    if step.way in (Way.EXACT, Way.EXACT_FILTERED, Way.EMPTY):
        return Alternative(strategy, None, step.reason)
    return Alternative(strategy, step.cost)
