"""Whether the segments of one collection are sound, and agree with storage: rows, vectors, postings, texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from vectordb.encoding import decode_metadata
from vectordb.engine.care.verify_records import Records, shortened
from vectordb.engine.manifest import ref_of, refs_of
from vectordb.engine.recovery import StoredRows, restore_deaths, restore_overlays
from vectordb.engine.sweep import Sweep
from vectordb.errors import VectorDBError
from vectordb.filter import Filter, col, matches
from vectordb.metadata.rowset import full, to_mask
from vectordb.reports import Problem
from vectordb.segments.opening import load_index, map_segment
from vectordb.segments.rows import RowBatch
from vectordb.segments.segment import Segment
from vectordb.segments.store import SegmentStore, text_ref
from vectordb.segments.texts import TEXT_DATA
from vectordb.storage.catalogue import SegmentEntry
from vectordb.text.analyzers import analyzer
from vectordb.text.files import open_index as open_text_index
from vectordb.text.index import TextIndex
from vectordb.validate import check_filter

_SAMPLED = 64
"""Rows of a batch whose metadata and texts are compared with the postings."""
_CONDITIONS = 256
_WORDS = 32
_LATEST = 2**63 - 1
_MENDED = "(it is rebuilt on opening, or by `vectordb repair`)"
_REBUILT = "(`vectordb repair` rebuilds it)"

Report = Callable[[Problem], None]


@dataclass(slots=True)
class Looked:
    """A collection whose segments are looked at, and what was read of them."""

    records: Records
    store: SegmentStore | None
    entries: Sequence[SegmentEntry]
    files: int = 0
    bytes: int = 0


def check_segments(looked: Looked, report: Report) -> list[Segment]:
    """Reports what is wrong; gives the sound segments with their indexes, changes since sealing applied."""
    records = looked.records
    found: list[Segment] = []
    hi = 0
    reader = StoredRows(records.number, records.config, records.storage)
    for entry in looked.entries:
        if entry.lo < hi or entry.hi > records.state.next_offset:
            told = f"segment {entry.name} covers rows {entry.lo} to {entry.hi}, which others cover or nobody wrote"
            report(Problem("segment", told, records.config.name, entry.name))
        hi = entry.hi
        segment = _sound(looked, entry, report)
        if segment is not None:
            restore_deaths([segment], reader.tombstones, Sweep(records.number))
            restore_overlays([segment], reader)
            _compare(looked, segment, reader, report)
            found.append(segment)
    return found


def _sound(looked: Looked, entry: SegmentEntry, report: Report) -> Segment | None:
    """The segment, as far as all its files meet their checksums."""
    name, store = looked.records.config.name, looked.store

    def damaged(kind: str, problem: str, ref: str) -> None:
        report(Problem(kind, f"{problem} {_MENDED}", name, ref))

    if store is None:
        damaged("segment", f"segment {entry.name} is missing", entry.name)
        return None
    if problems := store.verify(entry.name):
        for problem in problems:
            damaged("segment", problem, entry.name)
        return None
    info, files = store.info(entry.name)
    looked.files, looked.bytes = looked.files + len(files) + 1, looked.bytes + sum(f.size for f in files.values())
    segment = map_segment(store, entry.name, looked.records.config.fields)
    sound = True
    for ref in [ref for ref in refs_of(entry) if ref != entry.name]:
        problems = store.verify(ref)
        for problem in problems:
            damaged("index", problem, ref)
        sound &= not problems
        if not problems:
            looked.bytes += sum(f.size for f in store.index_info(ref)[1].values())
            looked.files += 2
    if info.documents:
        problems = store.verify(text_ref(entry.name))
        for problem in problems:
            damaged("text", problem, entry.name)
        sound &= not problems
        if not problems:
            path = store.path(text_ref(entry.name)) / TEXT_DATA
            segment.set_text(open_text_index(path), path.stat().st_size)
            looked.bytes, looked.files = looked.bytes + path.stat().st_size, looked.files + 2
    if sound and entry.index_name is not None:
        try:
            segment = load_index(segment, store, ref_of(entry))
        except Exception as error:  # whatever a third party's loader raises
            damaged("index", f"the index of segment {entry.name} does not load: {error}", ref_of(entry))
    return segment


def _compare(looked: Looked, segment: Segment, reader: StoredRows, report: Report) -> None:
    """A segment's living rows against those that storage has in its range."""
    view = segment.view(_LATEST)
    alive = view.rows - view.dead
    seen = 0

    def told() -> Iterator[tuple[str, str]]:
        nonlocal seen
        for batch in reader.batches(segment.lo, segment.hi):
            seen += len(batch.offsets)
            rows = view.rows_at(batch.offsets)
            held = rows >= 0
            held[held] = view.alive(rows[held])
            if not held.all():
                missing = batch.offsets[~held]
                yield "segment", f"segment {segment.name} lacks {len(missing)} rows, such as row {missing[0]}"
                continue
            yield from (("segment", problem) for problem in _columns(segment, batch, rows))
            sample = np.linspace(0, len(rows) - 1, min(_SAMPLED, len(rows))).astype(np.int64)
            yield from (("postings", p) for p in _postings(looked, segment, batch, (rows, sample)))
            yield from (("text", p) for p in _texts(looked, segment, batch, (rows, sample)))

    problems = list(told())
    if alive > seen and not problems:
        problems.append(("segment", f"segment {segment.name} has {alive - seen} living rows that storage does not"))
    for kind in ("segment", "postings", "text"):
        for problem in shortened(p for k, p in problems if k == kind):
            report(Problem(kind, f"{problem} {_REBUILT}", looked.records.config.name, segment.name))


