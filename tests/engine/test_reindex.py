"""Another index under a live collection: beside reads, writes, merges, restarts, failures and second thoughts."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col, errors
from vectordb.engine.database import Engine
from vectordb.engine.verify import verify_folder
from vectordb.index import registry
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb.types import QuantizationSpec
from vectordb_client import connect, connect_async

DIM = 8
SEGMENT = 100
"""Rows that fill a segment."""
SMALL = {"seal_bytes": SEGMENT * DIM * 4, "merge_factor": 64}
HNSW = {"kind": "hnsw", "m": 4, "ef_construction": 16}


def _vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def _wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def _fill(collection: Any, segments: int, start: int = 0) -> np.ndarray:
    """Writes so many sealed segments; the vectors of all rows."""
    vectors = _vectors(segments * SEGMENT, seed=start)
    for n in range(segments):
        rows = range(n * SEGMENT, (n + 1) * SEGMENT)
        ids = [str(start + i) for i in rows]
        collection.upsert(ids, vectors[rows.start : rows.stop], [{"n": start + i} for i in rows])
        _wait(lambda: collection.stats().tail_rows == 0)
    return vectors


def _live(db: Any, name: str = "c") -> Any:
    return db._backend._live(name)


def _indexes(folder: Path) -> list[str]:
    """Folders of indexes on disk."""
    return sorted(path.name for path in (folder / "segments").glob("*/index-*"))


def _strategies(collection: Any) -> set[str]:
    return {part.strategy for part in collection.explain(np.ones(DIM)) if part.rows}


class Gate:
    """Lets builds of the kind ``slow`` through, so many at a time, each tag for itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0

    def index(self, tag: int = 0) -> dict[str, Any]:
        folder = self.folder / str(tag)
        folder.mkdir(parents=True, exist_ok=True)
        return {"kind": "slow", "gate": str(folder), "tag": tag}

    def let(self, builds: int, tag: int = 0) -> None:
        for _ in range(builds):
            self._made += 1
            (self.folder / str(tag) / str(self._made)).touch()


