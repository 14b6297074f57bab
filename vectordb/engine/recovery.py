"""Opening a collection: what storage says is the truth; segments are used where they are sound and rebuilt where not.

1. undo       pieces of a large commit that never got its last batch are taken back; rows beyond the state's
              next offset, which no commit covered, are removed
2. segments   those that the manifest names are checked and mapped; a damaged one is set aside and rebuilt from
              storage; a damaged index is left out and built again later, the words of its texts at once
3. reindex    what a running one has built is opened beside it, so that it goes on from there
4. changes    tombstones and payload changes since sealing are applied; dead rows in no segment are swept
5. tail       rows that no segment covers are read back
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from vectordb import failpoints
from vectordb.engine.form import Form, Target
from vectordb.engine.live import Contents, LiveCollection
from vectordb.engine.manifest import ref_of, refs_of, write_manifest
from vectordb.engine.results import Results
from vectordb.engine.sweep import Sweep
from vectordb.errors import Corruption, VectorDBError, anew, os_errors_told
from vectordb.index.base import BuildCancelled
from vectordb.metric import prepared
from vectordb.segments.build import seal
from vectordb.segments.columns import SealOptions
from vectordb.segments.opening import Loads, open_index, open_segment
from vectordb.segments.rows import RowBatch
from vectordb.segments.tail import Tail, TailSection
from vectordb.segments.texts import open_text, publish_text
from vectordb.storage import codec, keys
from vectordb.storage.base import Family, Storage
from vectordb.storage.catalogue import SegmentEntry, decode_manifest, decode_target, encode_config
from vectordb.storage.codec import State, Tombstone
from vectordb.storage.keys import Kind, Superseded
from vectordb.text.analyzers import analyzer
from vectordb.text.build import build
from vectordb.text.merge import Moved, merged
from vectordb.types import CollectionConfig

if TYPE_CHECKING:
    from vectordb.segments.segment import Segment
    from vectordb.segments.store import SegmentStore
    from vectordb.text.analyzers import Analyzer
    from vectordb.text.index import TextIndex

_log = logging.getLogger("vectordb.engine")
_ROWS_AT_ONCE = 4_096
_TEXTS_AT_ONCE = 1_024
_REBUILT_AT_ONCE = 256 << 20


def open_collection(
    number: int,
    config: CollectionConfig,
    storage: Storage,
    store: SegmentStore | None,
    loads: Loads = lambda kind, size: True,
) -> LiveCollection:
    """Reads a collection back as of its last commit.

    Args:
        loads: Whether an index of a kind and size in bytes may be loaded; where not, its segment is searched exactly.

    Raises:
        Corruption: Storage itself is damaged. ResourceExhausted: No disk space, files or memory are left.
        FailedPrecondition: The system refuses something else.
    """
    with os_errors_told(f"collection {config.name!r} cannot be opened", collection=config.name):
        return _opened(number, config, storage, store, loads)


def _opened(
    number: int, config: CollectionConfig, storage: Storage, store: SegmentStore | None, loads: Loads
) -> LiveCollection:
    data = storage.get(Family.META, keys.state_key(number))
    state = State() if data is None else codec.decode_state(data)
    failpoints.hit("recover.begin")
    _undo(number, state, storage)
    reader = StoredRows(number, config, storage)
    manifest = storage.get(Family.META, keys.manifest_key(number))
    entries = decode_manifest(manifest) if manifest is not None else []
    found = [segment for entry in entries for segment in _open_segment(entry, reader, store, loads)]
    sealed_upto = entries[-1].hi if entries else 0
    sweep = Sweep(number)
    sweep.add_superseded(reader.superseded)
    target, reindex_error = _resumed(reader, entries, found, store)
    shadows = {} if target is None else target.shadows
    names = [(s.ref, shadows[s.name].ref if s.name in shadows else None) for s in found]
    if [ref for pair in names for ref in pair if ref] != [ref for entry in entries for ref in refs_of(entry)]:
        failpoints.hit("recover.manifest")
        write_manifest(storage, number, found, shadows=shadows)
    restore_deaths(found, reader.tombstones, sweep)
    restore_overlays(found, reader)
    tail = Tail(config.dim, sealed_upto, config.fields, config.analyzer)
    for batch in reader.batches(sealed_upto, state.next_offset):
        tail.append(batch)
    results = Results(
        (keys.parse_tail(key).decode(), codec.decode_result(value))
        for key, value in storage.scan(Family.META, *keys.kind_range(number, Kind.RESULT))
    )
    live = LiveCollection(number, config, storage, state, Contents(found, tail, results, sweep))
    live.target, live.reindex_error = target, reindex_error
    return live


def _undo(number: int, state: State, storage: Storage) -> None:
    """Takes back what a commit wrote that never ended."""
    records = list(storage.scan(Family.META, *keys.undo_range(number), reverse=True))
    batch = storage.batch()
    for _, value in records:
        for key, before in codec.decode_undo(value):
            family = Family.ROWS if key[4:5] == Kind.PAYLOAD.value else Family.META
            if before is None:
                batch.delete(family, key)
            else:
                batch.put(family, key, before)
    batch.delete_range(Family.META, *keys.undo_range(number))
    beyond = False
    for family, (start, end) in (
        (Family.ROWS, keys.number_range(number, Kind.PAYLOAD, state.next_offset)),
        (Family.VECTORS, keys.vector_range(number, state.next_offset)),
    ):
        if next(storage.scan(family, start, end), None) is not None:
            batch.delete_range(family, start, end)
            beyond = True
    if records or beyond:
        _log.info("collection number %d: an unfinished commit was taken back", number)
        failpoints.hit("recover.undo")
        storage.write(batch)
        storage.sync()


class StoredRows:
    """The live rows of a collection, or of a range ``[low, high)`` of its offsets, as storage has them.

    Attributes:
        tombstones: Dead rows that were not purged yet, by offset.
        overlays: Latest payload version of rows whose payload changed since they were sealed, by offset.
        superseded: Payloads of the whole collection that were replaced and wait to be purged, read when first asked
            for. They may outlive the row and its tombstone.
    """

    def __init__(
        self, number: int, config: CollectionConfig, storage: Storage, low: int = 0, high: int | None = None
    ) -> None:
        self.number = number
        self.config = config
        self.storage = storage
        self.tombstones: dict[int, Tombstone] = {
            keys.parse_offset(key): codec.decode_tombstone(value)
            for key, value in storage.scan(Family.META, *keys.number_range(number, Kind.TOMBSTONE, low, high))
        }
        self.overlays: dict[int, int] = {}
        for key, _ in storage.scan(Family.META, *keys.number_range(number, Kind.OVERLAY, low, high)):
            offset, version = keys.parse_offset_version(key)
            self.overlays[offset] = max(version, self.overlays.get(offset, 0))

    @cached_property
    def superseded(self) -> list[Superseded]:
        found = self.storage.scan(Family.META, *keys.kind_range(self.number, Kind.SUPERSEDED))
        return [keys.parse_superseded(key) for key, _ in found]

    @cached_property
    def _replaced(self) -> set[tuple[int, int]]:
        return {(s.offset, s.payload_version) for s in self.superseded}

    def metadata(self, offsets: list[int], version: int) -> list[bytes]:
        """Encoded metadata of payloads that ``version`` wrote."""
        found = self.storage.get_many(Family.ROWS, keys.payload_keys_at(self.number, offsets, [version] * len(offsets)))
        for offset, value in zip(offsets, found, strict=True):
            if value is None:
                raise Corruption(
                    f"collection {self.config.name!r}: the payload of row {offset} (version {version}) is missing from "
                    "storage",
                    collection=self.config.name,
                    offset=offset,
                )
        return [codec.payload_metadata(value) for value in found if value is not None]

    def texts(self, offsets: list[int], versions: list[int]) -> list[bytes | None]:
        """Texts of rows by the payload versions they were sealed with; None where there is no text, or the row died."""
        latest = [max(v, self.overlays.get(o, 0)) for o, v in zip(offsets, versions, strict=True)]
        found = self.storage.get_many(Family.ROWS, keys.payload_keys_at(self.number, offsets, latest))
        return [None if value is None else codec.payload_text(value) for value in found]

    def batches(self, low: int, high: int) -> Iterator[RowBatch]:
        """Live rows with offsets in ``[low, high)``, in order; of the payloads that there are at the call."""
        replaced = self._replaced  # as of the call, too
        stored = self.storage.scan(Family.ROWS, *keys.number_range(self.number, Kind.PAYLOAD, low, high))
        return self._batches(stored, replaced)

    def _batches(
        self, stored: Iterator[tuple[bytes, bytes]], replaced: Container[tuple[int, int]]
    ) -> Iterator[RowBatch]:
        rows: list[tuple[int, int, bytes]] = []
        for row in self._payloads(stored, replaced):
            rows.append(row)
            if len(rows) == _ROWS_AT_ONCE:
                yield self._batch(rows)
                rows = []
        if rows:
            yield self._batch(rows)

    def _payloads(
        self, stored: Iterator[tuple[bytes, bytes]], replaced: Container[tuple[int, int]]
    ) -> Iterator[tuple[int, int, bytes]]:
        """(offset, payload version, payload) of live rows; of several payloads of a row the valid one."""
        pending: tuple[int, int, bytes] | None = None
        for key, value in stored:
            offset, version = keys.parse_offset_version(key)
            if offset in self.tombstones or (offset, version) in replaced:
                continue
            wanted = self.overlays.get(offset)
            if pending is not None and pending[0] != offset:
                yield pending
                pending = None
            # Versions of one row come in ascending order; without an overlay record the latest is the row's own.
            if wanted is None or version == wanted or pending is None:
                pending = (offset, version, value)
        if pending is not None:
            yield pending

    def _batch(self, rows: Sequence[tuple[int, int, bytes]]) -> RowBatch:
        offsets = [offset for offset, _, _ in rows]
        payloads = [codec.decode_payload(value) for _, _, value in rows]
        stored = self.storage.get_many(Family.VECTORS, keys.vector_keys_at(self.number, offsets))
        present = np.fromiter((value is not None for value in stored), np.bool_, len(stored))
        vectors = None
        if present.any():
            vectors = np.zeros((len(rows), self.config.dim), np.float32)
            found = codec.decode_vectors([value for value in stored if value is not None], self.config.dim)
            vectors[present] = prepared(found, self.config.metric)
        return RowBatch(
            offsets=np.array(offsets, np.uint64),
            ids=[payload.id.decode() for payload in payloads],
            payload_versions=np.array([version for _, version, _ in rows], np.uint64),
            metadata=[payload.metadata for payload in payloads],
            vectors=vectors,
            has_vector=None if vectors is None or present.all() else present,
            texts=[payload.text for payload in payloads],
        )


def _open_segment(entry: SegmentEntry, reader: StoredRows, store: SegmentStore | None, loads: Loads) -> list[Segment]:
    """The segment that the manifest names, or what is made anew from storage in its place."""
    assert store is not None, "only databases on disk have a manifest"
    opened = open_segment(store, ref_of(entry), reader.config.fields, loads=loads)
    for problem in opened.problems:
        _log.warning("collection %r: %s", reader.config.name, problem)
    if opened.segment is None:
        failpoints.hit("recover.quarantined")
        return list(sealed_anew(reader, store, (entry.lo, reader.batches(entry.lo, entry.hi))))
    how = analyzer(reader.config.analyzer)
    text = open_text(store, opened.segment, how.fingerprint)
    for problem in text.problems:
        _log.warning("collection %r: %s", reader.config.name, problem)
    if not text.there:
        _log.info("collection %r: the texts of segment %s are indexed anew", reader.config.name, entry.name)
        publish_text(store, opened.segment, _indexed_texts(opened.segment, reader, how))
    return [opened.segment]


def _indexed_texts(segment: Segment, reader: StoredRows, how: Analyzer) -> TextIndex:
    """The index over a segment's texts, made anew from storage, some at a time."""
    view = segment.view(0)
    parts = []
    for start in range(0, segment.rows, _TEXTS_AT_ONCE):
        rows = np.arange(start, min(start + _TEXTS_AT_ONCE, segment.rows))
        texts = reader.texts(view.offsets(rows).tolist(), view.payload_versions(rows).tolist())
        parts.append(Moved(build(texts, how), np.arange(len(rows)), rows))
    return merged(parts, segment.rows)


