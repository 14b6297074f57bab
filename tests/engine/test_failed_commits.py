"""Commits that fail or are held up, large calls that break off, and changes of the catalogue."""

from __future__ import annotations

import errno
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col, errors, failpoints
from vectordb.engine import database, work
from vectordb.storage import stall
from vectordb.storage.acked import read_acked

ONES = np.ones((1, 4), np.float32)


def _engine(db: vectordb.Database) -> Any:
    return db._backend


def test_a_change_of_the_catalogue_is_synced_once_and_then_acknowledged(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        names = ["storage.written", "storage.synced", "create.synced", "delete.synced", "acked.torn", "acked.replace"]
        seen: list[str] = []
        try:
            for name in names:
                failpoints.arm(name, lambda name=name: seen.append(name), times=None)  # type: ignore[misc]
            db.create_collection("c", 4)
            made, seen = seen, []
            db.delete_collection("c")
        finally:
            failpoints.disarm()
        for steps, change in ((made, "create.synced"), (seen, "delete.synced")):
            assert steps[:3] == ["storage.written", "storage.synced", change]
            assert set(steps[3:]) <= {"acked.torn", "acked.replace"}
        page = read_acked(tmp_path / "ACKED")
        assert page.sequence == _engine(db)._storage.sequence()
        assert page.versions == {}


@pytest.mark.parametrize("what", ["write", "catalogue"])
def test_closing_ends_what_waits_for_a_disk_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(stall, "_LAST_SECONDS", 0.0)
    db = vectordb.Database(tmp_path)
    collection = db.create_collection("c", 4)
    reached, told = threading.Event(), []

    def stalled() -> bool:
        reached.set()
        return True

    def write() -> None:
        with pytest.raises(errors.ResourceExhausted, match=r"outcome is unknown.*has taken no writes") as failed:
            collection.upsert(["a"], ONES) if what == "write" else db.delete_collection("c")
        told.append(failed.value)

    monkeypatch.setattr(_engine(db)._storage, "_stalled", stalled)
    writer = threading.Thread(target=write)
    writer.start()
    assert reached.wait(10)
    closer = threading.Thread(target=db.close, daemon=True)
    closer.start()
    closer.join(60)
    assert not closer.is_alive()
    writer.join()
    assert len(told) == 1
    with vectordb.Database(tmp_path) as db:
        assert db["c"].count() == 0


@pytest.mark.parametrize("step", ["sync", "write"])
def test_a_failed_commit_makes_it_read_only_until_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    db = vectordb.Database(tmp_path)
    collection = db.create_collection("c", 4)
    collection.upsert(["a"], ONES)

    def broken(*_: Any) -> Any:
        raise errors.ResourceExhausted("no space left on device", limit="disk")

    monkeypatch.setattr(_engine(db)._storage, step, broken)
    with pytest.raises(errors.ResourceExhausted, match="outcome is unknown"):
        collection.upsert(["b"], ONES)
    monkeypatch.undo()
    with pytest.raises(errors.FailedPrecondition, match="refuses writes"):
        collection.upsert(["c"], ONES)
    with pytest.raises(errors.FailedPrecondition, match="read-only"):
        db.create_collection("d", 4)
    assert "no space" in str(db.info().read_only_reason)
    assert [r.id for r in collection.get(["a", "b", "c"])] == ["a"]
    assert collection.count() == 1
    db.close()
    with vectordb.Database(tmp_path) as again:
        assert again["c"].get("a")
        again["c"].upsert(["c"], ONES)


def test_of_a_collection_that_could_not_be_deleted_reads_go_on(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        collection.upsert(["a"], ONES)
        collection.upsert([{"id": "b"}])
        with (
            failpoints.armed("storage.write", failpoints.fail(errno.ENOSPC)),
            pytest.raises(errors.ResourceExhausted, match="outcome is unknown"),
        ):
            db.delete_collection("c")
        assert [r.id for r in collection.scan(include=["vector"])] == ["a", "b"]
        assert [r.id for r in collection.get(["a", "b", "c"], include=["vector"])] == ["a", "b"]


@pytest.mark.parametrize("place", ["storage.write", "storage.sync"])
@pytest.mark.parametrize("what", ["creating", "deleting"])
def test_a_failed_change_of_the_catalogue_is_told_and_nothing_is_written_after(
    tmp_path: Path, place: str, what: str
) -> None:
    with vectordb.Database(tmp_path) as db:
        kept = db.create_collection("kept", 4)
        db.create_collection("old", 4)
        kept.upsert(["a"], ONES)
        change = (lambda: db.create_collection("new", 4)) if what == "creating" else lambda: db.delete_collection("old")
        with (
            failpoints.armed(place, failpoints.fail(errno.ENOSPC)),
            pytest.raises(errors.ResourceExhausted, match=f"{what} .*outcome is unknown"),
        ):
            change()
        # The disk took one write back, of which nobody knows how much it kept: no other may follow it.
        with pytest.raises(errors.FailedPrecondition, match="refuses writes"):
            kept.upsert(["b"], ONES)
        assert db.info().read_only_reason is not None
        assert kept.get("a")
    with vectordb.Database(tmp_path) as db:
        assert set(db.list_collections()) - {"new", "old"} == {"kept"}
        db["kept"].upsert(["b"], ONES)


@pytest.mark.parametrize("pieces", [1, 3, 5])
def test_a_large_call_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    count = 4_500
    ids = [f"i{n}" for n in range(count)]
    db = vectordb.Database(tmp_path)
    collection = db.create_collection("c", 2)
    collection.upsert(ids, np.ones((count, 2)), [{"n": 1}] * count, ["old"] * count)
    for broken_call in (
        lambda c: c.update_metadata(where=col("n") == 1, set={"n": 2}),
        lambda c: c.upsert(ids, np.full((count, 2), 3.0), [{"n": 3}] * count),
        lambda c: c.delete(where=col("n") == 1),
    ):
        storage = _engine(db)._storage
        real, writes = storage.write, []

        def failing(batch: Any, real: Any = real, writes: list[int] = writes) -> None:
            writes.append(len(batch))
            if len(writes) > pieces:
                raise errors.Internal("the disk went away")
            real(batch)

        monkeypatch.setattr(storage, "write", failing)
        with pytest.raises(errors.Internal, match="outcome is unknown"):
            broken_call(collection)
        monkeypatch.undo()
        # Readers of the broken database go on to see what was.
        assert [r.metadata["n"] for r in collection.get(ids[:3])] == [1, 1, 1]
        db.close()
        db = vectordb.Database(tmp_path)
        collection = db["c"]
        assert collection.count(col("n") == 1) == collection.count() == count
        assert {r.text for r in collection.get(ids[::500])} == {"old"}
        assert collection.stats().version == 1
    db.close()


def test_a_database_that_takes_no_writes_makes_no_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "RETRY_SECONDS", 0.05)
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4, index="hnsw", seal_bytes=1 << 20)
        collection.upsert([f"i{n}" for n in range(200)], np.random.default_rng(1).normal(size=(200, 4)))
        with failpoints.armed("storage.sync", failpoints.fail(errno.ENOSPC)), pytest.raises(errors.ResourceExhausted):
            collection.upsert(["a"], ONES)
        collection.optimize(wait=False)
        with pytest.raises(errors.FailedPrecondition, match="takes no writes since one failed"):
            collection.optimize()
        time.sleep(1.0)
        assert [path for path in (tmp_path / "segments").iterdir() if path.is_dir()] == []
        assert "no space left" in str(collection.stats().optimizer.error)
        assert collection.count() == 200
    with vectordb.Database(tmp_path) as db:
        db["c"].optimize()
        assert db["c"].stats().indexed_rows == db["c"].count()


