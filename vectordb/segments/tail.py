"""The tail: rows that are committed but not yet sealed, in memory, searched exactly.

It is a short list of *sections*, each append-only. New rows go to the last one. To seal, the optimizer freezes it
(:meth:`Tail.freeze`), which opens a new one, builds a segment from the frozen sections at leisure, and drops them
(:meth:`Tail.drop`) in the step that publishes the segment. Nothing is ever copied or cut, and views keep the sections
that they were made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.metadata.rowset import RowSet, from_rows, to_bits, to_mask
from vectordb.metadata.runs import MetadataRuns
from vectordb.segments.blobs import Strings, joined
from vectordb.segments.changes import Changes
from vectordb.segments.chunks import ChunkedMatrix, GrowingColumn, OffsetRuns
from vectordb.segments.part import Block
from vectordb.segments.views import View
from vectordb.text.analyzers import STANDARD, analyzer
from vectordb.text.build import no_poll
from vectordb.text.runs import TextRuns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vectordb.filter import Filter
    from vectordb.metadata.estimate import Estimate
    from vectordb.metadata.postings import Postings
    from vectordb.segments.rows import RowBatch
    from vectordb.text.index import Piece
    from vectordb.types import FieldSpec

TAIL = "tail"
_ROW_OVERHEAD = 120
"""Bytes of Python objects a row (id, metadata), about."""
_ROWS_AT_ONCE = 8192
"""Rows whose metadata is joined at a time: few milliseconds of the GIL."""


class TailSection:
    """Append-only rows with offsets from ``lo`` on. Written under the commit lock, viewed at any time.

    Attributes:
        lo: First offset of the range it covers.
        hi: End of that range (exclusive): one past the last offset, or where it was frozen.
        rows: Rows appended.
        vector_count: Those of them that have a vector.
        changes: Deletions and payload changes.
    """

    __slots__ = (
        "_has_vector",
        "_ids",
        "_matrix",
        "_metadata",
        "_offsets",
        "_payload_versions",
        "_text_bytes",
        "_texts",
        "changes",
        "dim",
        "hi",
        "lo",
        "rows",
        "vector_count",
    )

    def __init__(
        self, dim: int, first_offset: int, fields: Mapping[str, FieldSpec] | None, words: str = STANDARD
    ) -> None:
        self.dim = dim
        self.lo = self.hi = first_offset
        self.rows = self.vector_count = 0
        self.changes = Changes(fields)
        self._ids: list[str] = []
        self._matrix = ChunkedMatrix(dim)
        self._has_vector = GrowingColumn(np.bool_)
        self._metadata = MetadataRuns(fields)
        self._offsets = OffsetRuns()
        self._payload_versions = GrowingColumn(np.uint64)
        self._text_bytes = 0
        self._texts = TextRuns(analyzer(words))

    def append(self, batch: RowBatch) -> None:
        """Appends rows, whose offsets must be at least ``hi``. They show in views made afterwards.

        Raises:
            ValueError: Offsets out of order, or vectors of another length. Nothing was appended then.
        """
        if len(batch) == 0:
            return
        if int(batch.offsets[0]) < self.hi or not (batch.offsets[1:] > batch.offsets[:-1]).all():
            raise ValueError(f"offsets must ascend from {self.hi} on, got {batch.offsets[0]}..{batch.offsets[-1]}")
        if batch.vectors is not None and batch.vectors.shape[1] != self.dim:
            raise ValueError(f"vectors have dim {batch.vectors.shape[1]}, the tail {self.dim}")
        self._matrix.append(batch.vectors, len(batch))
        mask = batch.vector_mask()
        self._has_vector.append(mask)
        self._ids.extend(batch.ids)
        self._metadata.append(batch.metadata)
        self._texts.append(batch.texts, len(batch))
        self._offsets.append(batch.offsets)
        self._payload_versions.append(batch.payload_versions)
        self._text_bytes += sum(map(len, batch.ids)) + sum(map(len, batch.metadata)) + _ROW_OVERHEAD * len(batch)
        self.vector_count += int(np.count_nonzero(mask))
        self.rows += len(batch)
        self.hi = int(batch.offsets[-1]) + 1

    @property
    def text_bytes(self) -> int:
        """Bytes of the rows' texts."""
        return self._texts.bytes

    def view(self, version: int) -> TailView:
        """The rows appended so far, as of ``version``, in constant time. To be called under the commit lock."""
        return TailView(self, version)

    def mark_deleted(self, offsets: NDArray[np.uint64], version: int) -> int:
        """As :meth:`Segment.mark_deleted`."""
        rows = self._offsets.to_rows(offsets, self.rows)
        return self.changes.mark_deleted(rows[rows >= 0], version, self.rows)

    def restore_deleted(self, offsets: NDArray[np.uint64], versions: NDArray[np.uint64]) -> int:
        """As :meth:`Segment.restore_deleted`."""
        rows = self._offsets.to_rows(offsets, self.rows)
        held = rows >= 0
        return self.changes.restore_deleted(rows[held], versions[held], self.rows)

    def overlay(self, offsets: NDArray[np.uint64], version: int, metadata: Sequence[bytes]) -> None:
        """As :meth:`Segment.overlay`."""
        rows = self._offsets.to_rows(offsets, self.rows)
        held = np.flatnonzero(rows >= 0)
        self.changes.overlay(rows[held], version, [metadata[i] for i in held.tolist()])

    def offsets_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The offsets of rows: uint64[k]."""
        return self._offsets.of_rows(rows)

    def memory_bytes(self) -> int:
        """Bytes of memory, about."""
        columns = self._matrix.nbytes + self._text_bytes + 9 * self.rows
        return columns + self._metadata.memory_bytes + self._texts.memory_bytes + self.changes.nbytes


class TailView(View):
    """The first rows of a section at one version: :class:`~vectordb.segments.part.Part`. Immutable, thread-safe."""

    __slots__ = ("_has_vector", "_payload_versions", "_positions", "_section", "_with_vector")

    def __init__(self, section: TailSection, version: int) -> None:
        super().__init__(section.changes, version)
        self._section = section
        self._has_vector: NDArray[Any] = section._has_vector.array
        self._payload_versions: NDArray[Any] = section._payload_versions.array
        self._positions: NDArray[np.int64] | None = None
        self._with_vector: RowSet | None = None
        self.name = TAIL
        self.lo = section.lo
        self.hi = section.hi
        self.rows = section.rows
        self.vector_count = section.vector_count
        self.index = None
        self.kind = None
        self.calibration = None
        self.spread: dict[Filter, bool] = {}

    def blocks(self, max_bytes: int) -> Iterator[Block]:
        """The whole vector matrix, in stretches of at most ``max_bytes`` (at least one row each).

        No copy where all rows of a stretch have a vector.
        """
        matrix = self._section._matrix
        step = min(matrix.step, max(1, max_bytes // (4 * self._section.dim)))
        start = 0
        while start < self.rows:
            # Not across the end of a chunk.
            stop = min(start + step, self.rows, (start // matrix.step + 1) * matrix.step)
            vectors = matrix.stretch(start, stop)
            if self.vector_count == self.rows:
                yield Block(vectors, None, start)
            else:
                rows = np.flatnonzero(self._has_vector[start:stop])
                if len(rows):
                    yield Block(vectors[rows], rows + start, -1)
            start = stop

    def vectors_at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Prepared vectors float32[k, d] of rows that have one (a copy)."""
        return self._section._matrix.take(rows)

    def in_place(self, rows: NDArray[np.int64]) -> None:
        """The tail's vectors lie in chunks: there is no whole matrix."""

    def vector_rows(self) -> NDArray[np.int64] | None:
        """The row of each position int64[m], ascending; None where position i is row i."""
        if self.vector_count == self.rows:
            return None
        if self._positions is None:
            self._positions = np.flatnonzero(self._has_vector[: self.rows])
        return self._positions

    def rows_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of positions; -1 stays -1. May return its argument."""
        rows = self.vector_rows()
        if rows is None:
            return positions
        if len(rows) == 0:
            return np.full(positions.shape, -1, np.int64)
        return np.where(positions < 0, -1, rows.take(positions, mode="clip"))

    def allowed_positions(self, rows: RowSet) -> NDArray[np.uint8]:
        """Packed bits over positions, set for the given rows."""
        vector_rows = self.vector_rows()
        if vector_rows is None:
            return to_bits(rows, self.rows)
        return np.packbits(to_mask(rows, self.rows)[vector_rows], bitorder="little")

    def with_vector(self, rows: RowSet) -> RowSet:
        """Those of the given rows that have a vector. May return its argument."""
        vector_rows = self.vector_rows()
        if vector_rows is None:
            return rows
        if self._with_vector is None:
            self._with_vector = from_rows(vector_rows)
        return rows & self._with_vector

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The rows' ids."""
        ids = self._section._ids
        return [ids[row] for row in rows.tolist()]

    def offsets(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The rows' offsets: uint64[k]."""
        return self._section._offsets.of_rows(rows)

    def rows_at(self, offsets: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The rows of offsets, dead or alive, -1 for those that this part does not hold: int64[k]."""
        return self._section._offsets.to_rows(offsets, self.rows)

    def text(self, poll: Callable[[], None] = no_poll) -> Sequence[Piece]:
        """The words of the rows' texts; those that were not asked for before are indexed now."""
        return self._section._texts.pieces(self.rows, poll)

    def _base_metadata(self, rows: NDArray[np.int64]) -> list[bytes]:
        return self._section._metadata.encoded_at(rows.tolist())

    def _base_metadata_pieces(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Strings]]:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            yield some, joined(self._base_metadata(some))

    def _base_postings(self) -> Postings:
        return self._section._metadata.view(self.rows).postings()

    def _base_matching(self, where: Filter, keep: bool) -> RowSet:
        return self._section._metadata.view(self.rows).matching(where)

    def _base_estimate(self, where: Filter) -> Estimate:
        return self._section._metadata.view(self.rows).estimate(where)

    def _base_payload_versions(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        return self._payload_versions.take(rows)

    def _base_sort_keys(self, path: str, rows: NDArray[np.int64]) -> list[tuple[int, object] | None]:
        return self._section._metadata.view(self.rows).sort_keys(path, rows)


class Tail:
    """All unsealed rows of a collection. Every method but the properties is called under the commit lock.

    Args:
        dim: Length of the vectors.
        first_offset: Where the tail begins: the end of the last segment.
        fields: The collection's declared fields.
        words: Name of the collection's analyzer.

    Attributes:
        sections: In offset order, the last one open; replaced as a whole.
    """

    __slots__ = ("_fields", "_words", "dim", "sections")

    def __init__(
        self, dim: int, first_offset: int, fields: Mapping[str, FieldSpec] | None = None, words: str = STANDARD
    ) -> None:
        self.dim = dim
        self._fields = fields
        self._words = words
        self.sections: tuple[TailSection, ...] = (TailSection(dim, first_offset, fields, words),)

    @property
    def lo(self) -> int:
        """First offset of the range that the tail covers."""
        return self.sections[0].lo

    @property
    def rows(self) -> int:
        """Rows in all sections, dead ones included."""
        return sum(section.rows for section in self.sections)

    @property
    def open_bytes(self) -> int:
        """Bytes of raw vectors in the open section alone: what is not yet being sealed.

        Texts are kept in memory until they are sealed, so where they are long a quarter of their bytes counts instead;
        and all payloads that were replaced, or a few rows that are changed for ever would never be sealed.
        """
        last = self.sections[-1]
        return max(4 * self.dim * last.rows, last.text_bytes // 4, last.changes.payload_bytes)

    def memory_bytes(self) -> int:
        """Bytes of memory, about."""
        return sum(section.memory_bytes() for section in self.sections)

    def append(self, batch: RowBatch) -> None:
        """Appends committed rows to the open section; see :meth:`TailSection.append`."""
        self.sections[-1].append(batch)

    def freeze(self) -> int:
        """Closes the open section, if it has rows, and opens another. Constant time.

        Returns:
            The end of the frozen sections (exclusive): what to seal up to, and to pass to :meth:`drop`. Equal to
            :attr:`lo` when there is nothing to seal.
        """
        last = self.sections[-1]
        if last.rows:
            self.sections = (*self.sections, TailSection(self.dim, last.hi, self._fields, self._words))
        return self.sections[-1].lo

    def views(self, version: int) -> tuple[TailView, ...]:
        """Views of the sections in offset order, at least one."""
        return tuple(section.view(version) for section in self.sections)

    def drop(self, upto: int) -> None:
        """Forgets the sections below ``upto``, which a segment now holds. Views of them stay valid."""
        kept = tuple(s for s in self.sections[:-1] if s.lo >= upto)
        self.sections = (*kept, self.sections[-1])
