"""A sealed segment: immutable columns, an optional index over its vectors, and the changes that came after sealing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vectordb.index.base import capabilities_of
from vectordb.index.calibration import Calibration
from vectordb.metadata.estimate import Estimate, estimate
from vectordb.metadata.evaluate import evaluate
from vectordb.metadata.rowset import RowSet, from_rows, to_bits, to_mask
from vectordb.segments.answers import Answers
from vectordb.segments.part import Block
from vectordb.segments.vectors import COMPRESSED_SHARE, usual_share
from vectordb.segments.views import View
from vectordb.text.build import no_poll
from vectordb.text.index import Piece, TextIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.filter import Filter
    from vectordb.index.apart import Scratch
    from vectordb.index.base import IndexKind, VectorIndex
    from vectordb.metadata.postings import Postings
    from vectordb.segments.blobs import BlobColumn, Strings
    from vectordb.segments.changes import Changes
    from vectordb.segments.ids import IdColumn
    from vectordb.segments.info import IndexInfo, SegmentInfo
    from vectordb.segments.vectors import VectorMatrix


class SegmentData:
    """The immutable columns of one segment, shared by all its views and indexes. Thread-safe.

    Args:
        info: Its facts.
        offsets: uint64[rows] ascending, or None where ``info.dense``.
        strings: The ids, and the encoded metadata; None where only storage has that (see :meth:`Part.metadata`).
        payload_versions: uint64[rows].
        vectors: Prepared float32[m, dim].
        vector_rows: int32[m] ascending, the row of each vector; None where every row has one.
        postings: Postings of the rows' metadata.

    Attributes:
        text: The words of the rows' texts; None where no row has one. Set once, before the segment is shared.
        answers: What is kept of filters that were asked.
    """

    __slots__ = (
        "_with_vector",
        "answers",
        "ids",
        "info",
        "metadata",
        "offsets",
        "payload_versions",
        "postings",
        "text",
        "vector_rows",
        "vectors",
    )

    def __init__(
        self,
        info: SegmentInfo,
        offsets: NDArray[np.uint64] | None,
        strings: tuple[IdColumn, BlobColumn | None],
        payload_versions: NDArray[np.uint64],
        matrix: tuple[VectorMatrix, NDArray[np.int32] | None],
        postings: Postings,
    ) -> None:
        self.info = info
        self.offsets = offsets
        self.ids, self.metadata = strings
        self.payload_versions = payload_versions
        self.vectors, self.vector_rows = matrix
        self.postings = postings
        self.text: TextIndex | None = None
        self.answers = Answers(info.rows, self.vectors.array.shape[1], self.vectors.nbytes)
        self._with_vector: RowSet | None = None

    def with_vector(self) -> RowSet:
        """Rows that have a vector, where not all have. Do not change it."""
        rows = self._with_vector
        if rows is None:
            assert self.vector_rows is not None
            rows = self._with_vector = from_rows(self.vector_rows)
        return rows


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """An index over a segment's matrix: itself, its kind, and how it was built.

    Attributes:
        scratch: Keeps the file of an index that was built apart for a database in memory.
    """

    index: VectorIndex
    kind: IndexKind
    info: IndexInfo
    scratch: Scratch | None = None


class Segment:
    """One sealed segment. Columns and index never change; changes are written under the collection's commit lock.

    Attributes:
        ref: What the manifest names (``store.py``): an index too that there was no memory to load. Of a segment in
            memory just a unique name.
        name: Name of the segment, the same for all its indexes.
        lo: First offset of the range it covers.
        hi: End of that range (exclusive).
        rows: Rows in it, dead ones included.
        vector_count: Rows that have a vector, dead ones included.
        data: Its columns.
        built: Its index, or None.
        calibration: What recall that index was measured to have, or None.
        changes: Deletions and payload changes since it was sealed.
        born: When it was made in this process, as of ``time.monotonic``.
        disk_bytes: Size of its files, index included; 0 in memory.
        data_disk_bytes: Size of its files without the index.
    """

    __slots__ = (
        "born",
        "built",
        "calibration",
        "changes",
        "data",
        "data_disk_bytes",
        "disk_bytes",
        "hi",
        "lo",
        "name",
        "ref",
        "rows",
        "vector_count",
    )

    def __init__(self, data: SegmentData, changes: Changes, ref: str = "", disk_bytes: int = 0) -> None:
        self.data = data
        self.changes = changes
        self.name = data.info.name
        self.ref = ref or self.name
        self.lo = data.info.lo
        self.hi = data.info.hi
        self.rows = data.info.rows
        self.born = time.monotonic()
        self.vector_count = data.info.vector_count
        self.built: BuiltIndex | None = None
        self.calibration: Calibration | None = None
        self.data_disk_bytes = self.disk_bytes = disk_bytes

    def with_index(self, built: BuiltIndex, ref: str = "", disk_bytes: int = 0) -> Segment:
        """The same segment with another index. It shares columns *and changes* with this one, so that the caller
        swaps one for the other under the commit lock without copying anything; :meth:`serve` is part of the swap.

        Args:
            built: The index.
            ref: Reference of segment and index.
            disk_bytes: Size of the index's files.
        """
        segment = Segment(self.data, self.changes, ref or f"{self.name}/{built.info.name}")
        segment.built = built
        segment.calibration = Calibration.from_json(built.info.calibration)
        segment.data_disk_bytes = self.data_disk_bytes
        segment.disk_bytes = self.data_disk_bytes + disk_bytes
        return segment

    def without_index(self) -> Segment:
        """The same segment without an index; it shares columns and changes, as :meth:`with_index`."""
        return Segment(self.data, self.changes, self.name, self.data_disk_bytes)

    @property
    def names_index(self) -> bool:
        """Whether ``ref`` names an index, be it loaded or not."""
        return self.ref != self.name

    def leave_index(self, ref: str, disk_bytes: int) -> None:
        """Notes the index that it has on disk and that is not loaded, before it is shared.

        Args:
            ref: Reference of segment and index.
            disk_bytes: Size of the index's files.
        """
        self.ref = ref
        self.disk_bytes += disk_bytes

    def serve(self) -> None:
        """Says that of all segments with these columns searches use this one from now on: whether it has an index
        decides how they read the vectors."""
        lean = self.built is not None and capabilities_of(self.built.index, self.built.kind).compressed
        self.data.answers.allow_copies(not lean)
        if self.built is None:
            self.data.vectors.set_dense()
        else:
            vectors = self.data.vectors
            vectors.set_sparse(COMPRESSED_SHARE if lean else usual_share(vectors.nbytes))

    def set_text(self, text: TextIndex, disk_bytes: int) -> None:
        """Gives it the index over its rows' texts, before it is shared.

        Args:
            text: Over all rows.
            disk_bytes: Size of its file.
        """
        self.data.text = text
        self.data_disk_bytes += disk_bytes
        self.disk_bytes += disk_bytes

    def view(self, version: int) -> SegmentView:
        """The segment as of ``version``, in constant time."""
        return SegmentView(self, version)

    def mark_deleted(self, offsets: NDArray[np.uint64], version: int) -> int:
        """Marks rows as deleted by ``version``. Offsets it does not hold, and dead rows, are passed over.

        Returns:
            How many rows were alive until now.
        """
        return self.changes.mark_deleted(self._held(offsets), version, self.rows)

    def restore_deleted(self, offsets: NDArray[np.uint64], versions: NDArray[np.uint64]) -> int:
        """As :meth:`mark_deleted` for deletions of many versions in any order, on opening; before any view is taken."""
        rows = _rows_at(self.data, offsets)
        held = rows >= 0
        return self.changes.restore_deleted(rows[held], versions[held], self.rows)

    def overlay(self, offsets: NDArray[np.uint64], version: int, metadata: Sequence[bytes]) -> None:
        """Replaces payloads as of ``version``: one encoded map an offset. Offsets it does not hold are passed over."""
        rows = _rows_at(self.data, offsets)
        held = np.flatnonzero(rows >= 0)
        self.changes.overlay(rows[held], version, [metadata[i] for i in held.tolist()])

    def offsets_of(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The offsets of rows: uint64[k]."""
        return _offsets(self.data, rows)

    def memory_bytes(self) -> int:
        """Bytes of memory that it may take, mapped ones included."""
        data = self.data
        columns = data.ids.nbytes + data.payload_versions.nbytes + data.postings.memory_bytes + data.answers.nbytes
        columns += 0 if data.metadata is None else data.metadata.nbytes
        columns += 0 if data.text is None else data.text.nbytes
        index = 0 if self.built is None else self.built.index.memory_bytes()
        return columns + data.vectors.resident_bytes + index + self.changes.nbytes

    def _held(self, offsets: NDArray[np.uint64]) -> NDArray[np.int64]:
        rows = _rows_at(self.data, offsets)
        return rows[rows >= 0]


