"""The ACKED page: what was acknowledged, kept outside RocksDB to notice when RocksDB comes back with less.

RocksDB opens a WAL whose tail is damaged and says nothing, because every crash leaves a torn last record. The page
tells the two apart: it holds the sequence number that the last sync made durable and the collections' versions, and is
stored after each sync and before the acknowledgement. It is a mapped file that is synced only when it is made: the
kernel keeps it through a kill, and after a power loss an older page only makes the check weaker, never wrong.

The file, little-endian::

    0     8   magic "VDBACK01"
    8     4   capacity c, entries a slot
    12    52  zero
    64        slot 0
    64+s      slot 1                 s = 40 + 16 c

A slot::

    0     8   XXH3-64 of the rest of the slot up to its last entry
    8     8   generation: the slot with the higher one is newer; 0 was never stored
    16    8   sequence
    24    4   number of entries n
    28    12  zero
    40    16  n times: collection number u32, zero u32, version u64; number 0 is a free entry

Stores alternate between the slots, so that a store cut short by a kill leaves the one before it, whose commit is the
last that was acknowledged.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import struct
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from vectordb import failpoints
from vectordb.errors import Closed, Internal, ResourceExhausted, VectorDBError

_log = logging.getLogger("vectordb.storage")

_MAGIC = b"VDBACK01"
_FILE = struct.Struct("<8sI52x")
_SLOT = struct.Struct("<QQQI12x")
_ENTRY = struct.Struct("<IIQ")
_U64 = struct.Struct("<Q")
_FIRST_CAPACITY = 250
_MAX_CAPACITY = 1 << 24


@dataclass(frozen=True, slots=True)
class Acked:
    """What a page says.

    Attributes:
        sequence: The storage's sequence number that the last acknowledged sync made durable.
        versions: Version of each collection (by number) at that time.
        known: False where the page was missing or damaged; then nothing can be said about loss.
        problem: Why it is not known, or ``None``.
    """

    sequence: int = 0
    versions: Mapping[int, int] = field(default_factory=dict)
    known: bool = True
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """Acknowledged data that recovery did not bring back.

    Attributes:
        collection: Number of the collection, or ``None`` for changes that belong to no collection's version.
        acked: The acknowledged version (or sequence number).
        recovered: The recovered one; ``None`` where the collection is gone.
    """

    collection: int | None
    acked: int
    recovered: int | None

    def __str__(self) -> str:
        if self.collection is None:
            return f"acknowledged changes after sequence number {self.recovered} up to {self.acked} are lost"
        if self.recovered is None:
            return f"collection number {self.collection}, acknowledged at version {self.acked}, is lost"
        first, last = self.recovered + 1, self.acked
        which = f"version {last}" if first == last else f"versions {first} to {last}"
        return f"collection number {self.collection} lost acknowledged {which}"


def lost(
    acked: Acked, recovered_sequence: int, recovered_versions: Mapping[int, int], next_number: int = 0
) -> list[Loss]:
    """What the page says was acknowledged and recovery does not have, by collection number; empty when all is there.

    Args:
        acked: The page as it was at opening. Nothing is reported where it is not known.
        recovered_sequence: ``Storage.sequence()`` right after opening.
        recovered_versions: The version of every recovered collection by its number.
        next_number: What the next new collection will be. What is recovered is the first part of all writes, so one
            with a smaller number that is not there was deleted: a kill or a power loss came before the page said so.
    """
    if not acked.known:
        return []
    losses = [
        Loss(number, version, recovered_versions.get(number))
        for number, version in sorted(acked.versions.items())
        if (recovered_versions[number] < version if number in recovered_versions else number >= next_number)
    ]
    if not losses and recovered_sequence < acked.sequence:
        losses.append(Loss(None, acked.sequence, recovered_sequence))
    return losses


def read_acked(path: Path) -> Acked:
    """What the page at ``path`` says; changes nothing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Acked(known=False, problem=f"'{path}' is missing")
    except OSError as error:
        return Acked(known=False, problem=f"'{path}' cannot be read: {error}")
    newest = _newest(data)
    return Acked(known=False, problem=f"'{path}' is damaged") if newest is None else newest[1]


def _newest(data: bytes) -> tuple[int, Acked] | None:
    """(generation, content) of the newer sound slot."""
    if len(data) < _FILE.size:
        return None
    magic, capacity = _FILE.unpack_from(data)
    size = _slot_size(capacity)
    if magic != _MAGIC or len(data) < _FILE.size + 2 * size:
        return None
    found = [_slot(data, _FILE.size + i * size, capacity) for i in (0, 1)]
    sound = [slot for slot in found if slot is not None]
    return max(sound, key=lambda slot: slot[0], default=None)


def _slot_size(capacity: int) -> int:
    return _SLOT.size + _ENTRY.size * capacity


def _slot(data: bytes, at: int, capacity: int) -> tuple[int, Acked] | None:
    checksum, generation, sequence, n = _SLOT.unpack_from(data, at)
    if not generation or n > capacity:
        return None
    end = at + _SLOT.size + _ENTRY.size * n
    if xxhash.xxh3_64_intdigest(data[at + 8 : end]) != checksum:
        return None
    entries = _ENTRY.iter_unpack(data[at + _SLOT.size : end])
    return generation, Acked(sequence, {number: version for number, _, version in entries if number})


