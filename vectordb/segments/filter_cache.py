"""Answers of filters over immutable postings, kept while they fit a bound of bytes."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from vectordb.filter import Filter
    from vectordb.metadata.rowset import RowSet

CACHE_BYTES = 8 << 20
_ENTRY = 256
"""Bytes of an entry beside its filter and its rows."""


class FilterCache:
    """Least recently used first out. Thread-safe; two threads may compute the same answer at once."""

    __slots__ = ("_bound", "_bytes", "_entries", "_lock")

    def __init__(self, bound: int = CACHE_BYTES) -> None:
        self._bound = bound
        self._bytes = 0
        self._entries: OrderedDict[Filter, tuple[RowSet, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, where: Filter, compute: Callable[[], RowSet], *, keep: bool = True) -> RowSet:
        """The answer that is kept, else that of ``compute()``, with ``keep`` kept from now on. Do not change it."""
        with self._lock:
            found = self._entries.get(where)
            if found is not None:
                self._entries.move_to_end(where)
                return found[0]
        rows = compute()
        if not keep:
            return rows
        size = where.nbytes + _size(rows)
        if size <= self._bound:
            with self._lock:
                if where not in self._entries:
                    self._entries[where] = (rows, size)
                    self._bytes += size
                self._evict()
        return rows

    def limit(self, bound: int) -> None:
        """Bounds what is kept from now on."""
        with self._lock:
            self._bound = bound
            self._evict()

    def _evict(self) -> None:
        while self._bytes > self._bound:
            self._bytes -= self._entries.popitem(last=False)[1][1]

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
