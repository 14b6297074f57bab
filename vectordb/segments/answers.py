"""What filters select in one segment, kept for those who ask the same again, within bounds of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vectordb.segments.filter_cache import CACHE_BYTES, FilterCache
from vectordb.segments.selection import COPY_BYTES, COPY_SHARE, SELECTION_BYTES, Selections

if TYPE_CHECKING:
    from vectordb.filter import Filter


class Answers:
    """The answers of filters that one segment keeps. Thread-safe.

    Args:
        rows: Rows of the segment.
        dim: d of its vectors.
        vector_bytes: Bytes of all of them.

    Attributes:
        matching: Rows that meet a filter, as they were written.
        selections: Those of them that are alive and have a vector, and copies of their vectors.
        spread: See :attr:`Part.spread`.
    """

    __slots__ = ("_copies", "_most", "_most_copied", "matching", "selections", "spread")

    def __init__(self, rows: int, dim: int, vector_bytes: int) -> None:
        self.matching = FilterCache()
        self.spread: dict[Filter, bool] = {}
        self._most_copied = self._most = min(COPY_BYTES, vector_bytes // COPY_SHARE)
        self._copies = True
        self.selections = Selections(rows, dim, self._most_copied)

    def limit(self, most: int) -> None:
        """Bounds all of it in bytes: half of that is for copies."""
        self._most_copied = min(self._most, most // 2)
        self.matching.limit(min(CACHE_BYTES, most // 4))
        self.selections.limit(min(SELECTION_BYTES, most // 4))
        self.allow_copies(self._copies)

    def allow_copies(self, allowed: bool) -> None:
        """Whether copies of vectors may be kept: not where memory is to be the codes of the index alone."""
        self._copies = allowed
        self.selections.limit_copies(self._most_copied if allowed else 0)

    @property
    def nbytes(self) -> int:
        """Memory in bytes, about."""
        return self.matching.nbytes + self.selections.nbytes
