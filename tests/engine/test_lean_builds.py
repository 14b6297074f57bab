"""Indexes that do not fit into the memory limit are built in codes, shown, and built in full once they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectordb import Database, errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect

LIMIT = 34 << 20
"""Less than the build over the rows takes (20,000 of 384 dimensions: 37 MiB), more than that over their codes."""
HNSW = {"kind": "hnsw", "m": 8, "ef_construction": 40}


@pytest.fixture(scope="module")
def vectors(wordnet: Any) -> Any:
    return np.asarray(wordnet.base, np.float32)


def recall(collection: Any, vectors: Any) -> float:
    found = 0
    queries = vectors[::200]
    for query in queries:
        truth = set(collection.search(query, limit=10, exact=True).ids)
        hits = collection.search(query, limit=10)
        assert {plan.strategy for plan in hits.plan} <= {"graph", "empty"}
        found += len(truth & set(hits.ids))
    print(f"recall {found / (10 * len(queries)):.4f}")
    return found / (10 * len(queries))


def codes(collection: Any) -> list[str | None]:
    return [s.quantization for s in collection.stats().segments]


def filled(folder: Path, vectors: Any, **config: Any) -> None:
    with Database(folder) as db:
        docs = db.create_collection("docs", vectors.shape[1], **config)
        docs.upsert([str(i) for i in range(len(vectors))], vectors)
        docs.optimize()


def test_a_segment_that_does_not_fit_is_built_in_codes_until_it_does(tmp_path: Path, vectors: Any) -> None:
    folder = tmp_path / "db"
    filled(folder, vectors, index="flat")
    with Database(folder, memory_limit=LIMIT) as db:
        docs = db["docs"]
        docs.reindex(HNSW)
        assert codes(docs) == ["sq8"]
        assert (docs.index.kind, docs.quantization, docs.stats().quantization) == ("hnsw", None, None)
        assert docs.stats().indexed_rows == len(vectors)
        assert recall(docs, vectors) >= 0.95
        docs.optimize()
        assert codes(docs) == ["sq8"]
        assert docs.stats().optimizer.error is None
    with Database(folder) as db:
        docs = db["docs"]
        assert codes(docs) == ["sq8"], "it is kept over a restart"
        docs.optimize()
        assert codes(docs) == [None]
        assert recall(docs, vectors) >= 0.95
        assert db.verify().problems == ()


def test_merges_under_a_limit_stay_so_small_that_they_are_built_in_full(tmp_path: Path, vectors: Any) -> None:
    with Database(tmp_path / "db", memory_limit=LIMIT) as db:
        docs = db.create_collection("docs", vectors.shape[1], index=HNSW)
        for start in range(0, len(vectors), 1_000):
            part = slice(start, start + 1_000)
            while True:
                try:
                    docs.upsert([str(i) for i in range(len(vectors))[part]], vectors[part])
                    break
                except errors.ResourceExhausted:
                    pass
        docs.optimize()
        stats = docs.stats()
        assert stats.indexed_rows == len(vectors)
        assert codes(docs) == [None] * len(stats.segments)
        assert recall(docs, vectors) >= 0.95


@pytest.mark.parametrize("config", [{"quantization": "fp16"}, {"metric": "l1"}])
def test_what_the_user_chose_or_codes_cannot_do_is_not_overridden(
    tmp_path: Path, vectors: Any, config: dict[str, Any]
) -> None:
    rows = np.concatenate([vectors, vectors[:12_000] + np.float32(0.01)])
    filled(tmp_path / "db", rows, **{**config, "index": "flat"})
    with Database(tmp_path / "db", memory_limit=LIMIT) as db:
        docs = db["docs"]
        with pytest.raises(errors.ResourceExhausted, match="of memory_limit"):
            docs.reindex(HNSW, **({} if "metric" in config else config))
        assert docs.search(rows[5], limit=1).ids == ["5"]


def test_memory_is_shown_by_kind_embedded_and_served(tmp_path: Path, vectors: Any) -> None:
    filled(tmp_path / "db", vectors[:2_000], index="hnsw", quantization="sq8")

    def check(db: Any) -> None:
        docs = db["docs"]
        docs.upsert(["more"], vectors[:1])
        stats, info = docs.stats(), db.info()
        assert sum(stats.memory.values()) == stats.memory_bytes
        assert stats.memory["tail"] > 4 * vectors.shape[1]
        assert stats.memory["mapped"] > 2_000 * vectors.shape[1]
        assert stats.segments[0].quantization == "sq8"
        assert info.memory.keys() == {"storage", "tail", "segments", "builds", "writes"}
        assert info.memory["tail"] >= stats.memory["tail"]
        assert info.memory["storage"] > 0

    with Database(tmp_path / "db") as db:
        check(db)
        assert db.info().memory_limit is None
    with Database(tmp_path / "db", memory_limit="1 GiB") as db:
        assert db.info().memory_limit == 1 << 30
    settings = load({"data": str(tmp_path / "db"), "listen": "127.0.0.1:0"}, None, {})
    server = Server(lambda: Engine(tmp_path / "db", memory_limit="1 GiB"), settings)
    with connect(server.start()) as db:
        check(db)
        assert db.info().memory_limit == 1 << 30
    server.stop()
