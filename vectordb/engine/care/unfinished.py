"""A database's storage as opening it would leave it: unfinished commits taken back, without changing anything.

After a kill inside a large commit storage holds pieces of it, whose undo records opening applies (``recovery.py``). Who
only wants to look at the folder looks through a :class:`Settled` storage.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from vectordb.errors import FailedPrecondition
from vectordb.storage import codec, keys
from vectordb.storage.base import Batch, Family, Storage
from vectordb.storage.keys import Kind, Range


class Settled:
    """A read-only :class:`vectordb.storage.base.Storage` over another one, less what no commit covers.

    Attributes:
        unfinished: Numbers of collections that have an unfinished commit.
    """

    def __init__(self, storage: Storage, numbers: Iterable[int]) -> None:
        self._storage = storage
        self._before: dict[Family, dict[bytes, bytes | None]] = {family: {} for family in Family}
        self._hidden: dict[Family, list[Range]] = {family: [] for family in Family}
        self.unfinished: list[int] = []
        for number in sorted(numbers):
            self._settle(number)

    @property
    def failure(self) -> str | None:
        """See :class:`Storage`."""
        return self._storage.failure

    def _settle(self, number: int) -> None:
        data = self._storage.get(Family.META, keys.state_key(number))
        end = 0 if data is None else codec.decode_state(data).next_offset
        found = False
        # Newest first, so that the oldest value stays.
        for _, value in self._storage.scan(Family.META, *keys.undo_range(number), reverse=True):
            found = True
            for key, before in codec.decode_undo(value):
                self._before[Family.ROWS if key[4:5] == Kind.PAYLOAD.value else Family.META][key] = before
        beyond = [
            (Family.ROWS, keys.number_range(number, Kind.PAYLOAD, end)),
            (Family.VECTORS, keys.vector_range(number, end)),
        ]
        for family, span in beyond:
            if next(self._storage.scan(family, *span), None) is not None:
                found = True
            self._hidden[family].append(span)
        self._hidden[Family.META].append(keys.undo_range(number))
        if found:
            self.unfinished.append(number)

    def get(self, family: Family, key: bytes) -> bytes | None:
        """See :meth:`Storage.get`."""
        before = self._before[family]
        if key in before:
            return before[key]
        return None if self._is_hidden(family, key) else self._storage.get(family, key)

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """See :meth:`Storage.get_many`."""
        before = self._before[family]
        found = self._storage.get_many(family, keys)
        return [
            before[key] if key in before else None if self._is_hidden(family, key) else value
            for key, value in zip(keys, found, strict=True)
        ]

    def scan(self, family: Family, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """See :meth:`Storage.scan`."""
        pairs = self.applied(family, start, end, self._storage.scan(family, start, end))
        return iter(list(pairs)[::-1]) if reverse else pairs

    def applied(
        self, family: Family, start: bytes, end: bytes, stored: Iterator[tuple[bytes, bytes]]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries of a range, in order, as opening would leave them."""
        before = self._before[family]
        changed = sorted(key for key in before if start <= key < end)
        at = 0
        for key, value in stored:
            while at < len(changed) and changed[at] < key:
                yield from _pair(changed[at], before)
                at += 1
            if at < len(changed) and changed[at] == key:
                yield from _pair(key, before)
                at += 1
            elif not self._is_hidden(family, key):
                yield key, value
        for key in changed[at:]:
            yield from _pair(key, before)

    def _is_hidden(self, family: Family, key: bytes) -> bool:
        ranges = self._hidden[family]
        at = bisect_left(ranges, key, key=lambda span: span[1])
        return any(start <= key < end for start, end in ranges[at : at + 2])

    def sequence(self) -> int:
        """See :meth:`Storage.sequence`."""
        return self._storage.sequence()

    def disk_bytes(self) -> int:
        """See :meth:`Storage.disk_bytes`."""
        return self._storage.disk_bytes()

    def memory_bytes(self) -> int:
        """See :meth:`Storage.memory_bytes`."""
        return self._storage.memory_bytes()

    def batch(self) -> Batch:
        """Raises: FailedPrecondition, as all that would change something."""
        raise _read_only()

    def write(self, batch: Batch) -> None:
        """Raises: FailedPrecondition."""
        raise _read_only()

    def sync(self) -> int:
        """Raises: FailedPrecondition."""
        raise _read_only()

    def compact(self, family: Family, start: bytes, end: bytes) -> None:
        """Raises: FailedPrecondition."""
        raise _read_only()

    def hurry(self) -> None:
        """Nothing is written here, so nothing waits."""

    def close(self) -> None:
        """Leaves the storage below open."""


def _pair(key: bytes, before: dict[bytes, bytes | None]) -> Iterator[tuple[bytes, bytes]]:
    value = before[key]
    if value is not None:
        yield key, value


def _read_only() -> FailedPrecondition:
    return FailedPrecondition("this storage is only looked at; open the database to change it")
