"""A data set in the engine: stored, indexed, and opened, for benches that look at one collection from several sides."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.datasets import Condition, Dataset
from bench.systems.base import WRITE_BATCH
from bench.systems.engine import COLLECTION
from vectordb_client import connect

RANK = "rank"
"""Field with a row's place in the order of nearness to the first query: a filter on it is correlated with queries."""

SHARES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0.0001)


@dataclass(frozen=True)
class Loaded:
    """A collection and what it took to make it."""

    collection: Any
    write_s: float
    build_s: float


def ranked(data: Dataset) -> Dataset:
    """The data set with the field :data:`RANK`."""
    nearness = data.base @ data.queries[0]
    if data.metric == "l2":
        nearness = 2.0 * nearness - np.einsum("nd,nd->n", data.base, data.base)
    ranks = np.argsort(np.argsort(-nearness, kind="stable"))
    metadata = [{**row, RANK: int(rank)} for row, rank in zip(data.metadata, ranks, strict=True)]
    return replace(data, metadata=metadata)


def conditions(data: Dataset) -> list[Condition]:
    """Filters of :data:`SHARES` of the rows, by chance and by nearness to one query, and one that nothing meets."""
    n = len(data.base)
    u = np.array([row["u"] for row in data.metadata])
    rank = np.array([row[RANK] for row in data.metadata])
    found = []
    for share in SHARES:
        most = round(share * 10_000)
        found.append(Condition(f"{share:.2%}", {"field": "u", "op": "<", "value": most}, u < most))
    for share in SHARES[1:]:
        most = round(share * n)
        found.append(Condition(f"{share:.2%} correlated", {"field": RANK, "op": "<", "value": most}, rank < most))
    found.append(Condition("empty", {"field": "u", "op": "<", "value": 0}, u < 0))
    return found


@contextmanager
def loaded(
    folder: Path, data: Dataset, index: Mapping[str, Any] | str = "hnsw", quantization: Any = None
) -> Iterator[Loaded]:
    """The data set in a collection of the folder's database; one that is there already is taken as it is."""
    with connect(folder) as db:
        if COLLECTION in db.list_collections():
            yield Loaded(db.collection(COLLECTION), 0.0, 0.0)
            return
        collection = db.create_collection(
            COLLECTION, data.base.shape[1], metric=data.metric, index=index, quantization=quantization
        )
        started = time.perf_counter()
        ids = data.ids
        for start in range(0, len(ids), WRITE_BATCH):
            rows = slice(start, start + WRITE_BATCH)
            collection.upsert(ids[rows], data.base[rows], metadata=data.metadata[rows])
        written = time.perf_counter()
        collection.optimize()
        yield Loaded(collection, written - started, time.perf_counter() - written)
