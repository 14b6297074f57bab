"""Reading what can be read of a damaged RocksDB folder, and writing it into a fresh one that is consistent.

Rows are the truth here: a record lives where its id's entry names its row, or, where the entry cannot be read, where a
row says so that no tombstone and no later row contradicts. What lives is written anew: rows keep their offsets and
versions; tombstones, replaced payloads and results of earlier calls are history and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from uuid import uuid4

from vectordb.engine.unfinished import Settled
from vectordb.errors import Corruption, Internal, VectorDBError
from vectordb.reports import Lost
from vectordb.storage import codec, keys
from vectordb.storage.base import Family, Storage
from vectordb.storage.catalogue import SegmentEntry, decode_config, decode_manifest, encode_manifest
from vectordb.storage.codec import IdEntry, State
from vectordb.storage.keys import Kind, Range
from vectordb.storage.rocks import RocksStorage
from vectordb.types import CollectionConfig

_NAMED_IDS = 1_000
_ROWS_A_BATCH = 250
_SEGMENT_BYTES = 256 << 20


def readable(
    storage: Storage, family: Family, span: Range, gaps: list[Range], prefix: int = 5
) -> Iterator[tuple[bytes, bytes]]:
    """All entries of a range that can be read; what lies in between is added to ``gaps``.

    Args:
        prefix: Bytes before the number, or text, that tells the keys of the range apart.
    """
    start, end = span
    while True:
        last: bytes | None = None
        try:
            for pair in storage.scan(family, start, end):
                last = pair[0]
                yield pair
            return
        except (Corruption, Internal):
            lost_from = start if last is None else last + b"\0"
        found = _next_readable(storage, family, (lost_from, end), prefix)
        gaps.append((lost_from, end if found is None else found))
        if found is None:
            return
        start = found


def _next_readable(storage: Storage, family: Family, span: Range, prefix: int) -> bytes | None:
    """Where the damage that begins at a key ends, found by leaps and halving; None where it goes on to the end."""
    start, end = span
    head, first = start[:prefix], int.from_bytes(start[prefix : prefix + 8].ljust(8, b"\0"), "big")

    def key(number: int) -> bytes:
        return head + number.to_bytes(8, "big")

    low, leap = first, 1
    while True:
        high = first + leap
        if high >= 1 << 64 or key(high) >= end:
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


@dataclass(slots=True)
class Salvaged:
    """What was found of one collection.

    Attributes:
        live: (offset, payload version) of its records by id.
        lost: What is gone, and is known to be.
    """

    number: int
    name: str
    config: CollectionConfig
    storage: Storage
    state: State
    live: dict[bytes, IdEntry] = field(default_factory=dict)
    ranges: list[Range2] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)


Range2 = tuple[int, int]


class Salvage:
    """Reads a damaged store. Changes nothing but what :meth:`write` is told to write.

    Attributes:
        collections: What was found.
        lost: Everything that is gone, of all collections.
    """

    def __init__(self, storage: Storage) -> None:
        self._stored = storage
        self.collections: list[Salvaged] = []
        self.lost: list[Lost] = []
        self._next_number = 1
        gaps: list[Range] = []
        for key, value in readable(storage, Family.META, keys.kind_range(keys.GLOBAL, Kind.NAME), gaps):
            number, name = codec.decode_u32(value), keys.parse_tail(key).decode()
            self._next_number = max(self._next_number, number + 1)
            try:
                self._read(number, name)
            except VectorDBError as error:
                self.lost.append(Lost("collection", f"its configuration cannot be read: {error.message}", name))
        if gaps:
            self.lost.append(Lost("collection", "a part of the catalogue cannot be read: collections may be missing"))
        for found in self.collections:
            self.lost += found.lost

    def _read(self, number: int, name: str) -> None:
        data = self._stored.get(Family.META, keys.config_key(number))
        if data is None:
            raise Corruption("it is missing from storage")
        storage = self._settled(number)
        found = Salvaged(number, name, decode_config(data), storage, State())
        known = True
        try:
            state = storage.get(Family.META, keys.state_key(number))
            known = state is not None
            found.state = found.state if state is None else codec.decode_state(state)
        except VectorDBError:
            known = False
        top = self._find_records(found, known)
        version = max((entry.payload_version for entry in found.live.values()), default=0)
        found.state = State(max(found.state.version, version), max(found.state.next_offset, top), len(found.live))
        if not known:
            found.lost.append(Lost("versions", f"its state cannot be read; it goes on from version {version}", name))
        found.ranges = self._ranges(found)
        self.collections.append(found)

    def _settled(self, number: int) -> Storage:
        try:
            return Settled(self._stored, [number])
        except VectorDBError:
            return self._stored

    def _find_records(self, found: Salvaged, known: bool) -> int:
        """Fills in what lives and what is lost; gives the end of the offsets seen."""
        number, storage = found.number, found.storage
        id_gaps: list[Range] = []
        gaps: list[Range] = []
        spans = {kind: keys.kind_range(number, kind) for kind in Kind}
        ids = {
            keys.parse_tail(key): codec.decode_id_entry(value)
            for key, value in readable(storage, Family.META, spans[Kind.ID], id_gaps)
        }
        dead = {keys.parse_offset(k) for k, _ in readable(storage, Family.META, spans[Kind.TOMBSTONE], gaps)}
        replaced = {
            (s.offset, s.payload_version)
            for s in (keys.parse_superseded(k) for k, _ in readable(storage, Family.META, spans[Kind.SUPERSEDED], gaps))
        }
        limit = found.state.next_offset if known else keys.MAX_U64
        top = 0
        orphans: dict[bytes, IdEntry] = {}
        row_gaps: list[Range] = []
        for key, value in readable(storage, Family.ROWS, spans[Kind.PAYLOAD], row_gaps):
            entry = IdEntry(*keys.parse_offset_version(key))
            id_ = codec.payload_id(value)
            if entry.offset >= limit:
                continue
            top = max(top, entry.offset + 1)
            if ids.get(id_) == entry:
                found.live[id_] = entry
            elif id_ not in ids and entry.offset not in dead and tuple(entry) not in replaced:
                orphans[id_] = max(entry, orphans.get(id_, entry))
        missing = ids.keys() - found.live.keys()
        # An id without an entry: the entry is damaged, or a store without damage contradicts itself.
        found.live.update(orphans)
        self._tell(found, missing, row_gaps, ambiguous=bool(gaps and orphans))
        return top

    def _tell(self, found: Salvaged, missing: set[bytes], row_gaps: list[Range], *, ambiguous: bool) -> None:
        if missing:
            names = tuple(sorted(id_.decode() for id_ in islice(sorted(missing), _NAMED_IDS)))
            told = f"{len(missing)} records cannot be read, such as {names[0]!r}"
            found.lost.append(Lost("records", told, found.name, len(missing), names))
        elif row_gaps and not missing:
            start, end = (keys.parse_numbers([g[:21].ljust(21, b"\0")], 2)[0][0] for g in row_gaps[0])
            told = f"rows between offset {start} and {end} cannot be read, and whose they were is not known"
            found.lost.append(Lost("records", told, found.name))
        if ambiguous:
            told = "records that were deleted or replaced may have come back: what said so cannot be read"
            found.lost.append(Lost("versions", told, found.name))
        without = self._without_vector(found)
        if without:
            names = tuple(id_.decode() for id_ in without[:_NAMED_IDS])
            told = f"the vectors of {len(without)} records cannot be read, such as {names[0]!r}; the records are kept"
            found.lost.append(Lost("vectors", told, found.name, len(without), names))

    def _without_vector(self, found: Salvaged) -> list[bytes]:
        lost: list[bytes] = []
        entries = list(found.live.items())
        for start in range(0, len(entries), _ROWS_A_BATCH):
            piece = entries[start : start + _ROWS_A_BATCH]
            for (id_, _), (_, fault) in zip(piece, _vectors(found, [e.offset for _, e in piece]), strict=True):
                if fault:
                    lost.append(id_)
        return lost

    def _ranges(self, found: Salvaged) -> list[Range2]:
        """The ranges of offsets that segments are to be made of: those of before, where they can be read."""
        try:
            data = found.storage.get(Family.META, keys.manifest_key(found.number))
            entries: Sequence[SegmentEntry] = [] if data is None else decode_manifest(data)
            return [(entry.lo, entry.hi) for entry in entries]
        except VectorDBError:
            step = max(1, _SEGMENT_BYTES // (4 * found.config.dim))
            end = found.state.next_offset
            return [(low, min(low + step, end)) for low in range(0, end, step)]

    def write(self, path: Path) -> None:
        """Writes a fresh store that holds what was found."""
        fresh = RocksStorage(path)
        try:
            batch = fresh.batch()
            batch.put(Family.META, keys.NEXT_COLLECTION_KEY, codec.encode_u32(self._next_number))
            fresh.write(batch)
            for found in self.collections:
                self._write(found, fresh)
            fresh.sync()
        finally:
            fresh.close()

    def _write(self, found: Salvaged, fresh: Storage) -> None:
        number = found.number
        entries = sorted(found.live.items(), key=lambda item: item[1])
        for start in range(0, len(entries), _ROWS_A_BATCH):
            piece = entries[start : start + _ROWS_A_BATCH]
            wanted = keys.payload_keys_at(number, [e.offset for _, e in piece], [e.payload_version for _, e in piece])
            batch = fresh.batch()
            vectors = _vectors(found, [e.offset for _, e in piece])
            for (id_, entry), key, (vector, _) in zip(piece, wanted, vectors, strict=True):
                payload = found.storage.get(Family.ROWS, key)
                assert payload is not None, "it was read before"
                batch.put(Family.ROWS, key, payload)
                batch.put(Family.META, keys.id_key(number, id_), codec.encode_id_entry(*entry))
                if vector is not None:
                    batch.put(Family.VECTORS, keys.vector_key(number, entry.offset), vector)
            fresh.write(batch)
        # They name no folder: opening seals each range anew.
        segments = [SegmentEntry(uuid4().hex, lo, hi, hi - lo, found.state.version) for lo, hi in found.ranges]
        data = found.storage.get(Family.META, keys.config_key(number))
        assert data is not None, "it was read before"
        batch = fresh.batch()
        batch.put(Family.META, keys.manifest_key(number), encode_manifest(segments))
        batch.put(Family.META, keys.name_key(found.name), codec.encode_u32(number))
        batch.put(Family.META, keys.config_key(number), data)
        batch.put(Family.META, keys.state_key(number), codec.encode_state(found.state))
        fresh.write(batch)


def _vectors(found: Salvaged, offsets: list[int]) -> list[tuple[bytes | None, bool]]:
    """The vectors of rows, and whether there is one that cannot be read."""
    wanted = keys.vector_keys_at(found.number, offsets)
    size = 4 * found.config.dim
    try:
        values = found.storage.get_many(Family.VECTORS, wanted)
        return [(None, True) if v is not None and len(v) != size else (v, False) for v in values]
    except VectorDBError:
        if len(wanted) == 1:
            return [(None, True)]
        middle = len(offsets) // 2
        return [*_vectors(found, offsets[:middle]), *_vectors(found, offsets[middle:])]
