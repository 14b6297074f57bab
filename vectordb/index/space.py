"""The space in which faiss sees rows and queries: scaled into a safe range, turned where one-bit codes want it.

Rows are multiplied by a power of two, which is exact and changes no order, so that neither tiny nor huge values leave
the range of single precision when they are squared, or of half precision when they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vectordb.index.base import CannotExtend
from vectordb.index.duplicates import Rows, first_equal
from vectordb.index.hnsw_storage import Precision, Storage, choose_exponent, largest_component
from vectordb.index.native import FAISS_METRIC
from vectordb.index.rotation import rotation
from vectordb.index.scaling import NORMAL, each_in_range
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_QUERY_RANGE = 2.0**33
"""Beyond it times the data's own range, float32 distances to all rows are the same number."""
_HELD_OUT = 1_024
_HELD_OUT_SHARE = 8
_REFERENCE_ROWS = 1_024
_ABOVE = 3
"""Exponents by which queries are longer than the longest row of a sample."""


@dataclass(frozen=True, slots=True)
class Space:
    """How prepared vectors are handed to faiss. Immutable.

    Attributes:
        metric: The collection's metric.
        dim: d.
        exponent: Rows are multiplied by ``2 ** exponent``.
        rotated: Rows and queries are turned (``rotation``).
        inner: Cosine is searched by inner product. Euclidean distance tells rows apart that lie close together, where
            products near 1 are noise of single precision; codes are coarser than either, and products cost less.
        reference: Under dot turned queries are brought to about ``2 ** reference``; None leaves them as they are. What
            codes of one bit see of a query is its difference from a centre: little, where the centre is far longer.
    """

    metric: Metric
    dim: int
    exponent: int = 0
    rotated: bool = False
    inner: bool = True
    reference: int | None = None

    @classmethod
    def of(
        cls, vectors: NDArray[np.float32], metric: Metric, cancelled: Callable[[], bool], *, rotated: bool, inner: bool
    ) -> Space:
        """The space that suits float32[n, d]; reads them once, but for unit vectors.

        Raises:
            BuildCancelled: ``cancelled()`` turned true.
        """
        largest = 0.0 if metric is Metric.COSINE else largest_component(Rows(vectors), cancelled)
        space = cls(metric, vectors.shape[1], choose_exponent(largest), rotated, inner)
        if not rotated or metric is not Metric.DOT:
            return space
        lengths = np.linalg.norm(space.sample(vectors, _REFERENCE_ROWS), axis=1)
        return replace(space, reference=math.frexp(float(lengths.max(initial=0.0)))[1] + _ABOVE)

    @property
    def _storage(self) -> Storage:
        return Storage.floats(Precision.SINGLE, self.exponent)

    @property
    def native_metric(self) -> int:
        """What faiss ranks by."""
        return FAISS_METRIC[Metric.L2 if self.metric is Metric.COSINE and not self.inner else self.metric]

    @property
    def by_product(self) -> bool:
        """Whether faiss's distances are inner products: larger is closer."""
        return self.metric is Metric.DOT or (self.metric is Metric.COSINE and self.inner)

    def rows(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows as faiss sees them: float32[n, d], C-contiguous; a copy only where needed."""
        scaled = self._storage.scaled(vectors)
        return rotation(self.dim).apply(scaled) if self.rotated else scaled

    def blocks(
        self, vectors: NDArray[np.float32], cancelled: Callable[[], bool]
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All rows as faiss sees them, in blocks of a few MB, each with the number of its first row.

        Raises:
            BuildCancelled: ``cancelled()``, asked before each block, turned true.
        """
        for start, block in Rows(vectors).blocks(cancelled):
            yield start, self.rows(block)

    def sample(self, vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        """At most ``count`` rows to learn from, evenly spread, as faiss sees them: a new float32[m, d]."""
        return self.rows(vectors[_to_learn_from(len(vectors), count)])

    def distinct_sample(
        self, vectors: NDArray[np.float32], count: int, cancelled: Callable[[], bool]
    ) -> NDArray[np.float32]:
        """As :meth:`sample`, of equal rows one (equal as they are: turned in blocks, they may differ in the last bit).

        Raises:
            BuildCancelled: ``cancelled()`` turned true.
        """
        picked = vectors[_to_learn_from(len(vectors), count)]
        return self.rows(picked[first_equal(picked, cancelled) == np.arange(len(picked))])

    def held_out(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows that :meth:`sample` never picks, to measure with, as faiss sees them: a new float32[m, d]."""
        return self.rows(vectors[_held_out(len(vectors))])

    def queries(self, queries: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Queries as faiss sees them, or None where single precision cannot rank the rows for one of them."""
        if self.metric is Metric.DOT:
            scaled = each_in_range(queries, NORMAL)
            if self.reference is not None:
                tops = np.frexp(np.linalg.norm(scaled, axis=1, keepdims=True))[1]
                scaled = np.ldexp(scaled, self.reference - tops).astype(np.float32, copy=False)
        elif self.metric is Metric.COSINE:
            scaled = queries
        else:
            if float(np.abs(queries).max()) * math.ldexp(1.0, self.exponent) > _QUERY_RANGE:
                return None
            scaled = self._storage.scaled(queries)
        return rotation(self.dim).apply(scaled) if self.rotated else scaled

    def require_fit(self, vectors: NDArray[np.float32], cancelled: Callable[[], bool]) -> None:
        """Checks that more rows stay within the range that was chosen.

        Raises:
            CannotExtend: They do not.
            BuildCancelled: ``cancelled()`` turned true.
        """
        if self.metric is not Metric.COSINE and not self._storage.fits(Rows(vectors), cancelled):
            raise CannotExtend("the new rows exceed the range of the stored ones")


def _spread(rows: int, count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, max(0, rows - 1), min(rows, count)).astype(np.int64))


def _to_learn_from(rows: int, count: int) -> NDArray[np.int64]:
    held = _held_out(rows)
    places = _spread(rows - len(held), count)
    # The i-th row that is not held out comes after so many that are.
    return places + np.searchsorted(held - np.arange(len(held)), places, side="right")


def _held_out(rows: int) -> NDArray[np.int64]:
    return _spread(rows, min(_HELD_OUT, rows // _HELD_OUT_SHARE))
