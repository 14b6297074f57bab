"""Making segments: stage 1 seals rows into columns, stage 2 builds the index over them. Both run without any lock.

A merge normally drops every row that is dead at the version of its sources. A built graph, though, cannot forget rows,
and its positions are those of the vector matrix; so a merge that wants to *extend* the first source's index instead of
building anew keeps the few dead rows of that source (below 5 %, :func:`extendable`), with their tombstones. They are
dropped by the merge that finds more of them. Their deleting versions are stored with the segment, so that storage may
purge their rows and tombstones all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from vectordb.index import apart
from vectordb.index.base import BuildOptions, CannotExtend
from vectordb.segments.blobs import bounds_of
from vectordb.segments.changes import Changes
from vectordb.segments.columns import Merge, MetadataMissing, SealOptions
from vectordb.segments.ids import IdColumn, encode_ids
from vectordb.segments.info import IndexInfo, SegmentInfo
from vectordb.segments.opening import (
    DEAD,
    ID_BOUNDS,
    IDS,
    INDEX,
    METADATA,
    METADATA_BOUNDS,
    OFFSETS,
    POSTINGS,
    VECTOR_ROWS,
    VECTORS,
    VERSIONS,
    map_segment,
)
from vectordb.segments.segment import BuiltIndex, Segment, SegmentData, SegmentView
from vectordb.segments.texts import publish_text
from vectordb.segments.vectors import VectorMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.index.base import IndexKind, VectorIndex
    from vectordb.index.calibration import Calibration
    from vectordb.metric import Metric
    from vectordb.segments.files import Draft
    from vectordb.segments.store import SegmentStore
    from vectordb.segments.tail import TailSection
    from vectordb.segments.views import View

MAX_DEAD = 0.05
"""An index with a larger fraction of dead rows is rebuilt, not extended (faiss cannot remove)."""


def seal(sources: Sequence[View], store: SegmentStore | None, options: SealOptions) -> Segment | None:
    """Stage 1: one segment, without an index, of the live rows of adjacent sources (tail sections or segments).

    Args:
        sources: Views of one version, in offset order.
        store: Where segments are published; None makes one in memory.
        options: See :class:`SealOptions`.

    Returns:
        The published segment, which the caller names in the manifest; its covered version is the views'. None where
        no row is left.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true; nothing is left behind.
        ResourceExhausted: The disk is full; likewise.
    """
    merge = Merge(sources, options)
    if merge.rows == 0:
        return None
    offsets = merge.offsets()
    vector_rows = merge.vector_rows()
    dead_rows, dead_versions = merge.dead()
    text = merge.text()
    info = SegmentInfo(
        name=uuid4().hex,
        collection=options.collection,
        lo=merge.lo,
        hi=merge.hi,
        rows=merge.rows,
        dense=int(offsets[-1]) - int(offsets[0]) == merge.rows - 1,
        first_offset=int(offsets[0]),
        dim=options.dim,
        metric=options.metric,
        vector_count=merge.rows if vector_rows is None else len(vector_rows),
        covered_version=merge.version,
        dead=len(dead_rows),
        documents=text.documents,
    )
    if store is not None:
        _write(merge, info, offsets, vector_rows, store)
        try:
            segment = map_segment(store, info.name, options.fields)
            publish_text(store, segment, text)
        except BaseException:
            store.remove(info.name)
            raise
        return segment
    vectors = np.empty((info.vector_count, info.dim), np.float32)
    start = 0
    for block in merge.vectors():
        vectors[start : start + len(block)] = block
        start += len(block)
    ids = IdColumn.build([i for piece in merge.ids() for i in piece])
    columns = (VectorMatrix(vectors), vector_rows)
    own_offsets = None if info.dense else offsets
    data = SegmentData(info, own_offsets, (ids, None), merge.payload_versions(), columns, merge.postings())
    changes = Changes(options.fields)
    changes.restore_deleted(dead_rows, dead_versions, info.rows)
    segment = Segment(data, changes)
    publish_text(None, segment, text)
    return segment


def _write(
    merge: Merge,
    info: SegmentInfo,
    offsets: NDArray[np.uint64],
    vector_rows: NDArray[np.int32] | None,
    store: SegmentStore,
) -> None:
    with store.draft() as draft:
        with draft.writer(VECTORS) as file:
            for block in merge.vectors():
                file.write(block)
        lengths = []
        with draft.writer(IDS) as file:
            for piece in merge.ids():
                sizes, blob = encode_ids(piece)
                lengths.append(sizes)
                file.write(blob)
        columns = {ID_BOUNDS: bounds_of(np.concatenate(lengths)), VERSIONS: merge.payload_versions()}
        bounds = _write_metadata(merge, draft)
        if bounds is not None:
            columns[METADATA_BOUNDS] = bounds
        if not info.dense:
            columns[OFFSETS] = offsets
        if vector_rows is not None:
            columns[VECTOR_ROWS] = vector_rows  # type: ignore[assignment]
        if info.dead:
            rows, versions = merge.dead()
            columns[DEAD] = np.concatenate([rows.astype(np.uint64), versions])
        for name, column in columns.items():
            with draft.writer(name) as file:
                file.write(column)
        merge.postings().save(draft.path / POSTINGS)
        draft.adopt()
        store.publish_segment(draft, info)


def _write_metadata(merge: Merge, draft: Draft) -> NDArray[np.uint32] | NDArray[np.uint64] | None:
    """Writes the encoded metadata; the bounds of each row's, or None where it is not to be had of all rows."""
    lengths = []
    try:
        with draft.writer(METADATA) as file:
            for strings in merge.metadata():
                lengths.append(strings.lengths)
                file.write(strings.data)
    except MetadataMissing:
        (draft.path / METADATA).unlink()
        return None
    return bounds_of(np.concatenate(lengths))