def _resumed(
    reader: StoredRows, entries: Sequence[SegmentEntry], found: Sequence[Segment], store: SegmentStore | None
) -> tuple[Target | None, VectorDBError | None]:
    """The reindex that was under way with all it has built that is sound, or why it cannot go on."""
    key = keys.config_key(reader.number)
    record = reader.storage.get(Family.META, key)
    choice = None if record is None else decode_target(record)
    target = None
    error: VectorDBError | None = None
    if choice is not None:
        try:
            target = Target(Form(reader.config).of(choice), found)
        except VectorDBError as problem:
            # Its kind is not installed any more, say. That must not keep anybody from the rows.
            _log.warning("collection %r: it is not reindexed any more: %s", reader.config.name, problem.message)
            error = anew(problem)
            batch = reader.storage.batch()
            batch.put(Family.META, key, encode_config(reader.config))
            reader.storage.write(batch)
            reader.storage.sync()
    segments = {segment.name: segment for segment in found}
    for entry in entries:
        segment = segments.get(entry.name)
        if entry.next_index_name is None or segment is None or store is None:
            continue
        ref = f"{entry.name}/{entry.next_index_name}"
        shadow = None
        if target is not None:
            shadow, problems = open_index(segment, store, ref)
            for problem_ in problems:
                _log.warning("collection %r: %s", reader.config.name, problem_)
        if target is not None and shadow is not None and (target.form.fits(shadow) or target.form.is_lean(shadow)):
            target.shadows[segment.name] = shadow
        else:
            store.remove(ref)
    return target, error


