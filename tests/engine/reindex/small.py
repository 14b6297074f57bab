"""A collection of segments of 100 rows to be given other forms, and what is seen of them from outside and inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.waiting import wait_until

DIM = 8
SEGMENT = 100
"""Rows that fill a segment."""
SEAL_BYTES = SEGMENT * DIM * 4
SMALL = {"seal_bytes": SEAL_BYTES, "merge_factor": 64}
HNSW = {"kind": "hnsw", "m": 4, "ef_construction": 16}


def vectors_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def fill(collection: Any, segments: int, start: int = 0) -> np.ndarray:
    """Writes so many sealed segments; the vectors of all rows."""
    vectors = vectors_of(segments * SEGMENT, seed=start)
    for n in range(segments):
        rows = range(n * SEGMENT, (n + 1) * SEGMENT)
        ids = [str(start + i) for i in rows]
        collection.upsert(ids, vectors[rows.start : rows.stop], [{"n": start + i} for i in rows])
        wait_until(lambda: collection.stats().tail_rows == 0)
    return vectors


def live_of(db: Any, name: str = "c") -> Any:
    """The engine's own collection."""
    return db._backend._live(name)


def index_folders(folder: Path) -> list[str]:
    """Folders of indexes on disk."""
    return sorted(path.name for path in (folder / "segments").glob("*/index-*"))


def strategies(collection: Any) -> set[str]:
    return {part.strategy for part in collection.explain(np.ones(DIM)) if part.rows}
