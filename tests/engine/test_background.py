"""The optimizer beside readers and writers, deadlines, forks, and closing in time."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from tests.waiting import wait_until
from vectordb import col, errors
from vectordb.engine import jobs, reindexer, work
from vectordb.engine.optimizer import Optimizer
from vectordb.index.base import BuildCancelled
from vectordb.segments import vectors as matrices
from vectordb.storage import keys
from vectordb.storage.base import Family
from vectordb.storage.keys import Kind

DIM = 8


def _rows(db: Any, family: Family, kind: Kind, name: str = "c") -> int:
    live = db._backend._live(name)
    return sum(1 for _ in live.storage.scan(family, *keys.kind_range(live.number, kind)))


def test_whether_a_job_is_cancelled_is_never_asked_under_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What answers may look at the segments itself, under the lock: asked within, it would wait for itself for ever."""
    free: list[bool] = []

    def asked(_: Any, work: Any, __: Any) -> Any:
        def cancelled() -> bool:
            lock = work.live.lock
            free.append(lock.acquire(timeout=5))
            if free[-1]:
                lock.release()
            return False

        return cancelled

    monkeypatch.setattr(Optimizer, "_cancelled_or_outrun", asked)
    with vectordb.Database(tmp_path) as db:
        index = {"kind": "hnsw", "m": 4}
        collection = db.create_collection("c", DIM, index=index, seal_bytes=6_000, index_bytes=1, merge_factor=2)
        rows = np.random.default_rng(1).standard_normal((200, DIM))
        for batch in range(8):
            collection.upsert([f"{batch}-{i}" for i in range(200)], rows)
            wait_until(lambda: collection.stats().tail_rows == 0)
        wait_until(lambda: len(collection.stats().segments) <= 2)
        wait_until(lambda: collection.stats().indexed_rows == 1_600)
    assert free
    assert all(free)


def test_answers_stay_right_while_everything_is_rebuilt(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index={"kind": "hnsw", "m": 4}, seal_bytes=6_000, merge_factor=2)
        anchor = np.full((1, DIM), 9.0, np.float32)
        collection.upsert(["anchor"], anchor, [{"n": -1}])
        stop, faults = threading.Event(), []

        def write(worker: int) -> None:
            rng = np.random.default_rng(worker)
            for round_ in range(40):
                ids = [f"{worker}-{i}" for i in rng.integers(0, 300, 40)]
                ids = list(dict.fromkeys(ids))
                collection.upsert(ids, rng.standard_normal((len(ids), DIM)), [{"n": round_}] * len(ids))
                if round_ % 5 == 0:
                    collection.delete(where=col("n") == round_ - 3)

        def read() -> None:
            while not stop.is_set():
                result = collection.search(anchor[0], limit=3, exact=True)
                if result[0].id != "anchor" or not result.complete:
                    faults.append(result)
                if collection.count(col("n") == -1) != 1:
                    faults.append("count")

        writers = [threading.Thread(target=write, args=(w,)) for w in range(3)]
        readers = [threading.Thread(target=read) for _ in range(2)]
        for thread in writers + readers:
            thread.start()
        for thread in writers:
            thread.join()
        stop.set()
        for thread in readers:
            thread.join()
        assert faults == []
        collection.optimize()
        stats = collection.stats()
        assert (stats.deleted, stats.tail_rows, len(stats.segments)) == (0, 0, 1)
        assert stats.rows == collection.count() == sum(1 for _ in collection.scan())


def test_a_held_scan_keeps_its_rows_and_then_they_leave_storage(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM)
        ids = [str(i) for i in range(500)]
        collection.upsert(ids, np.random.default_rng(0).standard_normal((500, DIM)), [{"n": i} for i in range(500)])
        collection.update_metadata(where=col("n") < 100, set={"m": 1})
        scan = collection.scan(page_size=100)
        first = next(scan)
        collection.update_metadata(where=col("n") >= 400, set={"m": 2})
        collection.delete(where=col("n") < 300)
        collection.optimize()
        assert collection.stats().deleted == 0
        time.sleep(1.5)  # the sweeper looks once a second
        rest = list(scan)
        found = {r.id: r.metadata for r in [first, *rest]}
        assert found == {str(i): {"n": i, "m": 1} if i < 100 else {"n": i} for i in range(500)}
        del scan, rest, first
        wait_until(lambda: _rows(db, Family.ROWS, Kind.PAYLOAD) == 200)
        wait_until(lambda: _rows(db, Family.VECTORS, Kind.VECTOR) == 200)
        for kind in (Kind.TOMBSTONE, Kind.OVERLAY, Kind.SUPERSEDED):
            wait_until(lambda kind=kind: _rows(db, Family.META, kind) == 0)
        assert len([p for p in (tmp_path / "segments").iterdir() if p.is_dir()]) == 1


