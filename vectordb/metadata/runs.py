"""Metadata that grows: an append-only log, with postings made lazily in runs that double in size.

Bentley & Saxe 1980 ("Decomposable searching problems"): runs of falling size, equal ones merged, so that each row is
merged O(log n) times and a query asks O(log n) runs. The last few rows are looked at one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.encoding import decode_metadata
from vectordb.filter import Filter, lookup, matches
from vectordb.metadata import rowset
from vectordb.metadata.estimate import Estimate, estimate, total
from vectordb.metadata.evaluate import evaluate
from vectordb.metadata.postings import Postings, check_indexed, orderable, sort_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.filter import Missing
    from vectordb.metadata.rowset import RowSet
    from vectordb.types import FieldSpec

_FIRST_RUN = 64
"""Rows of the smallest run; fewer are decoded and matched one by one, at about 1 µs each."""


class MetadataRuns:
    """An append-only log of encoded metadata. One appender, any number of readers, all thread-safe."""

    def __init__(self, fields: Mapping[str, FieldSpec] | None = None) -> None:
        self._fields = fields
        self._unindexed = frozenset(path for path, spec in (fields or {}).items() if not spec.indexed)
        self._log: list[bytes] = []  # only ever extended: readers look below the length they were given
        self._bytes = 0
        self._lock = threading.Lock()
        self._runs: tuple[Postings, ...] = ()  # replaced as a whole, guarded by self._lock
        self._recent: tuple[int, list[dict[str, Any]]] = (0, [])  # first row and maps after the runs, guarded likewise

    def __len__(self) -> int:
        return len(self._log)

    def append(self, metadata: Sequence[bytes]) -> None:
        """Adds rows, encoded. Cheap: postings are made by the first reader that needs them."""
        self._log.extend(metadata)
        self._bytes += sum(map(len, metadata)) + 40 * len(metadata)

    def view(self, length: int) -> RunsView:
        """The first ``length`` rows, for good: later rows never show.

        Raises:
            IndexError: There are fewer rows.
        """
        if not 0 <= length <= len(self._log):
            raise IndexError(f"view of {length} rows of {len(self._log)}")
        return RunsView(self, length)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the log and of its postings, an estimate."""
        return self._bytes + sum(run.memory_bytes for run in self._runs)

    def runs(self, length: int) -> tuple[Postings, ...]:
        """Runs that cover all of the first ``length`` rows but fewer than 64; they may cover later rows too."""
        runs = self._runs
        if length - sum(run.n for run in runs) < _FIRST_RUN:
            return runs
        with self._lock:
            runs = self._runs
            covered = sum(run.n for run in runs)
            if length - covered < _FIRST_RUN:
                return runs
            fresh = [*runs, Postings.build(self._log[covered:length], self._fields)]
            self._runs = _balanced(fresh)
            return self._runs

    def decoded(self, start: int, end: int) -> list[dict[str, Any]]:
        """The few rows ``start`` to ``end - 1`` after the runs as maps (do not change), decoded once."""
        with self._lock:
            first, maps = self._recent
            if first != start:
                first, maps = self._recent = start, []
            maps.extend(map(decode_metadata, self._log[first + len(maps) : end]))
            return maps[: end - start]

    def encoded(self, start: int, end: int) -> list[bytes]:
        """The rows ``start`` to ``end - 1`` as they were appended."""
        return self._log[start:end]

    def encoded_at(self, rows: Sequence[int]) -> list[bytes]:
        """Any rows as they were appended."""
        log = self._log
        return [log[row] for row in rows]

    def check(self, tree: Filter) -> None:
        """Refuses fields declared with ``indexed: false``, also where no run is there to do so.

        Raises:
            InvalidFilter: The filter names one.
        """
        if self._unindexed:
            for path in tree.fields():
                check_indexed(path, self._unindexed)


class RunsView:
    """The first rows of a log. Immutable, thread-safe."""

    __slots__ = ("_log", "n")

    def __init__(self, log: MetadataRuns, length: int) -> None:
        self._log = log
        self.n = length

    def matching(self, tree: Filter) -> RowSet:
        """The rows of 0..n-1 that meet the filter.

        Raises:
            InvalidFilter: A field is declared with ``indexed: false``.
        """
        self._log.check(tree)
        out = rowset.RowSet()
        start = 0
        for run in self._log.runs(self.n):
            out |= rowset.shifted(evaluate(tree, run), start)
            start += run.n
        if start > self.n:
            return rowset.below(out, self.n)
        hits = [start + i for i, data in enumerate(self._log.decoded(start, self.n)) if matches(tree, data)]
        return out | rowset.RowSet(hits) if hits else out

    def estimate(self, tree: Filter) -> Estimate:
        """Bounds and expectation of ``len(matching(tree))``."""
        self._log.check(tree)
        runs = self._log.runs(self.n)
        covered = sum(run.n for run in runs)
        found = total([estimate(tree, run) for run in runs])
        if covered > self.n:
            high = min(found.high, self.n)
            low = max(0, found.low - (covered - self.n))
            return Estimate(low, min(max(round(found.expected * self.n / covered), low), high), high)
        hits = sum(matches(tree, data) for data in self._log.decoded(covered, self.n))
        return total([found, Estimate.exact(hits)])

    def values(self, path: str, rows: NDArray[np.int64]) -> list[Any | Missing]:
        """As :meth:`Postings.values`."""
        if self._log._unindexed:
            check_indexed(path, self._log._unindexed)
        out: list[Any] = [None] * len(rows)
        start = 0
        for run in self._log.runs(self.n):
            there = np.flatnonzero((rows >= start) & (rows < start + run.n))
            for i, value in zip(there.tolist(), run.values(path, rows[there] - start), strict=True):
                out[i] = value
            start += run.n
        for i in np.flatnonzero(rows >= start).tolist():
            (data,) = self._log.encoded(int(rows[i]), int(rows[i]) + 1)
            out[i] = orderable(lookup(decode_metadata(data), path))
        return out

    def sort_keys(self, path: str, rows: NDArray[np.int64]) -> list[tuple[int, object] | None]:
        """As :meth:`Postings.sort_keys`."""
        return list(map(sort_key, self.values(path, rows)))

    def postings(self) -> Postings:
        """One set of postings over rows 0..n-1, for sealing."""
        parts = []
        start = 0
        for run in self._log.runs(self.n):
            parts.append((run, np.arange(min(run.n, self.n - start))))
            start += run.n
            if start >= self.n:
                break
        if start < self.n or not parts:
            rest = Postings.build(self._log.encoded(start, self.n), self._log._fields)
            parts.append((rest, np.arange(rest.n)))
        if len(parts) == 1 and len(parts[0][1]) == parts[0][0].n:
            return parts[0][0]
        return Postings.merge(parts)


def _balanced(runs: list[Postings]) -> tuple[Postings, ...]:
    """Merges from the end until each run is more than twice as long as the next."""
    first = len(runs) - 1
    size = runs[first].n
    while first > 0 and runs[first - 1].n <= 2 * size:
        first -= 1
        size += runs[first].n
    if first == len(runs) - 1:
        return tuple(runs)
    return (*runs[:first], Postings.merge([(run, np.arange(run.n)) for run in runs[first:]]))
