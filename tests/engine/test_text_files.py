"""Text indexes as files: after restarts, loss and damage, of other releases, in backups, and what they weigh."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from tests.damage import flip
from tests.engine.texts import fill, said
from tests.verified import verify_folder
from tests.waiting import wait_until
from vectordb.engine.care.backup import restore
from vectordb.segments import info as segment_info
from vectordb.text.analyzers import Analyzer

QUERIES = ("quick fox", "fox* lazi~", '"lazy dog" 首都', "the a of see")


def _answers(collection: Any) -> list[Any]:
    found = [said(collection.search_text(q, limit=50)) for q in QUERIES]
    return found + [said(collection.search([1.0, 1.0], exact=True, text=q, limit=50)) for q in QUERIES]


def _segment_folders(folder: Path) -> list[Path]:
    return [p for p in (folder / "segments").iterdir() if p.is_dir()]


@pytest.fixture
def closed(tmp_path: Path) -> tuple[Path, list[Any]]:
    """A closed folder with one segment and a tail, some rows dead, and what it answered."""
    with vectordb.Database(tmp_path / "db") as db:
        collection = fill(db)
        collection.upsert(["gone", "kept"], texts=["quick fox gone", "quick fox kept"])
        collection.optimize()
        collection.delete(["gone"])
        collection.update_metadata(["kept"], set={"n": 9})
        collection.upsert(["late"], texts=["a late fox"])
        answers = _answers(collection)
        assert len(_segment_folders(tmp_path / "db")) == 1
    return tmp_path / "db", answers


def _reopened(folder: Path) -> list[Any]:
    with vectordb.Database(folder) as db:
        return _answers(db["c"])


def test_after_a_restart_and_without_segments(closed: Any) -> None:
    folder, answers = closed
    assert verify_folder(folder) == []
    assert _reopened(folder) == answers
    shutil.rmtree(folder / "segments")
    assert _reopened(folder) == answers


def test_a_missing_text_index_is_made_anew_and_the_rest_stays(closed: Any, caplog: Any) -> None:
    folder, answers = closed
    (segment,) = _segment_folders(folder)
    shutil.rmtree(segment / "text")
    assert any("text.json" in problem for problem in verify_folder(folder))
    assert _reopened(folder) == answers
    assert _segment_folders(folder) == [segment]
    assert (segment / "text" / "text.bin").is_file()
    assert not caplog.records
    assert verify_folder(folder) == []


@pytest.mark.parametrize("name", ["text.bin", "text.json"])
def test_a_damaged_text_index_is_set_aside_and_made_anew(closed: Any, caplog: Any, name: str) -> None:
    folder, answers = closed
    (segment,) = _segment_folders(folder)
    file = segment / "text" / name
    flip(file, bit=2)  # of a digit of JSON it makes another digit
    assert any("text" in problem and "rebuilt" in problem for problem in verify_folder(folder))
    with caplog.at_level(logging.WARNING):
        assert _reopened(folder) == answers
    assert "checksum" in caplog.text
    (kept,) = [p for p in _segment_folders(folder) if not p.name.startswith("damaged-")]
    assert kept == segment
    caplog.clear()
    assert _reopened(folder) == answers
    assert not caplog.records


def test_segments_of_before_texts_were_indexed_open(closed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, answers = closed
    (segment,) = _segment_folders(folder)
    shutil.rmtree(segment / "text")
    path = segment / "segment.json"
    body = json.loads(path.read_bytes())["body"]
    del body["documents"]
    path.write_text(json.dumps({"checksum": segment_info._checksum(body), "body": body}))
    assert verify_folder(folder) == []
    assert _reopened(folder) == answers
    made = (segment / "text" / "text.bin").stat().st_ino
    assert _reopened(folder) == answers
    assert (segment / "text" / "text.bin").stat().st_ino == made


def test_another_release_of_the_analyzer_makes_words_anew(closed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, answers = closed
    (segment,) = _segment_folders(folder)
    made = (segment / "text" / "text.bin").stat().st_mtime_ns
    real = Analyzer.__init__

    def newer(self: Analyzer, name: str) -> None:
        real(self, name)
        self.fingerprint += " newer"

    from vectordb.text import analyzers

    monkeypatch.setattr(Analyzer, "__init__", newer)
    analyzers.analyzer.cache_clear()
    try:
        assert _reopened(folder) == answers
        assert (segment / "text" / "text.bin").stat().st_mtime_ns > made
    finally:
        monkeypatch.undo()
        analyzers.analyzer.cache_clear()


def test_segments_without_texts_carry_no_text_files(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 2)
        collection.upsert(["a", "b"], [[1, 0], [0, 1]], texts=[None, "!"])
        collection.optimize()
        assert collection.search_text("a").ids == []
        (segment,) = _segment_folders(tmp_path)
        assert not (segment / "text").exists()
    with vectordb.Database(tmp_path) as db:
        assert db["c"].search_text("a").ids == []
        assert not (segment / "text").exists()


def test_sizes_are_told(tmp_path: Path) -> None:
    sizes = []
    for name, texts in (("without", None), ("with", ["word " * 500 + str(i) for i in range(50)])):
        with vectordb.Database(tmp_path / name) as db:
            collection = db.create_collection("c", 2)
            collection.upsert([str(i) for i in range(50)], np.ones((50, 2)), texts=texts)
            tail = collection.stats().memory_bytes
            collection.optimize()
            stats = collection.stats().segments[0]
            sizes.append((tail, stats.memory_bytes, stats.disk_bytes))
            if texts:
                (segment,) = _segment_folders(tmp_path / name)
                assert stats.disk_bytes > (segment / "text" / "text.bin").stat().st_size > 25_000
    assert all(more > less + 25_000 for less, more in zip(*sizes, strict=True))


def test_long_texts_seal_the_tail(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 2, seal_bytes=10_000)
        collection.upsert(["a"], [[1.0, 1.0]], texts=["word " * 20_000])
        wait_until(lambda: collection.stats().tail_rows == 0)
        assert collection.search_text("word").ids == ["a"]


def test_a_backup_holds_the_words(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path / "db") as db:
        collection = fill(db, analyzer="english")
        collection.optimize()
        answers = _answers(collection)
        db.backup(str(tmp_path / "backups"))
    restore(str(tmp_path / "backups"), tmp_path / "restored")
    assert verify_folder(tmp_path / "restored") == []
    (segment,) = _segment_folders(tmp_path / "restored")
    assert (segment / "text" / "text.bin").is_file()
    assert _reopened(tmp_path / "restored") == answers