class AckedPage:
    """The page of an open database. Thread-safe.

    Args:
        path: The file. It is read here and, where missing or damaged, made anew by the first :meth:`store`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._at_opening = read_acked(self.path)
        self._versions: dict[int, int] = dict(self._at_opening.versions)  # guarded by self._lock
        self._sequence = self._at_opening.sequence  # guarded by self._lock
        self._stored = self._at_opening.known  # guarded by self._lock
        self._map: mmap.mmap | None = None  # guarded by self._lock
        self._places: dict[int, int] = {}  # collection number -> entry; guarded by self._lock
        self._capacity = 0  # guarded by self._lock
        self._generation = 0  # guarded by self._lock
        self._behind: set[int] = set()  # what the slot that is stored next lacks; guarded by self._lock
        self._closed = False  # guarded by self._lock

    def load(self) -> Acked:
        """What the page says: as of opening until the first store, then what was stored last."""
        with self._lock:
            return Acked(self._sequence, dict(self._versions)) if self._stored else self._at_opening

    def store(self, sequence: int, versions: Mapping[int, int], dropped: Iterable[int] = ()) -> None:
        """Records what a sync made durable; call it after the sync and before acknowledging. Takes a few µs.

        Args:
            sequence: What ``Storage.sync`` returned.
            versions: Version of each collection that changed, by number (from 1).
            dropped: Collections that were deleted.

        Raises:
            ResourceExhausted: The file must be made or grow and the disk is full.
        """
        with self._lock:
            self._store(max(sequence, self._sequence), versions, dropped)

    def drop(self, sequence: int, number: int) -> None:
        """Records that a collection was deleted. Never fails: what is said of one that is gone is passed over
        (:func:`lost`), and to delete is what frees a full disk, on which no new file can be made."""
        try:
            self.store(sequence, {}, dropped=[number])
        except VectorDBError as error:
            _log.warning("that collection number %d was deleted is not noted: %s", number, error.message)

    def reset(self, sequence: int, versions: Mapping[int, int], dropped: Iterable[int] = ()) -> None:
        """As :meth:`store`, but the sequence may go back: for a loss that the user accepted."""
        with self._lock:
            self._store(sequence, versions, dropped)

    def _store(self, sequence: int, versions: Mapping[int, int], dropped: Iterable[int]) -> None:
        if self._closed:
            raise Closed(f"the page '{self.path}' is closed")
        self._sequence = sequence
        self._versions.update(versions)
        gone = [number for number in dropped if self._versions.pop(number, None) is not None]
        self._stored = True
        if self._map is None or gone or any(number not in self._places for number in versions):
            self._place(gone)
        self._write(versions.keys())

    def _place(self, gone: Iterable[int]) -> None:
        """Gives every collection an entry; makes a larger file where there are too many."""
        # They keep their entries until there is a new file, which has none for them.
        free = any(number in self._places for number in gone)
        new = [number for number in self._versions if number not in self._places]
        if self._map is None or len(self._places) + len(new) > self._capacity or free:
            self._replace_file()
            return
        for place, number in enumerate(new, start=len(self._places)):
            self._places[number] = place
        self._behind.update(new)

    def _replace_file(self) -> None:
        """A new file with the present content in one slot, put in place whole: a kill finds the old or the new."""
        capacity = max(_FIRST_CAPACITY, self._capacity)
        while capacity < len(self._versions):
            capacity *= 2
        if capacity > _MAX_CAPACITY:
            raise ResourceExhausted(f"'{self.path}' holds at most {_MAX_CAPACITY} collections", limit=_MAX_CAPACITY)
        fresh = self.path.with_name(self.path.name + ".new")
        size = _FILE.size + 2 * _slot_size(capacity)
        try:
            with open(fresh, "w+b") as file:
                # Reserved, not sparse: a mapped write to a full disk would be a SIGBUS.
                os.posix_fallocate(file.fileno(), 0, size)
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise self._translated(error) from error
        self._close_map()
        self._map, self._capacity = mapped, capacity
        self._places = {number: place for place, number in enumerate(sorted(self._versions))}
        _FILE.pack_into(mapped, 0, _MAGIC, capacity)
        self._behind = set(self._versions)
        self._write(())
        self._behind = set(self._versions)
        try:
            mapped.flush()  # else a power loss could leave the new name with nothing behind it
            failpoints.hit("acked.replace")
            os.replace(fresh, self.path)
        except OSError as error:
            self._close_map()  # of a file that nobody will read: the next store makes another
            raise self._translated(error) from error

    def _translated(self, error: OSError) -> ResourceExhausted | Internal:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return ResourceExhausted(
                f"no space left for '{self.path}': free some, then open the database again", path=str(self.path)
            )
        return Internal(f"'{self.path}' cannot be written: {error}", path=str(self.path))

    def _write(self, changed: Iterable[int]) -> None:
        mapped = self._map
        assert mapped is not None
        self._generation += 1
        at = _FILE.size + (self._generation & 1) * _slot_size(self._capacity)
        entries = at + _SLOT.size
        now = set(changed)
        # This slot was last written two stores ago: it also lacks what the other one got in between.
        for number in now | self._behind:
            version = self._versions.get(number)
            if version is not None:
                _ENTRY.pack_into(mapped, entries + _ENTRY.size * self._places[number], number, 0, version)
        self._behind = now
        n = len(self._places)
        # The checksum goes first into a wrong state: until the last line this slot does not count.
        _SLOT.pack_into(mapped, at, 0, self._generation, self._sequence, n)
        with memoryview(mapped) as view, view[at + 8 : entries + _ENTRY.size * n] as body:
            checksum = xxhash.xxh3_64_intdigest(body)
        failpoints.hit("acked.torn")
        _U64.pack_into(mapped, at, checksum)

    def _close_map(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def close(self) -> None:
        """Unmaps the file. Idempotent."""
        with self._lock:
            self._closed = True
            self._close_map()
