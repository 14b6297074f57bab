"""Orders of passages: several lists fused into one, and one list made diverse. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RRF_K = 60
"""The constant of reciprocal rank fusion, as its authors chose it."""


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]], k: int = RRF_K) -> list[tuple[str, float]]:
    """Ids by the sum of ``1 / (k + rank)`` over all lists, best first, equal sums by id.

    Source: Cormack, Clarke & Buettcher 2009.
    """
    sums: dict[str, float] = {}
    for ranking in rankings:
        for rank, one in enumerate(ranking, start=1):
            sums[one] = sums.get(one, 0.0) + 1.0 / (k + rank)
    return sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))


def maximal_marginal_relevance(
    relevance: NDArray[np.float64], vectors: NDArray[np.float32], limit: int, diversity: float
) -> list[int]:
    """Positions in an order that trades relevance for not repeating what is chosen already.

    Args:
        relevance: float64[n]; scaled to 0..1 here.
        vectors: float32[n, dim].
        diversity: 0 orders by relevance alone, 1 by difference alone.

    Source: Carbonell & Goldstein 1998.
    """
    n = len(relevance)
    spread = float(np.ptp(relevance)) if n else 0.0
    scaled = (relevance - relevance.min()) / spread if spread > 0 else np.ones(n)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)
    nearest = np.zeros(n)
    left = np.ones(n, dtype=bool)
    chosen: list[int] = []
    for _ in range(min(limit, n)):
        gains = np.where(left, (1.0 - diversity) * scaled - diversity * nearest, -np.inf)
        best = int(np.argmax(gains))
        chosen.append(best)
        left[best] = False
        nearest = np.maximum(nearest, unit @ unit[best])
    return chosen