def _columns(segment: Segment, batch: RowBatch, rows: Any) -> Iterator[str]:
    view = segment.view(_LATEST)
    for row, mine, theirs in zip(batch.offsets.tolist(), view.ids(rows), batch.ids, strict=True):
        if mine != theirs:
            yield f"segment {segment.name} says that row {row} is {mine!r}, storage says {theirs!r}"
    metadata = view.metadata(rows)
    if metadata is not None and metadata != list(batch.metadata):
        differ = [i for i, (mine, theirs) in enumerate(zip(metadata, batch.metadata, strict=True)) if mine != theirs]
        first = batch.offsets[differ[0]]
        yield f"segment {segment.name} has other metadata for {len(differ)} rows, such as row {first}"
    wrong = np.flatnonzero(view.payload_versions(rows) != batch.payload_versions)
    if len(wrong):
        first = batch.offsets[wrong[0]]
        yield f"segment {segment.name} has other payload versions for {len(wrong)} rows, such as row {first}"
    present = np.zeros(len(rows), np.bool_) if batch.vectors is None else np.ones(len(rows), np.bool_)
    if batch.has_vector is not None:
        present = batch.has_vector
    mine_present = to_mask(view.with_vector(full(view.rows)), view.rows)[rows]
    if (wrong := np.flatnonzero(mine_present != present)).size:
        yield f"segment {segment.name} and storage disagree whether row {batch.offsets[wrong[0]]} has a vector"
    elif batch.vectors is not None and present.any():
        mine_vectors = view.vectors_at(rows[present])
        differ = (mine_vectors.view(np.uint32) != batch.vectors[present].view(np.uint32)).any(axis=1)
        if differ.any():
            first = batch.offsets[present][np.flatnonzero(differ)[0]]
            yield f"segment {segment.name} has other vectors for {int(differ.sum())} rows, such as row {first}"


def _postings(looked: Looked, segment: Segment, batch: RowBatch, chosen: tuple[Any, Any]) -> Iterator[str]:
    """Filters on values of a few rows: those that the segment says match, and those that the metadata say."""
    rows, sample = chosen
    view = segment.view(_LATEST)
    metadata = [decode_metadata(batch.metadata[i]) for i in sample.tolist()]
    wheres = list(dict.fromkeys(where for m in metadata for where in _conditions(m)))
    for where in wheres[:: 1 + len(wheres) // _CONDITIONS]:
        try:
            check_filter(where, looked.records.config.fields)
        except VectorDBError:
            continue
        mine = to_mask(view.matching(where), view.rows)[rows[sample]]
        theirs = [matches(where, m) for m in metadata]
        wrong = np.flatnonzero(mine != np.array(theirs, np.bool_))
        if len(wrong):
            row = batch.offsets[sample[wrong[0]]]
            yield f"the postings of segment {segment.name} disagree with the metadata of row {row} on {where}"


def _conditions(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[Filter]:
    for name, value in metadata.items():
        if isinstance(value, Mapping):
            yield from _conditions(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            scalars = [item for item in value if isinstance(item, str | int | float | datetime)]
            yield from (col(prefix + name).contains(item) for item in scalars[:2])
        elif value is None:
            yield col(prefix + name).is_null()
        else:
            yield col(prefix + name) == value


def _texts(looked: Looked, segment: Segment, batch: RowBatch, chosen: tuple[Any, Any]) -> Iterator[str]:
    """The words of a few rows: whether the index has them in these rows."""
    rows, sample = chosen
    how = analyzer(looked.records.config.analyzer)
    index, documents = segment.data.text, segment.data.info.documents
    if (index is None) != (documents == 0) or (index is not None and index.fingerprint != how.fingerprint):
        return  # damaged, which was said, or made anew on opening
    for i in sample.tolist():
        text = None if batch.texts is None else batch.texts[i]
        words = how.words(text.decode()) if text else None
        length = 0 if words is None else words.length
        if index is None:
            if length:
                yield f"segment {segment.name} has no words of row {batch.offsets[i]}"
            continue
        row = int(rows[i])
        wrong = int(index.arrays.lengths[row]) != length
        for word in how.stems(sorted(set(words.words)))[:_WORDS] if words is not None and not wrong else ():
            wrong |= not _has(index, word, row)
        if wrong:
            yield f"the words of row {batch.offsets[i]} are not those that segment {segment.name} has"


def _has(index: TextIndex, word: bytes, row: int) -> bool:
    number = index.find(word)
    if number < 0:
        return False
    starts = index.arrays.starts
    rows = index.arrays.rows[int(starts[number]) : int(starts[number + 1])]
    at = int(np.searchsorted(rows, row))
    return at < len(rows) and int(rows[at]) == row