def sealed_anew(
    reader: StoredRows,
    store: SegmentStore,
    rows: tuple[int, Iterator[RowBatch]],
    version: int = 1,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[Segment]:
    """Seals live rows again from storage, some at a time; indexes follow in the background.

    Args:
        rows: The first offset of the range that the segments are to cover, and the rows.
        version: What the segments are to cover at least: changes up to the rows' own versions are in them.

    Raises:
        BuildCancelled: ``cancelled`` turned true.
    """
    lo, batches = rows
    config = reader.config
    options = SealOptions(reader.number, config.dim, config.metric, config.fields, cancelled=cancelled)
    section = TailSection(config.dim, lo, config.fields, config.analyzer)
    for batch in batches:
        if cancelled():
            raise BuildCancelled
        section.append(batch)
        version = max(version, int(batch.payload_versions.max()))
        if section.memory_bytes() >= _REBUILT_AT_ONCE:
            made = seal([section.view(version)], store, options)
            if made is not None:
                yield made
            section = TailSection(config.dim, section.hi, config.fields, config.analyzer)
    made = seal([section.view(version)], store, options)
    if made is not None:
        yield made


def restore_deaths(segments: Sequence[Segment], tombstones: Mapping[int, Tombstone], sweep: Sweep) -> None:
    """Marks rows dead; those that no segment holds, or whose death is folded in, may leave storage."""
    if not tombstones:
        return
    offsets = np.fromiter(tombstones.keys(), np.uint64, len(tombstones))
    deaths = np.fromiter((t.version for t in tombstones.values()), np.uint64, len(tombstones))
    versions = np.fromiter((t.payload_version for t in tombstones.values()), np.uint64, len(tombstones))
    needed = np.zeros(len(offsets), np.bool_)
    for segment in segments:
        mine = (offsets >= segment.lo) & (offsets < segment.hi)
        if not mine.any():
            continue
        mine &= deaths > segment.data.info.covered_version
        segment.restore_deleted(offsets[mine], deaths[mine])
        held = np.flatnonzero(mine)
        needed[held] = segment.view(0).rows_at(offsets[held]) >= 0
    order = np.argsort(deaths, kind="stable")
    order = order[~needed[order]]
    sweep.add_rows(zip(deaths[order].tolist(), offsets[order].tolist(), versions[order].tolist(), strict=True))


def restore_overlays(segments: Sequence[Segment], reader: StoredRows) -> None:
    """Applies payload changes that came after a segment was sealed.

    Also to rows that died since: the merge that drops them must know which of their payloads to purge.
    """
    if not reader.overlays or not segments:
        return
    changed = sorted((version, offset) for offset, version in reader.overlays.items())
    for segment in segments:
        mine = [(v, o) for v, o in changed if segment.lo <= o < segment.hi]
        if not mine:
            continue
        offsets = np.fromiter((o for _, o in mine), np.uint64, len(mine))
        versions = np.fromiter((v for v, _ in mine), np.uint64, len(mine))
        view = segment.view(0)
        rows = view.rows_at(offsets)
        newer = rows >= 0
        newer[newer] = view.payload_versions(rows[newer]) < versions[newer]
        for version, group in groupby(np.flatnonzero(newer).tolist(), key=lambda i: int(versions[i])):
            at = offsets[list(group)]
            segment.overlay(at, version, reader.metadata(at.tolist(), version))
