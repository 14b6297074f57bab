"""Indexes that are built in a child process: what it does is told, and what it does to itself harms nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from tests.waiting import wait_until
from vectordb import errors
from vectordb.index import apart, registry
from vectordb.index.base import BuildCancelled, BuildOptions, CannotExtend
from vectordb.metric import Metric

DIM = 8
ROWS = 60


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((ROWS, DIM)).astype(np.float32)


def job(folder: Path, vectors: np.ndarray, **facts: Any) -> apart.Job:
    path = apart.write_vectors(folder / "vectors", vectors, lambda: False)
    return apart.Job("wayward", path, vectors.shape, Metric.L2, folder / "index", **facts)


def options(mode: str = "fine", note: Path | None = None, **more: Any) -> BuildOptions:
    return BuildOptions(params={"mode": mode, "note": "" if note is None else str(note)}, **more)


def load(job: apart.Job, vectors: np.ndarray) -> Any:
    return registry.get_kind("wayward").load(job.out, vectors, Metric.L2, options())


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _noted(note: Path) -> tuple[int, int]:
    """Process id and niceness that the build wrote down."""
    wait_until(lambda: note.exists() and note.read_text().endswith("\n"))
    pid, nice = note.read_text().split()
    return int(pid), int(nice)


def test_another_process_builds_niced_and_reports(wayward: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    seen: list[float] = []
    work = job(tmp_path, vectors)
    apart.build(work, options(note=tmp_path / "note", progress=seen.append))
    index = load(work, vectors)
    pid, nice = _noted(tmp_path / "note")
    assert index.built_by == pid != os.getpid()
    assert nice >= 10
    assert seen[0] == 0.25
    wait_until(lambda: not _alive(pid))


def test_it_extends(wayward: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    half = job(tmp_path, vectors[:30])
    apart.build(half, options())
    (tmp_path / "more").mkdir()
    longer = job(tmp_path / "more", vectors, base=half.out, base_rows=30)
    apart.build(longer, options())
    assert load(longer, vectors).is_extended
    (tmp_path / "unlucky").mkdir()
    with pytest.raises(CannotExtend, match="seven"):
        apart.build(job(tmp_path / "unlucky", vectors[:37], base=half.out, base_rows=30), options())


@pytest.mark.parametrize(
    ("mode", "error", "text"),
    [
        ("abort", errors.Internal, "SIGABRT"),
        ("segfault", errors.Internal, "SIGSEGV"),
        ("exit", errors.Internal, "ended with code 3"),
        ("killed", errors.ResourceExhausted, "memory runs out"),
        ("refuses", errors.InvalidArgument, "do not suit"),
        ("fails", errors.Internal, "ZeroDivisionError: by nought"),
        ("memory", errors.ResourceExhausted, "not enough memory"),
    ],
)
def test_what_goes_wrong_there_is_a_typed_error_here(
    wayward: Path, vectors: np.ndarray, tmp_path: Path, mode: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        apart.build(job(tmp_path, vectors), options(mode))
    assert type(caught.value) is error
    if mode == "refuses":
        assert caught.value.row == 3
    if mode in ("abort", "segfault"):
        assert "talking to standard output" in str(caught.value), "what it printed helps to find out why"


def test_an_answer_given_at_the_last_moment_is_read(
    wayward: Path, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sudden(subprocess.Popen[bytes]):
        """Says nothing until somebody asks whether it has ended, and then answers and ends before he knows."""

        def poll(self) -> int | None:
            if self.returncode is None and self.stdin is not None and not self.stdin.closed:
                self.stdin.write(b"go\n")
                self.wait()
            return super().poll()

    def start() -> subprocess.Popen[bytes]:
        code = "import sys; all(line != 'go\\n' for line in sys.stdin); print('{\"done\": true}')"
        pipe = subprocess.PIPE
        return Sudden([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)

    monkeypatch.setattr(apart, "_start", start)
    apart.build(job(tmp_path, vectors), options())


@pytest.mark.parametrize("mode", ["slow", "stuck"])
def test_a_cancelled_build_is_killed(wayward: Path, vectors: np.ndarray, tmp_path: Path, mode: str) -> None:
    note = tmp_path / "note"
    with pytest.raises(BuildCancelled):
        apart.build(job(tmp_path, vectors), options(mode, note, cancelled=lambda: note.exists() and _noted(note)))
    assert not _alive(_noted(note)[0])


def test_cancelled_before_it_starts_nothing(wayward: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(BuildCancelled):
        apart.build(job(tmp_path, vectors), options(note=tmp_path / "note", cancelled=lambda: True))
    assert not (tmp_path / "note").exists()


def test_without_an_interpreter_the_error_says_so(
    wayward: Path, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(errors.FailedPrecondition, match="interpreter"):
        apart.build(job(tmp_path, vectors), options())
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(errors.FailedPrecondition, match="cannot start"):
        apart.build(job(tmp_path, vectors), options())


@pytest.mark.parametrize("mode", ["slow", "stuck"])
def test_it_dies_with_its_parent(wayward: Path, vectors: np.ndarray, tmp_path: Path, mode: str) -> None:
    note = tmp_path / "note"
    np.save(tmp_path / "vectors.npy", vectors)
    program = f"""
