"""A reindex that does not reach its end: cancelled, replaced by another, failed, or its collection gone."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vectordb
from tests.engine.reindex.gate import Gate
from tests.engine.reindex.small import DIM, HNSW, SMALL, fill, index_folders, live_of
from tests.waiting import Call, wait_until
from vectordb import errors


def test_cancelled(db: Any, gate: Gate, tmp_path: Path) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    fill(collection, 3)
    wait_until(lambda: collection.stats().indexed_rows == 300)
    assert collection.cancel_reindex() is False
    waiting = Call(lambda: collection.reindex(gate.index()))
    wait_until(lambda: collection.stats().optimizer.state == "reindexing")
    gate.let(1)
    wait_until(lambda: len(live_of(db).shadows) == 1)
    before = collection.stats()
    assert collection.cancel_reindex() is True
    assert isinstance(waiting.over(), errors.FailedPrecondition)
    assert "was cancelled" in str(waiting.error)
    stats = collection.stats()
    assert (stats.optimizer.state, stats.index.kind, stats.indexed_rows) == ("idle", "hnsw", 300)
    assert collection.cancel_reindex() is False
    if db.info().path != ":memory:":
        wait_until(lambda: len(index_folders(tmp_path / "db")) == len(stats.segments))
    assert stats.memory_bytes < before.memory_bytes


def test_a_later_call_takes_its_place(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index="flat", **SMALL)
    fill(collection, 2)
    first = Call(lambda: collection.reindex(gate.index()))
    wait_until(lambda: live_of(db).target is not None)
    target = live_of(db).target
    collection.reindex(gate.index(), wait=False)
    assert live_of(db).target is target
    second = Call(lambda: collection.reindex(gate.index(tag=1)))
    assert "replaced by another reindex" in str(first.over())
    third = Call(lambda: collection.reindex(gate.index(tag=2)))
    assert "replaced" in str(second.over())
    wait_until(lambda: live_of(db).target.form.choice.index.params["tag"] == 2)
    # To what serves already: nothing is left to do.
    collection.reindex("flat")
    assert "replaced" in str(third.over())
    assert (collection.stats().optimizer.state, collection.index.kind) == ("idle", "flat")
    together = [Call(lambda: collection.reindex(gate.index(tag=3))) for _ in range(3)]
    wait_until(lambda: collection.stats().optimizer.state == "reindexing")
    gate.let(2, tag=3)
    assert [waiting.over() for waiting in together] == [None] * 3
    assert collection.stats().index.params["tag"] == 3


def test_a_build_that_fails_is_told_and_given_up(
    db: Any, slow_kind: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    vectors = fill(collection, 2)
    wait_until(lambda: collection.stats().indexed_rows == 200)
    with pytest.raises(errors.Internal, match="RuntimeError; the log has it"):
        collection.reindex({"kind": "slow", "fails": True})
    stats = collection.stats()
    assert (stats.optimizer.state, stats.index.kind) == ("failed", "hnsw")
    assert "RuntimeError; the log has it" in str(stats.optimizer.error)
    assert "no such luck" in caplog.text
    assert collection.search(vectors[3], limit=1)[0].id == "3"
    builds = len(slow_kind.BUILDS)
    collection.optimize()
    assert len(slow_kind.BUILDS) == builds
    collection.reindex("slow")
    stats = collection.stats()
    assert (stats.optimizer.state, stats.optimizer.error, stats.index.kind) == ("idle", None, "slow")


def test_a_full_disk_leaves_the_old_form(tmp_path: Path, slow_kind: ModuleType, monkeypatch: Any) -> None:
    from vectordb.engine import reindexer

    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index="flat", **SMALL)
        fill(collection, 2)
        real, calls = reindexer.build_index, []

        def full(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            if len(calls) > 1:
                raise errors.ResourceExhausted("no space left for an index", limit="disk")
            return real(*arguments, **options)

        monkeypatch.setattr(reindexer, "build_index", full)
        with pytest.raises(errors.ResourceExhausted, match="no space"):
            collection.reindex("slow")
        wait_until(lambda: index_folders(tmp_path) == [])
        assert collection.stats().index.kind == "flat"
    with vectordb.Database(tmp_path) as db:
        assert db["c"].stats().optimizer.state == "idle"
        assert db["c"].index.kind == "flat"


@pytest.mark.parametrize("how", ["delete", "close"])
def test_it_ends_with_its_collection(db: Any, gate: Gate, how: str, tmp_path: Path) -> None:
    collection = db.create_collection("c", DIM, index="flat", **SMALL)
    fill(collection, 2)
    waiting = Call(lambda: collection.reindex(gate.index()))
    wait_until(lambda: collection.stats().optimizer.state == "reindexing" and live_of(db).target.building is not None)
    if how == "delete":
        db.delete_collection("c")
        assert isinstance(waiting.over(), errors.CollectionNotFound)
        wait_until(lambda: db._backend._reindexer._thread is None)
        assert db.create_collection("c", DIM).stats().optimizer.state == "idle"
        db.close()
    else:
        db.close()
        assert isinstance(waiting.over(), errors.Closed)
    if (tmp_path / "db").exists():
        assert index_folders(tmp_path / "db") == []
