"""Opening published segments: mapped columns, the loaded index, and as much as is sound of a damaged one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from vectordb.errors import Corruption
from vectordb.index.base import BuildOptions
from vectordb.index.registry import get_kind
from vectordb.metadata.postings import Postings
from vectordb.segments.blobs import BlobColumn
from vectordb.segments.changes import Changes
from vectordb.segments.ids import IdColumn
from vectordb.segments.segment import BuiltIndex, Segment, SegmentData
from vectordb.segments.store import damage, split
from vectordb.segments.vectors import VectorMatrix, map_array, map_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.index.base import IndexKind
    from vectordb.segments.info import Files, SegmentInfo
    from vectordb.segments.store import SegmentStore
    from vectordb.types import FieldSpec

# Little-endian throughout, without headers: dtype and shape follow from segment.json.
VECTORS = "vectors.f32"
VECTOR_ROWS = "vector_rows.i32"
IDS = "ids.utf8"
ID_BOUNDS = "ids.bounds"
METADATA = "metadata.msgpack"
METADATA_BOUNDS = "metadata.bounds"
OFFSETS = "rows.offsets.u64"
VERSIONS = "rows.versions.u64"
DEAD = "rows.dead.u64"
POSTINGS = "postings.bin"
INDEX = "index.bin"

Loads: TypeAlias = "Callable[[IndexKind, int], bool]"
"""Whether an index of a kind and size in bytes may be loaded."""


class Opened(NamedTuple):
    """What could be opened of a segment, and what was wrong with the rest (which was set aside)."""

    segment: Segment | None
    problems: list[str]


def open_segment(
    store: SegmentStore,
    ref: str,
    fields: Mapping[str, FieldSpec] | None,
    cancelled: Callable[[], bool] = lambda: False,
    loads: Loads = lambda kind, size: True,
) -> Opened:
    """Checks and maps a published segment with the index that the reference names.

    A damaged index is set aside and the segment opened without it; of a damaged segment, nothing is opened and the
    whole folder set aside: the caller seals its rows again from storage.

    Args:
        store: Where it was published.
        ref: Its reference in the manifest.
        fields: The collection's declared fields.
        cancelled: Polled during full checks.
        loads: Whether an index of a kind and size may be loaded; where not, it is left where it is, and the segment's
            ``ref`` goes on to name it, so that a later opening finds it.

    Raises:
        InterruptedError: ``cancelled`` turned true.
        ResourceExhausted: The process has no more files or memory to open it with; nothing is set aside.
    """
    name, index = split(ref)
    problems = store.check(name, cancelled)
    if not problems:
        try:
            segment = map_segment(store, name, fields)
        except Exception as err:
            # Whatever facts that do not fit together lead to: a segment is only a cache.
            problems = [damage(err)]
    if problems:
        store.quarantine(name)
        return Opened(None, problems)
    if index is None:
        return Opened(segment, [])
    size = _left_out(store, ref, loads)
    if size is not None:
        segment.leave_index(ref, size)
        told = (
            f"index of '{store.path(ref)}' is not loaded: its {size} bytes do not fit into memory_limit; raise it and "
            "open the database again"
        )
        return Opened(segment, [told])
    opened = open_index(segment, store, ref, cancelled)
    return opened if opened.segment is not None else Opened(segment, opened.problems)


def _left_out(store: SegmentStore, ref: str, loads: Loads) -> int | None:
    """The size of an index that is not to be loaded although it may be sound; None where it is."""
    try:
        info, files = store.index_info(ref)
        size = sum(entry.size for entry in files.values())
        return None if loads(get_kind(info.kind), size) else size
    except Exception:
        return None  # damaged: opening it says how


def open_index(
    segment: Segment, store: SegmentStore, ref: str, cancelled: Callable[[], bool] = lambda: False
) -> Opened:
    """The same segment with an index that was published for it, or nothing where that is damaged, which sets it aside.

    Raises:
        InterruptedError: ``cancelled`` turned true.
        ResourceExhausted: The process has no more files or memory to open it with; nothing is set aside.
    """
    problems = store.check(ref, cancelled)
    if not problems:
        try:
            return Opened(load_index(segment, store, ref), [])
        except Exception as err:
            # Whatever a third party's loader raises: an index is only a cache.
            problems = [f"index of '{store.path(ref)}' does not load: {damage(err)}"]
    store.quarantine(ref)
    return Opened(None, problems)


def map_segment(store: SegmentStore, name: str, fields: Mapping[str, FieldSpec] | None) -> Segment:
    """Maps the columns of a segment whose files were checked.

    Raises:
        Corruption: A file is missing, or of another size than the facts demand.
    """
    info, files = store.info(name)
    folder = store.path(name)
    _require_sizes(info, files, folder)
    ids = IdColumn(_bounds(folder, ID_BOUNDS, files, info.rows), map_bytes(folder / IDS))
    metadata = None
    if METADATA in files:
        metadata = BlobColumn(_bounds(folder, METADATA_BOUNDS, files, info.rows), map_bytes(folder / METADATA))
    vector_rows = None
    if info.vector_count != info.rows:
        vector_rows = _column(folder, VECTOR_ROWS, "<i4", info.vector_count)
    data = SegmentData(
        info,
        None if info.dense else _column(folder, OFFSETS, "<u8", info.rows),
        (ids, metadata),
        _column(folder, VERSIONS, "<u8", info.rows),
        (VectorMatrix.open(folder / VECTORS, info.vector_count, info.dim), vector_rows),
        Postings.open(folder / POSTINGS),
    )
    changes = Changes(fields)
    if info.dead:
        rows, versions = _column(folder, DEAD, "<u8", 2 * info.dead).reshape(2, -1)
        changes.restore_deleted(rows.astype(np.int64), versions, info.rows)
    return Segment(data, changes, name, sum(entry.size for entry in files.values()))


def load_index(segment: Segment, store: SegmentStore, ref: str) -> Segment:
    """The same segment with an index whose files were checked. Raises whatever the kind's loader does."""
    info, files = store.index_info(ref)
    if info.vector_count != segment.vector_count:
        raise Corruption(
            f"index of '{store.path(ref)}' covers {info.vector_count} vectors, its segment has {segment.vector_count}",
            path=str(store.path(ref)),
        )
    kind = get_kind(info.kind)
    options = BuildOptions(params=info.params, quantization=info.quantization)
    data = segment.data
    index = kind.load(store.path(ref) / INDEX, data.vectors.array, data.info.metric, options)
    return segment.with_index(BuiltIndex(index, kind, info), ref, sum(entry.size for entry in files.values()))


