"""The manifest: which segments a collection has. Naming a segment here, in one synced batch, is what makes it count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from vectordb import failpoints
from vectordb.segments.store import split
from vectordb.storage import keys
from vectordb.storage.base import Batch, Family, Storage
from vectordb.storage.catalogue import SegmentEntry, encode_manifest
from vectordb.types import IndexSpec

if TYPE_CHECKING:
    from vectordb.segments.segment import Segment


def write_manifest(
    storage: Storage,
    number: int,
    segments: Sequence[Segment],
    folded: Iterable[bytes] = (),
    shadows: Mapping[str, Segment] = MappingProxyType({}),
) -> None:
    """Names the segments, durably, and forgets the overlay records ``folded`` (META keys) that they include.

    Args:
        shadows: What a running reindex has built, by the name of the segment.
    """
    batch = storage.batch()
    put_manifest(batch, number, segments, shadows)
    for key in folded:
        batch.delete(Family.META, key)
    failpoints.hit("manifest.write")
    storage.write(batch)
    storage.sync()
    failpoints.hit("manifest.synced")


def put_manifest(
    batch: Batch, number: int, segments: Sequence[Segment], shadows: Mapping[str, Segment] = MappingProxyType({})
) -> None:
    """Adds the names to a batch; see :func:`write_manifest`."""
    entries = (_entry(s, shadows.get(s.name)) for s in segments)
    batch.put(Family.META, keys.manifest_key(number), encode_manifest(entries))


def refs_of(entry: SegmentEntry) -> list[str]:
    """All that an entry names: its segment with the serving index, and the index that is to follow."""
    following = [] if entry.next_index_name is None else [f"{entry.name}/{entry.next_index_name}"]
    return [ref_of(entry), *following]


def ref_of(entry: SegmentEntry) -> str:
    """What the segment store knows an entry's serving form by."""
    return entry.name if entry.index_name is None else f"{entry.name}/{entry.index_name}"


def _entry(segment: Segment, shadow: Segment | None) -> SegmentEntry:
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
        next_index_name=None if shadow is None else split(shadow.ref)[1],
    )
