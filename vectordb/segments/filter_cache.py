"""Answers of filters over immutable postings, kept while they fit a bound of bytes."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from vectordb.metadata.rowset import RowSet

CACHE_BYTES = 8 << 20
_ENTRY = 512


class FilterCache:
    """Least recently used first out. Thread-safe; two threads may compute the same answer at once."""

    __slots__ = ("_bound", "_bytes", "_entries", "_lock")

    def __init__(self, bound: int = CACHE_BYTES) -> None:
        self._bound = bound
        self._bytes = 0
        self._entries: OrderedDict[Hashable, tuple[RowSet, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, compute: Callable[[], RowSet]) -> RowSet:
        """The answer kept under ``key``, else that of ``compute()``, kept from now on. Do not change it."""
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                return found[0]
        rows = compute()
        size = _size(rows)
        if size <= self._bound:
            with self._lock:
                if key not in self._entries:
                    self._entries[key] = (rows, size)
                    self._bytes += size
                while self._bytes > self._bound:
                    self._bytes -= self._entries.popitem(last=False)[1][1]
        return rows

    @property
    def nbytes(self) -> int:
        """Memory of what is kept, in bytes, about."""
        return self._bytes


def _size(rows: RowSet) -> int:
    """An upper bound of a bitmap's bytes: an array container takes 2 a row, and none takes more than 8 KiB."""
    if not rows:
        return _ENTRY
    containers = (rows.max() >> 16) + 1
    return _ENTRY + min(2 * len(rows) + 16 * containers, containers * (8192 + 16))
