"""Rows copied at half precision: half their bytes. See ``vectordb.index.copies``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.index.copies import SAFE_HIGH, UNIT_NORM, VANISHED, Asked, CopiedRows, RowCopy, longest, store_of
from vectordb.index.native import faiss
from vectordb.metric import Metric, norms

if TYPE_CHECKING:
    from numpy.typing import NDArray


_TINY = 2.0**-125
"""Products that float32 does not hold."""


class HalfRows(CopiedRows):
    """Rows at half precision; queries as they are.

    Args:
        moved: How far any row was moved.
    """

    __slots__ = ("_moved",)

    def __init__(self, rows: NDArray[np.int64], store: Any, metric: Metric, norm: float, moved: float) -> None:
        super().__init__(rows, store, metric, norm)
        self._moved = moved

    def _asked(self, query: NDArray[np.float32]) -> Asked | None:
        length = UNIT_NORM
        if self._metric is not Metric.COSINE:
            length = float(norms(query[None])[0])
            if (length + self._norm) * max(length, self._norm) > SAFE_HIGH:
                return None
        if self._metric is Metric.L2:
            return Asked(query, 1.0, 0.0, self._moved + VANISHED)
        return Asked(query, 1.0, 0.0, length * (self._moved + self._error) + len(query) * _TINY)


class HalfCopy(RowCopy):
    """Rows being copied at half precision.

    Args:
        rows: int64[n], ascending.
        dim: d of the vectors.
        metric: One of ``METRICS``.
    """

    __slots__ = ("_moved",)

    def __init__(self, rows: NDArray[np.int64], dim: int, metric: Metric) -> None:
        super().__init__(rows, store_of(dim, faiss.ScalarQuantizer.QT_fp16, metric), metric)
        self._moved = 0.0

    @staticmethod
    def row_bytes(dim: int) -> int:
        """What a row takes, with its number."""
        return 2 * dim + 8

    def _turn(self, block: NDArray[np.float32], codes: NDArray[np.uint8], work: NDArray[np.float32]) -> int:
        self._store.sa_encode_c(len(block), faiss.swig_ptr(block), faiss.swig_ptr(codes))
        self._store.sa_decode_c(len(block), faiss.swig_ptr(codes), faiss.swig_ptr(work))
        self._norm = max(self._norm, longest(work))
        # Rows out of the range of half precision are stored as infinite: then so is the error.
        np.subtract(block, work, out=work)
        self._moved = max(self._moved, longest(work))
        return len(block)

    def result(self) -> HalfRows | None:
        if not math.isfinite(self._moved + self._norm):
            return None
        self._store.ntotal = len(self.rows)
        return HalfRows(self.rows, self._store, self._metric, self._norm, self._moved)
