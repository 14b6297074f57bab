"""The one batch of both storages: a recording of changes that can be replayed.

A recording, not a native write batch, because RocksDB consumes a batch also when it refuses it for a write stall, and
because the order of calls is then exactly the order of application, whatever the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vectordb.storage.base import Family


class Put(NamedTuple):
    """One pair."""

    family: Family
    key: bytes
    value: bytes


class PutMany(NamedTuple):
    """Pairs of one family, in order; both lists have the same length."""

    family: Family
    keys: list[bytes]
    values: list[bytes]


class Delete(NamedTuple):
    """One key to remove."""

    family: Family
    key: bytes


class DeleteRange(NamedTuple):
    """All keys in ``[start, end)`` to remove; never empty."""

    family: Family
    start: bytes
    end: bytes


Change = Put | PutMany | Delete | DeleteRange


class RecordedBatch:
    """Implements :class:`vectordb.storage.base.Batch`. Not thread-safe; may be written more than once."""

    __slots__ = ("_count", "changes")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._count = 0

    def put(self, family: Family, key: bytes, value: bytes) -> None:
        self.changes.append(Put(family, key, value))
        self._count += 1

    def put_many(self, family: Family, keys: Iterable[bytes], values: Iterable[bytes]) -> None:
        recorded = PutMany(family, list(keys), list(values))
        if len(recorded.keys) != len(recorded.values):
            raise ValueError(f"put_many got {len(recorded.keys)} keys and {len(recorded.values)} values")
        if recorded.keys:
            self.changes.append(recorded)
            self._count += len(recorded.keys)

    def delete(self, family: Family, key: bytes) -> None:
        self.changes.append(Delete(family, key))
        self._count += 1

    def delete_range(self, family: Family, start: bytes, end: bytes) -> None:
        # RocksDB refuses a range that ends before it starts; an empty one is no change.
        if start < end:
            self.changes.append(DeleteRange(family, start, end))
        self._count += 1

    def __len__(self) -> int:
        return self._count
