"""Bad calls, one table for every target: the same class, message and facts, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from tests.congruence.bad_calls import CALLS, DIM
from vectordb import errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("errors")
    config = load({"data": str(folder / "served"), "listen": "127.0.0.1:0"}, None, {})
    server = Server(lambda: Engine(folder / "served"), config)
    by_grpcio = load({"data": str(folder / "grpcio"), "listen": "127.0.0.1:0", "transport": "grpcio"}, None, {})
    second = Server(lambda: Engine(folder / "grpcio"), by_grpcio)
    databases = {
        "embedded": vectordb.Database(folder / "embedded"),
        "memory": connect(":memory:"),
        "served": connect(server.start()),
        "grpcio": connect(second.start()),
    }
    assert (server.transport, second.transport) == ("native", "grpcio")
    for db in databases.values():
        collection = db.create_collection(
            "c", DIM, fields={"year": "int", "note": {"type": "text", "indexed": False}}, max_write_bytes=4_000_000
        )
        collection.upsert(["a", "b"], np.eye(DIM)[:2], [{"n": 1}, {"n": "x"}], ["one", None])
    yield databases
    for db in databases.values():
        db.close()
    server.stop()
    second.stop()


def _digest(db: Any) -> Any:
    collection = db.collection("c")
    stats = collection.stats()
    return db.list_collections(), stats.version, stats.index, stats.optimizer, [repr(r) for r in collection.scan()]


@pytest.mark.parametrize("name", CALLS)
def test_every_target_says_the_same_and_changes_nothing(targets: dict[str, Any], name: str) -> None:
    call, kind, told = CALLS[name]
    said = {}
    for target, db in targets.items():
        before = _digest(db)
        with pytest.raises(kind) as caught:
            call(db, db.collection("c"))
        assert type(caught.value) is kind
        assert told in str(caught.value)
        said[target] = (caught.value.message, json.dumps(dict(caught.value.fields), sort_keys=True, default=str))
        assert _digest(db) == before
    assert said["embedded"] == said["memory"] == said["served"] == said["grpcio"]


def test_a_bad_row_among_ten_thousand_is_named(targets: dict[str, Any]) -> None:
    for db in targets.values():
        collection = db.create_collection("many", 2, exist_ok=True)
        vectors = np.ones((10_000, 2), np.float32)
        vectors[9_998, 1] = np.nan
        with pytest.raises(errors.InvalidVector, match="row 9998") as caught:
            collection.upsert([str(i) for i in range(10_000)], vectors)
        assert (caught.value.row, caught.value.position) == (9_998, 1)
        metadata: list[Any] = [{"n": i} for i in range(10_000)]
        metadata[9_999] = {"n": {"deep": float("inf")}}
        with pytest.raises(errors.InvalidArgument, match=r"n\.deep.*row 9999"):
            collection.upsert([str(i) for i in range(10_000)], np.ones((10_000, 2)), metadata)
        assert collection.count() == 0
