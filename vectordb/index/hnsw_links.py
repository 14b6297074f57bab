"""Rows as bytes while a graph is linked: coarser than what it keeps, and good enough to choose links by.

A link to the eleventh neighbour is as good as one to the tenth, and linking is mostly comparing rows that lie all over
memory: as bytes they take half the room of half precision. Measured with 20,000 to 40,000 text embeddings of 384
dimensions (m 16, ef_construction 200): two thirds of the processor time, and the recall of each beam width from 16 to
128 within 0.005. What the graph keeps is put in the place of the bytes when it stands (``hnsw_build``).

Whether bytes will do is measured on the rows, as it is for half precision (``hnsw_storage``), with a lower bar: where
single components are so large that exact search over bytes finds 0.97 of 10 neighbours, graphs are as good as ever; at
0.89 a beam of 16 finds 0.017 less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.index import native
from vectordb.index.duplicates import HARMLESS, Rows, most_equal
from vectordb.index.hnsw_storage import largest_component
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

CEILING = 0.95
"""The least fraction of true neighbours that exact search over bytes must find."""
_ROWS = 32_768
_SAMPLE = 64
_NEIGHBOURS = 10
_GREATEST = 127.0
_NORMAL = 2.0**-60, 2.0**60
"""Largest components beyond it are not worth the care that their squares would take."""


class Bytes(NamedTuple):
    """Rows rounded to signed bytes: multiplied by ``factor``, which brings the largest component to 127."""

    factor: float

    def scaled(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[m, d] as whole numbers from -127 to 127: a C-contiguous copy."""
        out = np.multiply(vectors, np.float32(self.factor), dtype=np.float32, order="C")
        return np.rint(out, out=out)


def choose_bytes(rows: Rows, metric: Metric, cancelled: Callable[[], bool]) -> Bytes | None:
    """How to link prepared vectors as bytes; None where those rank them too badly.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    largest = largest_component(rows, cancelled)
    if metric is Metric.L1 or not _NORMAL[0] < largest < _NORMAL[1]:
        return None
    coarse = Bytes(_GREATEST / largest)
    if _ceiling(rows, metric, coarse, cancelled) < CEILING:
        return None
    # Rows that are equal as bytes would link to each other alone, as equal rows do (``duplicates``).
    positive_zero = np.float32(0.0)  # added to a negative zero, whose bits differ
    alike = most_equal(rows, lambda block: coarse.scaled(block) + positive_zero, cancelled)
    return coarse if alike <= HARMLESS else None


def _ceiling(rows: Rows, metric: Metric, coarse: Bytes, cancelled: Callable[[], bool]) -> float:
    """Recall of exact search over bytes: of rows by rows, both evenly spread samples, themselves left out: 0 to 1."""
    drawn = rows.take(np.unique(np.linspace(0, rows.count - 1, min(_ROWS, rows.count)).astype(np.int64)))
    if len(drawn) <= 1:
        return 1.0
    asked = np.unique(np.linspace(0, len(drawn) - 1, min(_SAMPLE, len(drawn))).astype(np.int64))
    keep = min(_NEIGHBOURS + 1, len(drawn))
    native_metric = Metric.L2 if metric is Metric.COSINE else metric
    _, true = native.nearest(drawn[asked], drawn, keep, native_metric)
    if cancelled():
        return 0.0  # what the caller does next finds out
    rounded = coarse.scaled(drawn)
    # As the graph does it: the row that is added is rounded too.
    _, found = native.nearest(rounded[asked], rounded, keep, native_metric)
    hits = [
        len(np.intersect1d(mine[mine != row], theirs[theirs != row]))
        for row, mine, theirs in zip(asked, true, found, strict=True)
    ]
    return sum(hits) / (len(asked) * (keep - 1))
