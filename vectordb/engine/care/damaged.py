"""A damaged RocksDB folder, opened so that everything that can be read of it is.

A block that cannot be read hides more than itself: where tables overlap, a scan over all of them fails for every key
before it. So what such a scan leaves out is looked for in copies (of links, not of data): one of all sound tables, and
one of each damaged table alone. What a lost block deleted may come back in this way; that is told.
"""

from __future__ import annotations

import heapq
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from uuid import uuid4

from vectordb.errors import Corruption, Internal, VectorDBError
from vectordb.segments.files import TEMPORARY
from vectordb.storage.base import Family, Storage
from vectordb.storage.keys import Range
from vectordb.storage.rocks import RocksStorage, rebuild_catalogue

_END = b"\xff" * 8
_TABLE = re.compile(r"(\d+\.sst)")
_KEY = 24
"""Bytes of a key that damage is measured by where nothing is known of the keys."""
Pair = tuple[bytes, bytes]


class DamagedStore:
    """What can be read of a folder. Changes nothing in it. A context manager.

    Args:
        folder: RocksDB's folder.
        work: Where copies may be made; what is made there is removed at the end.

    Attributes:
        tables: Names of the damaged or missing tables; families: whose they are.

    Raises:
        Corruption: Not even a copy can be opened.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        self._folder = folder
        self._work = work
        self._stack = ExitStack()
        self._sound: Storage | None = None
        self._alone: list[Storage] = []
        try:
            try:
                self._all: Storage = self._opened(folder)
            except VectorDBError:
                self._all = self._copy(self._names())
            self.families: set[Family] = set()
            self.tables = self._damaged()
            if self.tables:
                self._sound = self._copy(self._names() - set(self.tables))
                self._alone = [copy for name in self.tables if (copy := self._attempt(name)) is not None]
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> DamagedStore:
        return self

    def __exit__(self, *ended: object) -> None:
        self._stack.close()

    def readable(self, family: Family, span: Range, gaps: list[Range], prefix: int = 5) -> Iterator[Pair]:
        """All entries of a range that can be read, in order; what cannot in any way is added to ``gaps``.

        Args:
            prefix: Bytes before the number, or text, that tells the keys of the range apart.
        """
        hidden: list[Range] = []
        for _ in _readable(self._all, family, span, hidden, prefix):
            pass
        if not self.tables:
            gaps += hidden
        at = span[0]
        for start, end in hidden:
            # It may look into the damaged block to see that nothing more is to come.
            yield from _readable(self._all, family, (at, start), [], prefix)
            yield from self._filled(family, (start, end), gaps, prefix)
            at = end
        yield from _readable(self._all, family, (at, span[1]), [], prefix)

    def _filled(self, family: Family, span: Range, gaps: list[Range], prefix: int) -> Iterator[Pair]:
        """From the sound tables, and what can be read of the others; the former count where both have a key."""
        if self._sound is None:
            return
        if len(self._alone) < len(self.tables):
            gaps.append(span)
        sources = [self._sound.scan(family, *span)]
        sources += [_readable(storage, family, span, gaps, prefix) for storage in self._alone]
        ranked = [_ranked(rank, source) for rank, source in enumerate(sources)]
        for _, same in groupby(heapq.merge(*ranked), key=itemgetter(0)):
            key, _, value = next(same)
            yield key, value

    def get(self, family: Family, key: bytes) -> bytes | None:
        """The value of a key; None where there is none, or it cannot be read."""
        return next((value for _, value in self.readable(family, (key, key + b"\0"), [])), None)

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """As :meth:`get`, of many keys."""
        try:
            return self._all.get_many(family, keys)
        except (Corruption, Internal):
            return [self.get(family, key) for key in keys]

    def scan(self, family: Family, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[Pair]:
        """What can be read of a range."""
        pairs = self.readable(family, (start, end), [])
        return iter(list(pairs)[::-1]) if reverse else pairs

    def _names(self) -> set[str]:
        return {path.name for path in self._folder.iterdir() if path.is_file()}

    def _opened(self, path: Path) -> RocksStorage:
        storage = RocksStorage(path, read_only=True, lenient=True)
        self._stack.callback(storage.close)
        return storage

    def _copy(self, names: set[str]) -> RocksStorage:
        """A copy with only these files, whose manifest RocksDB makes anew."""
        copy = self._work / f"{TEMPORARY}{uuid4().hex}"
        copy.mkdir(mode=0o700)
        self._stack.callback(shutil.rmtree, copy, ignore_errors=True)
        for name in names:
            os.link(self._folder / name, copy / name)
        rebuild_catalogue(copy)
        return self._opened(copy)

    def _attempt(self, name: str) -> RocksStorage | None:
        """A copy of one table alone; None where nothing of it can be read."""
        if not (self._folder / name).exists():
            return None
        try:
            return self._copy({name})
        except VectorDBError:
            return None

    def _damaged(self) -> list[str]:
        """The tables that scans over everything stumble over: first those in front, then those that they hid."""
        found: set[str] = set()
        storage = self._all
        while True:
            stumbles = {family: set(_stumbles(storage, family)) - found for family in Family}
            fresh = set().union(*stumbles.values())
            if not fresh:
                return sorted(found)
            found |= fresh
            self.families |= {family for family, names in stumbles.items() if names}
            storage = self._copy(self._names() - found)


def _ranked(rank: int, pairs: Iterator[Pair]) -> Iterator[tuple[bytes, int, bytes]]:
    for key, value in pairs:
        yield key, rank, value


def _stumbles(storage: Storage, family: Family) -> list[str]:
    """The tables that the errors of a scan over everything name."""
    errors: list[str] = []
    for _ in _readable(storage, family, (b"", _END), [], 0, errors):
        pass
    # The path of the folder may look like one too: the table is named last.
    return [names[-1] for error in errors if (names := _TABLE.findall(error))]


def _readable(
    storage: Storage, family: Family, span: Range, gaps: list[Range], prefix: int, errors: list[str] | None = None
) -> Iterator[Pair]:
    """All entries of a range that one store can read; the messages of what it cannot are added to ``errors``."""
    start, end = span
    while True:
        last: bytes | None = None
        try:
            for pair in storage.scan(family, start, end):
                last = pair[0]
                yield pair
            return
        except (Corruption, Internal) as error:
            if errors is not None:
                errors.append(error.message)
            lost_from = start if last is None else last + b"\0"
        found = _next_readable(storage, family, (lost_from, end), prefix)
        gaps.append((lost_from, end if found is None else found))
        if found is None:
            return
        start = found


def _next_readable(storage: Storage, family: Family, span: Range, prefix: int) -> bytes | None:
    """Where the damage that begins at a key ends, found by leaps and halving; None where it goes on to the end."""
    start, end = span
    width = 8 if prefix else _KEY
    head, first = start[:prefix], int.from_bytes(start[prefix : prefix + width].ljust(width, b"\0"), "big")

    def key(number: int) -> bytes:
        return head + number.to_bytes(width, "big")

    low, leap = first, 1
    while True:
        high = first + leap
        if high >= 1 << 8 * width or key(high) >= end:
            return None
        if _reads(storage, family, (key(high), end)):
            break
        low, leap = high, leap * 2
    while low + 1 < high:
        middle = (low + high) // 2
        if _reads(storage, family, (key(middle), end)):
            high = middle
        else:
            low = middle
    return key(high)


def _reads(storage: Storage, family: Family, span: Range) -> bool:
    try:
        next(storage.scan(family, *span), None)
    except (Corruption, Internal):
        return False
    return True
