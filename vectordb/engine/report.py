"""Figures about an open collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vectordb.types import CollectionStats, OptimizerStats, SegmentStats

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection


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
        )
        for segment, part in zip(segments, snapshot.parts, strict=False)
    )
    return CollectionStats(
        rows=snapshot.rows,
        deleted=snapshot.dead,
        indexed_rows=sum(s.rows for s in segments if s.built is not None),
        tail_rows=tail_rows,
        version=snapshot.version,
        memory_bytes=tail_bytes
        + sum(d.memory_bytes for d in details)
        + sum(s.built.index.memory_bytes() for s in shadows if s.built is not None),
        disk_bytes=sum(d.disk_bytes for d in details)
        + sum(s.disk_bytes - s.data_disk_bytes for s in shadows)
        + live.storage.disk_bytes(),
        index=config.index,
        segments=details,
        optimizer=optimizer,
        quantization=config.quantization,
        scrub=live.scrub,
    )
