"""Keyword and hybrid search answer alike, bit by bit: on every target, in any segmentation, before and after merges."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vectordb
from vectordb import col
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect, connect_async

QUERIES = ("bado bega dobu kute", "ki* or bo*", '"bado bega" "biki bado"', "kuti~ to dapu~1", "absent")


@pytest.fixture(params=["native", pytest.param("grpcio", marks=pytest.mark.slow)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    config = load({"data": str(tmp_path / "served"), "listen": "127.0.0.1:0", "transport": request.param}, None, {})
    server = Server(lambda: Engine(tmp_path / "served"), config)
    yield server.start()
    server.stop()


def _said(result: Any) -> list[Any]:
    assert result.complete
    return [(h.id, h.score, dict(h.metadata), h.text) for h in result]


def _answers(collection: Any, vectors: Any) -> list[Any]:
    where = (col("word_length") >= 6) & ~(col("pos") == "noun")
    found = []
    for text, vector in zip(QUERIES, vectors, strict=False):
        for options in ({}, {"where": where}):
            shown = {"include": ("metadata", "text"), "limit": 15, **options}
            found.append(_said(collection.search_text(text, **shown)))
            for fusion in (None, {"rrf": {"k": 10}}, {"weights": [0.7, 0.3]}):
                result = collection.search(vector, exact=True, min_score=0.1, text=text, fusion=fusion, **shown)
                found.append(_said(result))
    return found


@pytest.mark.parametrize("analyzer", ["standard", "english"])
def test_everywhere_and_in_any_shape(tmp_path: Path, address: str, wordnet5k: Any, data: Any, analyzer: str) -> None:
    count, vectors = 1_200, wordnet5k.queries[: len(QUERIES)]
    texts = data.invented_texts(count)
    said = []
    with connect(address) as served:
        for number, batch in enumerate((count, 37, 400)):
            for where in ("embedded", "served"):
                db = served if where == "served" else vectordb.Database(tmp_path / f"embedded{number}")
                # Seven of ten rows are written twice and some are deleted: dead rows lie in every segment.
                collection = db.create_collection(f"c{number}", 384, seal_bytes=384 * 4 * 250, analyzer=analyzer)
                for upto in (7 * count // 10, count):
                    for start in range(0, upto, batch):
                        rows = slice(start, min(start + batch, upto))
                        collection.upsert(
                            wordnet5k.ids[rows], wordnet5k.base[rows], wordnet5k.metadata[rows], texts[rows]
                        )
                collection.delete(wordnet5k.ids[:count:11])
                said.append(_answers(collection, vectors))
                collection.optimize()
                said.append(_answers(collection, vectors))
                if where == "embedded":
                    db.close()
                    with vectordb.Database(tmp_path / f"embedded{number}") as again:
                        said.append(_answers(again[f"c{number}"], vectors))
    assert all(len(answer) == 15 for answer in said[0][:-8:8])
    assert all(answers == said[0] for answers in said)


def test_asynchronously(tmp_path: Path, address: str) -> None:
    async def ask(target: str) -> list[Any]:
        async with await connect_async(target) as db:
            collection = await db.create_collection("notes", 2, analyzer="english")
            assert collection.config.analyzer == "english"
            await collection.upsert(["a", "b"], [[1, 0], [0, 1]], texts=["rain and floods", "flooding rains"])
            return [
                (await collection.search_text("flooded streets")).ids,
                [(h.id, h.score) for h in await collection.search([0, 1], text="rain", fusion={"weights": [1, 0.5]})],
                [s.strategy for s in await collection.explain([0, 1], text="rain")],
            ]

    embedded = asyncio.run(ask(str(tmp_path / "embedded")))
    assert embedded == asyncio.run(ask(address))
    assert embedded[0] == ["b", "a"]
    assert embedded[2] == ["exact", "text"]
