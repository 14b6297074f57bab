"""The columns of a new segment, drawn from views of what it replaces: which rows are kept, and in what order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from vectordb.index.base import BuildCancelled
from vectordb.metadata.postings import Postings
from vectordb.metadata.rowset import to_mask
from vectordb.segments.blobs import joined
from vectordb.text.merge import Moved, merged

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.metric import Metric
    from vectordb.segments.blobs import Strings
    from vectordb.segments.views import View
    from vectordb.text.index import TextIndex
    from vectordb.types import FieldSpec

BLOCK_BYTES = 4 << 20
"""Vectors copied at a time."""
BLOCK_ROWS = 8192
"""Ids decoded, and payloads read from storage, at a time: few milliseconds of the GIL."""

Stored: TypeAlias = "Callable[[NDArray[np.uint64], NDArray[np.uint64]], list[bytes | None]]"
"""Encoded metadata of payloads by offset and payload version, uint64[k] each; None for those that are gone."""


class MetadataMissing(Exception):
    """Neither a source nor storage has the metadata of some row: the new segment does without such a column."""


@dataclass(frozen=True, slots=True)
class SealOptions:
    """What a seal or merge must know besides its sources.

    Attributes:
        collection: Number of the collection.
        dim: Length of the vectors.
        metric: The metric they were prepared for.
        fields: The collection's declared fields.
        keep_first: Keep the dead rows of the first source, marked dead, so that its index can be extended.
        stored: Reads the metadata of rows of sources that have no column of it; None where that is not to be had.
        cancelled: Polled between blocks; true means raise ``BuildCancelled``.
        progress: Called with the fraction done, 0 to 1.
    """

    collection: int
    dim: int
    metric: Metric
    fields: Mapping[str, FieldSpec] | None = None
    keep_first: bool = False
    stored: Stored | None = None
    cancelled: Callable[[], bool] = field(default=lambda: False)
    progress: Callable[[float], None] = field(default=lambda fraction: None)


class Merge:
    """Rows of adjacent sources, in offset order, as the rows of one segment.

    Args:
        sources: Views of one version, ascending and disjoint in offsets.
        options: See :class:`SealOptions`.

    Attributes:
        lo: First offset of the range covered.
        hi: Its end (exclusive).
        rows: Rows kept.
        version: The version of the views.
    """

    def __init__(self, sources: Sequence[View], options: SealOptions) -> None:
        if not sources:
            raise ValueError("nothing to seal: give at least one source")
        for left, right in pairwise(sources):
            if left.hi > right.lo or left.version != right.version:
                raise ValueError("sources must be views of one version in offset order")
        self._sources = sources
        self._options = options
        self.lo = sources[0].lo
        self.hi = sources[-1].hi
        self.version = sources[0].version
        self._kept = [self._kept_rows(i) for i in range(len(sources))]
        self._bases = np.cumsum([0, *map(len, self._kept)]).tolist()
        self.rows: int = self._bases[-1]

    def _kept_rows(self, source: int) -> NDArray[np.int64]:
        view = self._sources[source]
        if view.dead == 0 or (source == 0 and self._options.keep_first):
            return np.arange(view.rows)
        return np.flatnonzero(~to_mask(view.dead_rows(), view.rows))

    def dead(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Kept rows that are dead, int64[k], and the versions that deleted them, uint64[k]."""
        if not self._options.keep_first:
            return np.empty(0, np.int64), np.empty(0, np.uint64)
        return self._sources[0].deleted()

    def offsets(self) -> NDArray[np.uint64]:
        """uint64[rows], ascending."""
        return np.concatenate([view.offsets(kept) for view, kept in self._each()])

    def payload_versions(self) -> NDArray[np.uint64]:
        """uint64[rows]."""
        return np.concatenate([view.payload_versions(kept) for view, kept in self._each()])

    def ids(self) -> Iterator[list[str]]:
        """All ids, in pieces."""
        for view, kept in self._each():
            for start in range(0, len(kept), BLOCK_ROWS):
                self._poll()
                yield view.ids(kept[start : start + BLOCK_ROWS])

    def metadata(self) -> Iterator[Strings]:
        """All encoded metadata, payload changes folded in, in pieces.

        Raises:
            MetadataMissing: It is not to be had of some row.
        """
        for view, kept in self._each():
            pieces = view.metadata_pieces(kept)
            for strings in self._stored(view, kept) if pieces is None else pieces:
                self._poll()
                yield strings

    def _stored(self, view: View, kept: NDArray[np.int64]) -> Iterator[Strings]:
        """As storage has it: of a segment of before there was such a column."""
        read = self._options.stored
        if read is None:
            raise MetadataMissing
        for start in range(0, len(kept), BLOCK_ROWS):
            rows = kept[start : start + BLOCK_ROWS]
            found = read(view.offsets(rows), view.payload_versions(rows))
            # Rows that died before may have left storage; nobody asks for theirs.
            gone = np.array([data is None for data in found], np.bool_)
            if gone.any() and view.alive(rows[gone]).any():
                raise MetadataMissing
            yield joined([data or b"" for data in found])

    def vector_rows(self) -> NDArray[np.int32] | None:
        """The row of each vector, int32[m]; None where every row has one."""
        found = []
        for (view, kept), base in zip(self._each(), self._bases, strict=False):
            new = np.full(view.rows, -1, np.int64)
            new[kept] = np.arange(base, base + len(kept))
            rows = view.vector_rows()
            moved = new if rows is None else new[rows]
            found.append(moved[moved >= 0])
        rows = np.concatenate(found)
        return None if len(rows) == self.rows else rows.astype(np.int32)

    def vectors(self) -> Iterator[NDArray[np.float32]]:
        """The vectors of kept rows, in pieces float32[k, dim], C-contiguous."""
        done, total = 0, max(1, sum(view.vector_count for view in self._sources))
        for view, kept in self._each():
            mask = np.zeros(view.rows, np.bool_)
            mask[kept] = True
            for block in view.blocks(BLOCK_BYTES):
                self._poll()
                n = len(block.vectors)
                here = mask[block.first_row : block.first_row + n] if block.rows is None else mask[block.rows]
                yield block.vectors if here.all() else block.vectors[here]
                done += n
                self._options.progress(done / total)

    def postings(self) -> Postings:
        """Postings of the kept rows, payload changes folded in."""
        parts = []
        for view, kept in self._each():
            self._poll()
            parts.append((view.postings(), kept))
        if len(parts) == 1 and len(parts[0][1]) == parts[0][0].n:
            return parts[0][0]
        return Postings.merge(parts)

    def text(self) -> TextIndex:
        """The words of the kept rows' texts."""
        parts = []
        for (view, kept), base in zip(self._each(), self._bases, strict=False):
            for index, start, rows in view.text(self._poll):
                low, high = kept.searchsorted((start, start + rows)).tolist()
                parts.append(Moved(index, kept[low:high] - start, np.arange(base + low, base + high)))
        return merged(parts, self.rows, self._poll)

    def _each(self) -> Iterator[tuple[View, NDArray[np.int64]]]:
        yield from zip(self._sources, self._kept, strict=True)

    def _poll(self) -> None:
        if self._options.cancelled():
            raise BuildCancelled
