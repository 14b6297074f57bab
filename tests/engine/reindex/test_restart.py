"""A database that was closed half way through a reindex: opened again it goes on, whatever was lost meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import vectordb
from tests.engine.reindex.gate import Gate
from tests.engine.reindex.small import DIM, HNSW, SMALL, fill, index_folders, live_of, strategies
from tests.verified import verify_folder
from tests.waiting import wait_until
from vectordb.index import registry


def _half_way(folder: Path, gate: Gate) -> np.ndarray:
    """A closed database whose collection ``c`` is being reindexed, with one of its three indexes built."""
    with vectordb.Database(folder) as db:
        collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
        vectors = fill(collection, 3)
        wait_until(lambda: collection.stats().indexed_rows == 300)
        collection.reindex(gate.index(), wait=False)
        gate.let(1)
        wait_until(lambda: len(live_of(db).shadows) == 1)
    return vectors


def test_it_goes_on_after_a_restart(tmp_path: Path, gate: Gate, slow_kind: ModuleType) -> None:
    vectors = _half_way(tmp_path / "db", gate)
    assert len(index_folders(tmp_path / "db")) == 4
    assert verify_folder(tmp_path / "db") == []
    slow_kind.BUILDS.clear()
    with vectordb.Database(tmp_path / "db") as db:
        collection = db["c"]
        stats = collection.stats()
        assert (stats.optimizer.state, stats.index.kind) == ("reindexing", "hnsw")
        assert 1 / 3 <= stats.optimizer.progress < 2 / 3
        assert strategies(collection) == {"graph"}
        gate.let(2)
        collection.reindex(gate.index())
        assert (len(slow_kind.BUILDS), collection.index.kind) == (2, "slow")
        assert collection.stats().indexed_rows == 300
        assert len(index_folders(tmp_path / "db")) == 3
    assert verify_folder(tmp_path / "db") == []
    with vectordb.Database(tmp_path / "db") as db:
        assert (db["c"].index.kind, db["c"].search(vectors[9], limit=1)[0].id) == ("slow", "9")


@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_a_damaged_half_is_built_again(tmp_path: Path, gate: Gate, slow_kind: ModuleType, damage: str) -> None:
    _half_way(tmp_path / "db", gate)
    (file,) = [
        path
        for path in (tmp_path / "db" / "segments").glob("*/index-*/index.bin")
        if path.read_bytes().startswith(b"VDBFLAT1")
    ]
    if damage == "flipped":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    problems = verify_folder(tmp_path / "db")
    assert len(problems) == 1
    assert "it is rebuilt on opening" in problems[0]
    slow_kind.BUILDS.clear()
    gate.let(3)
    with vectordb.Database(tmp_path / "db") as db:
        db["c"].reindex(gate.index())
        assert (len(slow_kind.BUILDS), db["c"].stats().indexed_rows) == (3, 300)


def test_segments_lost_half_way(tmp_path: Path, gate: Gate) -> None:
    vectors = _half_way(tmp_path / "db", gate)
    shutil.rmtree(tmp_path / "db" / "segments")
    gate.let(9)
    with vectordb.Database(tmp_path / "db") as db:
        collection = db["c"]
        collection.reindex(gate.index())
        assert collection.search(vectors[9], limit=1)[0].id == "9"
        collection.optimize()
        assert collection.stats().indexed_rows == 300


def test_a_kind_that_is_gone_does_not_keep_the_collection_closed(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = _half_way(tmp_path / "db", gate)
    real = registry._entry_points
    with monkeypatch.context() as patch:
        registry._loaded.pop("slow")
        patch.setattr(registry, "_entry_points", lambda: {n: e for n, e in real().items() if n != "slow"})
        with vectordb.Database(tmp_path / "db") as db:
            collection = db["c"]
            stats = collection.stats()
            assert (stats.optimizer.state, stats.index.kind) == ("failed", "hnsw")
            assert "'slow'" in str(stats.optimizer.error)
            assert collection.search(vectors[9], limit=1)[0].id == "9"
            assert len(index_folders(tmp_path / "db")) == 3
    with vectordb.Database(tmp_path / "db") as db:
        assert db["c"].stats().optimizer.state == "idle"


def test_cancelled_after_a_restart(tmp_path: Path, gate: Gate) -> None:
    _half_way(tmp_path / "db", gate)
    with vectordb.Database(tmp_path / "db") as db:
        assert db["c"].cancel_reindex() is True
    assert len(index_folders(tmp_path / "db")) == 3
    with vectordb.Database(tmp_path / "db") as db:
        assert db["c"].stats().optimizer.state == "idle"
        assert db["c"].cancel_reindex() is False