@pytest.fixture
def gate(tmp_path: Path, slow_kind: ModuleType) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture(params=["folder", "memory"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with vectordb.Database(tmp_path / "db" if request.param == "folder" else ":memory:") as opened:
        yield opened


class Waiting(threading.Thread):
    """A call in a thread, and how it ended."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except errors.VectorDBError as error:
            self.error = error

    def over(self) -> BaseException | None:
        self.join(30)
        assert not self.is_alive()
        return self.error


def test_every_form_and_back(db: Any) -> None:
    collection = db.create_collection("c", DIM, index="flat", **SMALL)
    vectors = _fill(collection, 4)
    collection.delete([str(i) for i in range(0, 400, 10)])
    expected = collection.search(vectors[5], limit=10, exact=True)
    flat = collection.stats()
    assert (flat.index.kind, flat.indexed_rows) == ("flat", 0)
    for index, kinds in (
        (HNSW, {"hnsw"}),
        ({"kind": "hnsw", "m": 8}, {"hnsw"}),
        ("flat", {"flat"}),
        ("hnsw", {"hnsw"}),
        # The same parameters, but these segments are small.
        ("auto", {"flat"}),
    ):
        collection.reindex(index)
        stats = collection.stats()
        assert {s.index for s in stats.segments} == kinds
        assert stats.indexed_rows == (400 if kinds == {"hnsw"} else 0)
        assert stats.optimizer.state == "idle"
        assert collection.index == stats.index == db.collection("c").index
        assert stats.index.kind == (index if isinstance(index, str) else index["kind"])
        found = collection.search(vectors[5], limit=10, exact=True)
        assert [(h.id, h.score, h.metadata) for h in found] == [(h.id, h.score, h.metadata) for h in expected]
        assert len(collection.search(vectors[5], limit=360)) == 360
    assert stats.memory_bytes == flat.memory_bytes


def test_memory_and_disk_of_the_old_form_are_given_back(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index="flat", **SMALL)
        _fill(collection, 3)
        flat = sum(s.disk_bytes for s in collection.stats().segments)
        collection.reindex(HNSW)
        stats = collection.stats()
        first = _indexes(tmp_path)
        index = weakref.ref(_live(db).segments[0].built.index)
        assert len(first) == 3
        files = [p for p in (tmp_path / "segments").glob("*/*/*") if p.is_file()]
        on_disk = sum(p.stat().st_size for p in files if p.name != "index.json")
        assert sum(s.disk_bytes for s in stats.segments) == flat + on_disk
        collection.reindex({"kind": "hnsw", "m": 8})
        assert len(_indexes(tmp_path)) == 3
        assert not set(first) & set(_indexes(tmp_path))
        collection.reindex("flat")
        after = collection.stats()
        assert _indexes(tmp_path) == []
        assert sum(s.disk_bytes for s in after.segments) == flat
        assert after.memory_bytes < stats.memory_bytes
        gc.collect()
        assert index() is None
    assert verify_folder(tmp_path) == []
    with vectordb.Database(tmp_path) as db:
        assert db["c"].index.kind == "flat"


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
        _fill(collection, 2)
        collection.optimize()
        before = _indexes(tmp_path)
        for index in (HNSW, "hnsw", {"kind": "hnsw", "m": 16}, HNSW):
            collection.reindex(index)
            collection.reindex(index, "none")
            collection.reindex(quantization="none")
        assert collection.index.params == {"m": 4, "ef_construction": 16}
        assert _indexes(tmp_path) != before  # m = 16 and back
        before = _indexes(tmp_path)
        collection.reindex(HNSW)
        assert _indexes(tmp_path) == before
        # The same parameters without what are defaults anyway: the indexes stay, the configuration is the new one.
        collection.reindex("hnsw")
        before = _indexes(tmp_path)
        collection.reindex({"kind": "hnsw", "m": 16})
        assert (_indexes(tmp_path), collection.index.params) == (before, {"m": 16})


def test_the_new_configuration_is_the_one_that_counts(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        db.create_collection("c", DIM, index="flat", **SMALL)
        db["c"].reindex(HNSW)
        assert db.create_collection("c", DIM, index=HNSW, exist_ok=True, **SMALL).index.kind == "hnsw"
        with pytest.raises(errors.FailedPrecondition, match="index is 'hnsw'"):
            db.create_collection("c", DIM, index="flat", exist_ok=True, **SMALL)
    with vectordb.Database(tmp_path) as db:
        assert db.create_collection("c", DIM, index=HNSW, exist_ok=True, **SMALL).index.kind == "hnsw"
        assert db["c"].config.tuning.merge_factor == 64


def test_quantization_alone(db: Any, slow_kind: ModuleType) -> None:
    collection = db.create_collection("c", DIM, index="slow", **SMALL)
    _fill(collection, 2)
    collection.reindex(quantization="sq8")
    assert collection.quantization == collection.stats().quantization == QuantizationSpec("sq8")
    assert slow_kind.BUILDS[-1].quantization == "sq8"
    builds = len(slow_kind.BUILDS)
    collection.reindex(index="slow")
    collection.reindex(quantization={"kind": "sq8"})
    assert len(slow_kind.BUILDS) == builds
    with pytest.raises(errors.InvalidArgument, match="takes no parameters"):
        collection.reindex(quantization={"kind": "none", "oversampling": 2.0})
    collection.reindex(quantization="none")
    assert (collection.quantization, collection.stats().quantization) == (None, None)
    assert slow_kind.BUILDS[-1].quantization is None
    collection.reindex("lsh", "none")
    with pytest.raises(errors.InvalidArgument, match="does not support"):
        collection.reindex(quantization="sq8")


def test_the_old_form_serves_until_the_swap(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    vectors = _fill(collection, 3)
    collection.optimize()
    _fill(collection, 2, start=300)
    _wait(lambda: collection.stats().indexed_rows == 500)
    other = db.collection("c")
    collection.reindex(gate.index(), wait=False)
    shown = []
    for builds in range(3):
        _wait(lambda b=builds: len(_live(db).shadows) == b)
        _wait(lambda: _live(db).target.building_progress == 0.5)
        stats = collection.stats()
        assert stats.optimizer.state == "reindexing"
        shown.append(stats.optimizer.progress)
        assert (stats.index.kind, collection.index.kind, other.index.kind) == ("hnsw", "hnsw", "hnsw")
        assert {s.index for s in stats.segments} == {"hnsw"}
        assert _strategies(collection) == {"graph"}
        assert collection.search(vectors[7], limit=1, params={"ef": 20})[0].id == "7"
        gate.let(1)
    assert 0.0 < shown[0] < shown[1] < shown[2] < 1.0
    _wait(lambda: collection.stats().optimizer.state == "idle")
    assert (collection.index.kind, other.index.kind) == ("slow", "hnsw")
    assert other.stats().index.kind == other.index.kind == "slow"
    assert _strategies(collection) == {"slow"}
    assert collection.search(vectors[7], limit=1)[0].id == "7"
    with pytest.raises(errors.InvalidArgument, match="'ef'"):
        collection.search(vectors[7], params={"ef": 20})


def test_what_happens_to_rows_meanwhile_happens_to_both_forms(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    vectors = _fill(collection, 3)
    collection.reindex(gate.index(), wait=False)
    gate.let(1)
    _wait(lambda: len(_live(db).shadows) == 1)
    collection.delete(where=col("n") < 50)
    collection.update_metadata(where=col("n") >= 250, set={"late": True})
    collection.upsert(["120"], vectors[:1], [{"n": 120, "moved": True}])
    _fill(collection, 2, start=1000)
    gate.let(10)
    _wait(lambda: collection.stats().index.kind == "slow")
    stats = collection.stats()
    # Sealed while it ran, and covered all the same.
    assert stats.indexed_rows == sum(s.rows for s in stats.segments) >= 450
    assert (stats.rows, stats.tail_rows) == (450, 0)
    assert collection.count(col("late") == True) == 50  # noqa: E712
    for n in (60, 130, 260):
        assert collection.search(vectors[n], limit=1)[0].id == str(n)
    found = collection.search(vectors[0], limit=450)
    assert (len(found), found[0].id, found[0].metadata) == (450, "120", {"n": 120, "moved": True})
    assert not {str(i) for i in range(50)} & set(found.ids)
    assert [r.id for r in collection.scan(col("moved") == True)] == ["120"]  # noqa: E712
    collection.optimize()
    assert (collection.stats().deleted, len(collection.stats().segments), collection.count()) == (0, 1, 450)


@pytest.mark.parametrize("index", [HNSW, {"kind": "slow", "seconds": 0.05}], ids=["hnsw", "slow"])
def test_it_ends_under_steady_writes(db: Any, slow_kind: ModuleType, index: Any) -> None:
    collection = db.create_collection("c", DIM, index="flat", seal_bytes=SEGMENT * DIM * 4, merge_factor=2)
    vectors = _fill(collection, 4)
    stop, faults = threading.Event(), []

    def write() -> None:
        for n in range(100_000):
            if stop.is_set():
                return
            rows = [str(10_000 + n % 97 * 20 + i) for i in range(20)]
            collection.upsert(rows, _vectors(20, seed=n + 1000))
            if n % 50 == 0:
                collection.delete(rows[:10])

    def read() -> None:
        while not stop.is_set():
            found = collection.search(vectors[7], limit=1, exact=True)
            if found.ids != ["7"]:
                faults.append(found)

    threads = [Waiting(write), Waiting(read)]
    collection.reindex(index)
    state = collection.stats().index.kind
    stop.set()
    assert [thread.over() for thread in threads] == [None, None]
    assert (state, faults) == (index["kind"], [])
    collection.optimize()
    stats = collection.stats()
    assert (stats.tail_rows, stats.deleted, len(stats.segments)) == (0, 0, 1)
    assert stats.indexed_rows == stats.rows == collection.count()


def test_the_tail_is_sealed_and_small_segments_merge_meanwhile(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, seal_bytes=SEGMENT * DIM * 4, merge_factor=2)
    vectors = _vectors(800)
    collection.upsert([str(i) for i in range(800)], vectors)
    collection.optimize()
    collection.reindex(gate.index(), wait=False)
    _wait(lambda: _live(db).target.building is not None)
    large = _live(db).segments[0].name
    for n in range(8):
        collection.upsert([f"{n}-{i}" for i in range(SEGMENT)], _vectors(SEGMENT, seed=n + 1))
        _wait(lambda: collection.stats().tail_rows == 0)
    # They are merged and indexed in the old form; the one at work stays.
    _wait(lambda: len(collection.stats().segments) <= 3 and collection.stats().indexed_rows == 1600)
    assert _live(db).segments[0].name == large
    assert collection.stats().optimizer.state == "reindexing"
    gate.let(10)
    _wait(lambda: collection.stats().index.kind == "slow")
    assert collection.search(vectors[3], limit=1)[0].id == "3"


def test_writers_are_not_slowed_for_it(db: Any, gate: Gate) -> None:
    collection = db.create_collection(
        "c", DIM, index=HNSW, seal_bytes=SEGMENT * DIM * 4, merge_factor=64, max_unindexed_bytes=2 * SEGMENT * DIM * 4
    )
    _fill(collection, 4)
    collection.reindex(gate.index(), wait=False)
    _wait(lambda: _live(db).target.building is not None)
    _wait(lambda: _live(db).unindexed_bytes == 0)
    live = _live(db)
    assert db._backend._optimizer.slow_down(live, None) == 0.0
    assert collection.stats().optimizer.pending_bytes == 0
    gate.let(4)
    _wait(lambda: collection.stats().index.kind == "slow")
    assert live.unindexed_bytes == 0


def test_optimize_merges_after_it(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    _fill(collection, 3)
    collection.reindex(gate.index(), wait=False)
    _wait(lambda: _live(db).target.building is not None)
    optimizing = Waiting(collection.optimize)
    _wait(lambda: _live(db).target.building is not None)
    gate.let(1)
    _wait(lambda: len(_live(db).shadows) == 1)
    assert optimizing.is_alive()
    gate.let(20)
    assert optimizing.over() is None
    stats = collection.stats()
    assert (stats.index.kind, len(stats.segments), stats.indexed_rows, stats.tail_rows) == ("slow", 1, 300, 0)


def test_cancelled(db: Any, gate: Gate, tmp_path: Path) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    _fill(collection, 3)
    _wait(lambda: collection.stats().indexed_rows == 300)
    assert collection.cancel_reindex() is False
    waiting = Waiting(lambda: collection.reindex(gate.index()))
    _wait(lambda: collection.stats().optimizer.state == "reindexing")
    gate.let(1)
    _wait(lambda: len(_live(db).shadows) == 1)
    before = collection.stats()
    assert collection.cancel_reindex() is True
    assert isinstance(waiting.over(), errors.FailedPrecondition)
    assert "was cancelled" in str(waiting.error)
    stats = collection.stats()
    assert (stats.optimizer.state, stats.index.kind, stats.indexed_rows) == ("idle", "hnsw", 300)
    assert collection.cancel_reindex() is False
    if db.info().path != ":memory:":
        _wait(lambda: len(_indexes(tmp_path / "db")) == len(stats.segments))
    assert stats.memory_bytes < before.memory_bytes


def test_a_later_call_takes_its_place(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index="flat", **SMALL)
    _fill(collection, 2)
    first = Waiting(lambda: collection.reindex(gate.index()))
    _wait(lambda: _live(db).target is not None)
    target = _live(db).target
    collection.reindex(gate.index(), wait=False)
    assert _live(db).target is target
    second = Waiting(lambda: collection.reindex(gate.index(tag=1)))
    assert "replaced by another reindex" in str(first.over())
    third = Waiting(lambda: collection.reindex(gate.index(tag=2)))
    assert "replaced" in str(second.over())
    _wait(lambda: _live(db).target.form.choice.index.params["tag"] == 2)
    # To what serves already: nothing is left to do.
    collection.reindex("flat")
    assert "replaced" in str(third.over())
    assert (collection.stats().optimizer.state, collection.index.kind) == ("idle", "flat")
    together = [Waiting(lambda: collection.reindex(gate.index(tag=3))) for _ in range(3)]
    _wait(lambda: collection.stats().optimizer.state == "reindexing")
    gate.let(2, tag=3)
    assert [waiting.over() for waiting in together] == [None] * 3
    assert collection.stats().index.params["tag"] == 3


def test_a_build_that_fails_is_told_and_given_up(db: Any, slow_kind: ModuleType, tmp_path: Path) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    vectors = _fill(collection, 2)
    _wait(lambda: collection.stats().indexed_rows == 200)
    with pytest.raises(errors.Internal, match="no such luck"):
        collection.reindex({"kind": "slow", "fails": True})
    stats = collection.stats()
    assert (stats.optimizer.state, stats.index.kind) == ("failed", "hnsw")
    assert "no such luck" in str(stats.optimizer.error)
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
        _fill(collection, 2)
        real, calls = reindexer.build_index, []

        def full(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            if len(calls) > 1:
                raise errors.ResourceExhausted("no space left for an index", limit="disk")
            return real(*arguments, **options)

        monkeypatch.setattr(reindexer, "build_index", full)
        with pytest.raises(errors.ResourceExhausted, match="no space"):
            collection.reindex("slow")
        _wait(lambda: _indexes(tmp_path) == [])
        assert collection.stats().index.kind == "flat"
    with vectordb.Database(tmp_path) as db:
        assert db["c"].stats().optimizer.state == "idle"
        assert db["c"].index.kind == "flat"


@pytest.mark.parametrize("how", ["delete", "close"])
def test_it_ends_with_its_collection(db: Any, gate: Gate, how: str, tmp_path: Path) -> None:
    collection = db.create_collection("c", DIM, index="flat", **SMALL)
    _fill(collection, 2)
    waiting = Waiting(lambda: collection.reindex(gate.index()))
    _wait(lambda: collection.stats().optimizer.state == "reindexing" and _live(db).target.building is not None)
    if how == "delete":
        db.delete_collection("c")
        assert isinstance(waiting.over(), errors.CollectionNotFound)
        _wait(lambda: db._backend._reindexer._thread is None)
        assert db.create_collection("c", DIM).stats().optimizer.state == "idle"
        db.close()
    else:
        db.close()
        assert isinstance(waiting.over(), errors.Closed)
    if (tmp_path / "db").exists():
        assert _indexes(tmp_path / "db") == []


def _half_way(folder: Path, gate: Gate) -> np.ndarray:
    """A closed database whose collection ``c`` is being reindexed, with one of its three indexes built."""
    with vectordb.Database(folder) as db:
        collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
        vectors = _fill(collection, 3)
        _wait(lambda: collection.stats().indexed_rows == 300)
        collection.reindex(gate.index(), wait=False)
        gate.let(1)
        _wait(lambda: len(_live(db).shadows) == 1)
    return vectors


def test_it_goes_on_after_a_restart(tmp_path: Path, gate: Gate, slow_kind: ModuleType) -> None:
    vectors = _half_way(tmp_path / "db", gate)
    assert len(_indexes(tmp_path / "db")) == 4
    assert verify_folder(tmp_path / "db") == []
    slow_kind.BUILDS.clear()
    with vectordb.Database(tmp_path / "db") as db:
        collection = db["c"]
        stats = collection.stats()
        assert (stats.optimizer.state, stats.index.kind) == ("reindexing", "hnsw")
        assert 1 / 3 <= stats.optimizer.progress < 2 / 3
        assert _strategies(collection) == {"graph"}
        gate.let(2)
        collection.reindex(gate.index())
        assert (len(slow_kind.BUILDS), collection.index.kind) == (2, "slow")
        assert collection.stats().indexed_rows == 300
        assert len(_indexes(tmp_path / "db")) == 3
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
    import shutil

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
            assert len(_indexes(tmp_path / "db")) == 3
    with vectordb.Database(tmp_path / "db") as db:
        assert db["c"].stats().optimizer.state == "idle"


def test_cancelled_after_a_restart(tmp_path: Path, gate: Gate) -> None:
    _half_way(tmp_path / "db", gate)
    with vectordb.Database(tmp_path / "db") as db:
        assert db["c"].cancel_reindex() is True
    assert len(_indexes(tmp_path / "db")) == 3
    with vectordb.Database(tmp_path / "db") as db:
        assert db["c"].stats().optimizer.state == "idle"
        assert db["c"].cancel_reindex() is False


def test_builds_are_told_what_was_trained(db: Any, slow_kind: ModuleType, tmp_path: Path) -> None:
    collection = db.create_collection("c", DIM, index="slow", seal_bytes=SEGMENT * DIM * 4, merge_factor=2)
    on_disk = db.info().path != ":memory:"
    _fill(collection, 1)
    _wait(lambda: collection.stats().indexed_rows == 100)
    assert slow_kind.BUILDS[0].trained is None
    collection.upsert([f"x{i}" for i in range(50)], _vectors(50, 1))
    collection.optimize()
    trained = slow_kind.BUILDS[-1].trained
    assert slow_kind.BUILDS[-1].rows == 150
    assert (trained is not None and trained.name == "index.bin") if on_disk else trained is None
    # The centroids of another form are of no use.
    collection.reindex({"kind": "slow", "tag": 1})
    assert slow_kind.BUILDS[-1].trained is None
    collection.upsert([f"y{i}" for i in range(500)], _vectors(500, 2))
    _wait(lambda: collection.stats().tail_rows == 0)
    collection.optimize()
    assert (slow_kind.BUILDS[-1].trained is not None) is on_disk


def test_the_largest_is_built_first_and_the_next_with_its_state(tmp_path: Path, slow_kind: ModuleType) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index="flat", **SMALL)
        _fill(collection, 1)
        collection.upsert([f"x{i}" for i in range(300)], _vectors(300, 1))
        _wait(lambda: len(collection.stats().segments) == 2)
        collection.reindex("slow")
        assert [b.rows for b in slow_kind.BUILDS] == [300, 100]
        assert [b.trained is not None for b in slow_kind.BUILDS] == [False, True]


def test_served_and_asynchronous(tmp_path: Path, gate: Gate) -> None:
    server = Server(lambda: Engine(tmp_path / "db"), load({"data": str(tmp_path), "listen": "127.0.0.1:0"}, None, {}))
    address = server.start()

    async def other() -> None:
        async with await connect_async(address) as db:
            collection = await db.collection("c")
            task = asyncio.create_task(collection.reindex(gate.index()))
            while (await collection.stats()).optimizer.state != "reindexing":
                await asyncio.sleep(0.01)
            assert collection.index.kind == "hnsw"
            # Nobody waits any more; the work goes on, and the server has its thread back.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            while len(server._streams):
                await asyncio.sleep(0.01)
            assert (await collection.stats()).optimizer.state == "reindexing"
            with pytest.raises(errors.InvalidArgument, match="btree"):
                await collection.reindex("btree")
            assert await collection.cancel_reindex() is True
            assert await collection.cancel_reindex() is False
            index = gate.index(tag=1)
            gate.let(2, tag=1)
            await collection.reindex(index, "sq8")
            assert (collection.index.kind, collection.quantization) == ("slow", QuantizationSpec("sq8"))

    with connect(address) as db:
        collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
        _fill(collection, 2)
        asyncio.run(other())
        assert collection.index.kind == "hnsw"
        stats = collection.stats()
        assert (stats.index, stats.quantization) == (collection.index, collection.quantization)
        assert collection.index.params["tag"] == 1
        collection.reindex("flat", "none")
        assert (collection.index.kind, collection.quantization) == ("flat", None)
        waiting = Waiting(lambda: collection.reindex(gate.index()))
        _wait(lambda: collection.stats().optimizer.state == "reindexing")
        assert collection.cancel_reindex() is True
        assert "was cancelled" in str(waiting.over())
        with pytest.raises(errors.Internal, match="no such luck"):
            collection.reindex({"kind": "slow", "fails": True})
        assert collection.stats().optimizer.state == "failed"
    server.stop()


def test_asynchronous_embedded() -> None:
    async def main() -> None:
        async with await connect_async(":memory:") as db:
            collection = await db.create_collection("c", DIM, index="flat", **SMALL)
            await collection.upsert([str(i) for i in range(SEGMENT)], _vectors(SEGMENT))
            await collection.optimize()
            await collection.reindex(HNSW)
            stats = await collection.stats()
            assert (stats.index, stats.indexed_rows) == (collection.index, SEGMENT)
            assert await collection.cancel_reindex() is False

    asyncio.run(main())
