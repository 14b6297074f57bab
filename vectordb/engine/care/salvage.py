"""Reading what can be read of a damaged RocksDB folder, and writing it into a fresh one that is consistent.

Rows are the truth here: a record lives where its id's entry names its row, or, where the entry cannot be read, where a
row says so that no tombstone and no later row contradicts. What lives is written anew: rows keep their offsets and
versions; tombstones, replaced payloads and results of earlier calls are history and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from uuid import uuid4

from vectordb.engine.care.damaged import DamagedStore
from vectordb.engine.care.unfinished import Settled
from vectordb.metric import Metric
from vectordb.reports import Lost
from vectordb.storage import codec, keys
from vectordb.storage.base import Family, Storage
from vectordb.storage.catalogue import SegmentEntry, decode_config, decode_manifest, encode_config, encode_manifest
from vectordb.storage.codec import IdEntry, State
from vectordb.storage.keys import Kind, Range
from vectordb.storage.rocks import RocksStorage
from vectordb.types import CollectionConfig

_NAMED_IDS = 1_000
_ROWS_A_BATCH = 250
_SEGMENT_BYTES = 256 << 20


@dataclass(slots=True)
class Salvaged:
    """What was found of one collection.

    Attributes:
        storage: Where its rows are read.
        ranges: The ranges of offsets that segments are to be made of.
        live: (offset, payload version) of its records by id.
        lost: What is gone, and is known to be.
    """

    number: int
    config: CollectionConfig
    storage: Storage
    state: State
    live: dict[bytes, IdEntry] = field(default_factory=dict)
    ranges: list[tuple[int, int]] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)


class Salvage:
    """Reads a damaged store. Changes nothing but what :meth:`write` is told to write.

    Attributes:
        collections: What was found.
        lost: Everything that is gone, of all collections.
    """

    def __init__(self, store: DamagedStore, metrics: Mapping[int, Metric]) -> None:
        """``metrics``: what segments say of the metric of their collection, by its number."""
        self._store = store
        self.collections: list[Salvaged] = []
        self.lost: list[Lost] = []
        self._next_number = 1
        names = {
            codec.decode_u32(value): keys.parse_tail(key).decode()
            for key, value in store.scan(Family.META, *keys.kind_range(keys.GLOBAL, Kind.NAME))
        }
        for number in sorted(names.keys() | set(self._with_rows())):
            self._next_number = max(self._next_number, number + 1)
            self._read(number, names.get(number), metrics)
        if store.families - {Family.VECTORS}:
            told = ", ".join(store.tables)
            self.lost.append(
                Lost("versions", f"what the damaged tables ({told}) deleted or replaced may have come back")
            )
        for found in self.collections:
            self.lost += found.lost

    def _with_rows(self) -> Iterator[int]:
        """Numbers of the collections that have rows."""
        number = 1
        while number <= keys.MAX_COLLECTION:
            start = keys.collection_range(number)[0]
            first = next(self._store.readable(Family.ROWS, (start, b"\xff" * 8), [], 0), None)
            if first is None:
                return
            number = keys.parse_cid(first[0])
            yield number
            number += 1

    def _read(self, number: int, name: str | None, metrics: Mapping[int, Metric]) -> None:
        record = self._store.get(Family.META, keys.config_key(number))
        config = None if record is None else decode_config(record)
        if config is None:
            config = self._guessed(number, name, metrics)
            if config is None:
                if name is not None:
                    self.lost.append(Lost("collection", "nothing of it can be read", name))
                return
        elif name is None and self._store.tables:
            told = "its entry in the catalogue cannot be read; a collection that was deleted may have come back"
            self.lost.append(Lost("collection", told, config.name))
        elif name is None:
            return  # deleted, but not yet gone
        data = self._store.get(Family.META, keys.state_key(number))
        storage: Storage = cast("Storage", self._store)
        if data is not None:
            storage = Settled(storage, [number])
        found = Salvaged(number, config, storage, State() if data is None else codec.decode_state(data))
        top = self._find_records(found, is_known=data is not None)
        version = max((entry.payload_version for entry in found.live.values()), default=0)
        found.state = State(max(found.state.version, version), max(found.state.next_offset, top), len(found.live))
        if data is None:
            told = f"its state cannot be read; it goes on from version {version}"
            found.lost.append(Lost("versions", told, config.name))
        found.ranges = self._ranges(found)
        self.collections.append(found)

    def _guessed(self, number: int, name: str | None, metrics: Mapping[int, Metric]) -> CollectionConfig | None:
        """A configuration for rows whose own cannot be read; None where they have no vector to tell the dimension."""
        vector = next(self._store.readable(Family.VECTORS, keys.vector_range(number), [], 6), None)
        if vector is None:
            return None
        dim, metric = len(vector[1]) // 4, metrics.get(number, Metric.COSINE)
        config = CollectionConfig(name or f"recovered-{number}", dim, metric)
        told = (
            f"its configuration{'' if name else ' and name'} cannot be read; the records are in collection "
            f"{config.name!r} with dim {dim}, metric {metric.value} and all else as by default"
        )
        self.lost.append(Lost("collection", told, name))
        return config

    def _entries(self, found: Salvaged, family: Family, kind: Kind, gaps: list[Range]) -> Iterator[tuple[bytes, bytes]]:
        start, end = keys.kind_range(found.number, kind)
        pairs = self._store.readable(family, (start, end), gaps)
        return found.storage.applied(family, start, end, pairs) if isinstance(found.storage, Settled) else pairs

    def _find_records(self, found: Salvaged, *, is_known: bool) -> int:
        """Fills in what lives and what is lost; gives the end of the offsets seen."""
        id_gaps: list[Range] = []
        gaps: list[Range] = []
        ids = {
            keys.parse_tail(key): codec.decode_id_entry(value)
            for key, value in self._entries(found, Family.META, Kind.ID, id_gaps)
        }
        dead = {keys.parse_offset(k) for k, _ in self._entries(found, Family.META, Kind.TOMBSTONE, gaps)}
        replaced = {
            (s.offset, s.payload_version)
            for s in (keys.parse_superseded(k) for k, _ in self._entries(found, Family.META, Kind.SUPERSEDED, gaps))
        }
        limit = found.state.next_offset if is_known else keys.MAX_U64
        top = 0
        orphans: dict[bytes, IdEntry] = {}
        row_gaps: list[Range] = []
        for key, value in self._entries(found, Family.ROWS, Kind.PAYLOAD, row_gaps):
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
        self._tell(found, missing, row_gaps)
        return top

    def _tell(self, found: Salvaged, missing: set[bytes], row_gaps: list[Range]) -> None:
        if missing:
            names = tuple(id_.decode() for id_ in sorted(missing)[:_NAMED_IDS])
            told = f"{len(missing)} records cannot be read, such as {names[0]!r}"
            found.lost.append(Lost("records", told, found.config.name, len(missing), names))
        elif row_gaps:
            start, end = (keys.parse_numbers([g[:21].ljust(21, b"\0")], 2)[0][0] for g in row_gaps[0])
            told = f"rows between offset {start} and {end} cannot be read, and whose they were is not known"
            found.lost.append(Lost("records", told, found.config.name))
        without = self._without_vector(found)
        if without:
            names = tuple(id_.decode() for id_ in without[:_NAMED_IDS])
            told = f"the vectors of {len(without)} records cannot be read, such as {names[0]!r}; the records are kept"
            found.lost.append(Lost("vectors", told, found.config.name, len(without), names))

    def _without_vector(self, found: Salvaged) -> list[bytes]:
        lost: list[bytes] = []
        entries = sorted(found.live.items(), key=lambda item: item[1])
        for start in range(0, len(entries), _ROWS_A_BATCH):
            piece = entries[start : start + _ROWS_A_BATCH]
            for (id_, _), (_, fault) in zip(piece, self._vectors(found, piece), strict=True):
                if fault:
                    lost.append(id_)
        return lost

    def _vectors(self, found: Salvaged, piece: list[tuple[bytes, IdEntry]]) -> list[tuple[bytes | None, bool]]:
        return _vectors(self._store, found.number, [entry.offset for _, entry in piece], found.config.dim)

    def _ranges(self, found: Salvaged) -> list[tuple[int, int]]:
        """The ranges of offsets that segments are to be made of: those of before, where they can be read."""
        data = found.storage.get(Family.META, keys.manifest_key(found.number))
        if data is not None:
            return [(entry.lo, entry.hi) for entry in decode_manifest(data)]
        if self._store.tables:
            step = max(1, _SEGMENT_BYTES // (4 * found.config.dim))
            end = found.state.next_offset
            return [(low, min(low + step, end)) for low in range(0, end, step)]
        return []

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
            vectors = self._vectors(found, piece)
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
        batch = fresh.batch()
        batch.put(Family.META, keys.manifest_key(number), encode_manifest(segments))
        batch.put(Family.META, keys.name_key(found.config.name), codec.encode_u32(number))
        batch.put(Family.META, keys.config_key(number), encode_config(found.config))
        batch.put(Family.META, keys.state_key(number), codec.encode_state(found.state))
        fresh.write(batch)


def _vectors(store: DamagedStore, number: int, offsets: list[int], dim: int) -> list[tuple[bytes | None, bool]]:
    """The vectors of rows, ascending, and whether there may be one that cannot be read."""
    gaps: list[Range] = []
    wanted = keys.vector_keys_at(number, offsets)
    found = dict(store.readable(Family.VECTORS, (wanted[0], wanted[-1] + b"\0"), gaps, 6)) if wanted else {}
    answer: list[tuple[bytes | None, bool]] = []
    for key in wanted:
        value = found.get(key)
        lost = value is None and any(start <= key < end for start, end in gaps)
        wrong = value is not None and len(value) != 4 * dim
        answer.append((None, True) if lost or wrong else (value, False))
    return answer
