"""Hybrid search: the vectors' leg and the texts' leg, each with its own candidates, fused into one order.

    rrf       sum over the legs of 1 / (k + rank), ranks from 1
    weights   sum over the legs of weight * (score - worst) / (best - worst), over the leg's candidates; 1 where all of
              them score alike

A record that a leg did not find gets nothing from it. Computed in double precision, the vectors' leg first, and rounded
to float32 once; equal scores by id.

Source: G. Cormack, C. Clarke, S. Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods", SIGIR 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from vectordb.metric import Metric
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.executor import execute
from vectordb.query.keyword import execute_text
from vectordb.query.merge import nearest
from vectordb.query.spec import Outcome, SearchSpec, Winners
from vectordb.requests import Fusion, Rrf
from vectordb.results import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.segments.part import Part
    from vectordb.text.query import TextQuery

CANDIDATES = 100
"""Candidates of each leg, or the limit where that is more."""

_PART = 32
_LARGEST = float(np.finfo(np.float32).max)


def execute_hybrid(
    parts: Sequence[Part],
    queries: tuple[NDArray[np.float32], Sequence[TextQuery]],
    spec: SearchSpec,
    fusion: Fusion,
    deadline: Deadline = NO_DEADLINE,
) -> Outcome:
    """Searches by vector and by text and fuses the answers.

    Args:
        queries: float32[q, d], prepared, and the text that goes with each.
        spec: ``min_score`` bounds the vectors' leg.

    Raises:
        DeadlineExceeded: As :func:`execute`.
    """
    depth = max(spec.limit, CANDIDATES)
    vectors, texts = queries
    by_text = execute_text(parts, texts, replace(spec, limit=depth, min_score=None), deadline)
    by_vector = execute(parts, vectors, replace(spec, limit=depth), deadline)
    started = perf_counter()
    winners = [
        fused(legs, fusion, spec.metric, spec.limit) for legs in zip(by_vector.winners, by_text.winners, strict=True)
    ]
    timings = {**by_vector.plan.timings_ms, **by_text.plan.timings_ms, "fuse": (perf_counter() - started) * 1e3}
    plan = Plan((*by_vector.plan.segments, *by_text.plan.segments), spec.filter_mode, spec.version, timings)
    fraction = (by_vector.searched_fraction + by_text.searched_fraction) / 2
    return Outcome(winners, plan, [], by_vector.incomplete_reason or by_text.incomplete_reason, fraction)


def fused(legs: tuple[Winners, Winners], fusion: Fusion, metric: Metric, limit: int) -> Winners:
    """One order from the winners of both legs, the vectors' first.

    Args:
        metric: Which vector scores are better.
        limit: Hits kept.
    """
    if isinstance(fusion, Rrf):
        shares = [1.0 / (fusion.k + np.arange(1, len(leg) + 1)) for leg in legs]
    else:
        by_vector, by_text = fusion.weights
        shares = [by_vector * _scaled(legs[0], metric.higher_is_better), by_text * _scaled(legs[1], True)]
    where = np.concatenate([leg.parts << _PART | leg.rows for leg in legs])
    found, firsts, places = np.unique(where, return_index=True, return_inverse=True)
    # Adds in the order given, one by one.
    scores = np.bincount(places, np.concatenate(shares), len(found)).astype(np.float32)
    ids = [*legs[0].ids, *legs[1].ids]
    best = nearest(-scores, limit).tolist()
    best.sort(key=lambda i: (-scores[i], ids[firsts[i]]))
    order = np.array(best[:limit], np.int64)
    return Winners(
        [ids[i] for i in firsts[order].tolist()],
        scores[order],
        found[order] >> _PART,
        found[order] & ((1 << _PART) - 1),
    )


def _scaled(leg: Winners, higher_is_better: bool) -> NDArray[np.float64]:
    """The scores of a leg's hits between 0 (the worst of them) and 1 (the best): float64[k]."""
    if not len(leg):
        return np.empty(0)
    # Scores beyond single precision are infinite, and of infinities no shares can be made.
    scores = leg.scores.astype(np.float64).clip(-_LARGEST, _LARGEST)
    if not higher_is_better:
        scores = -scores
    worst, best = scores[-1], scores[0]
    return np.asarray((scores - worst) / (best - worst)) if best > worst else np.ones(len(leg))
