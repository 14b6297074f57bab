"""Indexes that there is no memory to load stay where they are until there is, or until nobody wants them any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectordb import Database
from vectordb.engine.capacity import resources
from vectordb.engine.capacity.resources import Resources

DIM, ROWS = 8, 300
HNSW = {"kind": "hnsw", "m": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A database of one segment with an index."""
    with Database(tmp_path / "db") as db:
        docs = db.create_collection("docs", DIM, index=HNSW)
        docs.upsert([f"r{i}" for i in range(ROWS)], np.random.default_rng(0).standard_normal((ROWS, DIM)))
        docs.optimize()
    return tmp_path / "db"


def indexes(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "segments").glob("*/index-*"))


def opened(folder: Path, patch: pytest.MonkeyPatch) -> Database:
    """With memory to load no index, and none to build one."""
    patch.setattr(Resources, "may_load", lambda *_: False)
    patch.setattr(resources, "build_bytes", lambda *_: 1 << 40)
    db = Database(folder, memory_limit="64 MiB")
    (segment,) = db._backend._live("docs").segments  # type: ignore[attr-defined]
    assert segment.built is None
    assert db["docs"].stats().indexed_rows == 0
    return db


def test_an_index_that_does_not_fit_is_loaded_by_the_opening_that_has_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (made,) = indexes(folder)
    for _ in range(2):  # the second opening would collect what the first one no longer named
        with monkeypatch.context() as patch, opened(folder, patch) as db:
            assert {plan.strategy for plan in db["docs"].search(np.ones(DIM)).plan} == {"exact", "empty"}
            assert db.verify().ok
    assert "raise it and open the database again" in caplog.text
    assert indexes(folder) == [made]
    with Database(folder) as db:
        segment = db._backend._live("docs").segments[0]  # type: ignore[attr-defined]
        assert segment.built.info.name == made
        assert db["docs"].stats().indexed_rows == ROWS


@pytest.mark.parametrize(
    "ends",
    [
        lambda docs: docs.reindex("flat"),
        lambda docs: docs.reindex({"kind": "hnsw", "m": 6}),
        lambda docs: docs.optimize(),
        lambda docs: docs.delete(["r1"], erase=True),
    ],
    ids=["another form without an index", "another index", "built anew", "what it may have learned from is erased"],
)
def test_an_index_that_was_not_loaded_goes_with_its_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ends: Callable[[Any], object]
) -> None:
    (made,) = indexes(folder)
    with monkeypatch.context() as patch, opened(folder, patch) as db:
        patch.undo()
        ends(db["docs"])
        assert made not in indexes(folder)
        assert db.verify().ok
    with Database(folder) as db:
        assert db["docs"].stats().indexed_rows == (0 if db["docs"].index.kind == "flat" else db["docs"].count())


def test_an_erasure_forgets_an_index_that_was_not_loaded_also_where_nothing_of_its_segment_is_erased(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = indexes(folder)
    with monkeypatch.context() as patch, opened(folder, patch) as db:
        db["docs"].optimize(erase=True)
        assert indexes(folder) == []
        assert not list((folder / "segments").glob("damaged-*"))
    with Database(folder) as db:
        db["docs"].optimize()
        assert made not in indexes(folder)
