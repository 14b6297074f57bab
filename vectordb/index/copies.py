"""Rows copied together at low precision, to be scanned again and again: few bytes, read in order.

    copied_bytes    8 bits a component, for many rows
    copied_halves   half precision, for few rows, and for those of which bytes tell too few apart

A scan ranks by what was stored, not by the rows themselves. How far storing moved any of them is measured when they are
copied, and of a query when it is asked, both as Euclidean lengths. By the Cauchy-Schwarz and triangle inequalities no
inner product moved by more than ``|q| |x' - x| + |q' - q| |x'|``, no Euclidean distance by more than ``|x' - x| +
|q' - q|``. The best candidates get their final scores at once: the worst of the ``limit`` best among these is a bound
for all, and once the scan has come to rows that lie beyond it by more than that, ties at the cut are found too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from operator import neg
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.index.exact import error_bound, largest_norm
from vectordb.index.native import FAISS_METRIC, faiss, single_threaded
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRICS = frozenset({Metric.COSINE, Metric.DOT, Metric.L2})

UNIT_NORM = 1.0 + 2.0**-20
SAFE_HIGH = 1e37

_BLOCK = 256
"""Rows that are turned at a time: with their copies they stay in the second cache."""
_MOST, _MOST_SHARE = 512, 8
"""Up to so many candidates are taken from one scan, or this part of the rows; where that does not separate the cut,
other ways are cheaper."""
_WIDER = 4
_LONG_LIST = 64
_FORGOTTEN = 0.98
"""What is left after each query of the margin that an earlier one needed."""
VANISHED = 2.0**-50
"""Lengths whose squares float32 does not hold."""
_UNIT_ROUNDING = 2.0**-20
"""What rounding to unit length, and of a score, can change a squared distance by."""


class Asked(NamedTuple):
    """A query as it is scanned with.

    Attributes:
        vector: float32, C-contiguous.
        scale: What inner products, or distances, were multiplied by.
        shift: What was taken from inner products before.
        slack: By how much any row's inner product, or distance, can differ from the true one in that scale.
    """

    vector: NDArray[np.float32]
    scale: float
    shift: float
    slack: float


class CopiedRows(ABC):
    """Copied rows. Immutable but for a hint, thread-safe; scans release the GIL.

    Attributes:
        rows: int64[n], the number of each of them: those that are stored, then the others.
        nbytes: Memory in bytes, about.
    """

    __slots__ = ("_count", "_error", "_margin", "_metric", "_norm", "_search", "_squares", "_store", "nbytes", "rows")

    def __init__(self, rows: NDArray[np.int64], store: Any, metric: Metric, norm: float) -> None:
        self.rows = rows
        self.nbytes = int(store.codes.size()) + rows.nbytes
        self._store, self._search, self._count = store, store.search_c, int(store.ntotal)
        self._metric, self._norm = metric, norm
        self._squares = store.metric_type == faiss.METRIC_L2
        bound = error_bound(1.0, norm, Metric.L2 if self._squares else Metric.DOT, int(store.d))
        # Relative to the squared distance, or to the length of the query.
        self._error = 2.0 * (bound.relative + float(bound.absolute))
        self._margin = 0.0

    @abstractmethod
    def _asked(self, query: NDArray[np.float32]) -> Asked | None:
        """A query float32[d] as it is scanned with; ``None`` where the scan cannot tell."""

    def nearest(
        self,
        query: NDArray[np.float32],
        limit: int,
        dead: NDArray[np.int64],
        score: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """Rows among which the ``limit`` nearest are, usually not many more, and their final distances.

        ``None`` where the scan cannot tell: numbers do not hold the distances, or too many are alike.

        Args:
            query: float32[d], prepared, C-contiguous, finite.
            limit: k >= 1.
            dead: Places in ``rows`` to leave out.
            score: Rows int64[m] to final distances float32[m], smaller is closer.
        """
        count = self._count
        least, most = limit + len(dead) + 2 + limit // 16, max(_MOST, count // _MOST_SHARE)
        # As many as the last queries had: a second scan costs more than finding some in vain.
        wanted = max(least, min(limit + int(self._margin), most))
        if wanted >= count:
            return self._scored(np.arange(count), dead, score)
        asked = self._asked(query)
        if asked is None:
            return None
        single_threaded()
        bound: float | None = None
        while wanted <= most:
            distances, places = self._scan(asked, wanted)
            found = None
            if bound is None:
                found = self._scored(places, dead, score)
                bound = self._farthest(asked, _smallest(found[1], limit))
            # On lists, which are short: half the time of arrays.
            inside = bisect_right(distances.tolist(), bound, key=None if self._squares else neg)
            if inside < wanted:
                needed = inside - limit
                self._margin = max(1.25 * needed + 1.0, _FORGOTTEN * self._margin)
                return found or self._scored(places[:inside], dead, score)
            wanted = min(most, wanted * _WIDER) if wanted < most else most + 1
            if wanted >= count:
                return self._scored(np.arange(count), dead, score)
        return None

    def _scan(self, asked: Asked, wanted: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The best of the stored rows: what was computed of them, and their places."""
        distances = np.empty(wanted, np.float32)
        places = np.empty(wanted, np.int64)
        self._search(1, faiss.swig_ptr(asked.vector), wanted, faiss.swig_ptr(distances), faiss.swig_ptr(places))
        return distances, places

    def _scored(
        self,
        places: NDArray[np.int64],
        dead: NDArray[np.int64],
        score: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows at some places and all that are not stored, without dead ones, and their final distances."""
        if self._count < len(self.rows):
            places = np.concatenate([places, np.arange(self._count, len(self.rows))])
        if len(dead):
            places = places[~np.isin(places, dead)]
        rows = self.rows[places]
        return rows, score(rows)

    def _farthest(self, asked: Asked, distance: float) -> float:
        """What the scan computes at most for a row whose final distance is not greater; of products, the negative."""
        if self._squares:
            squared = distance * distance if self._metric is Metric.L2 else 2.0 + 2.0 * distance + _UNIT_ROUNDING
            far = asked.scale * math.sqrt(max(0.0, squared)) * (1.0 + self._error) + asked.slack
            return far * far * (1.0 + self._error)
        return asked.scale * (distance + asked.shift) + asked.slack


class RowCopy(ABC):
    """A copy that is made piece by piece, so that no single caller waits for all of it. One thread at a time.

    Attributes:
        rows: int64[n], ascending; of which the copy is made.
    """

    __slots__ = ("_codes", "_done", "_metric", "_norm", "_store", "_stored", "rows")

    def __init__(self, rows: NDArray[np.int64], store: Any, metric: Metric) -> None:
        self.rows = rows
        self._store, self._metric = store, metric
        # Written where faiss will read it.
        store.codes.resize(len(rows) * store.code_size)
        self._codes = faiss.rev_swig_ptr(store.codes.data(), store.codes.size()).reshape(len(rows), store.code_size)
        self._done = self._stored = 0
        self._norm = 0.0

    def wanted(self, count: int) -> NDArray[np.int64]:
        """The next rows to be given to :meth:`add`, at most ``count``."""
        return self.rows[self._done : self._done + count]

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Copies the vectors float32[m, d] of the rows that were wanted."""
        single_threaded()
        work = np.empty((min(_BLOCK, len(vectors)), vectors.shape[1]), np.float32)
        for first in range(0, len(vectors), _BLOCK):
            block = vectors[first : first + _BLOCK]
            self._stored += self._turn(block, self._codes[self._stored :], work[: len(block)])
            self._done += len(block)

    def finished(self) -> bool:
        """Whether all rows were copied, or copying more of them would be in vain."""
        return self._done == len(self.rows)

    @abstractmethod
    def _turn(self, block: NDArray[np.float32], codes: NDArray[np.uint8], work: NDArray[np.float32]) -> int:
        """Stores rows float32[m, d] in the first of the codes uint8[.., c]: how many. ``work`` is float32[m, d]."""

    @abstractmethod
    def result(self) -> CopiedRows | None:
        """The copy; ``None`` where this precision does not hold the rows."""


def store_of(dim: int, kind: int, metric: Metric) -> Any:
    """An empty store of one of faiss's scalar quantizers."""
    return faiss.IndexScalarQuantizer(dim, kind, FAISS_METRIC[metric])


def _smallest(distances: NDArray[np.float32], number: int) -> float:
    """The ``number``-th smallest."""
    if len(distances) > _LONG_LIST:
        return float(np.partition(distances, number - 1)[number - 1])
    return float(sorted(distances.tolist())[number - 1])


def longest(vectors: NDArray[np.float32]) -> float:
    """An upper bound of the Euclidean lengths, also where squares vanish in float32."""
    return largest_norm(vectors) + VANISHED