import sys, numpy as np
sys.path.insert(0, {str(wayward)!r})
import vectordb
db = vectordb.Database(sys.argv[1])
c = db.create_collection("c", {DIM}, index={{"kind": "wayward", "mode": {mode!r}, "note": {str(note)!r}}})
v = np.load({str(tmp_path / "vectors.npy")!r})
c.upsert([str(i) for i in range(len(v))], v)
c.optimize()
"""
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "db")])
    try:
        pid, _ = _noted(note)
        assert _alive(pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not _alive(pid), 2.0)


@pytest.fixture(params=["disk", "memory"])
def database(request: pytest.FixtureRequest, wayward: Path, tmp_path: Path) -> Any:
    where = ":memory:" if request.param == "memory" else tmp_path / "db"
    with vectordb.Database(where) as db:
        yield db


def _filled(db: Any, vectors: np.ndarray, mode: str, note: Path | None = None) -> Any:
    spec = {"kind": "wayward", "mode": mode, "note": "" if note is None else str(note)}
    collection = db.create_collection("c", DIM, metric="l2", index=spec)
    collection.upsert([str(i) for i in range(len(vectors))], vectors)
    return collection


def test_a_collection_is_indexed_extended_and_searched(database: Any, vectors: np.ndarray) -> None:
    collection = _filled(database, vectors[:40], "fine")
    collection.optimize()
    live = database._backend._live("c")
    first = live.segments[0].built.index
    assert first.built_by != os.getpid()
    assert collection.search(vectors[3], 1)[0].id == "3"
    collection.upsert([str(i) for i in range(40, ROWS)], vectors[40:])
    collection.optimize()
    assert [s.built.index.is_extended for s in live.segments] == [True]
    result = collection.search(vectors[50], 1)
    assert result[0].id == "50"
    assert result.plan[0].strategy == "wayward"
    # Where the first index cannot be extended it is built anew.
    collection.upsert([f"more-{i}" for i in range(7)], vectors[:7])
    collection.optimize()
    assert [s.built.index.is_extended for s in live.segments] == [False]


@pytest.mark.parametrize("mode", ["segfault", "abort", "refuses"])
def test_a_failed_build_is_an_error_in_the_stats(database: Any, vectors: np.ndarray, mode: str) -> None:
    collection = _filled(database, vectors, mode)
    with pytest.raises(errors.VectorDBError):
        collection.optimize()
    optimizer = collection.stats().optimizer
    assert optimizer.state == "failed"
    assert {"segfault": "SIGSEGV", "abort": "SIGABRT", "refuses": "do not suit"}[mode] in optimizer.error
    # Everything else goes on.
    assert collection.search(vectors[3], 1)[0].id == "3"
    collection.upsert(["new"], vectors[:1])
    assert collection.count() == ROWS + 1


def test_closing_during_a_build_takes_no_time(database: Any, vectors: np.ndarray, tmp_path: Path) -> None:
    collection = _filled(database, vectors, "stuck", tmp_path / "note")
    collection.optimize(wait=False)
    pid, _ = _noted(tmp_path / "note")
    wait_until(lambda: collection.stats().optimizer.progress == 0.25)
    assert collection.stats().optimizer.state == "indexing"
    started = time.monotonic()
    database.close()
    assert time.monotonic() - started < 1.0
    assert not _alive(pid)


def test_dropping_the_collection_ends_its_build(database: Any, vectors: np.ndarray, tmp_path: Path) -> None:
    collection = _filled(database, vectors, "slow", tmp_path / "note")
    collection.optimize(wait=False)
    pid, _ = _noted(tmp_path / "note")
    database.delete_collection("c")
    wait_until(lambda: not _alive(pid), 5.0)


def test_a_scratch_folder_goes_with_its_owner() -> None:
    scratch = apart.Scratch()
    (scratch.path / "file").write_bytes(b"x")
    path = scratch.path
    del scratch
    assert not path.exists()
