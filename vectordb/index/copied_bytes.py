"""Rows copied as bytes: a quarter of what they are. See ``vectordb.index.copies``.

A component becomes ``rint((x - mean) * scale)``, from -127 to 127. Queries are rounded likewise, since faiss compares
bytes with bytes. Under cosine it is distances that are compared, as under l2: faiss sums squares of bytes faster than
products, and rows of unit length are ranked alike. Measured, 11,666 text embeddings of 384, one query: 155 us to scan,
where half precision takes 210, and 240 to 330 once other work fills the cache; 25 rows are scored for 10, not 12.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.index.copies import SAFE_HIGH, Asked, CopiedRows, RowCopy, longest, store_of
from vectordb.index.native import faiss
from vectordb.metric import Metric, norms

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOP = 127.0
_SAMPLE, _ROOM = 256, 1.05
"""Rows by which the range of bytes is chosen, and how far beyond them it reaches."""
_STRAYS, _STRAYS_SHARE = 32, 128
"""Up to so many rows, or this part of them, may leave that range: they are candidates of every query."""
_ASKED = 5
_FEW, _FEW_SHARE = 48, 64
"""A copy is tried with so many rows of the sample: bytes serve where the median leaves so many candidates of 10 rows,
or this part of all."""
_LANES = 32, 64
"""faiss compares so many bytes at a time: other dimensions are filled up with zeros."""
_WIDEST = 2**31 // 255**2
"""Beyond so many dimensions faiss's sums of squares would overflow."""
_FLOAT_ROUNDING = 2.0**-22


class _Steps(NamedTuple):
    """How components become bytes.

    Attributes:
        middle: float32[d].
        scale: Exact in float32; 0 where bytes do not hold the rows.
    """

    middle: NDArray[np.float32]
    scale: float

    @classmethod
    def of(cls, sample: NDArray[np.float32], metric: Metric) -> _Steps:
        """Steps that span a sample, with some room."""
        middle = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        reach = _ROOM * float(np.abs(sample - middle).max())
        holds = 1e-30 < reach < 1e30 and (metric is Metric.DOT or sample.shape[1] <= _WIDEST)
        return cls(middle, float(np.float32(_TOP / reach)) if holds else 0.0)


class ByteRows(CopiedRows):
    """Rows as bytes.

    Args:
        rows: As the attribute.
        store: Codes of all rows but the last.
        metric: The metric.
        steps: How rows became codes.
        lengths: In steps, at least: how far any stored row was moved, and the greatest length of a stored row.
    """

    __slots__ = ("_length", "_middle", "_moved", "_steps")

    def __init__(
        self, rows: NDArray[np.int64], store: Any, metric: Metric, steps: _Steps, lengths: tuple[float, float]
    ) -> None:
        self._moved, self._length = lengths
        self._steps = steps
        self._middle = steps.middle.astype(np.float64)
        away = float(norms(steps.middle[None])[0]) * steps.scale
        super().__init__(rows, store, metric, self._length + self._moved + away)

    def _asked(self, query: NDArray[np.float32]) -> Asked | None:
        steps = self._steps
        wide = query.astype(np.float64)
        if self._squares:
            wide -= self._middle
            wide *= steps.scale
            vector, moved = self._rounded(wide)
            # Farther outside than any row is long, all rows look alike from it.
            return Asked(vector, steps.scale, 0.0, self._moved + moved) if moved <= self._length else None
        length = _length(wide)
        if not len(wide) * 2.0**-96 < length * self._norm / steps.scale < SAFE_HIGH:
            return None
        # Inner products are ranked alike at any scale of the query, and from any origin of the rows.
        shift = float(np.add.reduce(wide * self._middle))
        scale = float(_TOP / max(wide.max(), -wide.min()))
        wide *= scale
        vector, moved = self._rounded(wide)
        length = length * scale + moved
        slack = length * (self._moved + self._error) + moved * self._length
        return Asked(vector, scale * steps.scale, shift, slack)

    def needed(self, query: NDArray[np.float32], limit: int, most: int) -> int:
        """About how many candidates a query leaves, ``most`` where that is more; 0 where the scan cannot tell."""
        asked = self._asked(query)
        if asked is None:
            return 0
        distances, _ = self._scan(asked, min(most, self._count))
        cut = float(distances[min(limit, len(distances)) - 1])
        if not self._squares:
            return int(np.count_nonzero(distances >= cut - asked.slack))
        return int(np.count_nonzero(distances <= (math.sqrt(cut) + asked.slack) ** 2))

    def _rounded(self, wide: NDArray[np.float64]) -> tuple[NDArray[np.float32], float]:
        """A query as bytes, filled up with zeros, and how far that moved it."""
        rounded = np.rint(wide)
        np.minimum(rounded, _TOP, out=rounded)
        np.maximum(rounded, -_TOP, out=rounded)
        vector = rounded.astype(np.float32)
        if len(vector) < self._store.d:
            vector = np.concatenate([vector, np.zeros(self._store.d - len(vector), np.float32)])
        return vector, _length(np.subtract(wide, rounded, out=rounded))


