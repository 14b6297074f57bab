"""Distances, normalisation, and THE sign convention of this library.

Inside the engine a *distance* is always smaller-is-closer:

    metric   distance (inside)      score (at the edge)          better score
    cosine   -cos(q, x)             cos(q, x)                    higher
    dot      -q.x                   q.x                          higher
    l2       squared Euclidean      Euclidean (its square root)  lower
    l1       Manhattan              Manhattan                    lower

Only :func:`scores` makes the scores that users see. It computes each row by itself, in double precision and in one
order of summation that hangs on the dimension and the processor alone, and rounds to float32 once. So on one machine
the same pair of vectors has the same score to the last bit whatever the batch, segment, index kind or process that
found it.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 32_768
"""So many numbers are normalised at a time."""


class Metric(StrEnum):
    """How two vectors are compared."""

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"
    L1 = "l1"

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is a better one."""
        return self is Metric.COSINE or self is Metric.DOT


def norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean lengths of the rows of float32[n, d], each computed by itself: float64[n]."""
    wide = vectors.astype(np.float64, order="C")
    return np.sqrt(_products(wide, wide))


def length(vectors: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
    """The Euclidean length of the only row of float32[1, d], as :func:`norms` has it, and that row as float64[1, d]."""
    wide = vectors.astype(np.float64, order="C")
    return math.sqrt(_products(wide, wide).item()), wide


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows of float32[n, d] scaled to unit length, as a new float32[n, d]. Zero rows stay zero.

    In blocks that stay in a processor's cache: double precision of a whole batch would be memory that the system has to
    find, clear and take back each time.
    """
    out = np.empty(vectors.shape, np.float32)
    step = max(1, _BLOCK // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        wide = vectors[start : start + step].astype(np.float64)
        lengths = np.sqrt(np.add.reduce(wide * wide, axis=1))
        lengths[lengths == 0.0] = 1.0
        np.divide(wide, lengths[:, None], out=out[start : start + step], casting="same_kind")
    return out


def prepared(vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """The form in which rows and queries are indexed and compared: unit length under cosine, else as given."""
    return normalized(vectors) if metric is Metric.COSINE else vectors


def scores(query: NDArray[np.float32], rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """The scores that users see: one prepared query float32[d] against prepared rows float32[n, d] -> float32[n].

    Or many at once, each against rows of its own: float32[q, 1, d] and float32[q, n, d] -> float32[q, n], the same
    to the last bit.
    """
    # Rows one after the other, as BLAS is to see them: its order of summation may depend on strides.
    wide = rows.astype(np.float64, order="C")
    wide_query = query.astype(np.float64)
    if metric is Metric.COSINE or metric is Metric.DOT:
        out = _products(wide, wide_query)
    else:
        np.subtract(wide, wide_query, out=wide)
        if metric is Metric.L2:
            out = _products(wide, wide)
        else:
            np.abs(wide, out=wide)
            out = np.add.reduce(wide, axis=-1)
    if metric is Metric.COSINE:
        # Rounding may put it a hair outside [-1, 1].
        np.maximum(out, -1.0, out=out)
        np.minimum(out, 1.0, out=out)
        return out.astype(np.float32)
    if metric is Metric.L2:
        np.sqrt(out, out=out)
    # A sum may exceed float32: such a score is infinite rather than a warning.
    with np.errstate(over="ignore"):
        return out.astype(np.float32)


_ONE_THREAD = 8_192
"""Up to so many dimensions a product of BLAS is summed by one thread (OpenBLAS: up to 10,000)."""


def _products(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inner product of each row by itself, in an order of summation that depends on the dimension alone.

    Not einsum or matmul: theirs may depend on the number of rows.
    """
    if left.shape[-1] <= _ONE_THREAD:
        return np.vecdot(left, right)  # type: ignore[no-any-return]
    return np.add.reduce(left * right, axis=-1)  # type: ignore[no-any-return]


def nearest_first(
    query: NDArray[np.float32], rows: NDArray[np.float32], metric: Metric
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Prepared rows float32[n, d] by their distance to one prepared query float32[d], equal ones in any order.

    Returns:
        Their order int64[n], and the distances float32[n], ascending: what :func:`distances` makes of :func:`scores`,
        but for the sign of a zero.
        Under cosine with half the calls of numpy, which are most of the cost for a few rows.
    """
    by_product = metric is Metric.COSINE and rows.shape[1] <= _ONE_THREAD
    if by_product:
        # A sum of negated products is the negated sum, exactly, but for the sign of a zero.
        wide = rows.astype(np.float64, order="C")
        found = np.vecdot(wide, (-query).astype(np.float64)).astype(np.float32)
    else:
        found = distances(scores(query, rows, metric), metric)
    order = found.argsort(kind="stable")
    found = found.take(order)
    if by_product and len(found) and (found.item(0) < -1.0 or found.item(-1) > 1.0):
        found = found.clip(-1.0, 1.0)  # as scores() does; it changes no order
    return order, found


def distances(scores_: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Scores turned so that smaller is closer, for ranking: float32[n]."""
    return -scores_ if metric.higher_is_better else scores_
