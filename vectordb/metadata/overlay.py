"""Payloads changed since a part was built: an append-only log of (row, version, metadata) that corrects its answers.

Thread safety rests on appends only: an entry is complete before the length that includes it is published, and a view
never looks at an entry beyond its length. ``_superseded`` alone changes in place; whatever is stored there after a view
was made is at least the view's length, which the view reads just like "not superseded".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.metadata import rowset
from vectordb.metadata.estimate import Estimate
from vectordb.metadata.postings import Postings
from vectordb.metadata.runs import MetadataRuns, RunsView

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.filter import Filter
    from vectordb.metadata.rowset import RowSet
    from vectordb.types import FieldSpec

_NEVER = np.iinfo(np.int64).max
_FEW = 64
"""So many rows are looked up one by one, more by sorting."""


class OverlayLog:
    """Changed payloads of one part. One appender, any number of readers, all thread-safe."""

    def __init__(self, fields: Mapping[str, FieldSpec] | None = None) -> None:
        self._runs = MetadataRuns(fields)
        self._rows = np.empty(0, dtype=np.int64)
        self._versions = np.empty(0, dtype=np.uint64)
        self._superseded = np.empty(0, dtype=np.int64)  # entry that overrides this one, or _NEVER
        self._previous: list[int] = []  # entry that this one overrides, or -1
        self._latest: dict[int, int] = {}  # row -> its newest entry
        self._length = 0
        self._lock = threading.Lock()
        self._overlaid: tuple[int, RowSet] = (0, rowset.RowSet())  # rows of the first k entries, guarded by self._lock

    def __len__(self) -> int:
        return self._length

    def append(self, rows: Sequence[int] | NDArray[np.int64], version: int, metadata: Sequence[bytes]) -> None:
        """Adds entries in order; a later entry of a row overrides its earlier ones.

        Args:
            rows: Rows of the part.
            version: The version that wrote these payloads, not below any earlier one.
            metadata: Encoded metadata of each row, whole.
        """
        start, end = self._length, self._length + len(rows)
        self._reserve(end)
        self._rows[start:end] = rows
        self._versions[start:end] = version
        self._superseded[start:end] = _NEVER
        for entry, row in enumerate(map(int, rows), start):
            before = self._latest.get(row, -1)
            self._previous.append(before)
            if before >= 0:
                self._superseded[before] = entry
            self._latest[row] = entry
        self._runs.append(metadata)
        self._length = end

    def at(self, version: int) -> OverlayView | None:
        """The entries of versions up to and including this one, for good; ``None`` where there are none."""
        length = int(np.searchsorted(self._versions[: self._length], np.uint64(version), side="right"))
        return OverlayView(self, length) if length else None

    @property
    def nbytes(self) -> int:
        """Bytes of entries and postings, an estimate."""
        return self._runs.memory_bytes + 3 * self._rows.nbytes + 150 * len(self._latest)

    def _reserve(self, size: int) -> None:
        if size <= len(self._rows):
            return
        room = max(2 * len(self._rows), size, 16)
        for name in ("_rows", "_versions", "_superseded"):
            old = getattr(self, name)
            # Copied, not resized: views keep the arrays that they were made with.
            new = np.empty(room, dtype=old.dtype)
            new[: self._length] = old[: self._length]
            setattr(self, name, new)

    def _rows_of_first(self, rows: NDArray[np.int64]) -> RowSet:
        """The set of the rows of the first entries, extending the last such set where possible."""
        with self._lock:
            done, known = self._overlaid
            if done <= len(rows):
                known = known | rowset.from_rows(rows[done:])
                self._overlaid = (len(rows), known)
                return known
        return rowset.from_rows(rows)


class OverlayView:
    """The first entries of an overlay, at least one, as corrections to the answers of the part below. Immutable,
    thread-safe."""

    __slots__ = ("_log", "_overlaid", "_rows", "_superseded", "_versions", "length")

    def __init__(self, log: OverlayLog, length: int) -> None:
        self._log = log
        self.length = length
        self._rows = log._rows[:length]
        self._versions = log._versions[:length]
        self._superseded = log._superseded[:length]
        self._overlaid: RowSet | None = None

    @property
    def rows(self) -> RowSet:
        """All rows with a changed payload (do not change)."""
        if self._overlaid is None:
            self._overlaid = self._log._rows_of_first(self._rows)
        return self._overlaid

    @property
    def count(self) -> int:
        """How many rows have a changed payload."""
        return len(self.rows)

    def entries(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest entry of each of the rows int64[k], -1 where the row has none."""
        if len(rows) <= _FEW:
            return np.array([self._entry(row) for row in rows.tolist()], dtype=np.int64)
        live = np.flatnonzero(self._live())
        order = np.argsort(self._rows[live])
        live_rows = self._rows[live][order]
        at = np.minimum(np.searchsorted(live_rows, rows), len(live) - 1)
        return np.where(live_rows[at] == rows, live[order][at], -1)

    def versions(self, rows: NDArray[np.int64], base: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Payload versions of rows int64[k]: the newest entry's, else ``base`` uint64[k]."""
        entries = self.entries(rows)
        return np.where(entries >= 0, self._versions[entries], base)

    def correct(self, tree: Filter, base: RowSet) -> RowSet:
        """The rows that meet the filter now, where ``base`` met it before.

        Raises:
            InvalidFilter: A field is declared with ``indexed: false``.
        """
        entries = rowset.to_rows(self._entries_view().matching(tree))
        entries = entries[self._superseded[entries] >= self.length]
        return (base - self.rows) | rowset.from_rows(self._rows[entries])

    def correct_estimate(self, tree: Filter, base: Estimate, n: int | None = None) -> Estimate:
        """The estimate now, where ``base`` was it without the overlay. Tighter when told the part's rows n."""
        changed = self.count
        dead = self.length - changed
        found = self._entries_view().estimate(tree)
        low = max(0, base.low - changed) + max(0, found.low - dead)
        high = (base.high if n is None else min(base.high, n - changed)) + min(found.high, changed)
        kept = 1.0 if n is None else (n - changed) / n
        expected = round(base.expected * kept + found.expected * changed / self.length)
        return Estimate(low, min(max(expected, low), high), high)

    def values(self, path: str, rows: NDArray[np.int64], base: list[Any]) -> list[Any]:
        """Values of a field at rows int64[k], where ``base`` had them without the overlay."""
        return self._replaced(rows, base, lambda entries: self._entries_view().values(path, entries))

    def correct_sort_keys(
        self, path: str, rows: NDArray[np.int64], base: list[tuple[int, object] | None]
    ) -> list[tuple[int, object] | None]:
        """Sort keys of a field at rows int64[k], where ``base`` had them without the overlay."""
        return self._replaced(rows, base, lambda entries: self._entries_view().sort_keys(path, entries))

    def correct_encoded(self, rows: NDArray[np.int64], base: list[bytes]) -> list[bytes]:
        """Encoded metadata of rows int64[k], where ``base`` had it without the overlay."""
        return self._replaced(rows, base, self._encoded)

    def changed_among(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], list[bytes]]:
        """Which of the rows int64[k] have a changed payload, bool[k], and the encoded metadata of those, in order."""
        entries = self.entries(rows)
        changed = entries >= 0
        return changed, self._encoded(entries[changed])

    def postings(self) -> tuple[NDArray[np.int64], Postings]:
        """The rows with changed payloads, ascending, int64[k], and the postings of those payloads in that order."""
        live = np.flatnonzero(self._live())
        live = live[np.argsort(self._rows[live])]
        return self._rows[live], Postings.merge([(self._entries_view().postings(), live)])

    def folded(self, base: Postings) -> Postings:
        """The part's postings with the overlay folded in, rows in place."""
        rows, changed = self.postings()
        kept = np.arange(base.n)
        kept[rows] = -1
        return Postings.combine([(base, kept), (changed, rows)], base.n)

    def _replaced(
        self, rows: NDArray[np.int64], base: list[Any], new: Callable[[NDArray[np.int64]], list[Any]]
    ) -> list[Any]:
        entries = self.entries(rows)
        changed = np.flatnonzero(entries >= 0)
        out = list(base)
        for i, value in zip(changed.tolist(), new(entries[changed]), strict=True):
            out[i] = value
        return out

    def _encoded(self, entries: NDArray[np.int64]) -> list[bytes]:
        return self._log._runs.encoded_at(entries.tolist())

    def _entries_view(self) -> RunsView:
        return self._log._runs.view(self.length)

    def _live(self) -> NDArray[np.bool_]:
        return self._superseded >= self.length

    def _entry(self, row: int) -> int:
        entry = self._log._latest.get(row, -1)
        while entry >= self.length:
            entry = self._log._previous[entry]
        return entry
