"""Figures about an open collection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vectordb.engine.capacity.memory import unmapped_bytes, unmapped_index_bytes
from vectordb.stats import CollectionStats, OptimizerStats, SegmentStats

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.segments.segment import Segment


def collection_stats(live: LiveCollection, optimizer: OptimizerStats) -> CollectionStats:
    """Rows, sizes and segments as of one snapshot."""
    with live.lock:
        snapshot, segments, tail_rows = live.snapshot, live.segments, live.tail.rows
        tail_bytes, config = live.tail.memory_bytes(), live.config
        shadows = list(live.shadows.values())
    details = tuple(
        SegmentStats(
            name=segment.name,
            rows=segment.rows,
            deleted=part.dead,
            index="flat" if segment.built is None else segment.built.kind.name,
            memory_bytes=segment.memory_bytes(),
            disk_bytes=segment.disk_bytes,
            quantization=_codes(segment),
        )
        for segment, part in zip(segments, snapshot.parts, strict=False)
    )
    total = (
        tail_bytes
        + sum(d.memory_bytes for d in details)
        + sum(s.built.index.memory_bytes() for s in shadows if s.built is not None)
    )
    held = sum(unmapped_bytes(s, in_memory=s.data.vectors.path is None) for s in segments)
    held += sum(unmapped_index_bytes(s, in_memory=s.data.vectors.path is None) for s in shadows)
    return CollectionStats(
        rows=snapshot.rows,
        deleted=snapshot.dead,
        indexed_rows=sum(s.rows for s in segments if s.built is not None),
        tail_rows=tail_rows,
        version=snapshot.version,
        memory_bytes=total,
        disk_bytes=sum(d.disk_bytes for d in details)
        + sum(s.disk_bytes - s.data_disk_bytes for s in shadows)
        + live.storage.disk_bytes(),
        index=config.index,
        segments=details,
        optimizer=optimizer,
        quantization=config.quantization,
        scrub=live.scrub,
        memory={"tail": tail_bytes, "segments": held, "mapped": total - tail_bytes - held},
    )


def _codes(segment: Segment) -> str | None:
    spec = None if segment.built is None else segment.built.info.quantization
    return None if spec is None else spec.kind


def build_lag(live: LiveCollection) -> float:
    """Seconds that the longest waiting segment has been due for its index; 0 where none waits."""
    return max((time.monotonic() - s.born for s in live.segments if live.needs_index(s)), default=0.0)
