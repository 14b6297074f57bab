"""Whether ids, rows, tombstones and vectors of one collection agree in storage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vectordb.storage import codec, keys
from vectordb.storage.base import Family, Storage
from vectordb.storage.codec import IdEntry, State
from vectordb.storage.keys import Kind
from vectordb.types import CollectionConfig

_MOST_NAMED = 20
"""Problems of one kind in one collection that are listed; the rest is counted."""


@dataclass(slots=True)
class Records:
    """One collection as it is looked at.

    Attributes:
        ids: Where each id is; dead: offsets with a tombstone. Filled by :func:`check_records`.
    """

    number: int
    config: CollectionConfig
    storage: Storage
    state: State
    ids: dict[bytes, IdEntry] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)

    def scan(self, kind: Kind) -> Iterator[tuple[bytes, bytes]]:
        """Its META entries of one kind."""
        return self.storage.scan(Family.META, *keys.kind_range(self.number, kind))


def check_records(records: Records) -> Iterator[str]:
    """What is wrong."""
    if records.storage.get(Family.META, keys.state_key(records.number)) is None:
        yield "its state is missing from storage"
        return
    yield from _id_problems(records)
    payloads: set[tuple[int, int]] = set()
    yield from shortened(_payload_problems(records, payloads))
    yield from shortened(_missing_payloads(records, payloads))
    yield from shortened(_vector_problems(records, {offset for offset, _ in payloads}))


def _id_problems(records: Records) -> Iterator[str]:
    for key, value in records.scan(Kind.ID):
        records.ids[keys.parse_tail(key)] = codec.decode_id_entry(value)
    if len(records.ids) != records.state.alive:
        yield f"{len(records.ids)} ids are stored, its state counts {records.state.alive} records"
    records.dead.update(keys.parse_offset(key) for key, _ in records.scan(Kind.TOMBSTONE))
    offsets = {entry.offset for entry in records.ids.values()}
    if len(offsets) != len(records.ids):
        yield f"{len(records.ids) - len(offsets)} rows belong to more than one id"
    if buried := offsets & records.dead:
        yield f"{len(buried)} rows are dead and belong to an id at once, such as row {min(buried)}"


def _payload_problems(records: Records, payloads: set[tuple[int, int]]) -> Iterator[str]:
    pending = {
        (s.offset, s.payload_version) for s in (keys.parse_superseded(key) for key, _ in records.scan(Kind.SUPERSEDED))
    }
    for key, value in records.storage.scan(Family.ROWS, *keys.kind_range(records.number, Kind.PAYLOAD)):
        offset, version = keys.parse_offset_version(key)
        payloads.add((offset, version))
        if (offset, version) in pending or offset in records.dead:
            continue
        id_ = codec.payload_id(value)
        if records.ids.get(id_) != (offset, version):
            yield f"row {offset} (version {version}) says it is {id_.decode()!r}, whose entry is elsewhere"


def _missing_payloads(records: Records, payloads: set[tuple[int, int]]) -> Iterator[str]:
    for id_, entry in records.ids.items():
        if tuple(entry) not in payloads:
            yield f"the payload of {id_.decode()!r} (row {entry.offset}) is missing"


def _vector_problems(records: Records, rows: set[int]) -> Iterator[str]:
    size = 4 * records.config.dim
    for key, value in records.storage.scan(Family.VECTORS, *keys.vector_range(records.number)):
        offset = keys.parse_offset(key)
        if len(value) != size:
            yield f"the vector of row {offset} has {len(value)} bytes instead of {size}"
        if offset not in rows:
            yield f"there is a vector for row {offset}, which does not exist"


def shortened(problems: Iterator[str]) -> Iterator[str]:
    """The first of many problems, and how many more there are."""
    count = 0
    for problem in problems:
        count += 1
        if count <= _MOST_NAMED:
            yield problem
    if count > _MOST_NAMED:
        yield f"... and {count - _MOST_NAMED} more like the last"