class SegmentView(View):
    """A segment at one version: :class:`~vectordb.segments.part.Part`. Immutable, thread-safe."""

    __slots__ = ("_data", "built")
    _caches = True

    def __init__(self, segment: Segment, version: int) -> None:
        super().__init__(segment.changes, version)
        self._data = segment.data
        self.spread = segment.data.answers.spread
        self._selections = segment.data.answers.selections
        self.built = segment.built
        self.name = segment.name
        self.lo = segment.lo
        self.hi = segment.hi
        self.rows = segment.rows
        self.vector_count = segment.vector_count
        self.index = None if segment.built is None else segment.built.index
        self.kind = None if segment.built is None else segment.built.kind
        self.calibration = segment.calibration

    def blocks(self, max_bytes: int) -> Iterator[Block]:
        """The whole vector matrix, in stretches of at most ``max_bytes`` (at least one row each)."""
        vector_rows = self._data.vector_rows
        for start, vectors in self._data.vectors.stretches(max_bytes):
            if vector_rows is None:
                yield Block(vectors, None, start)
            else:
                yield Block(vectors, vector_rows[start : start + len(vectors)].astype(np.int64), -1)

    def vectors_at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Prepared vectors float32[k, d] of rows that have one (a copy)."""
        vector_rows = self._data.vector_rows
        return self._data.vectors.take(rows if vector_rows is None else np.searchsorted(vector_rows, rows))

    def in_place(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The whole vector matrix and the positions of rows that have a vector."""
        vector_rows = self._data.vector_rows
        positions = rows if vector_rows is None else np.searchsorted(vector_rows, rows)
        return self._data.vectors.whole(len(rows)), positions

    def rows_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of positions of the matrix; -1 stays -1. May return its argument."""
        vector_rows = self._data.vector_rows
        if vector_rows is None:
            return positions
        if len(vector_rows) == 0:
            return np.full(positions.shape, -1, np.int64)
        return np.where(positions < 0, -1, vector_rows.take(positions, mode="clip")).astype(np.int64)

    def allowed_positions(self, rows: RowSet) -> NDArray[np.uint8]:
        """Packed bits over positions, set for the given rows."""
        vector_rows = self._data.vector_rows
        if vector_rows is None:
            return to_bits(rows, self.rows)
        return np.packbits(to_mask(rows, self.rows)[vector_rows], bitorder="little")

    def with_vector(self, rows: RowSet) -> RowSet:
        """Those of the given rows that have a vector. May return its argument."""
        return rows if self._data.vector_rows is None else rows & self._data.with_vector()

    def vector_rows(self) -> NDArray[np.int64] | None:
        """The row of each position, int64[m], or None where they are equal."""
        vector_rows = self._data.vector_rows
        return None if vector_rows is None else vector_rows.astype(np.int64)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The rows' ids."""
        return self._data.ids.take(rows)

    def offsets(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The rows' offsets: uint64[k]."""
        return _offsets(self._data, rows)

    def rows_at(self, offsets: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The rows of offsets, dead or alive, -1 for those that this part does not hold: int64[k]."""
        return _rows_at(self._data, offsets)

    def text(self, poll: Callable[[], None] = no_poll) -> Sequence[Piece]:
        """The words of the rows' texts."""
        text = self._data.text
        return () if text is None else (Piece(text, 0, self.rows),)

    def _base_metadata(self, rows: NDArray[np.int64]) -> list[bytes] | None:
        column = self._data.metadata
        return None if column is None else column.strings(rows)

    def _base_metadata_pieces(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Strings]] | None:
        column = self._data.metadata
        return None if column is None else column.pieces(rows)

    def _base_postings(self) -> Postings:
        return self._data.postings

    def _base_matching(self, where: Filter, keep: bool) -> RowSet:
        return self._data.answers.matching.get(where, lambda: evaluate(where, self._data.postings), keep=keep)

    def _base_estimate(self, where: Filter) -> Estimate:
        return estimate(where, self._data.postings)

    def _base_payload_versions(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        return self._data.payload_versions.take(rows)

    def _base_sort_keys(self, path: str, rows: NDArray[np.int64]) -> list[tuple[int, object] | None]:
        return self._data.postings.sort_keys(path, rows)


def _offsets(data: SegmentData, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    if data.offsets is None:
        return (rows + data.info.first_offset).view(np.uint64)
    return data.offsets.take(rows)


def _rows_at(data: SegmentData, offsets: NDArray[np.uint64]) -> NDArray[np.int64]:
    if data.offsets is None:
        rows = offsets.astype(np.int64) - data.info.first_offset
        rows[(rows < 0) | (rows >= data.info.rows)] = -1
        return rows
    rows = np.searchsorted(data.offsets, offsets)
    found = data.offsets.take(rows, mode="clip") == offsets
    return np.where(found, rows, -1).astype(np.int64)
