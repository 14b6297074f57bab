"""Rows copied together at half precision, to be scanned again and again: half the bytes, read in order.

The scan ranks by what was stored, not by the rows themselves. How far storing moved any of them is measured when they
are copied (``HalfRows.error``, a Euclidean length), and by the Cauchy-Schwarz and triangle inequalities no inner
product with a query q moved by more than ``|q| error``, no Euclidean distance by more than ``error``. What is returned
is therefore a superset of the nearest rows, ties at the cut included, as in ``vectordb.index.exact``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.index.exact import error_bound, largest_norm
from vectordb.index.native import FAISS_METRIC, faiss, single_threaded
from vectordb.metric import Metric, norms

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 256
"""Rows that are turned at a time: with their copies they stay in the second cache."""
_MOST = 512
"""Up to so many candidates are taken from one scan; where that does not separate the cut, other ways are cheaper."""
_WIDER = 4
_SAFE_HIGH = 1e37
_VANISHED = 2.0**-50
METRICS = frozenset({Metric.COSINE, Metric.DOT, Metric.L2})


class HalfRows:
    """Copied rows. Immutable, thread-safe; scans release the GIL.

    Attributes:
        rows: int64[n], the number of each of them, ascending.
        nbytes: Memory in bytes, about.
    """

    __slots__ = ("_codes", "_dim", "_error", "_metric", "_norm", "_search", "_slack", "nbytes", "rows")

    def __init__(
        self, rows: NDArray[np.int64], codes: NDArray[np.uint8], metric: Metric, error: float, norm: float
    ) -> None:
        self.rows = rows
        self.nbytes = codes.nbytes + rows.nbytes
        self._dim = codes.shape[1] // 2
        self._codes = _quantizer(self._dim, metric)
        faiss.copy_array_to_vector(codes.ravel(), self._codes.codes)
        self._codes.ntotal = len(rows)
        self._search = self._codes.search_c
        self._metric, self._error, self._norm = metric, error, norm
        # Unit queries all have the same.
        self._slack = float(self._moved(np.array([1.0 + 2.0**-20]))[0]) if metric is Metric.COSINE else 0.0

    def candidates(self, query: NDArray[np.float32], limit: int) -> NDArray[np.int64] | None:
        """Places in ``rows`` of all that can be among the ``limit`` nearest, the nearest first, usually few more.

        ``None`` where the scan cannot tell: float32 does not hold the distances, or too many are alike.

        Args:
            query: float32[d], prepared, C-contiguous, finite.
            limit: k >= 1.
        """
        count = len(self.rows)
        wanted = limit + 8 + limit // 8
        if wanted >= count:
            return np.arange(count, dtype=np.int64)
        slack = self._slack
        if self._metric is not Metric.COSINE:
            lengths = norms(query[None])
            length = float(lengths[0])
            if (length + self._norm) * max(length, self._norm) > _SAFE_HIGH:
                return None
            slack = float(self._moved(lengths)[0])
        single_threaded()
        while wanted <= _MOST:
            distances = np.empty(wanted, np.float32)
            places = np.empty(wanted, np.int64)
            self._search(1, faiss.swig_ptr(query), wanted, faiss.swig_ptr(distances), faiss.swig_ptr(places))
            cut = float(distances[limit - 1])
            if self._metric is Metric.L2:
                slack = float(self._moved_squares(np.array([cut]))[0])
                inside = distances <= cut + slack
            else:
                inside = distances >= cut - slack
            if not inside[-1]:
                return places[: np.count_nonzero(inside)]
            wanted = min(count, wanted * _WIDER)
            if wanted == count:
                return np.arange(count, dtype=np.int64)
        return None

    def all_candidates(self, queries: NDArray[np.float32], limit: int) -> NDArray[np.int64] | None:
        """The same for many queries float32[q, d]: int64[q, c], of each as many as one of them needs."""
        count, many = len(self.rows), len(queries)
        wanted = limit + 8 + limit // 8
        slack = np.full(many, self._slack)
        if self._metric is not Metric.COSINE:
            lengths = norms(queries)
            if ((lengths + self._norm) * np.maximum(lengths, self._norm)).max() > _SAFE_HIGH:
                return None
            slack = self._moved(lengths)
        single_threaded()
        while wanted <= _MOST and wanted < count:
            distances = np.empty((many, wanted), np.float32)
            places = np.empty((many, wanted), np.int64)
            self._search(many, faiss.swig_ptr(queries), wanted, faiss.swig_ptr(distances), faiss.swig_ptr(places))
            cut = distances[:, limit - 1].astype(np.float64)
            if self._metric is Metric.L2:
                inside = distances <= (cut + self._moved_squares(cut))[:, None]
            else:
                inside = distances >= (cut - slack)[:, None]
            if not inside[:, -1].any():
                return places[:, : inside.sum(axis=1).max()]
            wanted *= _WIDER
        return None

    def _moved(self, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much two inner products with queries of these lengths may differ from what is computed of them."""
        rounding = error_bound(lengths, self._norm, self._metric, self._dim)
        return rounding.slack(np.zeros(len(lengths))) + 2.5 * self._error * lengths

    def _moved_squares(self, cut: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same of squared distances at the cuts."""
        rounding = error_bound(np.zeros(len(cut)), 0.0, self._metric, self._dim)
        far = np.sqrt(np.maximum(0.0, cut)) + 2.5 * self._error
        return rounding.slack(far * far) + 5.0 * self._error * far


class HalfCopy:
    """A copy that is made piece by piece, so that no single caller waits for all of it. One thread at a time.

    Args:
        rows: int64[n], ascending; of which the copy is made.
        dim: d of the vectors.
        metric: One of ``METRICS``.
    """

    __slots__ = ("_codes", "_done", "_error", "_metric", "_norm", "rows")

    def __init__(self, rows: NDArray[np.int64], dim: int, metric: Metric) -> None:
        self.rows = rows
        self._codes = np.empty((len(rows), 2 * dim), np.uint8)
        self._metric = metric
        self._done = 0
        self._error = self._norm = 0.0

    def wanted(self, count: int) -> NDArray[np.int64]:
        """The next rows to be given to :meth:`add`, at most ``count``."""
        return self.rows[self._done : self._done + count]

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Copies the vectors float32[m, d] of the rows that were wanted."""
        single_threaded()
        dim = vectors.shape[1]
        quantizer = _quantizer(dim, self._metric)
        turned = np.empty((min(_BLOCK, len(vectors)), dim), np.float32)
        for first in range(0, len(vectors), _BLOCK):
            block = vectors[first : first + _BLOCK]
            codes = self._codes[self._done : self._done + len(block)]
            quantizer.sa_encode_c(len(block), faiss.swig_ptr(block), faiss.swig_ptr(codes))
            quantizer.sa_decode_c(len(block), faiss.swig_ptr(codes), faiss.swig_ptr(turned))
            stored = turned[: len(block)]
            self._norm = max(self._norm, _longest(stored))
            # Rows out of the range of half precision are stored as infinite: then so is the error.
            np.subtract(block, stored, out=stored)
            self._error = max(self._error, _longest(stored))
            self._done += len(block)

    def finished(self) -> bool:
        """Whether all rows were copied."""
        return self._done == len(self.rows)

    def result(self) -> HalfRows | None:
        """The copy; ``None`` where half precision does not hold the rows."""
        if not math.isfinite(self._error + self._norm):
            return None
        return HalfRows(self.rows, self._codes, self._metric, self._error, self._norm)


def _quantizer(dim: int, metric: Metric) -> Any:
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, FAISS_METRIC[metric])


def _longest(vectors: NDArray[np.float32]) -> float:
    """An upper bound of the Euclidean lengths, also where squares vanish in float32."""
    return largest_norm(vectors) + _VANISHED
