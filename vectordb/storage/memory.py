"""Storage in memory, for ``:memory:`` databases and tests. Nothing survives the process."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections.abc import Generator, Sequence

from vectordb.errors import Closed, Internal
from vectordb.storage.base import Batch, Family
from vectordb.storage.batch import Change, Delete, DeleteRange, Put, PutMany, RecordedBatch

_CHUNK = 4096


class _Table:
    """One family: a dict for point reads and a list of its keys that is brought into order when a scan needs it.

    Keys that are removed stay in the list as ghosts until they are half of it; new keys wait unsorted. So writing
    costs O(1) a key, and sorting an almost sorted list is one merge.
    """

    __slots__ = ("_ghosts", "_new", "_ordered", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self._ordered: list[bytes] = []
        self._new: list[bytes] = []
        self._ghosts: set[bytes] = set()

    def put(self, key: bytes, value: bytes) -> None:
        if key not in self.values:
            if key in self._ghosts:
                self._ghosts.discard(key)
            else:
                self._new.append(key)
        self.values[key] = value

    def delete(self, key: bytes) -> int:
        """Removes a key; returns the length of the removed value."""
        value = self.values.pop(key, None)
        if value is None:
            return 0
        self._ghosts.add(key)
        return len(value)

    def range(self, start: bytes, end: bytes) -> list[bytes]:
        """The live keys in ``[start, end)``, ascending."""
        if self._new:
            self._ordered += self._new
            self._ordered.sort()
            self._new = []
        if 2 * len(self._ghosts) > len(self._ordered):
            self._ordered = [key for key in self._ordered if key not in self._ghosts]
            self._ghosts.clear()
        keys = self._ordered[bisect_left(self._ordered, start) : bisect_left(self._ordered, end)]
        return [key for key in keys if key not in self._ghosts] if self._ghosts else keys


class MemoryStorage:
    """Implements :class:`vectordb.storage.base.Storage` in memory. Thread-safe.

    Attributes:
        failure: None: nothing here can fail.

    A scan copies references to its keys and values when it is called; values are never copied.
    """

    failure: str | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables = {family: _Table() for family in Family}  # guarded by self._lock
        self._sequence = 0  # guarded by self._lock
        self._closed = False  # set under self._lock
        self._bytes = 0  # guarded by self._lock

    def batch(self) -> RecordedBatch:
        """See :meth:`Storage.batch`."""
        return RecordedBatch()

    def write(self, batch: Batch) -> None:
        """See :meth:`Storage.write`."""
        if not isinstance(batch, RecordedBatch):
            raise Internal(f"a batch of another kind was given: {type(batch).__name__}")
        with self._lock:
            self._check()
            for change in batch.changes:
                self._apply(change)
            self._sequence += len(batch)

    def _apply(self, change: Change) -> None:
        table = self._tables[change.family]
        if isinstance(change, Put):
            self._put(table, change.key, change.value)
        elif isinstance(change, PutMany):
            for key, value in zip(change.keys, change.values, strict=True):
                self._put(table, key, value)
        elif isinstance(change, Delete):
            self._bytes -= table.delete(change.key)
        elif isinstance(change, DeleteRange):
            for key in table.range(change.start, change.end):
                self._bytes -= table.delete(key)

    def _put(self, table: _Table, key: bytes, value: bytes) -> None:
        self._bytes += len(value) - len(table.values.get(key, b""))
        table.put(key, value)

    def sync(self) -> int:
        """See :meth:`Storage.sync`; there is nothing to make durable."""
        return self.sequence()

    def get(self, family: Family, key: bytes) -> bytes | None:
        """See :meth:`Storage.get`."""
        with self._lock:  # who sees one key of a batch sees all of it
            self._check()
            return self._tables[family].values.get(key)

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """See :meth:`Storage.get_many`."""
        with self._lock:
            self._check()
            return list(map(self._tables[family].values.get, keys))

    def scan(
        self, family: Family, start: bytes, end: bytes, *, reverse: bool = False
    ) -> Generator[tuple[bytes, bytes], None, None]:
        """See :meth:`Storage.scan`."""
        values: list[bytes] = []
        with self._lock:
            self._check()
            table = self._tables[family]
            keys = table.range(start, end)
            if reverse:
                keys.reverse()
            # In chunks, so that other threads run in between.
            for first in range(0, len(keys), _CHUNK):
                values += map(table.values.__getitem__, keys[first : first + _CHUNK])
        return self._walk(keys, values)

    def _walk(self, keys: list[bytes], values: list[bytes]) -> Generator[tuple[bytes, bytes], None, None]:
        for pair in zip(keys, values, strict=True):
            self._check()
            yield pair

    def sequence(self) -> int:
        """See :meth:`Storage.sequence`."""
        with self._lock:
            self._check()
            return self._sequence

    def compact(self, family: Family, start: bytes, end: bytes) -> None:
        """See :meth:`Storage.compact`; removed values are freed at once, this frees their keys."""
        with self._lock:
            self._check()
            self._tables[family].range(start, end)

    def disk_bytes(self) -> int:
        """See :meth:`Storage.disk_bytes`."""
        self._check()
        return 0

    def memory_bytes(self) -> int:
        """See :meth:`Storage.memory_bytes`: values, and what Python keeps for each key and value."""
        with self._lock:
            self._check()
            per_pair = 2 * sys.getsizeof(b"") + 32 + 100
            return self._bytes + per_pair * sum(len(table.values) for table in self._tables.values())

    def hurry(self) -> None:
        """See :meth:`Storage.hurry`; nothing here holds a write up."""

    def close(self) -> None:
        """See :meth:`Storage.close`."""
        with self._lock:
            self._closed = True
            self._tables = {family: _Table() for family in Family}
            self._bytes = 0

    def _check(self) -> None:
        if self._closed:
            raise Closed("the storage in memory is closed; open a new one")
