"""Figures about an open collection."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vectordb.types import CollectionStats, OptimizerStats, SegmentStats

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.storage.base import Storage


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
    )


class Figures:
    """Figures about the open collections of one database, for whoever watches it. Thread-safe."""

    def __init__(self, lives: Mapping[str, LiveCollection], storage: Storage) -> None:
        self._lives = dict(lives)
        self._storage = storage

    def build_lags(self) -> dict[str, float]:
        """By collection, the seconds that its longest waiting segment has been due for an index; 0 where none waits."""
        now = time.monotonic()
        return {
            name: max((now - s.born for s in live.segments if live.needs_index(s)), default=0.0)
            for name, live in self._lives.items()
        }

    def memory_bytes(self) -> dict[str, int]:
        """Bytes of memory, mapped files included: ``vectors``, ``indexes``, ``columns``, ``tail``, ``storage``."""
        kinds = dict.fromkeys(("vectors", "indexes", "columns", "tail"), 0)
        for live in self._lives.values():
            with live.lock:
                segments, shadows = live.segments, list(live.shadows.values())
                kinds["tail"] += live.tail.memory_bytes()
            for segment in segments:
                vectors, index = segment.data.vectors.resident_bytes, segment.index_bytes()
                kinds["vectors"] += vectors
                kinds["indexes"] += index
                kinds["columns"] += segment.memory_bytes() - vectors - index
            kinds["indexes"] += sum(shadow.index_bytes() for shadow in shadows)
        return {**kinds, "storage": self._storage.memory_bytes()}
