"""What views of segments and of tail sections have in common: rows that never change, plus changes up to a version."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectordb.metadata.rowset import to_rows
from vectordb.segments.blobs import replaced
from vectordb.segments.filter_cache import FilterCache
from vectordb.segments.selection import Changed, Selection, Selections
from vectordb.text.bm25 import Totals
from vectordb.text.build import no_poll

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.filter import Filter
    from vectordb.index.base import IndexKind, VectorIndex
    from vectordb.index.calibration import Calibration
    from vectordb.metadata.estimate import Estimate
    from vectordb.metadata.postings import Postings
    from vectordb.metadata.rowset import RowSet
    from vectordb.metric import Metric
    from vectordb.segments.blobs import Strings
    from vectordb.segments.changes import Changes
    from vectordb.segments.part import Block
    from vectordb.text.index import Piece

_ANSWERS = 1 << 20
"""Bytes of answers that one view keeps of its own."""


class View(ABC):
    """The part of :class:`~vectordb.segments.part.Part` that depends on the version. Immutable, thread-safe.

    Attributes:
        lo: First offset of the range that the part covers.
        hi: End of that range (exclusive).
        version: The version that it shows.
    """

    __slots__ = (
        "_answers",
        "_dead",
        "_overlay",
        "_selections",
        "_text_totals",
        "calibration",
        "dead",
        "hi",
        "index",
        "kind",
        "lo",
        "name",
        "rows",
        "spread",
        "vector_count",
        "version",
    )

    _caches = False
    """Whether ``_base_matching`` keeps its answers, which then outlive the view."""

    name: str
    lo: int
    hi: int
    rows: int
    vector_count: int
    index: VectorIndex | None
    kind: IndexKind | None
    calibration: Calibration | None
    spread: dict[Filter, bool]

    def __init__(self, changes: Changes, version: int) -> None:
        self.version = version
        self._dead, self._overlay = changes.at(version)
        self._answers: FilterCache | None = None
        self._selections: Selections | None = None
        self._text_totals: Totals | None = None
        self.dead = self._dead.count

    @property
    def replacements(self) -> int:
        """How often payloads were replaced since their rows were written, those that were replaced again included."""
        return 0 if self._overlay is None else self._overlay.length

    def changed_rows(self) -> NDArray[np.int64]:
        """Rows whose payload differs from the one they were written with: int64[k], ascending."""
        return np.empty(0, np.int64) if self._overlay is None else to_rows(self._overlay.rows)

    def alive(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the given rows are alive at this version: bool[k]."""
        return self._dead.alive(rows)

    def dead_rows(self) -> RowSet:
        """All dead rows (cached; do not change)."""
        return self._dead.rows()

    def matching(self, where: Filter, *, keep: bool = True) -> RowSet:
        """See :meth:`Part.matching`."""
        if self._overlay is None and self._caches:
            return self._base_matching(where, keep)
        answers = self._answers
        if answers is None:
            answers = self._answers = FilterCache(_ANSWERS)
        return answers.get(where, lambda: self._matching_now(where, keep), keep=keep)

    def selection(self, where: Filter) -> Selection:
        """The living rows with a vector that meet the filter, in the forms that searches take (cached)."""
        selections = self._selections
        if selections is None:
            selections = self._selections = Selections(self.rows, bound=_ANSWERS)
        return selections.get(self, where, Changed(self.dead, self.replacements))

    def copy_on(self, selection: Selection, metric: Metric) -> None:
        """Copies a few more of the vectors of a selection of this part that is ``copyable``."""
        if self._selections is not None:
            self._selections.copy_on(selection, self, metric)

    def _matching_now(self, where: Filter, keep: bool) -> RowSet:
        base = self._base_matching(where, keep)
        return base if self._overlay is None else self._overlay.correct(where, base)

    def estimate(self, where: Filter) -> Estimate:
        """Bounds and expectation of ``len(matching(where))``, without evaluating it in full."""
        base = self._base_estimate(where)
        return base if self._overlay is None else self._overlay.correct_estimate(where, base, self.rows)

    def payload_versions(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The version that last wrote each row's payload, as of this part's version: uint64[k]."""
        base = self._base_payload_versions(rows)
        return base if self._overlay is None else self._overlay.versions(rows, base)

    def sort_keys(self, path: str, rows: NDArray[np.int64]) -> list[tuple[int, object] | None]:
        """What ``order_by`` sorts the given rows by; see :meth:`Part.sort_keys`."""
        keys = self._base_sort_keys(path, rows)
        return keys if self._overlay is None else self._overlay.correct_sort_keys(path, rows, keys)

    def metadata(self, rows: NDArray[np.int64]) -> list[bytes] | None:
        """The rows' encoded metadata as of this part's version; None where only storage has it."""
        base = self._base_metadata(rows)
        return base if base is None or self._overlay is None else self._overlay.correct_encoded(rows, base)

    def metadata_pieces(self, rows: NDArray[np.int64]) -> Iterator[Strings] | None:
        """The same of ascending rows, some at a time, for sealing and merging."""
        pieces = self._base_metadata_pieces(rows)
        return None if pieces is None else self._corrected(pieces)

    def _corrected(self, pieces: Iterator[tuple[NDArray[np.int64], Strings]]) -> Iterator[Strings]:
        overlay = self._overlay
        for rows, strings in pieces:
            yield strings if overlay is None else replaced(strings, *overlay.changed_among(rows))

    def postings(self) -> Postings:
        """Postings of all rows with the payloads of this version, for sealing and merging."""
        base = self._base_postings()
        return base if self._overlay is None else self._overlay.folded(base)

    def deleted(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The dead rows int64[k], ascending, and the versions that deleted them uint64[k]."""
        rows = to_rows(self.dead_rows())
        return rows, self._dead.deleted.take(rows) if len(rows) else np.empty(0, np.uint64)

    def text_totals(self, poll: Callable[[], None] = no_poll) -> Totals:
        """Living rows that have a word, and how many words they have. Kept once it is known."""
        if self._text_totals is None:
            self._text_totals = self._count_words(self.text(poll))
        return self._text_totals

    def _count_words(self, pieces: Sequence[Piece]) -> Totals:
        documents = length = 0
        gone = to_rows(self.dead_rows()) if self.dead and pieces else None
        for index, start, rows in pieces:
            lengths = index.arrays.lengths[:rows]
            whole = rows == index.n
            documents += index.documents if whole else int(np.count_nonzero(lengths))
            length += index.total if whole else int(lengths.sum(dtype=np.int64))
            if gone is not None:
                low, high = gone.searchsorted((start, start + rows)).tolist()
                lost = lengths[gone[low:high] - start]
                documents -= int(np.count_nonzero(lost))
                length -= int(lost.sum(dtype=np.int64))
        return Totals(documents, length)

    @abstractmethod
    def text(self, poll: Callable[[], None] = no_poll) -> Sequence[Piece]:
        """See :meth:`Part.text`."""

    @abstractmethod
    def blocks(self, max_bytes: int) -> Iterator[Block]:
        """See :meth:`Part.blocks`."""

    @abstractmethod
    def vectors_at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """See :meth:`Part.vectors_at`."""

    @abstractmethod
    def in_place(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """See :meth:`Part.in_place`."""

    @abstractmethod
    def rows_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """See :meth:`Part.rows_of`."""

    @abstractmethod
    def allowed_positions(self, rows: RowSet) -> NDArray[np.uint8]:
        """See :meth:`Part.allowed_positions`."""

    @abstractmethod
    def with_vector(self, rows: RowSet) -> RowSet:
        """See :meth:`Part.with_vector`."""

    @abstractmethod
    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The rows' ids."""

    @abstractmethod
    def offsets(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The rows' offsets: uint64[k]."""

    @abstractmethod
    def rows_at(self, offsets: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The rows of offsets, dead or alive, -1 for those that this part does not hold: int64[k]."""

    @abstractmethod
    def vector_rows(self) -> NDArray[np.int64] | None:
        """The row of each position int64[m], ascending; None where position i is row i."""

    @abstractmethod
    def _base_metadata(self, rows: NDArray[np.int64]) -> list[bytes] | None: ...

    @abstractmethod
    def _base_metadata_pieces(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Strings]] | None: ...

    @abstractmethod
    def _base_postings(self) -> Postings: ...

    @abstractmethod
    def _base_matching(self, where: Filter, keep: bool) -> RowSet: ...

    @abstractmethod
    def _base_estimate(self, where: Filter) -> Estimate: ...

    @abstractmethod
    def _base_payload_versions(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]: ...

    @abstractmethod
    def _base_sort_keys(self, path: str, rows: NDArray[np.int64]) -> list[tuple[int, object] | None]: ...
