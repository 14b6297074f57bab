"""Sources that are not what they seem: folders that cannot be listed, pipes, documents that cannot be stored."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vectordb_client import Database, connect
from vectordb_client.rag import AddReport, Document, KnowledgeBase, Section, WholeDocument


@pytest.fixture
def kb(memory: Database, hashing: Callable[..., Any]) -> KnowledgeBase:
    return KnowledgeBase(memory, "kb", hashing())


def test_what_lies_in_a_folder_that_cannot_be_listed_is_kept(
    kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "a.txt").write_text("The first text.")
    (tmp_path / "b.txt").write_text("The second text.")
    (tmp_path / "c.txt").write_text("The third text.")
    kb.add(tmp_path, progress=False)
    (tmp_path / "c.txt").unlink()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = kb.add(tmp_path, progress=False)
    assert (report.unchanged, report.removed) == (("b.txt",), ("c.txt",))
    assert [str(failure) for failure in report.failed] == [
        f"{tmp_path / 'closed'} cannot be opened: Permission denied; what is known of it is kept"
    ]
    assert sorted(entry.id for entry in kb.documents()) == ["b.txt", "closed/a.txt"]
    monkeypatch.undo()
    assert kb.add(tmp_path, progress=False).unchanged == ("b.txt", "closed/a.txt")


def test_a_pipe_is_not_waited_for(kb: KnowledgeBase, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "text.txt").write_text("A text.")
    reports = list[AddReport]()
    adding = threading.Thread(target=lambda: reports.append(kb.add(tmp_path, progress=False)), daemon=True)
    adding.start()
    adding.join(20.0)
    assert [(report.added, [str(one) for one in report.failed]) for report in reports] == [
        (("text.txt",), ["pipe.txt is no regular file"])
    ]


@pytest.mark.parametrize("source", ["What is meant is a text. " * 200, "x" * 300, "a\0b"])
def test_a_text_in_place_of_a_path_does_not_exist(kb: KnowledgeBase, source: str) -> None:
    report = kb.add(source, progress=False)
    assert [(one.source, one.reason) for one in report.failed] == [(source, "does not exist")]


def test_a_path_that_may_not_be_seen_is_said_to_be_closed(
    kb: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exists(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)
    report = kb.add(tmp_path / "a.txt", progress=False)
    assert [one.reason for one in report.failed] == ["cannot be opened: Permission denied; what is known of it is kept"]


def test_a_database_in_the_folder_is_no_document(hashing: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A text.")
    with connect(tmp_path / "data") as db:
        report = KnowledgeBase(db, "kb", hashing()).add(tmp_path, progress=False)
        assert list((tmp_path / "data" / "rocksdb").glob("*.log"))
    assert (report.added, report.failed, report.skipped) == (("text.txt",), (), ())


def test_a_file_that_cannot_be_chunked_is_told_each_time(
    memory: Database, hashing: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "long.txt").write_text("word " * 100)
    rows = "".join(f'{{"id": "{name}", "text": "{name * times}"}}\n' for name, times in (("a", 200), ("b", 1)))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "short.txt").write_text("word")
    kb = KnowledgeBase(memory, "kb", hashing(max_tokens=40), chunker=WholeDocument("error"))
    first, second = (kb.add(tmp_path, progress=False) for _ in range(2))
    assert first.added == ("rows.jsonl#b", "short.txt")
    assert sorted(second.unchanged) == ["rows.jsonl#b", "short.txt"]
    for report in (first, second):
        assert [one.source for one in report.failed] == ["long.txt", "rows.jsonl#a"]


def test_a_chunk_beyond_what_a_record_holds_fails_alone(memory: Database, hashing: Callable[..., Any]) -> None:
    kb = KnowledgeBase(memory, "kb", hashing(max_tokens=None), chunker=WholeDocument())
    documents = [
        Document("small", "A text."),
        Document("large", "\u00e4" * (9 << 20)),
        Document("other", "A text too."),
    ]
    report = kb.add(documents, progress=False)
    assert report.added == ("small", "other")
    assert [str(one) for one in report.failed] == [
        "large has a chunk of 18874368 bytes, at most 16777216 are allowed; split it"
    ]


def test_sections_may_hold_instants(kb: KnowledgeBase, hashing: Callable[..., Any]) -> None:
    told = datetime(2026, 1, 31, 12, tzinfo=UTC)
    document = Document("talk", "What was said.", {"day": told}, (Section(0, {"told": told, "by": {"at": [told]}}),))
    assert kb.add(document, progress=False).added == ("talk",)
    assert kb.document("talk") == document
    assert kb.retrieve("What was said?")[0].metadata == {"day": told, "told": told, "by": {"at": [told]}}
    assert kb.add(document, progress=False).unchanged == ("talk",)
    kb.migrate(hashing(name="other"), progress=False)
    assert kb.document("talk") == document