def extendable(sources: Sequence[View], kind: IndexKind, options: BuildOptions) -> SegmentView | None:
    """The first source, where a merge should extend its index rather than build one anew.

    It must have been built as asked for, hold most of the vectors, and have few dead rows. Pass the answer on as
    ``SealOptions.keep_first`` (whether there is one) and to :func:`build_index` (``base``).
    """
    first = sources[0]
    if not isinstance(first, SegmentView) or first.built is None or not kind.capabilities.extends:
        return None
    info = first.built.info
    as_asked = (info.kind, info.params, info.quantization) == (kind.name, options.params, options.quantization)
    total = sum(view.vector_count for view in sources)
    if as_asked and 2 * first.vector_count >= total and first.dead < MAX_DEAD * first.rows:
        return first
    return None


def build_index(
    segment: Segment,
    store: SegmentStore | None,
    kind: IndexKind,
    options: BuildOptions,
    base: SegmentView | None = None,
    calibrate: Callable[[SegmentView], Calibration | None] | None = None,
) -> Segment:
    """Stage 2: the same segment with an index, which shares columns and changes with the given one.

    A kind with ``Capabilities.builds_apart`` is built by a child process (``index/apart.py``).

    Args:
        segment: Must have at least one vector.
        store: Where to publish the index; None keeps it in memory.
        kind: The kind to build.
        options: Parameters, threads, cancellation, progress.
        base: What :func:`extendable` said of the sources of ``segment``, which was sealed with ``keep_first``.
        calibrate: Measures the recall of the new index, shown in place; what it finds is kept with the index.

    Returns:
        A segment whose ``ref`` the caller names in the manifest in place of the old one.

    Raises:
        BuildCancelled: Cancelled; nothing is left behind.
        ResourceExhausted: The disk is full; likewise.
        VectorDBError: The kind's own; ``Internal`` where its child process crashed.
    """
    vectors, metric = segment.data.vectors.array, segment.data.info.metric
    info = IndexInfo(
        name=f"index-{uuid4().hex}",
        segment=segment.name,
        kind=kind.name,
        vector_count=len(vectors),
        params=dict(options.params),
        quantization=options.quantization,
    )
    if store is None:
        if not kind.capabilities.builds_apart:
            built = BuiltIndex(_built(vectors, metric, kind, options, base), kind, info)
        else:
            scratch = apart.Scratch()
            _build_apart(segment, kind, options, _base_file(base, store), scratch.path / INDEX)
            built = BuiltIndex(kind.load(scratch.path / INDEX, vectors, metric, options), kind, info, scratch)
        return segment.with_index(_calibrated(segment, built, calibrate))
    with store.draft() as draft:
        path = draft.path / INDEX
        if kind.capabilities.builds_apart:
            _build_apart(segment, kind, options, _base_file(base, store), path)
            index = kind.load(path, vectors, metric, options)
        else:
            index = _built(vectors, metric, kind, options, base)
            index.save(path)
        info = _calibrated(segment, BuiltIndex(index, kind, info), calibrate).info
        # Not kept: loaded again it is mapped, and can leave memory when it is not used.
        del index
        size = path.stat().st_size
        draft.adopt()
        ref = store.publish_index(draft, info)
    try:
        loaded = kind.load(store.path(ref) / INDEX, vectors, metric, options)
    except BaseException:
        store.remove(ref)
        raise
    return segment.with_index(BuiltIndex(loaded, kind, info), ref, size)