def _column(folder: Path, name: str, dtype: str, count: int) -> NDArray[Any]:
    return map_array(folder / name, np.dtype(dtype), count)[0]


def _bounds(folder: Path, name: str, files: Files, rows: int) -> NDArray[Any]:
    return _column(folder, name, "<u4" if files[name].size == 4 * (rows + 1) else "<u8", rows + 1)


def _require_sizes(info: SegmentInfo, files: Files, folder: Path) -> None:
    sizes = {VECTORS: 4 * info.dim * info.vector_count, VERSIONS: 8 * info.rows}
    if not info.dense:
        sizes[OFFSETS] = 8 * info.rows
    if info.vector_count != info.rows:
        sizes[VECTOR_ROWS] = 4 * info.vector_count
    if info.dead:
        sizes[DEAD] = 16 * info.dead
    wrong = [name for name, size in sizes.items() if name not in files or files[name].size != size]
    needed = {IDS, ID_BOUNDS, POSTINGS}
    # Earlier releases kept metadata in storage alone: both of these files, or none.
    if METADATA in files or METADATA_BOUNDS in files:
        needed |= {METADATA, METADATA_BOUNDS}
    wrong += sorted(needed - files.keys())
    if wrong:
        raise Corruption(f"files {wrong} of segment '{folder}' are missing or of a wrong size", path=str(folder))
