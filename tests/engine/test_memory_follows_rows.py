"""What is kept in memory follows the rows that there are and what is asked again, not how much was ever written."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col
from vectordb.engine import policy
from vectordb.engine.capacity.memory import ANSWERS_SHARE
from vectordb.storage.codec import IdempotentResult

DIM, BATCH = 8, 50
ROWS = np.random.default_rng(3).standard_normal((BATCH, DIM)).astype(np.float32)


def write(collection: Any, number: int) -> None:
    collection.upsert([f"{number}-{i}" for i in range(BATCH)], ROWS, [{"n": number}] * BATCH)


def with_segments(db: Any, count: int) -> Any:
    """A collection of so many segments, fewer than four: those would be merged."""
    collection = db.create_collection("c", DIM, index="flat")
    for number in range(count):
        write(collection, number)
        live = db._backend._live("c")
        live.pressed = True
        db._backend._optimizer.wake()
        until(lambda live=live: not live.tail.rows)
    return collection


def count_many(collection: Any) -> None:
    """By ever new filters, whose answers would take 12 MB a segment."""
    for number in range(200):
        collection.count(col("n").isin(range(number, number + 300)))


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_filters_of_writes_leave_no_answers_behind(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path / "db") as db:
        collection = with_segments(db, 3)
        live = db._backend._live("c")
        for number in range(10, 60):
            write(collection, number)
            collection.update_metadata(where=col("n") == number, set={"seen": True})
            assert collection.delete(where=(col("n") == number) & (col("seen") == True)) == BATCH  # noqa: E712
        assert [s.data.answers.nbytes for s in live.segments] == [0] * len(live.segments)
        assert collection.count(col("n") == 1) == BATCH
        assert all(s.data.answers.nbytes for s in live.segments)


def test_all_answers_keep_to_a_share_of_the_limit(tmp_path: Path) -> None:
    limit = 32 << 20
    with vectordb.Database(tmp_path / "db", memory_limit=limit) as db:
        collection = with_segments(db, 3)
        live = db._backend._live("c")
        most = int(ANSWERS_SHARE * limit)
        count_many(collection)
        for number in range(200):
            collection.search(ROWS[0], 3, where=col("n").isin(range(number, number + 299)))
        kept = [s.data.answers.nbytes for s in live.segments]
        assert max(kept) <= most // 3
        assert most // 4 < db._backend.resources.memory.by_kind()["segments"] <= most
        collection.optimize()
        assert len(live.segments) == 1
        count_many(collection)
        assert most // 5 < live.segments[0].data.answers.nbytes <= most // 4
    with vectordb.Database(tmp_path / "db", memory_limit=limit) as db:
        count_many(db["c"])
        assert most // 5 < db._backend.resources.memory.by_kind()["segments"] <= most // 4


def test_a_row_that_is_changed_for_ever_leaves_no_history_in_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "LEAST_REPLACEMENTS", 40)
    with vectordb.Database(tmp_path / "db") as db:
        collection = with_segments(db, 1)
        live = db._backend._live("c")
        for number in range(200):
            collection.update_metadata(["0-7"], set={"count": number})
        db._backend._optimizer.wake()
        until(lambda: live.snapshot.parts[0].replacements < 40)
        assert live.segments[0].changes.payload_bytes < 40 * 1_000
        assert collection.get(["0-7"])[0].metadata == {"n": 0, "count": 199}
        assert (collection.count(), collection.count(col("count") == 199)) == (BATCH, 1)


def test_a_row_that_is_changed_for_ever_leaves_no_history_in_the_tail(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path / "db") as db:
        collection = db.create_collection("c", DIM, index="flat", seal_bytes=64 << 10)
        live = db._backend._live("c")
        write(collection, 0)
        for number in range(300):
            collection.update_metadata(["0-7"], set={"count": number})
        until(lambda: not live.tail.rows)
        assert sum(section.changes.payload_bytes for section in live.tail.sections) == 0
        assert collection.get(["0-7"])[0].metadata == {"n": 0, "count": 299}


def test_keys_of_calls_whose_time_is_over_are_forgotten_as_fast_as_they_come() -> None:
    with vectordb.Database(":memory:") as db:
        db.create_collection("c", DIM)
        live, optimizer = db._backend._live("c"), db._backend._optimizer
        optimizer.close()
        for number in range(1_000):
            live.results.add(str(number), IdempotentResult(expires=0.0, count=1, version=1))
        live.results.add("fresh", IdempotentResult(expires=time.time() + 600, count=1, version=1))
        # A step that says that there may be more is followed by another at once, not after a second.
        assert [optimizer._sweep(live) for _ in range(5)] == [True, True, True, True, False]
        assert live.results.take_expired(1) == []
        assert live.results.get("fresh") is not None


def test_the_files_of_a_deleted_collection_leave_the_disk_without_pythons_collector(tmp_path: Path) -> None:
    def held() -> list[str]:
        links = (_target(path) for path in Path("/proc/self/fd").iterdir())
        return [link for link in links if str(tmp_path) in link and "/segments/" in link]

    gc.collect()
    gc.disable()
    try:
        with vectordb.Database(tmp_path, memory_limit="64 MiB") as db:
            for name in ("one", "two"):
                docs = db.create_collection(name, 2, index="hnsw")
                docs.upsert(["a", "b"], [[1, 0], [0, 1]], [{"n": 1}, {"n": 2}], texts=["one", "two"])
                docs.optimize()
                docs.search([1, 0], where=col("n") == 1)
            assert held()
            for name in ("one", "two"):
                db.delete_collection(name)
            until(lambda: not held())
    finally:
        gc.enable()


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except OSError:  # the one that lists them
        return ""
