"""Which rows of a segment or tail section are dead, and since which version.

One array of deleting versions answers "is this row alive at version V?" for every V at once: a view needs no copy, and
later deletes never change it, since they carry later versions. A log of the deletions, newest last, gives counts and
bitmaps by version without a scan.
"""

from __future__ import annotations

from bisect import bisect_right
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from vectordb.metadata.rowset import RowSet, from_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_LOG = 4096
"""Entries the log may hold; older ones are folded into one, and versions before it are answered by a scan."""

_ONE = np.uint64(1)
_ALL = np.ones(4096, np.bool_)
_ALL.flags.writeable = False


class Tombstones:
    """Deleting versions of up to ``capacity`` rows. One writer at a time (the commit lock), any number of readers.

    Aligned 8-byte stores are atomic on every platform numpy supports: a reader beside :meth:`mark` sees a row's old
    version (0, alive) or its new one, and both say "alive" at the versions that reader may ask about.
    """

    __slots__ = ("_cache", "_deleted", "_lock", "_log_counts", "_log_rows", "_log_versions")

    def __init__(self) -> None:
        self._deleted: NDArray[np.uint64] | None = None
        self._log_versions: list[int] = []
        self._log_counts: list[int] = []
        self._log_rows: list[NDArray[np.int64]] = []
        self._cache: tuple[int, RowSet] = (0, from_rows(np.empty(0, np.int64)))
        self._lock = Lock()

    def mark(self, rows: NDArray[np.int64], version: int, capacity: int) -> int:
        """Marks rows as deleted by ``version``, not below any that a view was taken at. Dead rows stay as they are.

        Args:
            rows: int64[k], without repetition.
            version: The deleting version, above 0.
            capacity: Number of rows there are or may come to be; the array is allocated, or grown, to hold them.

        Returns:
            How many of the rows were alive until now.
        """
        if len(rows) == 0:
            return 0
        deleted = self._deleted
        if deleted is None or len(deleted) < capacity:
            deleted = self._grown(capacity)
        fresh = rows[deleted.take(rows) == 0]
        if len(fresh) == 0:
            return 0
        deleted[fresh] = version
        if self._log_versions and version < self._log_versions[-1]:
            self._relog(deleted)
        else:
            self._append(version, fresh)
        return len(fresh)

    def restore(self, rows: NDArray[np.int64], versions: NDArray[np.uint64], capacity: int) -> int:
        """As :meth:`mark` for deletions of many versions uint64[k] in any order; before any view is taken.

        Returns:
            How many of the rows were alive until now.
        """
        if len(rows) == 0:
            return 0
        deleted = self._deleted
        if deleted is None or len(deleted) < capacity:
            deleted = self._grown(capacity)
        fresh = deleted.take(rows) == 0
        deleted[rows[fresh]] = versions[fresh]
        self._relog(deleted)
        return int(fresh.sum())

    def _relog(self, deleted: NDArray[np.uint64]) -> None:
        """Makes the log anew, as one entry."""
        dead = np.flatnonzero(deleted)
        if len(dead) == 0:
            return
        dead = dead[np.argsort(deleted[dead], kind="stable")]
        with self._lock:
            self._log_versions = [int(deleted[dead[-1]])]
            self._log_counts = [len(dead)]
            self._log_rows = [dead]

    def _grown(self, capacity: int) -> NDArray[np.uint64]:
        old = self._deleted
        # Doubling: a growing tail section must not copy on every delete. Old views keep the old array, in which no
        # version of theirs is missing.
        grown = np.zeros(max(capacity, 0 if old is None else 2 * len(old)), np.uint64)
        if old is not None:
            grown[: len(old)] = old
        self._deleted = grown
        return grown

    def _append(self, version: int, rows: NDArray[np.int64]) -> None:
        total = (self._log_counts[-1] if self._log_counts else 0) + len(rows)
        with self._lock:
            if self._log_versions and self._log_versions[-1] == version:
                self._log_rows[-1] = np.concatenate([self._log_rows[-1], rows])
                self._log_counts[-1] = total
                return
            self._log_versions.append(version)
            self._log_counts.append(total)
            self._log_rows.append(rows)
            if len(self._log_versions) > _LOG:
                half = _LOG // 2
                self._log_rows[:half] = [np.concatenate(self._log_rows[:half])]
                self._log_versions[:half] = [self._log_versions[half - 1]]
                self._log_counts[:half] = [self._log_counts[half - 1]]

    def at(self, version: int) -> DeadRows:
        """The rows dead at ``version``: a constant-time view while the log reaches back that far."""
        deleted = self._deleted
        if deleted is None:
            return ALL_ALIVE
        with self._lock:
            entry = bisect_right(self._log_versions, version) - 1
            # The first entry may stand for many versions; between them only the array knows.
            known = entry >= 0 or not self._log_rows or self._first_is_single()
            count = self._log_counts[entry] if entry >= 0 else 0
        if not known:
            count = int(((deleted > 0) & (deleted <= version)).sum())
        return DeadRows(self, deleted, version, count) if count else ALL_ALIVE

    def _first_is_single(self) -> bool:
        rows = self._log_rows[0]
        return self._deleted is not None and int(self._deleted[rows[0]]) == self._log_versions[0]

    def bitmap(self, view: DeadRows) -> RowSet:
        """The rows of ``view`` as a row set, from the last one asked for where possible. Do not change it."""
        with self._lock:
            version, cached = self._cache
            if len(cached) == view.count:
                return cached
            first = bisect_right(self._log_versions, version)
            last = bisect_right(self._log_versions, view.version)
            # Usable when every entry after the cached version is whole, which folding may have undone.
            newer = self._log_rows[first:last] if version <= view.version and first > 0 else None
        if newer is not None and len(cached) + sum(map(len, newer)) == view.count:
            made = cached | from_rows(np.sort(np.concatenate(newer))) if newer else cached
        else:
            deleted = view.deleted
            made = from_rows(np.flatnonzero((deleted > 0) & (deleted <= view.version)))
        with self._lock:
            if view.version >= self._cache[0]:
                self._cache = (view.version, made)
        return made

    def since(self, version: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Deletions after ``version``: pairs of deleting version and rows int64[k], ascending by version."""
        deleted = self._deleted
        if deleted is None:
            return
        rows = np.flatnonzero(deleted > version)
        if len(rows) == 0:
            return
        versions = deleted[rows]
        order = np.argsort(versions, kind="stable")
        rows, versions = rows[order], versions[order]
        starts = np.flatnonzero(np.diff(versions, prepend=np.uint64(0)))
        for i, rows_of_one in zip(starts, np.split(rows, starts[1:]), strict=True):
            yield int(versions[i]), rows_of_one

    @property
    def nbytes(self) -> int:
        """Memory of the array and the log in bytes."""
        deleted = self._deleted
        return 0 if deleted is None else deleted.nbytes + 8 * (self._log_counts[-1] if self._log_counts else 0)


class DeadRows:
    """The rows dead at one version; immutable and thread-safe."""

    __slots__ = ("_owner", "count", "deleted", "version")

    def __init__(self, owner: Tombstones | None, deleted: NDArray[np.uint64], version: int, count: int) -> None:
        self._owner = owner
        self.deleted = deleted
        self.version = version
        self.count = count

    def alive(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the rows are alive: bool[k], possibly read-only."""
        if not self.count:
            return _ALL[: len(rows)] if len(rows) <= len(_ALL) else np.ones(len(rows), np.bool_)
        try:
            deleted = self.deleted.take(rows)
        except IndexError:
            # Rows appended since the array was made are alive.
            deleted = np.where(rows < len(self.deleted), self.deleted.take(rows, mode="clip"), np.uint64(0))
        # 0 - 1 wraps to the largest uint64: one comparison says "0, or above the version".
        alive: NDArray[np.bool_] = deleted - _ONE >= self.version
        return alive

    def rows(self) -> RowSet:
        """All dead rows. Do not change it."""
        if self._owner is None:
            return _NO_ROWS
        return self._owner.bitmap(self)


_NO_ROWS: RowSet = from_rows(np.empty(0, np.int64))
ALL_ALIVE = DeadRows(None, np.empty(0, np.uint64), 0, 0)
"""The view of a holder without a dead row."""
