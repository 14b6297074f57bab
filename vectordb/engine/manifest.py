"""The manifest: which segments a collection has. Naming a segment here, in one synced batch, is what makes it count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vectordb.segments.store import split
from vectordb.storage import keys
from vectordb.storage.base import Family, Storage
from vectordb.storage.catalogue import SegmentEntry, encode_manifest
from vectordb.types import IndexSpec

if TYPE_CHECKING:
    from vectordb.segments.segment import Segment


def write_manifest(storage: Storage, number: int, segments: Sequence[Segment], folded: Iterable[bytes] = ()) -> None:
    """Names the segments, durably, and forgets the overlay records ``folded`` (META keys) that they include."""
    batch = storage.batch()
    batch.put(Family.META, keys.manifest_key(number), encode_manifest(_entry(s) for s in segments))
    for key in folded:
        batch.delete(Family.META, key)
    storage.write(batch)
    storage.sync()


def ref_of(entry: SegmentEntry) -> str:
    """What the segment store knows an entry by."""
    return entry.name if entry.index_name is None else f"{entry.name}/{entry.index_name}"


def _entry(segment: Segment) -> SegmentEntry:
    built = segment.built
    return SegmentEntry(
        name=segment.name,
        lo=segment.lo,
        hi=segment.hi,
        rows=segment.rows,
        version=segment.data.info.covered_version,
        index=None if built is None else IndexSpec(built.info.kind, dict(built.info.params)),
        index_name=split(segment.ref)[1],
        state="sealed" if built is None else "indexed",
    )
