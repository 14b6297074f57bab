"""Equal answers, bit by bit: embedded and served, however rows were batched and segmented, before and after a merge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect


@pytest.fixture(params=["native", pytest.param("grpcio", marks=pytest.mark.slow)])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    config = load({"data": str(tmp_path / "served"), "listen": "127.0.0.1:0", "transport": request.param}, None, {})
    server = Server(lambda: Engine(tmp_path / "served"), config)
    with connect(server.start()) as db:
        yield db
    server.stop()


def _answers(collection: Any, queries: np.ndarray) -> list[Any]:
    where = (col("word_length") >= 6) & ~(col("pos") == "noun")
    found = []
    for query in queries:
        for options in ({}, {"where": where}, {"min_score": 0.2}):
            result = collection.search(query, limit=15, exact=True, include=("metadata", "text", "vector"), **options)
            found.append([(h.id, h.score, dict(h.metadata), h.text, h.vector.tobytes()) for h in result])
    return found


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
def test_everywhere_and_in_any_shape(tmp_path: Path, served: Any, wordnet5k: Any, metric: str) -> None:
    count = 1_500
    queries = wordnet5k.queries[:12]
    said = []
    for number, batch in enumerate((count, 37, 400)):
        for where in ("embedded", "served"):
            db = served if where == "served" else vectordb.Database(tmp_path / f"embedded{number}")
            collection = db.create_collection(
                f"c{number}", 384, metric=metric, index="hnsw" if number else "flat", seal_bytes=384 * 4 * 300
            )
            for start in range(0, count, batch):
                stop = min(start + batch, count)
                collection.upsert(
                    wordnet5k.ids[start:stop],
                    wordnet5k.base[start:stop],
                    wordnet5k.metadata[start:stop],
                    wordnet5k.texts[start:stop],
                )
            before = _answers(collection, queries)
            batched = collection.search_batch(queries, limit=15, exact=True)
            assert [[(h.id, h.score) for h in r] for r in batched] == [[h[:2] for h in a] for a in before[::3]]
            collection.optimize()
            said += [before, _answers(collection, queries)]
            if where == "embedded":
                db.close()
    assert all(answers == said[0] for answers in said)
