"""Backups of a database in use, and what a restored one answers."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.verified import verify_folder
from vectordb import Database, errors, failpoints
from vectordb.cli.process import ServerProcess
from vectordb.engine.care.backup import restore
from vectordb.engine.care.verify import verify
from vectordb_client import connect

DIM = 16


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def filled(folder: Path) -> Database:
    db = Database(folder)
    docs = db.create_collection("docs", DIM, index="hnsw", seal_bytes=DIM * 4 * 300)
    ids = [f"r{i}" for i in range(1_000)]
    docs.upsert(ids, vectors(1_000), metadata=[{"n": i} for i in range(1_000)], texts=ids)
    docs.optimize()
    docs.delete([f"r{i}" for i in range(0, 1_000, 10)])
    docs.update_metadata(["r1"], set={"n": -1})
    docs.upsert(["tail"], vectors(1, 1), texts=["not sealed yet"])
    db.create_collection("empty", 3, metric="l2")
    return db


def answers(db: Database) -> object:
    docs = db["docs"]
    found = docs.search_batch(vectors(20, 5), limit=10, exact=True, include=("metadata", "text", "vector"))
    hits = [[(h.id, h.score, h.metadata, h.text, h.vector.tobytes()) for h in result] for result in found]
    return hits, docs.count(), docs.get(["r1", "tail"])[0].metadata, db.list_collections()


def test_a_backup_into_the_databases_own_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "db")
    with filled(tmp_path / "db") as db:
        before = sorted(path.name for path in (tmp_path / "db").iterdir())
        for inside in (tmp_path / "db", tmp_path / "db/backups/daily", tmp_path / "link/b", f"file://{tmp_path}/db/b"):
            with pytest.raises(errors.InvalidArgument, match="own folder") as caught:
                db.backup(inside)
            assert caught.value.field == "destination"
        assert sorted(path.name for path in (tmp_path / "db").iterdir()) == before
        db.backup(tmp_path / "db-backups")


def test_a_restored_database_gives_the_same_answers(tmp_path: Path) -> None:
    with filled(tmp_path / "db") as db:
        made = db.backup(tmp_path / "backups")
        before = answers(db)
        assert made.collections == {"docs": 4, "empty": 0}
        db["docs"].delete(where={"field": "n", "op": ">=", "value": 0})
        db.delete_collection("empty")
    restored = restore(str(tmp_path / "backups"), tmp_path / "back")
    assert restored.id == made.id
    for _ in range(2):
        checked = verify(tmp_path / "back")
        assert (checked.problems, checked.notes) == ((), ())
        Database(tmp_path / "back").close()
    with Database(tmp_path / "back") as back:
        assert answers(back) == before
        assert back["docs"].stats().segments[0].index == "hnsw"
        back["docs"].upsert(["new"], vectors(1))
        assert back["docs"].count() == 902


def test_a_backup_says_which_versions_it_has_and_not_which_came_meanwhile(tmp_path: Path) -> None:
    with Database(tmp_path / "db") as db:
        docs = db.create_collection("docs", DIM)
        docs.upsert(["a"], vectors(1))

        def write() -> None:
            docs.upsert(["b"], vectors(1))
            docs.upsert(["c"], vectors(1))

        with failpoints.armed("backup.checkpointed", write):
            made = db.backup(tmp_path / "backups")
        assert docs.stats().version == 3
    restore(str(tmp_path / "backups"), tmp_path / "back")
    with Database(tmp_path / "back") as back:
        assert {"docs": back["docs"].stats().version} == made.collections == {"docs": 1}


def test_a_full_disk_at_restoring_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path / "db") as db:
        db.backup(tmp_path / "backups")
    (tmp_path / "place").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: failpoints.fail(errno.ENOSPC)())
        with pytest.raises(errors.ResourceExhausted, match=r"cannot be restored into .*: no space is left"):
            restore(str(tmp_path / "backups"), tmp_path / "place" / "back")
    assert list((tmp_path / "place").iterdir()) == []
    (tmp_path / "place" / "file").touch()
    with pytest.raises(errors.FailedPrecondition, match="cannot be restored into"):
        restore(str(tmp_path / "backups"), tmp_path / "place" / "file" / "back")


def test_the_second_backup_writes_only_what_changed(tmp_path: Path) -> None:
    with filled(tmp_path / "db") as db:
        first = db.backup(tmp_path / "backups")
        db["docs"].upsert(["one more"], vectors(1))
        second = db.backup(tmp_path / "backups")
    assert first.new_bytes > 0.9 * first.total_bytes
    assert second.new_bytes < 0.5 * first.total_bytes
    assert list((tmp_path / "db" / "segments").glob("tmp-*")) == []
    restore(str(tmp_path / "backups"), tmp_path / "old", first.id)
    with Database(tmp_path / "old") as old:
        assert old["docs"].get(["one more"]) == []


def test_a_backup_beside_writers_is_one_moment(tmp_path: Path) -> None:
    """Each batch writes one number into all ids: a torn moment would show two numbers."""
    with Database(tmp_path / "db") as db:
        docs = db.create_collection("docs", DIM, seal_bytes=DIM * 4 * 200)
        ids = [f"r{i}" for i in range(50)]
        docs.upsert(ids, vectors(50), metadata=[{"round": 0}] * 50)
        stop = threading.Event()
        acknowledged = [0]

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                docs.upsert(ids, vectors(50, number), metadata=[{"round": number}] * 50)
                acknowledged[0] = number

        writer = threading.Thread(target=write)
        writer.start()
        try:
            least = []
            for _ in range(4):
                floor = acknowledged[0]
                least.append((floor, db.backup(tmp_path / "backups").id))
        finally:
            stop.set()
            writer.join()
    for number, (floor, backup) in enumerate(least):
        restore(str(tmp_path / "backups"), tmp_path / f"back{number}", backup)
        with Database(tmp_path / f"back{number}") as back:
            rounds = {record.metadata["round"] for record in back["docs"].scan()}
            assert back["docs"].count() == 50
        assert len(rounds) == 1
        assert min(rounds) >= floor
        assert verify_folder(tmp_path / f"back{number}") == []


def test_nothing_is_written_over_and_nothing_half_restored(tmp_path: Path) -> None:
    with filled(tmp_path / "db") as db:
        db.backup(tmp_path / "backups")
    with pytest.raises(errors.AlreadyExists, match="not empty"):
        restore(str(tmp_path / "backups"), tmp_path / "db")
    for path in (tmp_path / "backups" / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size > 10_000:
            path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(errors.Corruption, match="damaged"):
        restore(str(tmp_path / "backups"), tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backups", "db"]


def test_memory_has_nothing_to_back_up(tmp_path: Path) -> None:
    with Database(":memory:") as db, pytest.raises(errors.FailedPrecondition, match="in memory"):
        db.backup(tmp_path)


def no_room(patch: pytest.MonkeyPatch) -> None:
    failpoints.arm("backup.checkpointed", failpoints.fail(errno.ENOSPC))


def too_many_links(patch: pytest.MonkeyPatch) -> None:
    link = os.link

    def linked(source: Path, target: Path) -> None:
        if target.parent.parent.name == "segments":
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target)

    patch.setattr(os, "link", linked)


@pytest.mark.parametrize(
    ("goes_wrong", "error"), [(no_room, errors.ResourceExhausted), (too_many_links, errors.FailedPrecondition)]
)
@pytest.mark.parametrize("what", ["backup", "verify"])
def test_what_cannot_be_linked_is_no_backup_under_way(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    goes_wrong: Callable[[pytest.MonkeyPatch], None],
    error: type[errors.VectorDBError],
    what: str,
) -> None:
    with filled(tmp_path / "db") as db:
        with monkeypatch.context() as patch:
            goes_wrong(patch)
            try:
                with pytest.raises(error, match="cannot be linked"):
                    _ = db.backup(tmp_path / "backups") if what == "backup" else db.verify()
            finally:
                failpoints.disarm()
        assert list((tmp_path / "db" / "segments").glob("tmp-*")) == []
        assert db["docs"].delete(["r1"], erase=True, timeout=60) == 1
        assert db.verify().ok


def test_through_a_server_only_at_its_own_place(tmp_path: Path) -> None:
    filled(tmp_path / "db").close()
    place = tmp_path / "allowed"
    with (
        ServerProcess(tmp_path / "db", environment={"VECTORDB_BACKUP_TO": str(place)}) as server,
        connect(server.address) as db,
    ):
        before = answers(db)
        made = db.backup("nightly")
        for elsewhere in (str(tmp_path), "../up", "s3://bucket", "a/../../b"):
            with pytest.raises(errors.PermissionDenied, match="at or below"):
                db.backup(elsewhere)
    restore(str(place / "nightly"), tmp_path / "back", made.id)
    with Database(tmp_path / "back") as back:
        assert answers(back) == before
    with (
        ServerProcess(tmp_path / "db") as server,
        connect(server.address) as db,
        pytest.raises(errors.PermissionDenied, match="--backup-to"),
    ):
        db.backup("")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with connect(tmp_path / "db") as db:
        db.create_collection("docs", 2)
        db.backup(tmp_path / "backups")
    (tmp_path / "file").touch()
    with pytest.raises(errors.FailedPrecondition, match=r"cannot be restored into '.*file/back'"):
        restore(str(tmp_path / "backups"), tmp_path / "file" / "back")
