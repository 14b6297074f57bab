"""Which collections there are: names, numbers and configurations, kept in storage and mirrored in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from vectordb import failpoints
from vectordb.engine.manifest import refs_of
from vectordb.errors import AlreadyExists, CollectionNotFound, Corruption, FailedPrecondition
from vectordb.storage import codec, keys
from vectordb.storage.base import Batch, Family, Storage
from vectordb.storage.catalogue import Choice, decode_config, decode_manifest, encode_config
from vectordb.storage.codec import State
from vectordb.storage.keys import Kind
from vectordb.types import CollectionConfig, IndexSpec, Tuning

_FREE: Mapping[str, object] = {"index": IndexSpec(), "quantization": None}


class Catalogue:
    """The collections of one database. Changes are synced on return; the caller serialises them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._collections: dict[str, tuple[int, CollectionConfig]] = {}
        for key, value in list(storage.scan(Family.META, *keys.kind_range(keys.GLOBAL, Kind.NAME))):
            number = codec.decode_u32(value)
            config = storage.get(Family.META, keys.config_key(number))
            name = keys.parse_tail(key).decode()
            if config is not None:
                self._collections[name] = number, decode_config(config)

    def numbers(self) -> Mapping[str, int]:
        """Numbers by name."""
        # Of a copy, made at once: others may be creating and deleting meanwhile.
        return {name: number for name, (number, _) in list(self._collections.items())}

    def find(self, name: str) -> tuple[int, CollectionConfig]:
        """Number and configuration.

        Raises:
            CollectionNotFound: There is none of this name.
        """
        found = self._collections.get(name)
        if found is None:
            known = ", ".join(repr(n) for n in sorted(self._collections)[:5]) or "none"
            raise CollectionNotFound(f"collection {name!r} does not exist; there are: {known}", collection=name)
        return found

    def state(self, number: int) -> State:
        """Where a collection stands in storage."""
        data = self._storage.get(Family.META, keys.state_key(number))
        return State() if data is None else codec.decode_state(data)

    def versions(self) -> dict[int, int]:
        """The committed version of each collection by its number."""
        return {number: self.state(number).version for number, _ in self._collections.values()}

    def next_number(self) -> int:
        """The number of the next new collection; never reused."""
        stored = self._storage.get(Family.META, keys.NEXT_COLLECTION_KEY)
        return 1 if stored is None else codec.decode_u32(stored)

    def segment_refs(self) -> list[str]:
        """Everything in the segments folder that some manifest names."""
        refs: list[str] = []
        for number, _ in self._collections.values():
            manifest = self._storage.get(Family.META, keys.manifest_key(number))
            if manifest is not None:
                refs.extend(ref for entry in decode_manifest(manifest) for ref in refs_of(entry))
        return refs

    def segments_of(self, number: int) -> list[str]:
        """The segments that one manifest names; none where it cannot be read."""
        try:
            manifest = self._storage.get(Family.META, keys.manifest_key(number))
            return [] if manifest is None else [entry.name for entry in decode_manifest(manifest)]
        except Corruption:
            return []  # they are garbage for the next opening

    def create(self, config: CollectionConfig, exist_ok: bool) -> tuple[CollectionConfig, tuple[int, int] | None]:
        """Adds a collection.

        Returns:
            Its configuration, and where it is new its number and the sequence number up to which storage is synced.

        Raises:
            AlreadyExists: The name is taken. FailedPrecondition: with ``exist_ok``, by one of another configuration
                (index, quantization and tuning count where they are not the default).
        """
        existing = self._collections.get(config.name)
        if existing is not None:
            if not exist_ok:
                raise AlreadyExists(
                    f"collection {config.name!r} exists already; open it with collection(name), or pass exist_ok=True",
                    collection=config.name,
                )
            _check_same(existing[1], config)
            return existing[1], None
        number = self.next_number()
        batch = self._storage.batch()
        batch.put(Family.META, keys.NEXT_COLLECTION_KEY, codec.encode_u32(number + 1))
        batch.put(Family.META, keys.name_key(config.name), codec.encode_u32(number))
        batch.put(Family.META, keys.config_key(number), encode_config(config))
        batch.put(Family.META, keys.state_key(number), codec.encode_state(State()))
        self._storage.write(batch)
        sequence = self._storage.sync()
        self._collections[config.name] = number, config
        return config, (number, sequence)

    def change(self, batch: Batch, number: int, config: CollectionConfig, target: Choice | None) -> None:
        """Gives a collection another configuration, and what it is being reindexed to, by a batch that has more in it.

        Not for the caller of the other methods: under the collection's ``manifest_lock``, while it is there.
        """
        batch.put(Family.META, keys.config_key(number), encode_config(config, target))
        self._storage.write(batch)
        self._storage.sync()
        self._collections[config.name] = number, config

    def delete(self, name: str) -> int:
        """Removes a collection and everything stored for it; gives the sequence number up to which it is synced."""
        number, _ = self.find(name)
        batch = self._storage.batch()
        batch.delete(Family.META, keys.name_key(name))
        for family in Family:
            batch.delete_range(family, *keys.collection_range(number))
        self._storage.write(batch)
        failpoints.hit("delete.written")
        sequence = self._storage.sync()
        del self._collections[name]
        return sequence


def _check_same(existing: CollectionConfig, wanted: CollectionConfig) -> None:
    differences = []
    for field in fields(CollectionConfig):
        if field.name == "tuning":
            continue
        old, new = getattr(existing, field.name), getattr(wanted, field.name)
        # What nobody asked for may be anything: a collection that was reindexed opens by the line that made it.
        if old != new and not (field.name in _FREE and new == _FREE[field.name]):
            differences.append((field.name, old, new))
    for option in fields(Tuning):
        old, new = getattr(existing.tuning, option.name), getattr(wanted.tuning, option.name)
        if old != new and new != option.default:
            differences.append((option.name, old, new))
    if differences:
        told = "; ".join(f"{name} is {_short(old)}, not {_short(new)}" for name, old, new in differences)
        raise FailedPrecondition(
            f"collection {existing.name!r} exists with another configuration: {told}",
            collection=existing.name,
            differences=[name for name, _, _ in differences],
        )


def _short(value: object) -> str:
    if isinstance(value, dict):
        told = [f"{n}: {f.type.value}{'' if f.indexed else ' (not indexed)'}" for n, f in sorted(value.items())]
        return "{" + ", ".join(told) + "}"
    kind, params = getattr(value, "kind", None), getattr(value, "params", None)
    if kind is not None:
        return repr(kind) if not params else f"{kind!r} with {dict(params)}"
    return repr(str(value)) if isinstance(value, str) else repr(value)
