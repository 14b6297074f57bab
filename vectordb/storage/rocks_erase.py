"""Making deleted data leave the files of a RocksDB folder, not only its answers.

Where a deleted key and its value may still stand, and what takes them away:

    log         flushing all families begins a new log and removes the old one
    tables      a deletion hides older entries until a compaction of everything below it drops all of them together
    manifest    notes the first and last key of every table, also of those long gone; with the smallest
                ``max_manifest_file_size`` each change begins a new one, which knows only the tables of that moment

Files that a scan or a checkpoint still reads stay until it ends.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vectordb import failpoints
from vectordb.errors import DeadlineExceeded
from vectordb.storage.base import Family

if TYPE_CHECKING:
    from vectordb.storage.rocks import RocksStorage

_ROUNDS = 3
_PAUSE = 0.02
_NO_KEY = b"\0\0\0\0"
"""A key that never exists: to delete it changes nothing, but can be flushed."""


def erase_deleted(storage: RocksStorage, start: bytes, end: bytes, remaining: Callable[[], float]) -> list[str]:
    """Makes what was deleted or overwritten in ``[start, end)`` of every family by now leave all files.

    Args:
        remaining: Seconds that are left.

    Returns:
        Names of the files that left.

    Raises:
        DeadlineExceeded: Time is over; old files may still be there. Corruption: A table cannot be read.
    """
    before = _names(storage)
    storage.flush()
    failpoints.hit("erase.flushed")
    names = _names(storage)
    log = max((name for name in names if name.endswith(".log")), key=_number, default="")
    apart = {table["name"] for table in storage.tables() if table["start_key"] >= end or table["end_key"] < start}
    old = names - apart - {log}
    for _ in range(_ROUNDS):
        newest = max(map(_number, _names(storage)), default=0)
        for family in Family:
            if remaining() <= 0:
                raise DeadlineExceeded("time ran out before storage was compacted; erase again with a longer timeout")
            storage.compact(family, start, end)
        # A deletion leaves a table only together with all that it hides.
        inside = [t for t in storage.tables() if t["start_key"] < end and t["end_key"] >= start]
        if not any(table["num_deletions"] for table in inside if _number(table["name"]) <= newest):
            break
    failpoints.hit("erase.compacted")
    # The manifest that noted the compaction began with the tables of before: one more change begins with those of now.
    batch = storage.batch()
    batch.delete(Family.META, _NO_KEY)
    storage.write(batch)
    storage.flush()
    failpoints.hit("erase.manifest")
    while left := old & _names(storage):
        if remaining() <= 0:
            raise DeadlineExceeded(
                f"{len(left)} old files of '{storage.path}' are still in use, such as {min(left)}: a scan or a backup "
                "reads them; erase again when it has ended",
                files=sorted(left),
            )
        time.sleep(_PAUSE)
    return sorted(before - _names(storage))


def _names(storage: RocksStorage) -> set[str]:
    """Files that may hold data."""
    found = os.listdir(storage.path)
    return {name for name in found if name.endswith((".sst", ".log")) or name.startswith("MANIFEST-")}


def _number(name: str) -> int:
    """The number in the name of one of RocksDB's files."""
    return int(re.sub(r"\D", "", name) or 0)
