"""How a graph stores its vectors: at the lowest precision that was measured to be harmless, scaled into its range.

    f32     32 bits a component
    fp16    16 bits: 11 of them count, from 6e-8 to 65504
    int8    8 bits: 255 equal steps, the same ones in all dimensions; queries are rounded likewise, since faiss compares
            bytes with bytes (it would cut their fractions off)

Half the bytes a row are half the memory, and a faster search and build (100,000 text embeddings, ef 64: 0.8 of the time
at int8 that it takes at fp16, 0.55 of that at f32; the build 0.7 and 0.45 of the processor's time). But low precision
ruins some data without a word: values out of range make every query return nothing, and rows closer together than its
rounding become indistinguishable. So it is not assumed: a sample of the rows is searched exactly at each precision, and
the lowest is taken that misses too few of the true neighbours to matter (:data:`CEILINGS`). At int8 the order of the
nearest is blurred, but hardly which they are: the engine scores a tenth more candidates than are asked for from the
full vectors (:data:`OVERSAMPLING`), and among these an exact search finds 1.000 of the 10, 100 and 1,000 nearest of
100,000 text embeddings.

Rows of which many become equal as bytes keep floats too: they would link to each other alone (``duplicates``).

Rows are multiplied by a power of two, which is exact and changes no order, so that neither tiny nor huge values leave
the range of either float; at int8 by what brings the largest component near 127. Queries likewise where the metric
needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.index import native
from vectordb.index.base import CannotExtend
from vectordb.index.duplicates import HARMLESS, Rows, most_equal
from vectordb.metric import Metric, scores

if TYPE_CHECKING:
    from numpy.typing import NDArray


_Rounding = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]


class Precision(StrEnum):
    """How a component is stored."""

    SINGLE = "f32"
    HALF = "fp16"
    BYTE = "int8"

    @property
    def bytes(self) -> int:
        return {Precision.SINGLE: 4, Precision.HALF: 2, Precision.BYTE: 1}[self]


CEILINGS = {Precision.HALF: 0.99, Precision.BYTE: 0.999}
"""The least fraction of true neighbours that exact search must find: among as many rows at half precision, among
``OVERSAMPLING`` times as many and ``_SLACK`` at int8."""
OVERSAMPLING = 1.1
_SLACK = 4
"""What the planner adds to every limit (``query/widths.py``)."""
_SAMPLE = 64
_NEIGHBOURS = 10
_TARGET_EXPONENT = 9
"""Scaled rows reach up to 2^9: room for later rows up to 2^15, and normal half-precision numbers down to 2^-14."""
_HIGHEST = 2.0**15
_FREE = range(-3, 12)
"""Exponents of the largest value that need no scaling."""
_TOP = 127.0
_ROOM = 1.25
"""How far beyond the largest component the range of int8 reaches, for later rows and for queries: one beyond it is
answered by exact search."""
_FEWEST = 1_000
"""Fewer rows say too little about the range of queries, and gain too little."""


class Storage(NamedTuple):
    """How rows are stored: at which precision, and what they are multiplied by.

    Attributes:
        scale: A power of two, but at int8.
    """

    precision: Precision
    scale: float = 1.0

    @classmethod
    def floats(cls, precision: Precision, exponent: int) -> Storage:
        """Floats, multiplied by ``2 ** exponent``."""
        return cls(precision, math.ldexp(1.0, exponent))

    @property
    def exponent(self) -> int:
        """Of a scale that is a power of two."""
        return math.frexp(self.scale)[1] - 1

    def fits(self, rows: Rows, cancelled: Callable[[], bool]) -> bool:
        """Whether more rows stay within the range that was chosen."""
        highest = _TOP if self.precision is Precision.BYTE else _HIGHEST
        return largest_component(rows, cancelled) * self.scale <= highest

    def scaled(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[m, d] multiplied by the scale, C-contiguous; a copy only where needed, at int8 always."""
        if self.precision is Precision.BYTE:
            return np.multiply(vectors, np.float32(self.scale))
        if self.scale == 1.0:
            return np.ascontiguousarray(vectors, dtype=np.float32)
        return np.ldexp(vectors, self.exponent).astype(np.float32, copy=False)

    def stored(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows in the form in which faiss is to be given them: it cuts off what it should round."""
        return self._as_bytes(vectors) if self.precision is Precision.BYTE else self.scaled(vectors)

    def _as_bytes(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        kept = np.multiply(vectors, np.float32(self.scale))
        return np.rint(kept, out=kept)

    def query(self, vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float32] | None:
        """Queries float32[q, d] as they are compared at int8; None in place of queries of which one exceeds the range.

        Inner products are ranked alike at any scale of the query, so that each has its own.
        """
        if metric is Metric.DOT:
            largest = np.abs(vectors).max(axis=1)
            own = _TOP / np.maximum(largest, np.finfo(np.float32).smallest_subnormal, dtype=np.float64)
            turned: NDArray[np.float32] = np.rint(vectors * own[:, None]).astype(np.float32)
            return turned
        if metric is Metric.L2 and float(np.abs(vectors).max()) * self.scale > _TOP:
            return None  # before it overflows
        kept = self._as_bytes(vectors)
        # Not max() and min(), which go through Python: three times as long for one query.
        fits: bool = kept.item(kept.argmax()) <= _TOP and kept.item(kept.argmin()) >= -_TOP
        return kept if fits else None

    def rounded(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is left of rows float32[m, d] once they are stored; infinite where they exceed the range."""
        if self.precision is not Precision.HALF:
            return self.stored(vectors)
        with np.errstate(over="ignore"):
            return self.scaled(vectors).astype(np.float16).astype(np.float32)

    def require_fit(self, rows: Rows, metric: Metric, cancelled: Callable[[], bool]) -> None:
        """Checks that the precision, which was chosen for other rows, is harmless to these too.

        Raises:
            CannotExtend: It is not.
            BuildCancelled: ``cancelled()`` turned true.
        """
        if self.precision is not Precision.SINGLE and not any(_harmless(rows, metric, [self], cancelled)):
            raise CannotExtend(f"the new rows need more than the precision of {self.precision}")


def largest_component(rows: Rows, cancelled: Callable[[], bool]) -> float:
    """The greatest absolute value; 0 of no rows."""
    return max((float(np.abs(block).max()) for _, block in rows.blocks(cancelled)), default=0.0)


def choose_exponent(largest: float) -> int:
    """The power of two that brings values up to ``largest`` into a safe range; 0 where they are in one."""
    if largest <= 0.0 or (top := math.frexp(largest)[1]) in _FREE:
        return 0
    return _TARGET_EXPONENT - top


def choose_storage(
    rows: Rows, metric: Metric, cancelled: Callable[[], bool], lowest: Precision = Precision.HALF
) -> Storage:
    """Decides how to store prepared vectors under a metric.

    Args:
        lowest: The lowest precision to consider.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    largest = largest_component(rows, cancelled)
    exponent = choose_exponent(largest)
    single = Storage.floats(Precision.SINGLE, exponent)
    # faiss has no L1 but over float32: asking for it ends the process.
    if metric is Metric.L1 or lowest is Precision.SINGLE:
        return single
    candidates = [Storage.floats(Precision.HALF, exponent)]
    if lowest is Precision.BYTE and exponent == 0 and largest > 0.0 and rows.count >= _FEWEST:
        candidates.insert(0, Storage(Precision.BYTE, _TOP / (_ROOM * largest)))
    return next(_harmless(rows, metric, candidates, cancelled), single)


def _harmless(
    rows: Rows, metric: Metric, candidates: Sequence[Storage], cancelled: Callable[[], bool]
) -> Iterator[Storage]:
    """Those that lose too little to matter, looked at one after the other: each takes passes over the rows."""
    sample: _Sample | None = None
    for storage in candidates:
        # Rows that become equal would link to each other alone, as equal rows do.
        if storage.precision is Precision.BYTE and _merges(storage, rows, cancelled):
            continue
        if sample is None:
            sample = _Sample(rows, metric, candidates[-1].exponent)
        if sample.recall(_form(storage, metric), cancelled) >= CEILINGS[storage.precision]:
            yield storage


def _merges(storage: Storage, rows: Rows, cancelled: Callable[[], bool]) -> bool:
    positive_zero = np.float32(0.0)  # added to a negative zero, whose bits differ
    return most_equal(rows, lambda block: storage.stored(block) + positive_zero, cancelled) > HARMLESS


class _Form(NamedTuple):
    """A way of keeping rows: what is left of rows and of queries, and how many candidates are scored for a limit."""

    rows: _Rounding
    queries: _Rounding
    fetched: Callable[[int], int]


def _form(storage: Storage, metric: Metric) -> _Form:
    if storage.precision is not Precision.BYTE:
        return _Form(storage.rounded, storage.scaled, lambda limit: limit)
    return _Form(
        storage.rounded,
        lambda queries: _kept(storage, queries, metric),
        lambda limit: math.ceil(OVERSAMPLING * limit) + _SLACK,
    )


def _kept(storage: Storage, queries: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    kept = storage.query(queries, metric)
    # The range was chosen to hold these rows.
    assert kept is not None
    return kept


def ceiling(rows: Rows, metric: Metric, exponent: int, cancelled: Callable[[], bool], rounding: _Rounding) -> float:
    """Recall of exact search over rows that are multiplied by ``2 ** exponent`` and rounded: 0 to 1 (:class:`_Sample`).

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    scaled = Storage.floats(Precision.SINGLE, exponent).scaled
    form = _Form(lambda block: rounding(scaled(block)), scaled, lambda limit: limit)
    return _Sample(rows, metric, exponent).recall(form, cancelled)


class _Sample:
    """A few of the rows as queries, to see what exact search over all of them finds as they are kept.

    A row counts as found if its true score is as good as that of the last true neighbour. Prepared vectors under
    cosine are compared by Euclidean distance, as the graph does (``faiss_hnsw``).

    Args:
        exponent: Of the scale of floats.
    """

    def __init__(self, rows: Rows, metric: Metric, exponent: int) -> None:
        self._rows, self._metric = rows, metric
        sample = np.unique(np.linspace(0, rows.count - 1, min(_SAMPLE, rows.count)).astype(np.int64))
        self._queries = rows.take(sample)
        self._keep = min(_NEIGHBOURS + 1, rows.count)  # the query itself is among them
        # Single precision, at the scale of a float, is the truth.
        self._true = _form(Storage.floats(Precision.SINGLE, exponent), metric)
        self._worst: list[float] = []

    def recall(self, form: _Form, cancelled: Callable[[], bool]) -> float:
        """From 0 to 1; 0 where rows exceed the range of the form, 1 of no rows.

        Raises:
            BuildCancelled: ``cancelled()`` turned true.
        """
        if not len(self._queries):
            return 1.0
        if not self._worst:
            true = self._nearest(self._true, cancelled)
            assert true is not None
            self._worst = [float(found.max(initial=-np.inf)) for found in self._scores(true)]
        rows = self._nearest(form, cancelled)
        if rows is None:
            return 0.0
        hits = [
            min(self._keep, int((found <= worst).sum()))
            for found, worst in zip(self._scores(rows), self._worst, strict=True)
        ]
        return sum(hits) / (self._keep * len(hits))

    def _nearest(self, form: _Form, cancelled: Callable[[], bool]) -> NDArray[np.int64] | None:
        """The nearest rows of each query as a form keeps them, int64[q, k]; None where some exceed its range."""
        metric = Metric.L2 if self._metric is Metric.COSINE else self._metric
        asked = form.queries(self._queries)
        best = _Best(len(asked), min(self._rows.count, form.fetched(self._keep)))
        for start, raw in self._rows.blocks(cancelled):
            block = form.rows(raw)
            if not np.isfinite(block).all():
                return None
            best.add(*native.nearest(asked, block, min(best.keep, len(block)), metric), start)
        return best.rows

    def _scores(self, rows: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """The true scores of the rows of each query, turned so that smaller is better."""
        sign = -1.0 if self._metric.higher_is_better else 1.0
        found = zip(self._queries, rows, strict=True)
        return [sign * scores(query, self._rows.take(near[near >= 0]), self._metric) for query, near in found]


class _Best:
    """The nearest rows of each query over all blocks so far."""

    def __init__(self, queries: int, keep: int) -> None:
        self.keep = keep
        self.distances = np.full((queries, keep), np.inf, np.float32)
        self.rows = np.full((queries, keep), -1, np.int64)

    def add(self, distances: NDArray[np.float32], rows: NDArray[np.int64], start: int) -> None:
        distances = np.concatenate([self.distances, np.where(rows >= 0, distances, np.inf)], axis=1)
        rows = np.concatenate([self.rows, np.where(rows >= 0, rows + start, -1)], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, : self.rows.shape[1]]
        self.distances = np.take_along_axis(distances, order, axis=1)
        self.rows = np.take_along_axis(rows, order, axis=1)
