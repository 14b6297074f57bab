"""A reindex beside reads, writes, seals and merges: the old form serves until the swap, and rows change in both."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from tests.engine.reindex.gate import Gate
from tests.engine.reindex.small import DIM, HNSW, SEAL_BYTES, SEGMENT, SMALL, fill, live_of, strategies, vectors_of
from tests.waiting import Call, wait_until
from vectordb import col, errors


def test_the_old_form_serves_until_the_swap(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    vectors = fill(collection, 3)
    collection.optimize()
    fill(collection, 2, start=300)
    wait_until(lambda: collection.stats().indexed_rows == 500)
    other = db.collection("c")
    collection.reindex(gate.index(), wait=False)
    shown = []
    for builds in range(3):
        wait_until(lambda b=builds: len(live_of(db).shadows) == b)
        wait_until(lambda: live_of(db).target.building_progress == 0.5)
        stats = collection.stats()
        assert stats.optimizer.state == "reindexing"
        shown.append(stats.optimizer.progress)
        assert (stats.index.kind, collection.index.kind, other.index.kind) == ("hnsw", "hnsw", "hnsw")
        assert {s.index for s in stats.segments} == {"hnsw"}
        assert strategies(collection) == {"graph"}
        assert collection.search(vectors[7], limit=1, params={"ef": 20})[0].id == "7"
        gate.let(1)
    assert 0.0 < shown[0] < shown[1] < shown[2] < 1.0
    wait_until(lambda: collection.stats().optimizer.state == "idle")
    assert (collection.index.kind, other.index.kind) == ("slow", "hnsw")
    assert other.stats().index.kind == other.index.kind == "slow"
    assert strategies(collection) == {"slow"}
    assert collection.search(vectors[7], limit=1)[0].id == "7"
    with pytest.raises(errors.InvalidArgument, match="'ef'"):
        collection.search(vectors[7], params={"ef": 20})


def test_what_happens_to_rows_meanwhile_happens_to_both_forms(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    vectors = fill(collection, 3)
    collection.reindex(gate.index(), wait=False)
    gate.let(1)
    wait_until(lambda: len(live_of(db).shadows) == 1)
    collection.delete(where=col("n") < 50)
    collection.update_metadata(where=col("n") >= 250, set={"late": True})
    collection.upsert(["120"], vectors[:1], [{"n": 120, "moved": True}])
    fill(collection, 2, start=1000)
    gate.let(10)
    wait_until(lambda: collection.stats().index.kind == "slow")
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
    collection = db.create_collection("c", DIM, index="flat", seal_bytes=SEAL_BYTES, merge_factor=2)
    vectors = fill(collection, 4)
    stop, faults = threading.Event(), []

    def write() -> None:
        for n in range(100_000):
            if stop.is_set():
                return
            rows = [str(10_000 + n % 97 * 20 + i) for i in range(20)]
            collection.upsert(rows, vectors_of(20, seed=n + 1000))
            if n % 50 == 0:
                collection.delete(rows[:10])

    def read() -> None:
        while not stop.is_set():
            found = collection.search(vectors[7], limit=1, exact=True)
            if found.ids != ["7"]:
                faults.append(found)

    threads = [Call(write), Call(read)]
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
    collection = db.create_collection("c", DIM, index=HNSW, seal_bytes=SEAL_BYTES, merge_factor=2)
    vectors = vectors_of(800)
    collection.upsert([str(i) for i in range(800)], vectors)
    collection.optimize()
    collection.reindex(gate.index(), wait=False)
    wait_until(lambda: live_of(db).target.building is not None)
    large = live_of(db).segments[0].name
    for n in range(8):
        collection.upsert([f"{n}-{i}" for i in range(SEGMENT)], vectors_of(SEGMENT, seed=n + 1))
        wait_until(lambda: collection.stats().tail_rows == 0)
    # They are merged and indexed in the old form; the one at work stays.
    wait_until(lambda: len(collection.stats().segments) <= 3 and collection.stats().indexed_rows == 1600)
    assert live_of(db).segments[0].name == large
    assert collection.stats().optimizer.state == "reindexing"
    gate.let(10)
    wait_until(lambda: collection.stats().index.kind == "slow")
    assert collection.search(vectors[3], limit=1)[0].id == "3"


def test_writers_are_not_slowed_for_it(db: Any, gate: Gate) -> None:
    collection = db.create_collection(
        "c", DIM, index=HNSW, seal_bytes=SEAL_BYTES, merge_factor=64, max_unindexed_bytes=2 * SEAL_BYTES
    )
    fill(collection, 4)
    collection.reindex(gate.index(), wait=False)
    wait_until(lambda: live_of(db).target.building is not None)
    wait_until(lambda: live_of(db).unindexed_bytes == 0)
    live = live_of(db)
    assert db._backend._optimizer.slow_down(live, None) == 0.0
    assert collection.stats().optimizer.pending_bytes == 0
    gate.let(4)
    wait_until(lambda: collection.stats().index.kind == "slow")
    assert live.unindexed_bytes == 0


def test_optimize_merges_after_it(db: Any, gate: Gate) -> None:
    collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
    fill(collection, 3)
    collection.reindex(gate.index(), wait=False)
    wait_until(lambda: live_of(db).target.building is not None)
    optimizing = Call(collection.optimize)
    wait_until(lambda: live_of(db).target.building is not None)
    gate.let(1)
    wait_until(lambda: len(live_of(db).shadows) == 1)
    assert optimizing.is_alive()
    gate.let(20)
    assert optimizing.over() is None
    stats = collection.stats()
    assert (stats.index.kind, len(stats.segments), stats.indexed_rows, stats.tail_rows) == ("slow", 1, 300, 0)
