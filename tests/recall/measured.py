"""A collection of real vectors through the whole engine, and the recall of its answers."""

from __future__ import annotations

from typing import Any

import numpy as np


def loaded(db: Any, name: str, vectors: np.ndarray, metadata: list[Any] | None, **config: Any) -> Any:
    """Rows named by their numbers, written in batches; merged and indexed."""
    collection = db.create_collection(name, vectors.shape[1], **config)
    ids = [str(i) for i in range(len(vectors))]
    for start in range(0, len(ids), 2_000):
        stop = start + 2_000
        collection.upsert(ids[start:stop], vectors[start:stop], None if metadata is None else metadata[start:stop])
    collection.optimize()
    return collection


def recall_of(collection: Any, queries: np.ndarray, truth: np.ndarray, **options: Any) -> tuple[float, Any]:
    """The share of the 10 nearest that single searches find, and the last plan's first segment."""
    hits = 0
    for query, nearest in zip(queries, truth, strict=True):
        result = collection.search(query, limit=10, include=(), **options)
        assert result.complete
        assert len(result) == 10
        hits += len({int(h.id) for h in result} & set(nearest[:10].tolist()))
    return hits / (10 * len(queries)), result.plan.segments[0]
