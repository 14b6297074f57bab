"""What a group of operations is about to do to one collection, before any of it is written.

The committer checks every operation of its group against a draft, so that each sees the effects of those before it.
A draft then holds all that storage must write and all that must be published afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.segments.rows import RowBatch
from vectordb.storage import codec, keys
from vectordb.storage.base import Family
from vectordb.storage.codec import IdempotentResult, IdEntry
from vectordb.storage.keys import Superseded

if TYPE_CHECKING:
    from vectordb.engine.checks import CheckedRows
    from vectordb.engine.live import LiveCollection


class Death(NamedTuple):
    """A row that was deleted or replaced, by which version."""

    offset: int
    version: int


class Overlay(NamedTuple):
    """A changed payload of a row that stays where it is."""

    offset: int
    payload_version: int
    metadata: bytes


@dataclass(slots=True)
class Effects:
    """What readers must learn once the group is durable; versions ascend within each list."""

    version: int
    next_offset: int
    alive: int
    batches: list[RowBatch] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    overlays: list[Overlay] = field(default_factory=list)
    superseded: list[Superseded] = field(default_factory=list)


class Draft:
    """The pending effects of one group on one collection. Used by the committer's thread alone.

    Attributes:
        small: META keys to put (or, with None, to delete).
        rewritten: ROWS keys and values of new payloads of existing rows.
        payloads: ROWS keys and values of new rows. vectors: VECTORS keys and values of new rows.
        before: Where the changed ids are until the group is published.
        remembered: Results of its calls by their idempotency keys, for those that repeat one within the group.
    """

    def __init__(self, collection: LiveCollection) -> None:
        self.collection = collection
        self.number = collection.number
        self.effects = Effects(collection.state.version, collection.state.next_offset, collection.state.alive)
        self.small: dict[bytes, bytes | None] = {}
        self.rewritten: dict[bytes, bytes] = {}
        self.payloads: list[tuple[list[bytes], list[bytes]]] = []
        self.vectors: list[tuple[list[bytes], list[bytes]]] = []
        self.before: dict[bytes, IdEntry | None] = {}
        self.remembered: dict[str, IdempotentResult] = {}
        self._now: dict[bytes, IdEntry | None] = {}
        # New rows by key, made only when asked for: most groups never look at what they wrote.
        self._payload_of: dict[bytes, bytes] = {}
        self._mapped = 0

    @property
    def is_empty(self) -> bool:
        return not self.small

    @property
    def new_rows(self) -> list[tuple[Family, list[bytes], list[bytes]]]:
        """Keys and values of new rows, which are nothing until the state covers their offsets."""
        return [(Family.ROWS, *p) for p in self.payloads] + [(Family.VECTORS, *v) for v in self.vectors]

    @property
    def changes(self) -> list[tuple[Family, list[bytes], list[bytes | None]]]:
        """Everything else: keys to put or, with None, to delete."""
        return [
            (Family.ROWS, list(self.rewritten), list(self.rewritten.values())),
            (Family.META, list(self.small), list(self.small.values())),
        ]

    def entries(self, ids: Sequence[bytes]) -> list[IdEntry | None]:
        """Where each id is now, this draft's own changes included."""
        stored = read_entries(self.collection, ids)
        if self._now:
            now = self._now
            return [now.get(i, entry) for i, entry in zip(ids, stored, strict=True)]
        return stored

    def payload(self, entry: IdEntry) -> bytes | None:
        """The payload of a row, if this draft wrote it."""
        wanted = keys.payload_key(self.number, *entry)
        if wanted in self.rewritten:
            return self.rewritten[wanted]
        for written, values in self.payloads[self._mapped :]:
            self._payload_of.update(zip(written, values, strict=True))
        self._mapped = len(self.payloads)
        return self._payload_of.get(wanted)

    def next_version(self) -> int:
        self.effects.version += 1
        return self.effects.version

    def write_rows(self, checked: CheckedRows, entries: Sequence[IdEntry | None], version: int) -> None:
        """New rows for all ids; rows that the ids had die."""
        number, n = self.number, len(checked.ids)
        first = self.effects.next_offset
        offsets = range(first, first + n)
        now = map(codec.encode_id_entry, offsets, repeat(version))
        self.small.update(zip(keys.id_keys(number, checked.keys), now, strict=False))
        for id_, entry in zip(checked.keys, entries, strict=True):
            # What an earlier operation of the group found stays what was before.
            self.before.setdefault(id_, entry)
        self._now.update(zip(checked.keys, map(IdEntry, offsets, repeat(version)), strict=False))
        for entry in entries:
            if entry is not None:
                self._kill(entry, version)
        texts: Iterable[bytes | None] = repeat(None) if checked.texts is None else checked.texts
        payloads = list(map(codec.encode_payload, checked.keys, checked.metadata, texts))
        self.payloads.append((keys.payload_keys(number, first, n, version), payloads))
        if checked.vectors is not None:
            present = checked.has_vector
            matrix = checked.vectors if present is None else checked.vectors[present]
            at = offsets if present is None else (np.flatnonzero(present) + first).tolist()
            self.vectors.append((keys.vector_keys_at(number, at), codec.encode_vectors(matrix)))
        effects = self.effects
        batch = RowBatch.dense(first, version, checked.ids, checked.metadata, checked.prepared, checked.has_vector)
        effects.batches.append(batch if checked.texts is None else replace(batch, texts=checked.texts))
        effects.next_offset += n
        effects.alive += sum(entry is None for entry in entries)

    def rewrite_payload(self, id_: bytes, entry: IdEntry, payload: tuple[bytes, bytes | None], version: int) -> None:
        """Another payload (metadata, text) for a row that keeps its vector and offset."""
        metadata, text = payload
        number, offset = self.number, entry.offset
        superseded = Superseded(version, offset, entry.payload_version)
        self.small[keys.superseded_key(number, superseded)] = b""
        self.small[keys.id_key(number, id_)] = codec.encode_id_entry(offset, version)
        self.small[keys.overlay_key(number, offset, version)] = b""
        self.rewritten[keys.payload_key(number, offset, version)] = codec.encode_payload(id_, metadata, text)
        self._move(id_, entry, IdEntry(offset, version))
        self.effects.superseded.append(superseded)
        self.effects.overlays.append(Overlay(offset, version, metadata))

    def remove(self, id_: bytes, entry: IdEntry, version: int) -> None:
        """The record dies."""
        self.small[keys.id_key(self.number, id_)] = None
        self._move(id_, entry, None)
        self._kill(entry, version)
        self.effects.alive -= 1

    def remember(self, idempotency_key: str, result: IdempotentResult) -> None:
        """Keeps a result under its key, to answer a repeated request."""
        self.small[keys.idempotency_key(self.number, idempotency_key)] = codec.encode_result(result)
        self.remembered[idempotency_key] = result

    def _move(self, id_: bytes, before: IdEntry | None, after: IdEntry | None) -> None:
        self.before.setdefault(id_, before)
        self._now[id_] = after

    def _kill(self, entry: IdEntry, version: int) -> None:
        tombstone = keys.tombstone_key(self.number, entry.offset)
        self.small[tombstone] = codec.encode_tombstone(version, entry.payload_version)
        self.effects.deaths.append(Death(entry.offset, version))


def read_entries(collection: LiveCollection, ids: Sequence[bytes]) -> list[IdEntry | None]:
    """Where storage says the ids are: the state of the last write, which may not be synced yet."""
    stored = collection.storage.get_many(Family.META, keys.id_keys(collection.number, ids))
    decode = codec.decode_id_entry
    return [None if value is None else decode(value) for value in stored]
