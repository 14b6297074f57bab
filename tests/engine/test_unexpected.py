"""Exceptions that nobody expected: their text, which may hold anything, stays in the log."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb.engine import jobs, reindexer
from vectordb.engine.care import scrub
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect

SECRET = "the key of /home/somebody is hunter2"
ROWS = np.eye(4, dtype=np.float32)


def fails(*_: Any, **__: Any) -> Any:
    raise KeyError(SECRET)


def told(error: errors.VectorDBError) -> str:
    return f"{error.message} {dict(error.fields)}"


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """A client's view of an engine, and the engine."""
    from vectordb.engine.database import Engine

    engine = Engine(tmp_path / "db", scrub_bytes_per_second=0)
    server = Server(lambda: engine, load({"listen": "127.0.0.1:0", "drain_seconds": 0.5}, environment={}))
    with connect(server.start(), retries=0) as db:
        yield db, engine
    server.stop()


def test_a_commits(served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    db, engine = served
    docs = db.create_collection("docs", 4)
    monkeypatch.setattr(engine._storage, "sync", fails)
    with pytest.raises(errors.Internal, match="outcome is unknown: KeyError; the log has it") as first:
        docs.upsert(["a"], ROWS[:1])
    with pytest.raises(errors.FailedPrecondition, match="KeyError; the log has it") as second:
        docs.upsert(["b"], ROWS[:1])
    monkeypatch.undo()
    assert SECRET not in told(first.value) + told(second.value) + str(db.info())
    assert SECRET in caplog.text


def test_an_optimizers(served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    db, _ = served
    docs = db.create_collection("docs", 4)
    docs.upsert(["a"], ROWS[:1])
    monkeypatch.setattr(jobs, "seal", fails)
    with pytest.raises(errors.Internal, match="optimizing failed: KeyError; the log has it") as caught:
        docs.optimize()
    assert SECRET not in told(caught.value) + str(docs.stats())
    assert docs.stats().optimizer.error == "optimizing failed: KeyError; the log has it"
    assert SECRET in caplog.text


def test_a_reindexs(served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    db, _ = served
    docs = db.create_collection("docs", 4, index="flat")
    docs.upsert(list("abcd"), ROWS)
    docs.optimize()
    monkeypatch.setattr(reindexer, "build_index", fails)
    with pytest.raises(errors.Internal, match="the reindex failed: KeyError; the log has it") as caught:
        docs.reindex("hnsw")
    assert SECRET not in told(caught.value) + str(docs.stats())
    assert docs.stats().optimizer.error == "the reindex failed: KeyError; the log has it"
    assert SECRET in caplog.text


def test_a_scrubbers(served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    db, engine = served
    docs = db.create_collection("docs", 4)
    scrubber = scrub.Scrubber.__new__(scrub.Scrubber)
    vars(scrubber).update(vars(engine._scrubber))
    monkeypatch.setattr(scrubber, "scrub", fails)
    scrubber._attempt(engine._live("docs"))
    assert docs.stats().scrub.error == "KeyError; the log has it"
    assert SECRET in caplog.text


def test_what_the_system_says_is_no_secret() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", f"/home/{SECRET}")
    assert errors.described(full) == "OSError (No space left on device); the log has it"
    ours = errors.ResourceExhausted("no space left for a segment", limit="disk")
    assert errors.described(ours) == ours.message
    assert errors.kept(full, "building failed").message == f"building failed: {errors.described(full)}"