def test_a_failed_build_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index="hnsw")
        collection.upsert([str(i) for i in range(200)], np.random.default_rng(0).standard_normal((200, DIM)))

        def full(*_: Any, **__: Any) -> Any:
            raise errors.ResourceExhausted("no space left for a segment", limit="disk")

        monkeypatch.setattr(jobs, "seal", full)
        with pytest.raises(errors.ResourceExhausted, match="no space"):
            collection.optimize()
        assert collection.stats().optimizer.state == "failed"
        assert "no space" in str(collection.stats().optimizer.error)
        assert len(collection.search(np.ones(DIM), limit=200)) == 200
        monkeypatch.undo()
        collection.optimize()
        stats = collection.stats()
        assert (stats.indexed_rows, stats.optimizer.state, stats.optimizer.error) == (200, "idle", None)


class Graph:
    """What a build works on."""


@pytest.mark.parametrize("by", ["optimize", "reindex"])
def test_the_error_that_is_kept_of_a_failed_build_keeps_nothing_of_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    graphs: list[weakref.ref[Graph]] = []
    fails = threading.Event()

    def build_index(*_: Any, **__: Any) -> Any:
        graph = Graph()
        graphs.append(weakref.ref(graph))
        assert fails.wait(10)
        raise errors.ResourceExhausted("the disk is full", limit="disk", got=[graph.__class__.__name__])

    monkeypatch.setattr(jobs if by == "optimize" else reindexer, "build_index", build_index)
    # pytest keeps what is logged, with its tracebacks.
    monkeypatch.setattr(logging.getLogger("vectordb.engine"), "disabled", True)
    with vectordb.Database(tmp_path) as db:
        index = "hnsw" if by == "optimize" else "flat"
        collection = db.create_collection("c", DIM, index=index, index_bytes=1)
        collection.upsert([f"r{i}" for i in range(200)], np.random.default_rng(1).standard_normal((200, DIM)))
        if by == "reindex":
            collection.optimize()
        told: list[errors.VectorDBError] = []

        def wait() -> None:
            with pytest.raises(errors.ResourceExhausted) as failed:
                collection.reindex("hnsw") if by == "reindex" else collection.optimize()
            told.append(failed.value)

        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: bool(graphs))
        backend: Any = db._backend
        wait_until(lambda: by == "reindex" or backend._optimizer._works[1].asked == 2)
        fails.set()
        for thread in threads:
            thread.join()
        work, live = backend._optimizer._works[1], backend._live("c")
        kept = work.error if by == "optimize" else live.reindex_error
        assert kept.__traceback__ is None
        assert kept.__context__ is None
        assert all(error is not kept and error.message == kept.message == "the disk is full" for error in told)
        assert all(dict(error.fields) == {"limit": "disk", "got": ["Graph"]} for error in told)
        assert told[0] is not told[1]
        gc.collect()
        assert [graph() for graph in graphs] == [None] * len(graphs)


