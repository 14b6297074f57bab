"""Vectors in the range of single precision, for libraries that sum squares and products in it.

Rows are multiplied by a power of two, which is exact and changes no order, so that squares neither overflow nor
vanish; queries likewise. Unit vectors (cosine) need none of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.errors import DimensionMismatch
from vectordb.index.base import Neighbours
from vectordb.index.duplicates import Rows
from vectordb.index.hnsw_storage import largest_component
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FREE = range(-16, 17)
"""Exponents of the largest component that need no scaling: squares of 2^16 in 65,536 dimensions reach 2^48."""
_HIGHEST = 2.0**40
_TOO_FAR = 2.0**24
"""A query so many times larger than all rows is equally far from them in single precision."""
NORMAL = range(-40, 41)
"""Exponents of the largest component of queries whose inner products by faiss need no scaling."""


class Scaling(NamedTuple):
    """What rows are multiplied by: ``2 ** exponent``. ``largest``: their greatest absolute component, unscaled."""

    exponent: int
    largest: float

    @classmethod
    def of(cls, rows: Rows, metric: Metric, cancelled: Callable[[], bool]) -> Scaling:
        """Measures the rows.

        Raises:
            BuildCancelled: ``cancelled()`` turned true.
        """
        if metric is Metric.COSINE:
            return cls(0, 1.0)
        largest = largest_component(rows, cancelled)
        top = math.frexp(largest)[1]
        return cls(0 if largest == 0.0 or top in _FREE else -top, largest)

    def fits(self, rows: Rows, metric: Metric, cancelled: Callable[[], bool]) -> bool:
        """Whether more rows stay within the range that was chosen."""
        if metric is Metric.COSINE:
            return True
        return math.ldexp(largest_component(rows, cancelled), self.exponent) <= _HIGHEST

    def rows(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[m, d] as they are stored, C-contiguous; a copy only where needed."""
        if self.exponent == 0:
            return np.ascontiguousarray(vectors, dtype=np.float32)
        return np.ldexp(vectors, self.exponent).astype(np.float32, copy=False)

    def queries(self, queries: NDArray[np.float32], dim: int, metric: Metric) -> NDArray[np.float32] | None:
        """Queries float32[q, d] to be compared with stored rows; None where single precision cannot rank the rows.

        Raises:
            DimensionMismatch: They have another dimension.
        """
        if queries.shape[1] != dim:
            raise DimensionMismatch(
                f"this index has dim {dim}, got {queries.shape[1]}", expected=dim, got=queries.shape[1]
            )
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if metric is Metric.COSINE or not len(queries):
            return queries
        if metric is Metric.DOT:
            return each_in_range(queries, _FREE)
        most = float(np.abs(queries).max())
        if most > _TOO_FAR * max(self.largest, math.ldexp(1.0, -self.exponent)):
            return None
        return self.rows(queries)


def each_in_range(queries: NDArray[np.float32], free: range) -> NDArray[np.float32]:
    """Queries float32[q, d] for inner products, of which a power of two changes no order.

    Those whose largest component has an exponent out of the range are brought to about 1, each by itself: a batch may
    have others that are larger by more than single precision spans.
    """
    if len(queries) == 1:
        top = math.frexp(float(np.abs(queries).max()))[1]
        return queries if top in free else np.ldexp(queries, -top)
    tops = np.frexp(np.abs(queries).max(axis=1, keepdims=True))[1]
    beyond = (tops < free.start) | (tops >= free.stop)
    return np.ldexp(queries, np.where(beyond, -tops, 0)) if beyond.any() else queries


def nothing(queries: int, limit: int) -> Neighbours:
    """No candidates."""
    return Neighbours(np.full((queries, limit), -1, np.int64), np.full((queries, limit), np.inf, np.float32), 0)


def widened(
    rows: NDArray[np.int64], distances: NDArray[np.float32], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first ``limit`` candidates of each query, padded where there are fewer."""
    if rows.shape[1] >= limit:
        return rows[:, :limit], distances[:, :limit]
    missing = ((0, 0), (0, limit - rows.shape[1]))
    return np.pad(rows, missing, constant_values=-1), np.pad(distances, missing, constant_values=np.inf)
