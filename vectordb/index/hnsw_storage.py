"""How a graph stores its vectors: at half precision where that was measured to be harmless, scaled into its range.

Half precision (11 bits, 6e-8 to 65504) halves memory and speeds up search, but ruins some data without a word: values
out of range make every query return nothing, and rows closer together than its rounding become indistinguishable. So
it is not assumed: a sample of the rows is searched exactly at both precisions, and where half precision would miss
more than :data:`CEILING` of the true neighbours, or values do not fit, the graph stores float32.

Rows are multiplied by a power of two, which is exact and changes no order, so that neither tiny nor huge values leave
the range of either precision; queries likewise where the metric needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.index import native
from vectordb.index.duplicates import Rows
from vectordb.metric import Metric, scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

CEILING = 0.99
"""The least fraction of true neighbours that exact search at half precision must find."""
_SAMPLE = 64
_NEIGHBOURS = 10
_TARGET_EXPONENT = 9
"""Scaled rows reach up to 2^9: room for later rows up to 2^15, and normal half-precision numbers down to 2^-14."""
_HIGHEST = 2.0**15
_FREE = range(-3, 12)
"""Exponents of the largest value that need no scaling."""


class Storage(NamedTuple):
    """How rows are stored: at half or single precision, multiplied by ``2 ** exponent``."""

    half: bool
    exponent: int

    @property
    def scale(self) -> float:
        return math.ldexp(1.0, self.exponent)

    def fits(self, rows: Rows, cancelled: Callable[[], bool]) -> bool:
        """Whether more rows stay within the range that was chosen."""
        return largest_component(rows, cancelled) * self.scale <= _HIGHEST

    def scaled(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[m, d] multiplied by the scale, C-contiguous; a copy only where needed."""
        if self.exponent == 0:
            return np.ascontiguousarray(vectors, dtype=np.float32)
        return np.ldexp(vectors, self.exponent).astype(np.float32, copy=False)


def largest_component(rows: Rows, cancelled: Callable[[], bool]) -> float:
    """The greatest absolute value; 0 of no rows."""
    return max((float(np.abs(block).max()) for _, block in rows.blocks(cancelled)), default=0.0)


def choose_exponent(largest: float) -> int:
    """The power of two that brings values up to ``largest`` into a safe range; 0 where they are in one."""
    if largest <= 0.0 or (top := math.frexp(largest)[1]) in _FREE:
        return 0
    return _TARGET_EXPONENT - top


def choose_storage(rows: Rows, metric: Metric, cancelled: Callable[[], bool]) -> Storage:
    """Decides how to store prepared vectors under a metric.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    exponent = choose_exponent(largest_component(rows, cancelled))
    # faiss has no half-precision L1: asking for it ends the process.
    half = metric is not Metric.L1 and half_ceiling(rows, metric, exponent, cancelled) >= CEILING
    return Storage(half, exponent)


def _halved(block: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return block.astype(np.float16).astype(np.float32)


def half_ceiling(rows: Rows, metric: Metric, exponent: int, cancelled: Callable[[], bool]) -> float:
    """:func:`ceiling` at half precision."""
    return ceiling(rows, metric, exponent, cancelled, _halved)


def ceiling(
    rows: Rows,
    metric: Metric,
    exponent: int,
    cancelled: Callable[[], bool],
    rounding: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> float:
    """Recall of exact search over rounded rows, measured with rows of the data as queries: 0 to 1.

    A row counts as found if its true score is as good as that of the last true neighbour. Prepared vectors under
    cosine are compared by Euclidean distance, as the graph does (``faiss_hnsw``).

    Args:
        rounding: What becomes of scaled rows float32[n, d] when they are stored.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    count = rows.count
    if not count:
        return 1.0
    native_metric = Metric.L2 if metric is Metric.COSINE else metric
    sample = np.unique(np.linspace(0, count - 1, min(_SAMPLE, count)).astype(np.int64))
    queries = rows.take(sample)
    scaled_queries = Storage(True, exponent).scaled(queries)
    keep = min(_NEIGHBOURS + 1, count)  # the query itself is among them
    true, half = _Best(len(queries), keep), _Best(len(queries), keep)
    for start, raw in rows.blocks(cancelled):
        block = Storage(True, exponent).scaled(raw)
        rounded = rounding(block)
        if not np.isfinite(rounded).all():
            return 0.0
        true.add(*native.nearest(scaled_queries, block, min(keep, len(block)), native_metric), start)
        half.add(*native.nearest(scaled_queries, rounded, min(keep, len(block)), native_metric), start)
    found = 0.0
    sign = -1.0 if metric.higher_is_better else 1.0
    for query, nearest, candidates in zip(queries, true.rows, half.rows, strict=True):
        worst = (sign * scores(query, rows.take(nearest[nearest >= 0]), metric)).max(initial=-np.inf)
        got = sign * scores(query, rows.take(candidates[candidates >= 0]), metric)
        found += float((got <= worst).sum()) / keep
    return found / len(queries)


class _Best:
    """The nearest rows of each query over all blocks so far."""

    def __init__(self, queries: int, keep: int) -> None:
        self.distances = np.full((queries, keep), np.inf, np.float32)
        self.rows = np.full((queries, keep), -1, np.int64)

    def add(self, distances: NDArray[np.float32], rows: NDArray[np.int64], start: int) -> None:
        distances = np.concatenate([self.distances, np.where(rows >= 0, distances, np.inf)], axis=1)
        rows = np.concatenate([self.rows, np.where(rows >= 0, rows + start, -1)], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, : self.rows.shape[1]]
        self.distances = np.take_along_axis(distances, order, axis=1)
        self.rows = np.take_along_axis(rows, order, axis=1)