@pytest.mark.parametrize("by", ["optimize", "reindex"])
def test_a_segment_is_read_as_one_with_an_index_only_from_the_moment_that_it_serves_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Also where the build comes to nothing once it has an index to calibrate."""
    monkeypatch.setattr(matrices, "_LEAST", 0)
    calibrated: list[tuple[bool, int]] = []
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index="hnsw" if by == "optimize" else "flat")
        backend: Any = db._backend
        live = backend._live("c")

        def all_mapped() -> bool:
            vectors = live.segments[0].data.vectors
            return vectors.resident_bytes == vectors.nbytes

        def calibrate(view: Any, *_: Any) -> Any:
            calibrated.append((all_mapped(), view.vector_count))
            if len(calibrated) < 3:
                raise BuildCancelled
            return None

        monkeypatch.setattr(jobs if by == "optimize" else reindexer, "calibrate", calibrate)
        collection.upsert([f"r{i}" for i in range(200)], np.random.default_rng(1).standard_normal((200, DIM)))
        collection.optimize()
        if by == "reindex":
            assert all_mapped()
            collection.reindex("hnsw")
        assert calibrated == [(True, 200)] * 3
        assert not all_mapped()
        collection.reindex("flat")
        assert all_mapped()
    with vectordb.Database(tmp_path) as db:
        collection = db["c"]
        live = db._backend._live("c")  # type: ignore[attr-defined]
        assert all_mapped()
        collection.reindex("hnsw")
        assert not all_mapped()
    with vectordb.Database(tmp_path) as db:
        live = db._backend._live("c")  # type: ignore[attr-defined]
        assert not all_mapped()


def test_closing_does_not_wait_for_a_build(tmp_path: Path) -> None:
    db = vectordb.Database(tmp_path)
    collection = db.create_collection("c", 128, index={"kind": "hnsw", "ef_construction": 800})
    rows = np.random.default_rng(0).standard_normal((30_000, 128)).astype(np.float32)
    collection.upsert([str(i) for i in range(len(rows))], rows)
    collection.optimize(wait=False)
    wait_until(lambda: collection.stats().optimizer.state == "indexing" and collection.stats().optimizer.progress > 0)
    assert collection.search(rows[5], limit=1)[0].id == "5"
    started = time.monotonic()
    db.close()
    assert time.monotonic() - started < 5.0
    with vectordb.Database(tmp_path) as again:
        assert again["c"].count() == len(rows)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with vectordb.Database(":memory:") as db:
        collection = db.create_collection("large", 256, index="flat", seal_bytes=1 << 40)
        rng = np.random.default_rng(1)
        for start in range(0, 150_000, 50_000):
            rows = rng.standard_normal((50_000, 256), dtype=np.float32)
            ids = [str(i) for i in range(start, start + 50_000)]
            collection.upsert(ids, rows, [{"n": i} for i in range(start, start + 50_000)])
        yield collection


def test_a_deadline_stops_an_exact_search(large: Any) -> None:
    queries = np.random.default_rng(2).standard_normal((200, 256))
    started = time.perf_counter()
    with pytest.raises(errors.DeadlineExceeded) as caught:
        large.search_batch(queries, exact=True, timeout=0.02)
    assert caught.value.timeout == 0.02
    assert time.perf_counter() - started < 1.0
    busy = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - busy < 0.15
    partial = large.search(queries[0], exact=True, timeout=0.002, allow_partial=True)
    assert not partial.complete
    assert partial.incomplete_reason == "deadline"
    assert 0.0 <= partial.searched_fraction < 1.0
    assert large.search(queries[0], exact=True, timeout=30.0).complete


def test_a_forked_child_cannot_use_its_parents_database(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM)
        collection.upsert(["a"], np.ones((1, DIM)))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                collection.upsert(["b"], np.ones((1, DIM)))
                said = b"no error"
            except errors.Closed:
                said = b"closed"
            except BaseException as error:
                said = repr(error).encode()
            os.write(writer, said)
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 1000) == b"closed"
        os.close(reader)
        os.close(writer)
        collection.upsert(["c"], np.ones((1, DIM)))
        assert collection.count() == 2


def test_a_graph_that_the_awaited_merge_would_throw_away_is_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three segments: the graph of the first is in the making when ``optimize`` is called."""
    begun, built = threading.Event(), []

    def build_index(segment: Any, store: Any, kind: Any, options: Any, *rest: Any, **more: Any) -> Any:
        if not begun.is_set():
            begun.set()
            wait_until(options.cancelled)
        built.append(segment.rows)
        return original(segment, store, kind, options, *rest, **more)

    original = jobs.build_index
    monkeypatch.setattr(jobs, "build_index", build_index)
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index={"kind": "hnsw", "m": 4}, seal_bytes=3_200)
        for start in range(0, 300, 100):
            ids = [str(i) for i in range(start, start + 100)]
            collection.upsert(ids, np.random.default_rng(start).standard_normal((100, DIM)))
            wait_until(lambda: collection.stats().tail_rows == 0)
        assert begun.wait(20.0)
        collection.optimize()
        stats = collection.stats()
        assert [(s.rows, s.index) for s in stats.segments] == [(300, "hnsw")]
        assert (stats.indexed_rows, stats.optimizer.error) == (300, None)
        # The first was cancelled within the build, before it came to anything.
        assert built == [100, 300]
    with vectordb.Database(tmp_path) as db:
        assert db["c"].stats().indexed_rows == 300


def test_the_tail_is_sealed_while_no_index_can_be_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise errors.ResourceExhausted("no memory for an index")

    rng = np.random.default_rng(6)
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index="hnsw", seal_bytes=4 * DIM * 100)
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "build_index", refuse)
            for start in range(0, 600, 150):
                collection.upsert([f"i{n}" for n in range(start, start + 150)], rng.standard_normal((150, DIM)))
                wait_until(lambda: collection.stats().tail_rows == 0, 10)
                wait_until(lambda: collection.stats().optimizer.error is not None, 10)
        assert collection.stats().optimizer.error == "no memory for an index"


def test_a_tail_that_could_not_be_sealed_is_tried_again_and_the_error_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "RETRY_SECONDS", 0.2)

    def refuse(*args: object, **more: object) -> None:
        raise errors.ResourceExhausted("no space for a segment")

    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, seal_bytes=4 * DIM * 100)
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "seal", refuse)
            collection.upsert([f"i{n}" for n in range(150)], np.random.default_rng(6).standard_normal((150, DIM)))
            wait_until(lambda: collection.stats().optimizer.error == "no space for a segment", 10)
        wait_until(lambda: collection.stats().tail_rows == 0, 10)
        wait_until(lambda: collection.stats().optimizer.error is None, 10)
        assert collection.stats().optimizer.state == "idle"
