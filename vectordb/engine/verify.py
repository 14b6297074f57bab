"""``vectordb verify``: reads every byte of a folder that no one has open and cross-checks what it says.

Nothing is changed: storage is opened read-only, segments are only read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vectordb.engine.catalogue import Catalogue
from vectordb.engine.locking import DirectoryLock
from vectordb.engine.manifest import refs_of
from vectordb.errors import VectorDBError
from vectordb.segments.opening import map_segment
from vectordb.segments.segment import Segment
from vectordb.segments.store import SegmentStore, text_ref
from vectordb.storage import codec, keys
from vectordb.storage.acked import lost, read_acked
from vectordb.storage.base import Family, Storage
from vectordb.storage.catalogue import SegmentEntry, decode_manifest
from vectordb.storage.codec import IdEntry, State
from vectordb.storage.format import check_format
from vectordb.storage.keys import Kind
from vectordb.storage.rocks import RocksStorage
from vectordb.types import CollectionConfig

_LATEST = 2**63 - 1
_MOST_NAMED = 20
"""Problems of one kind in one collection that are listed; the rest is counted."""


def verify_folder(path: Path) -> list[str]:
    """Everything that is wrong with a database folder; empty when all holds.

    Checked: the format; every block of storage (by reading it); acknowledged against recovered versions; ids against
    rows, rows against tombstones, counts and vectors; every checksum of every segment, and its rows against storage.

    Raises:
        DirectoryLocked: Somebody has it open. FailedPrecondition: It is not a database of this format.
        Corruption: Storage cannot be opened at all.
    """
    folder = Path(path).expanduser().absolute()
    check_format(folder, create=False)
    lock = DirectoryLock(folder)
    try:
        storage = RocksStorage(folder / "rocksdb", read_only=True)
        try:
            return list(_problems(folder, storage))
        finally:
            storage.close()
    finally:
        lock.release()


def _problems(folder: Path, storage: Storage) -> Iterator[str]:
    catalogue = Catalogue(storage)
    for loss in lost(read_acked(folder / "ACKED"), storage.sequence(), catalogue.versions(), catalogue.next_number()):
        yield str(loss)
    store = SegmentStore(folder / "segments") if (folder / "segments").is_dir() else None
    for name in sorted(catalogue.numbers()):
        number, config = catalogue.find(name)
        try:
            for problem in _Collection(number, config, storage, store).problems():
                yield f"collection {name!r}: {problem}"
        except VectorDBError as error:
            yield f"collection {name!r} cannot be read in full: {error}"


class _Collection:
    """The checks of one collection."""

    def __init__(self, number: int, config: CollectionConfig, storage: Storage, store: SegmentStore | None) -> None:
        self._number = number
        self._config = config
        self._storage = storage
        self._store = store
        self._ids: dict[bytes, IdEntry] = {}
        self._dead: set[int] = set()
        self._payloads: set[tuple[int, int]] = set()

    def problems(self) -> Iterator[str]:
        data = self._storage.get(Family.META, keys.state_key(self._number))
        if data is None:
            yield "its state is missing from storage"
            return
        state = codec.decode_state(data)
        yield from self._id_problems(state)
        yield from _shortened(self._payload_problems(state))
        yield from _shortened(self._missing_payloads())
        yield from _shortened(self._vector_problems())
        yield from self._segment_problems(state)

    def _scan(self, kind: Kind) -> Iterator[tuple[bytes, bytes]]:
        return self._storage.scan(Family.META, *keys.kind_range(self._number, kind))

    def _id_problems(self, state: State) -> Iterator[str]:
        for key, value in self._scan(Kind.ID):
            self._ids[keys.parse_tail(key)] = codec.decode_id_entry(value)
        if len(self._ids) != state.alive:
            yield f"{len(self._ids)} ids are stored, its state counts {state.alive} records"
        self._dead = {keys.parse_offset(key) for key, _ in self._scan(Kind.TOMBSTONE)}
        offsets = {entry.offset for entry in self._ids.values()}
        if len(offsets) != len(self._ids):
            yield f"{len(self._ids) - len(offsets)} rows belong to more than one id"
        if buried := offsets & self._dead:
            yield f"{len(buried)} rows are dead and belong to an id at once, such as row {min(buried)}"

    def _payload_problems(self, state: State) -> Iterator[str]:
        pending = {
            (s.offset, s.payload_version)
            for s in (keys.parse_superseded(key) for key, _ in self._scan(Kind.SUPERSEDED))
        }
        start, end = keys.kind_range(self._number, Kind.PAYLOAD)
        for key, value in self._storage.scan(Family.ROWS, start, end):
            offset, version = keys.parse_offset_version(key)
            self._payloads.add((offset, version))
            if offset >= state.next_offset or (offset, version) in pending or offset in self._dead:
                continue
            id_ = codec.payload_id(value)
            if self._ids.get(id_) != (offset, version):
                yield f"row {offset} (version {version}) says it is {id_.decode()!r}, whose entry is elsewhere"

    def _missing_payloads(self) -> Iterator[str]:
        for id_, entry in self._ids.items():
            if tuple(entry) not in self._payloads:
                yield f"the payload of {id_.decode()!r} (row {entry.offset}) is missing"

    def _vector_problems(self) -> Iterator[str]:
        size = 4 * self._config.dim
        for key, value in self._storage.scan(Family.VECTORS, *keys.vector_range(self._number)):
            if len(value) != size:
                yield f"the vector of row {keys.parse_offset(key)} has {len(value)} bytes instead of {size}"

    def _segment_problems(self, state: State) -> Iterator[str]:
        manifest = self._storage.get(Family.META, keys.manifest_key(self._number))
        entries = decode_manifest(manifest) if manifest is not None else []
        hi = 0
        for entry in entries:
            if entry.lo < hi or entry.hi > state.next_offset:
                yield f"segment {entry.name} covers rows {entry.lo} to {entry.hi}, which others cover or nobody wrote"
            hi = entry.hi
            if self._store is None:
                yield f"segment {entry.name} is missing (it is rebuilt on opening)"
                continue
            damage = self._store.verify(entry.name)
            if not damage:
                beside = [ref for ref in refs_of(entry) if ref != entry.name]
                if self._store.info(entry.name)[0].documents:
                    beside.append(text_ref(entry.name))
                damage = [problem for ref in beside for problem in self._store.verify(ref)]
            yield from (f"{problem} (it is rebuilt on opening)" for problem in damage)
            if not damage:
                segment = map_segment(self._store, entry.name, self._config.fields)
                yield from self._row_problems(entry, segment)

    def _row_problems(self, entry: SegmentEntry, segment: Segment) -> Iterator[str]:
        """A segment's living rows against the ids that storage has in its range."""
        view = segment.view(_LATEST)
        rows = np.arange(view.rows, dtype=np.int64)
        rows = rows[view.alive(rows)]
        held = dict(zip(view.offsets(rows).tolist(), view.ids(rows), strict=True))
        stored = {e.offset: i for i, e in self._ids.items() if entry.lo <= e.offset < entry.hi}
        if missing := stored.keys() - held.keys():
            yield f"segment {entry.name} lacks {len(missing)} rows, such as row {min(missing)}"
        wrong = [offset for offset in stored.keys() & held.keys() if held[offset].encode() != stored[offset]]
        if wrong:
            yield f"segment {entry.name} has other ids for {len(wrong)} rows, such as row {wrong[0]}"
        if extra := held.keys() - stored.keys() - self._dead:
            yield f"segment {entry.name} has {len(extra)} living rows that storage does not, such as row {min(extra)}"


def _shortened(problems: Iterator[str]) -> Iterator[str]:
    count = 0
    for problem in problems:
        count += 1
        if count <= _MOST_NAMED:
            yield problem
    if count > _MOST_NAMED:
        yield f"... and {count - _MOST_NAMED} more like the last"