def _calibrated(
    segment: Segment, built: BuiltIndex, calibrate: Callable[[SegmentView], Calibration | None] | None
) -> BuiltIndex:
    """A new index with what its calibration found, shown in the place it is to have."""
    found = None if calibrate is None else calibrate(segment.with_index(built).view(segment.data.info.covered_version))
    return built if found is None else replace(built, info=replace(built.info, calibration=found.as_json()))


def _built(
    vectors: NDArray[np.float32], metric: Metric, kind: IndexKind, options: BuildOptions, base: SegmentView | None
) -> VectorIndex:
    """The index, in this process: extended from ``base`` where that is possible."""
    if base is not None and base.index is not None:
        try:
            extended: VectorIndex = base.index.extended(vectors, options)  # type: ignore[attr-defined]
            return extended
        except CannotExtend:
            pass
    return kind.build(vectors, metric, options)


def _build_apart(
    segment: Segment, kind: IndexKind, options: BuildOptions, base: tuple[Path, int] | None, out: Path
) -> None:
    """Writes the index's file, in a process of its own: extended from ``base`` (a file and its rows) where possible."""
    matrix, info = segment.data.vectors, segment.data.info
    with TemporaryDirectory(prefix="vectordb-") as folder:
        vectors = matrix.path
        if vectors is None:
            vectors = apart.write_vectors(Path(folder) / VECTORS, matrix.array, options.cancelled)
        job = apart.Job(kind.name, vectors, (len(matrix.array), info.dim), info.metric, out)
        if base is not None:
            try:
                apart.build(replace(job, base=base[0], base_rows=base[1]), options)
                return
            except CannotExtend:
                pass
        apart.build(job, options)


def _base_file(base: SegmentView | None, store: SegmentStore | None) -> tuple[Path, int] | None:
    """The index file of a merge's first source and how many rows it is over."""
    if base is None or base.built is None:
        return None
    info, scratch = base.built.info, base.built.scratch
    if scratch is not None:
        return scratch.path / INDEX, base.vector_count
    return None if store is None else (store.path(f"{info.segment}/{info.name}") / INDEX, base.vector_count)


def carry_over(sources: Sequence[Segment | TailSection], target: Segment, since: int) -> None:
    """Applies to a merged segment what happened to its sources after the version that it covers.

    Called under the commit lock, in the step that puts ``target`` in the place of ``sources``.

    Args:
        sources: What the views that were sealed belong to.
        target: The segment made from them.
        since: Version of those views.
    """
    deletions = [
        (version, source.offsets_of(rows))
        for source in sources
        for version, rows in source.changes.tombstones.since(since)
    ]
    for version, offsets in sorted(deletions, key=lambda change: change[0]):
        target.mark_deleted(offsets, version)
    payloads = [
        (change.version, source.offsets_of(change.rows), change.metadata)
        for source in sources
        for change in source.changes.payloads_since(since)
    ]
    for version, offsets, metadata in sorted(payloads, key=lambda change: change[0]):
        target.overlay(offsets, version, metadata)
