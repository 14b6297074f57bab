"""Commits: groups, what readers see meanwhile, repeated calls."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col, errors, failpoints
from vectordb.engine import results as results_module
from vectordb.engine.draft import Draft
from vectordb.storage import codec

ONES = np.ones((1, 4), np.float32)


def _engine(db: vectordb.Database) -> Any:
    return db._backend


def test_many_writers_share_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        storage = _engine(db)._storage
        syncs = []
        real = storage.sync

        def slow_sync() -> int:
            syncs.append(time.perf_counter())
            time.sleep(0.01)
            return real()

        monkeypatch.setattr(storage, "sync", slow_sync)
        threads = [
            threading.Thread(target=lambda w=w: [collection.upsert([f"{w}-{i}"], ONES) for i in range(10)])
            for w in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert collection.count() == 160
        assert collection.stats().version == 160
        assert len(syncs) < 60


def test_a_failing_call_leaves_its_group_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        collection.upsert(["there"], ONES)
        gate, storage = threading.Event(), _engine(db)._storage
        real = storage.sync
        monkeypatch.setattr(storage, "sync", lambda: (gate.wait(10), real())[1])
        outcomes: dict[str, Any] = {}

        def call(name: str, method: Any, ids: list[str]) -> None:
            try:
                outcomes[name] = method(ids, np.ones((len(ids), 4))).version
            except errors.VectorDBError as error:
                outcomes[name] = type(error)

        threads = [threading.Thread(target=call, args=("first", collection.upsert, ["x"]))]
        threads[0].start()
        time.sleep(0.1)  # the committer waits in its sync; what comes now is one group
        for name, method, ids in (
            ("conflict", collection.insert, ["new", "there"]),
            ("winner", collection.insert, ["race"]),
            ("loser", collection.insert, ["race"]),
            ("fine", collection.upsert, ["y"]),
        ):
            threads.append(threading.Thread(target=call, args=(name, method, ids)))
            threads[-1].start()
            time.sleep(0.05)
        gate.set()
        for thread in threads:
            thread.join()
        assert outcomes == {
            "first": 2,
            "conflict": errors.AlreadyExists,
            "winner": 3,
            "loser": errors.AlreadyExists,
            "fine": 4,
        }
        assert sorted(r.id for r in collection.scan()) == ["race", "there", "x", "y"]


def test_nobody_reads_what_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        collection.upsert(["a", "b"], np.eye(4)[:2], [{"n": 1}, {"n": 2}])
        gate, reached, storage = threading.Event(), threading.Event(), _engine(db)._storage
        real = storage.sync
        monkeypatch.setattr(storage, "sync", lambda: (reached.set(), gate.wait(10), real())[2])

        def seen() -> Any:
            return (
                [(r.id, r.metadata, r.version) for r in collection.get(["a", "b", "c"])],
                [(r.id, r.metadata) for r in collection.scan()],
                [(h.id, h.metadata) for h in collection.search(np.ones(4), exact=True)],
                (collection.count(), collection.count(col("n") >= 5), collection.stats().version),
            )

        before = seen()
        done: list[Any] = []
        records = [{"id": "a", "vector": [0, 0, 1, 0], "metadata": {"n": 9}}, {"id": "c", "vector": [1, 1, 0, 0]}]
        writer = threading.Thread(target=lambda: done.append(collection.upsert(records)))
        writer.start()
        assert reached.wait(5)
        assert seen() == before
        assert not done
        gate.set()
        writer.join()
        assert [r.id for r in collection.get(["a", "b", "c"])] == ["a", "b", "c"]
        assert collection.get("a")[0].metadata == {"n": 9}


def test_a_group_becomes_visible_to_all_readers_at_once(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        collection.upsert(["a"], ONES, [{"n": 1}])
        seen: list[Any] = []

        def look() -> None:
            seen.append([hit.metadata["n"] for hit in collection.search(np.ones(4), exact=True)])
            seen.append([record.metadata["n"] for record in collection.get(["a"])])

        with failpoints.armed("commit.published", look):
            collection.upsert(["a"], ONES, [{"n": 2}])
        assert seen == [[2], [2]]


def test_a_call_refused_because_of_an_unsynced_one_is_told_after_the_sync(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        told: list[bool] = []
        gate, reached = threading.Event(), threading.Event()

        def insert() -> None:
            try:
                collection.insert(["a"], ONES)
            except errors.AlreadyExists:
                told.append(gate.is_set() and bool(collection.get(["a"])))

        # The first call is at its sync while the others gather to a group; the second group waits at its own.
        with failpoints.armed("storage.sync", lambda: (reached.set(), gate.wait(10)), times=None):
            first = threading.Thread(target=lambda: collection.upsert(["x"], ONES))
            first.start()
            assert reached.wait(10)
            threads = [threading.Thread(target=insert) for _ in range(3)]
            for thread in threads:
                thread.start()
            while len(_engine(db)._committer._waiting) < 3:
                time.sleep(0.001)
            gate.set()
            for thread in [first, *threads]:
                thread.join()
        assert told == [True, True]


def test_what_was_before_a_group_is_added_to_by_each_call_and_never_gathered_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        collection.upsert(["a"], ONES)
        seen: list[tuple[int, dict[bytes, Any]]] = []
        write_rows = Draft.write_rows

        def noted(draft: Draft, *args: Any) -> None:
            before = draft.before
            write_rows(draft, *args)
            assert draft.before is before
            seen.append((id(draft), dict(before)))

        monkeypatch.setattr(Draft, "write_rows", noted)
        gate, reached = threading.Event(), threading.Event()
        with failpoints.armed("storage.sync", lambda: (reached.set(), gate.wait(10))):
            threads = [threading.Thread(target=collection.upsert, args=(["x"], ONES))]
            threads[0].start()
            assert reached.wait(10)
            for number in range(3):
                threads.append(threading.Thread(target=collection.upsert, args=(["a", f"b{number}"], np.ones((2, 4)))))
                threads[-1].start()
                while len(_engine(db)._committer._waiting) <= number:
                    time.sleep(0.001)
            gate.set()
            for thread in threads:
                thread.join()
        group = [before for draft, before in seen if draft == seen[-1][0]]
        assert [len(before) for before in group[-3:]] == [2, 3, 4]
        assert {before[b"a"] for before in group[-3:]} == {(0, 1)}, "where it was before the first of them"


@pytest.mark.parametrize("defect", [MemoryError(), RecursionError("too deep"), ValueError("no msgpack")])
def test_a_call_whose_check_breaks_fails_alone_and_nothing_is_written_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: Exception
) -> None:
    with vectordb.Database(tmp_path) as db:
        collection, other = db.create_collection("c", 4), db.create_collection("other", 4)
        gate, reached = threading.Event(), threading.Event()
        outcomes: dict[str, Any] = {}
        kill = Draft._kill

        def broken(draft: Draft, *args: Any) -> None:
            kill(draft, *args)
            raise defect

        def call(name: str, write: Any) -> None:
            try:
                outcomes[name] = write()
            except errors.VectorDBError as error:
                outcomes[name] = error

        # The last steps of a delete break, after it changed its draft; the calls beside it are of its group.
        collection.upsert(["x", "y"], np.ones((2, 4)))
        with failpoints.armed("storage.sync", lambda: (reached.set(), gate.wait(10)), times=None):
            threads = [threading.Thread(target=call, args=("first", lambda: other.upsert(["x"], ONES).version))]
            threads[0].start()
            assert reached.wait(10)
            monkeypatch.setattr(Draft, "_kill", broken)
            for name, write in (
                ("before", lambda: collection.insert(["a"], ONES, idempotency_key="a").version),
                ("broken", lambda: collection.delete(["x"], idempotency_key="d")),
                ("after", lambda: collection.insert(["b"], ONES).version),
                ("again", lambda: collection.insert(["a"], ONES, idempotency_key="a").version),
                ("elsewhere", lambda: other.upsert(["y"], ONES).version),
            ):
                waiting = len(_engine(db)._committer._waiting)
                threads.append(threading.Thread(target=call, args=(name, write)))
                threads[-1].start()
                while len(_engine(db)._committer._waiting) == waiting:
                    time.sleep(0.001)
            gate.set()
            for thread in threads:
                thread.join()
        monkeypatch.undo()
        error = outcomes.pop("broken")
        assert type(error) is errors.Internal
        assert error.message.endswith("nothing was written")
        assert outcomes == {"first": 1, "before": 2, "after": 3, "again": 2, "elsewhere": 2}
        assert db.info().read_only_reason is None
        assert sorted(r.id for r in collection.scan()) == ["a", "b", "x", "y"]
        assert collection.delete(["x"], idempotency_key="d") == 1, "the key of the broken call is free"
    with vectordb.Database(tmp_path) as db:
        assert sorted(r.id for r in db["c"].scan()) == ["a", "b", "y"]


def test_repeated_calls_are_answered_once_across_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        first = collection.insert(["a"], ONES, idempotency_key="k")
        assert collection.insert(["a"], ONES, idempotency_key="k") == first
        assert collection.delete(["a"], idempotency_key="d") == 1
        assert collection.delete(["a"], idempotency_key="d") == 1
    with vectordb.Database(tmp_path) as db:
        collection = db["c"]
        assert collection.insert(["a"], ONES, idempotency_key="k") == first
        assert collection.count() == 0
        now = time.time()
        monkeypatch.setattr(results_module.time, "time", lambda: now + results_module.KEPT_SECONDS + 1)
        assert collection.insert(["a"], ONES, idempotency_key="k").version > first.version


def test_a_result_of_before_there_were_fingerprints_answers_any_call() -> None:
    kept = results_module.IdempotentResult(time.time() + 60, 3, 5)
    read = codec.decode_result(codec.encode_result(kept))
    assert read == kept
    results_module.Key.of("k", "k", b"12345678").check(read)


def test_one_of_many_wins_a_version(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 4)
        version = collection.upsert(["a"], ONES).version
        wins: list[int] = []

        def attempt() -> None:
            try:
                wins.append(collection.upsert(["a"], ONES, if_version=version).version)
            except errors.FailedPrecondition:
                return

        threads = [threading.Thread(target=attempt) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1


def test_async_durability_does_not_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(tmp_path, durability="async") as db:
        relaxed = db.create_collection("relaxed", 4)
        strict = db.create_collection("strict", 4, durability="sync")
        syncs: list[int] = []
        storage = _engine(db)._storage
        real = storage.sync
        monkeypatch.setattr(storage, "sync", lambda: (syncs.append(1), real())[1])
        relaxed.upsert(["a"], ONES)
        assert not syncs
        strict.upsert(["a"], ONES)
        assert syncs
    with vectordb.Database(tmp_path) as db:
        assert db["relaxed"].count() == 1


def test_a_get_waits_for_a_commit_no_longer_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectordb.engine.reads._LOCK_FREE_TRIES", 0)
    with vectordb.Database(":memory:") as db:
        docs = db.create_collection("docs", 2)
        docs.upsert(["a"], [[1.0, 0.0]])
        gate = _engine(db)._live("docs").commit_gate
        with gate, pytest.raises(errors.DeadlineExceeded, match=r"a commit under way until its 0\.01 s"):
            docs.get(["a"], timeout=0.01)
        assert [record.id for record in docs.get(["a"], timeout=5.0)] == ["a"]
        assert [record.id for record in docs.get(["a"])] == ["a"]


@pytest.mark.parametrize("folder", [True, False])
def test_who_reads_while_a_collection_is_deleted_is_told_and_gets_no_half_of_it(folder: bool, tmp_path: Path) -> None:
    with vectordb.Database(tmp_path if folder else ":memory:") as db:
        docs = db.create_collection("docs", 4)
        docs.upsert(["a", "b"], np.eye(4)[:2], [{"n": 1}, {"n": 2}], texts=["one", "two"])
        told: list[Any] = []

        def look() -> None:
            for read in (
                lambda: docs.get(["a"], include=["vector"]),
                lambda: docs.search(np.ones(4), include=["vector"]),
                lambda: docs.search_batch(np.ones((2, 4)), include=["vector"]),
                lambda: docs.search(np.ones(4), include=["text"]),
                lambda: list(docs.scan(include=["vector"])),
            ):
                try:
                    told.append(read())
                except errors.CollectionNotFound as error:
                    told.append(error)

        with failpoints.armed("delete.written", look):
            db.delete_collection("docs")
        assert [type(answer) for answer in told] == [errors.CollectionNotFound] * 5
