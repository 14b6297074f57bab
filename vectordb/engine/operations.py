"""The write operations, each as the committer runs it: check against the draft, then change the draft.

``apply`` raises before it changes anything, so a failing operation leaves its group alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.encoding import decode_metadata, encode_metadata
from vectordb.engine.checks import CheckedRows
from vectordb.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from vectordb.filter import Filter, matches
from vectordb.requests import WriteMode
from vectordb.row_policy import outside, would_leave
from vectordb.storage import codec, keys
from vectordb.storage.base import Family
from vectordb.storage.codec import IdEntry
from vectordb.validate import check_metadata

if TYPE_CHECKING:
    from vectordb.engine.draft import Draft

_NAMED_IDS = 10


@dataclass(slots=True)
class Write:
    """Upsert, insert or update of checked rows, which match the ``policy`` where there is one."""

    mode: WriteMode
    rows: CheckedRows
    if_version: int | None = None
    policy: Filter | None = None
    needs_snapshot = False

    def apply(self, draft: Draft) -> tuple[int, int]:
        entries = draft.entries(self.rows.keys)
        seen = entries if self.policy is None else _seen(draft, entries, self.policy)
        _check_if_version(draft, self.rows.ids, seen, self.if_version)
        if self.mode is WriteMode.INSERT and any(seen):
            there = [i for i, entry in zip(self.rows.ids, seen, strict=True) if entry is not None]
            raise AlreadyExists(
                f"{len(there)} of {len(entries)} ids exist already in collection {draft.collection.name!r}: "
                f"{_named(there)}; use upsert to replace them",
                collection=draft.collection.name,
                ids=there[:_NAMED_IDS],
            )
        if self.mode is WriteMode.UPDATE and not all(seen):
            missing = [i for i, entry in zip(self.rows.ids, seen, strict=True) if entry is None]
            raise NotFound(
                f"{len(missing)} of {len(entries)} ids do not exist in collection {draft.collection.name!r}: "
                f"{_named(missing)}; use upsert to create them",
                collection=draft.collection.name,
                ids=missing[:_NAMED_IDS],
            )
        if seen is not entries:
            for row, (id_, entry, visible) in enumerate(zip(self.rows.ids, entries, seen, strict=True)):
                if entry is not visible:
                    raise outside(row, id_)
        version = draft.next_version()
        draft.write_rows(self.rows, entries, version)
        return len(entries), version


@dataclass(slots=True)
class Delete:
    """Delete by ids, by filter, or by both."""

    ids: list[bytes] | None
    where: Filter | None
    if_version: int | None = None
    policy: Filter | None = None

    @property
    def needs_snapshot(self) -> bool:
        return self.where is not None

    def apply(self, draft: Draft) -> tuple[int, int]:
        targets = _targets(draft, self)
        if not targets:
            return 0, draft.effects.version
        version = draft.next_version()
        for id_, entry in targets:
            draft.remove(id_, entry, version)
        return len(targets), version


@dataclass(slots=True)
class UpdateMetadata:
    """Sets and removes metadata fields of the records named or matched."""

    ids: list[bytes] | None
    where: Filter | None
    set: dict[str, Any]
    unset: Sequence[str]
    if_version: int | None = None
    policy: Filter | None = None

    @property
    def needs_snapshot(self) -> bool:
        return self.where is not None

    def apply(self, draft: Draft) -> tuple[int, int]:
        targets = _targets(draft, self)
        if not targets:
            return 0, draft.effects.version
        payloads = _payloads(draft, [entry for _, entry in targets])
        collection, most = draft.collection, draft.collection.limits.max_metadata_bytes
        changed = []
        for row, ((id_, entry), payload) in enumerate(zip(targets, payloads, strict=True)):
            metadata = decode_metadata(payload.metadata)
            metadata.update(self.set)
            for path in self.unset:
                _remove_path(metadata, path.split("."))
            try:
                check_metadata(metadata, collection.config.fields, row=row, max_bytes=most)
            except InvalidArgument as error:
                raise InvalidArgument(
                    f"record {id_.decode()!r} would become invalid: {error.message}",
                    **{**error.fields, "id": id_.decode()},
                ) from None
            if self.policy is not None and not matches(self.policy, metadata):
                raise would_leave(self.policy, id_.decode())
            changed.append((id_, entry, encode_metadata(metadata), payload.text))
        version = draft.next_version()
        for id_, entry, encoded, text in changed:
            draft.rewrite_payload(id_, entry, (encoded, text), version)
        return len(changed), version


def _remove_path(metadata: dict[str, Any], path: list[str]) -> None:
    for name in path[:-1]:
        inner = metadata.get(name)
        if not isinstance(inner, dict):
            return
        metadata = inner
    metadata.pop(path[-1], None)


def _targets(draft: Draft, chosen: Delete | UpdateMetadata) -> list[tuple[bytes, IdEntry]]:
    """The existing records that are named and matched and that the caller may see, with where they are."""
    ids, where, policy = chosen.ids, chosen.where, chosen.policy
    if ids is None:
        assert where is not None
        found = _matching(draft, where if policy is None else policy & where)
        _check_if_version(draft, [i.decode() for i, _ in found], [entry for _, entry in found], chosen.if_version)
        return found
    entries = draft.entries(ids)
    if policy is not None:
        entries = _seen(draft, entries, policy)
    _check_if_version(draft, [i.decode() for i in ids], entries, chosen.if_version)
    if where is not None:
        entries = _seen(draft, entries, where)
    return [(i, entry) for i, entry in zip(ids, entries, strict=True) if entry is not None]


def _seen(draft: Draft, entries: Sequence[IdEntry | None], where: Filter) -> list[IdEntry | None]:
    """The same entries, those of records that do not match as if there were none."""
    payloads = iter(_payloads(draft, [entry for entry in entries if entry is not None]))
    return [
        entry if entry is not None and matches(where, decode_metadata(next(payloads).metadata)) else None
        for entry in entries
    ]


def _matching(draft: Draft, where: Filter) -> list[tuple[bytes, IdEntry]]:
    """Records that meet the filter now. The committer runs such an operation first in its group, so that the
    published snapshot is the present. What they are is not kept: once they are changed, hardly anybody asks again, and
    one answer a write and segment would fill the caches with what nobody looks at."""
    found: list[tuple[bytes, IdEntry]] = []
    for part in draft.collection.snapshot.parts:
        alive = part.matching(where, keep=False) - part.dead_rows()
        rows = np.asarray(alive.to_array(), np.int64)
        if not len(rows):
            continue
        offsets, versions = part.offsets(rows).tolist(), part.payload_versions(rows).tolist()
        found.extend(
            (id_.encode(), IdEntry(offset, version))
            for id_, offset, version in zip(part.ids(rows), offsets, versions, strict=True)
        )
    return found


def _payloads(draft: Draft, entries: list[IdEntry]) -> list[codec.Payload]:
    number = draft.number
    wanted = [keys.payload_key(number, *entry) for entry in entries]
    stored = draft.collection.storage.get_many(Family.ROWS, wanted)
    payloads = []
    for entry, value in zip(entries, stored, strict=True):
        data = draft.payload(entry) if value is None else value
        if data is None:
            raise draft.collection.missing_payload(*entry)
        payloads.append(codec.decode_payload(data))
    return payloads


def _check_if_version(
    draft: Draft, ids: Sequence[str], entries: Sequence[IdEntry | None], if_version: int | None
) -> None:
    if if_version is None:
        return
    for id_, entry in zip(ids, entries, strict=True):
        now = 0 if entry is None else entry.payload_version
        if now != if_version:
            told = f"has version {now}" if now else "does not exist"
            raise FailedPrecondition(
                f"record {id_!r} of collection {draft.collection.name!r} {told}, not version {if_version}; "
                "read it again and decide anew",
                collection=draft.collection.name,
                id=id_,
                expected=if_version,
                got=now,
            )


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED_IDS} more" if len(ids) > _NAMED_IDS else ""
    return ", ".join(repr(i) for i in ids[:_NAMED_IDS]) + more