def test_a_full_disk_keeps_nobody_from_deleting_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(tmp_path) as db:
        for name in ("a", "b"):
            db.create_collection(name, 4).upsert(["x"], ONES)
            db[name].optimize()
        with monkeypatch.context() as patch:
            patch.setattr("os.posix_fallocate", lambda *_: failpoints.fail(errno.ENOSPC)())
            db.delete_collection("a")
        assert len([path for path in (tmp_path / "segments").iterdir() if path.is_dir()]) == 1
        assert db.create_collection("a", 4).count() == 0
        db["b"].upsert(["y"], ONES)
    with vectordb.Database(tmp_path) as db:
        assert (db["a"].count(), db["b"].count()) == (0, 2)


def test_collections_are_listed_while_others_come_and_go() -> None:
    found: list[object] = []
    with vectordb.Database(":memory:") as db:
        for n in range(200):
            db.create_collection(f"c{n}", 2)
        done = threading.Event()

        def look() -> None:
            while not done.is_set() and not found:
                try:
                    db.list_collections()
                except RuntimeError as error:
                    found.append(error)

        before = sys.getswitchinterval()
        looking = [threading.Thread(target=look) for _ in range(3)]
        try:
            sys.setswitchinterval(1e-6)
            for thread in looking:
                thread.start()
            for n in range(200):
                db.create_collection(f"d{n}", 2)
                db.delete_collection(f"c{n}")
        finally:
            sys.setswitchinterval(before)
            done.set()
            for thread in looking:
                thread.join()
    assert found == []


def test_a_collection_that_cannot_be_opened_can_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise errors.Corruption("a payload is missing from storage")

    with vectordb.Database(tmp_path) as db:
        db.create_collection("c", 4).upsert(["x"], ONES)
        db["c"].optimize()
    with vectordb.Database(tmp_path) as db:
        with monkeypatch.context() as patch:
            patch.setattr(database, "open_collection", refuse)
            with pytest.raises(errors.Corruption):
                db["c"].count()
            db.delete_collection("c")
        assert db.list_collections() == []
        assert [path for path in (tmp_path / "segments").iterdir() if path.is_dir()] == []
        assert read_acked(tmp_path / "ACKED").versions == {}
        assert db.create_collection("c", 4).count() == 0