class ByteCopy(RowCopy):
    """Rows being copied as bytes.

    Args:
        rows: int64[n], ascending.
        sample: float32[s, d], vectors of some of the rows: see :func:`sample_of`.
        metric: One of ``METRICS``.
    """

    __slots__ = ("_moved", "_sample", "_steps", "_strays")

    def __init__(self, rows: NDArray[np.int64], sample: NDArray[np.float32], metric: Metric) -> None:
        dim = sample.shape[1]
        by = Metric.DOT if metric is Metric.DOT else Metric.L2
        super().__init__(rows, store_of(_filled_up(dim), faiss.ScalarQuantizer.QT_8bit_direct_signed, by), metric)
        self._codes[:, dim:] = int(_TOP) + 1  # zeros, as it is kept
        self._sample = sample
        self._steps = _Steps.of(sample, metric)
        self._moved = 0.0
        self._strays: list[int] = []

    @staticmethod
    def row_bytes(dim: int) -> int:
        """What a row takes, with its number."""
        return _filled_up(dim) + 8

    def _turn(self, block: NDArray[np.float32], codes: NDArray[np.uint8], work: NDArray[np.float32]) -> int:
        with np.errstate(over="ignore", invalid="ignore"):
            np.subtract(block, self._steps.middle, out=work)
            np.multiply(work, np.float32(self._steps.scale), out=work)
            rounded = np.rint(work)
            np.subtract(work, rounded, out=work)
        if max(rounded.max(), -rounded.min()) > _TOP:
            inside = np.abs(rounded).max(axis=1) <= _TOP
            self._strays += (self._done + np.flatnonzero(~inside)).tolist()
            rounded, work = rounded[inside], work[inside]
        self._norm = max(self._norm, longest(rounded))
        self._moved = max(self._moved, longest(work))
        codes[: len(rounded), : rounded.shape[1]] = np.add(rounded, _TOP + 1.0, out=rounded)
        return len(rounded)

    def finished(self) -> bool:
        return super().finished() or not self._holds()

    def _holds(self) -> bool:
        return self._steps.scale > 0.0 and len(self._strays) <= max(_STRAYS, len(self.rows) // _STRAYS_SHARE)

    def result(self) -> ByteRows | None:
        if not self._holds():
            return None
        self._store.codes.resize(self._stored * self._store.code_size)
        self._store.ntotal = self._stored
        rows = self.rows
        if self._strays:
            rows = np.concatenate([np.delete(rows, self._strays), rows[self._strays]])
        # What is added is the error of measuring it.
        moved = self._moved + _FLOAT_ROUNDING * (self._norm + self._moved)
        copied = ByteRows(rows, self._store, self._metric, self._steps, (moved, self._norm))
        return copied if self._tells_apart(copied) else None

    def _tells_apart(self, copied: ByteRows) -> bool:
        """Whether so few candidates are left that scoring them costs less than reading twice the bytes."""
        most = max(_FEW, len(self.rows) // _FEW_SHARE)
        asked = np.ascontiguousarray(self._sample[:: max(1, len(self._sample) // _ASKED)][:_ASKED])
        return statistics.median(copied.needed(query, 10, most + 1) or most + 1 for query in asked) <= most


def sample_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the rows that :class:`ByteCopy` wants to see beforehand, evenly spread: int64[s]."""
    return rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)]


def _filled_up(dim: int) -> int:
    lanes = _LANES[dim > _LANES[0]]
    return -(-dim // lanes) * lanes


def _length(vector: NDArray[np.float64]) -> float:
    """The Euclidean length of one vector."""
    return math.sqrt(float(np.add.reduce(vector * vector)))
