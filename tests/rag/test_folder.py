"""A folder of 200 files of every kind, bad ones among them: added, added again, edited, moved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vectordb_client import Database, connect
from vectordb_client.rag import Document, KnowledgeBase, TokenChunker

BAD = {"bad/binary.txt": "is binary", "bad/broken.pdf": "cannot be read", "bad/empty.md": "is empty"}
LARGE = 20 << 20


@dataclass(frozen=True)
class Folder:
    """The folder and how many documents its good files hold."""

    path: Path
    documents: int


def _write(folder: Path, files: ModuleType, texts: list[str]) -> int:
    """200 files, three of them bad, one of 20 MB; returns the number of documents in the others."""
    documents = 0
    for number in range(196):
        text = [texts[(number + step) % len(texts)] for step in range(3)]
        place = folder / f"part{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        documents += 1
        match number % 7:
            case 0:
                files.write_pdf(place / f"{number}.pdf", text[:2], title=f"Paper {number}")
            case 1:
                files.write_docx(place / f"{number}.docx", f"Chapter {number}", text, [["a", "b"], ["1", "2"]])
            case 2:
                files.write_html(place / f"{number}.html", f"Page {number}", text, ["utf-8", "iso-8859-1"][number % 2])
            case 3:
                (place / f"{number}.md").write_text(f"# Note {number}\n\n{text[0]}\n\n## More\n\n{text[1]}\n")
            case 4:
                files.write_csv(place / f"{number}.csv", [{"id": f"r{i}", "text": one} for i, one in enumerate(text)])
                documents += 2
            case 5:
                files.write_jsonl(place / f"{number}.jsonl", [{"_id": str(i), "text": t} for i, t in enumerate(text)])
                documents += 2
            case _:
                encoding = files.ENCODINGS[number % 5]
                (place / f"{number}.txt").write_bytes("\n\n".join(text).encode(encoding, "replace"))
    (folder / "bad").mkdir()
    files.write_binary(folder / "bad" / "binary.txt")
    files.write_broken_pdf(folder / "bad" / "broken.pdf")
    (folder / "bad" / "empty.md").write_bytes(b"")
    block = "\n\n".join(texts) + "\n\n"
    (folder / "large.txt").write_text((block * (LARGE // len(block.encode()) + 1)), encoding="utf-8")
    return documents + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, files: ModuleType, data: Any) -> Folder:
    path = tmp_path_factory.mktemp("documents") / "mixed"
    texts = [document["text"] for document in data.xquad().documents]
    documents = _write(path, files, texts)
    assert len([one for one in path.rglob("*") if one.is_file()]) == 200
    assert (path / "large.txt").stat().st_size >= LARGE
    return Folder(path, documents)


def test_a_folder_of_200_files(folder: Folder, tmp_path: Path, hashing: Callable[..., Any], checks: ModuleType) -> None:
    path = tmp_path / "mixed"
    shutil.copytree(folder.path, path)
    with connect(tmp_path / "data", durability="async") as db:
        kb = KnowledgeBase(db, "kb", hashing(16), chunker=TokenChunker(1000, 0))
        report = kb.add(path, progress=False)
        assert {failure.source: failure.reason for failure in report.failed}.keys() == BAD.keys()
        for failure in report.failed:
            assert BAD[failure.source] in failure.reason
        assert len(report.added) == folder.documents
        assert report.chunks > 2_000
        checks.check_whole(kb)
        second_page = kb.retrieve("Theatre", where={"field": "page", "op": "==", "value": 2})[0]
        assert second_page.metadata["source"].endswith(".pdf")

        before = checks.versions(db)
        again = kb.add(path, progress=False)
        assert checks.versions(db) == before
        assert (again.added, again.updated, again.removed, again.chunks) == ((), (), (), 0)
        assert sorted(again.unchanged) == sorted(report.added)
        assert again.failed == report.failed

        _edit(path)
        changed = kb.add(path, progress=False)
        assert changed.updated == ("part0/4.csv#r1", "part3/3.md")
        assert changed.added == ("part0/4.csv#new",)
        assert sorted(changed.removed) == ["part0/4.csv#r2", "part1/9.html"]
        checks.check_whole(kb)
        assert kb.document("part1/9.html") is None
        assert [one for one, (text, _) in checks.contents(db).items() if "zebra" in (text or "")] == ["part3/3.md#0"]


def _edit(path: Path) -> None:
    note = path / "part3" / "3.md"
    note.write_text(note.read_text() + "\nAn edited sentence about a zebra.\n")
    (path / "part1" / "9.html").unlink()
    table = path / "part0" / "4.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], "r1,changed", "new,row"]) + "\n")


def test_a_moved_root_keeps_its_documents(
    tmp_path: Path, memory: Database, hashing: Callable[..., Any], checks: ModuleType
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "a.md").write_text("# One\n\nText.")
    (old / "b.txt").write_text("More text.")
    kb = KnowledgeBase(memory, "kb", hashing())
    kb.add(old, progress=False)
    shutil.move(old, new)
    report = kb.add(new, progress=False)
    assert (sorted(report.unchanged), report.chunks, report.removed) == (["a.md", "b.txt"], 0, ())
    checks.check_whole(kb)
    (new / "a.md").unlink()
    assert kb.add(new, progress=False).removed == ("a.md",)
    assert [entry.id for entry in kb.documents()] == ["b.txt"]


def test_a_file_is_one_document_however_it_is_reached(
    tmp_path: Path, memory: Database, hashing: Callable[..., Any], checks: ModuleType
) -> None:
    (tmp_path / "notes" / "sub").mkdir(parents=True)
    file = tmp_path / "notes" / "sub" / "a.txt"
    file.write_text("text")
    kb = KnowledgeBase(memory, "kb", hashing())
    assert kb.add(file, progress=False).added == ("a.txt",)
    assert kb.add(tmp_path / "notes", progress=False).unchanged == ("a.txt",)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("another text")
    report = kb.add(tmp_path / "other", progress=False)
    assert "has the same id as" in report.failed[0].reason
    (tmp_path / "notes" / "sub" / "a.txt").unlink()
    assert kb.add(tmp_path / "notes", progress=False).removed == ("a.txt",)
    assert kb.add(tmp_path / "other", progress=False).added == ("a.txt",)
    checks.check_whole(kb)


def test_what_cannot_be_read_any_more_is_kept(
    tmp_path: Path, memory: Database, hashing: Callable[..., Any], files: ModuleType
) -> None:
    path = tmp_path / "a.pdf"
    files.write_pdf(path, ["A page about rivers."])
    (tmp_path / "b.txt").write_text("text")
    kb = KnowledgeBase(memory, "kb", hashing())
    kb.add(tmp_path, progress=False)
    files.write_broken_pdf(path)
    report = kb.add(tmp_path, progress=False)
    assert (report.failed[0].source, report.removed) == ("a.pdf", ())
    assert kb.retrieve("rivers")[0].document_id == "a.pdf"
    report = kb.add([tmp_path / "gone.txt", tmp_path / "b.txt"], progress=False, max_file_bytes=3)
    assert [failure.reason for failure in report.failed] == [
        "has 4 bytes, more than max_file_bytes=3",
        "does not exist",
    ]


def test_a_file_whose_document_was_replaced_is_read_again(
    tmp_path: Path, memory: Database, hashing: Callable[..., Any], checks: ModuleType
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"What the file {name} says.")
    kb = KnowledgeBase(memory, "kb", hashing())
    kb.add(tmp_path, progress=False)
    assert kb.add(Document("a.txt", "What the caller says."), progress=False).updated == ("a.txt",)
    report = kb.add(tmp_path, progress=False)
    assert (report.updated, report.unchanged) == (("a.txt",), ("b.txt",))
    document = kb.document("a.txt")
    assert document is not None
    assert document.text == "What the file a.txt says."
    assert kb.add(tmp_path, progress=False).unchanged == ("a.txt", "b.txt")
    checks.check_whole(kb)
    # Also where the caller's document is the last word: the folder does not take it away.
    kb.add(Document("a.txt", "What the caller says."), progress=False)
    (tmp_path / "a.txt").unlink()
    assert kb.add(tmp_path, progress=False).removed == ()
    assert {entry.id for entry in kb.documents()} == {"a.txt", "b.txt"}
