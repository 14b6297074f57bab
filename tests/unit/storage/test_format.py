"""The FORMAT file: made once, checked at every open, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vectordb.errors import Corruption, FailedPrecondition
from vectordb.storage.format import check_format, open_format, read_format


def test_created_once(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert check_format(folder)
    assert not folder.exists()
    assert open_format(folder, release="0.1.0")
    assert (folder / "FORMAT").read_text() == '{"vectordb": 1, "release": "0.1.0"}\n'
    assert [path.name for path in folder.iterdir()] == ["FORMAT"]
    assert not open_format(folder)
    assert not open_format(folder, create=False)
    assert read_format(folder) == 1


def test_leftovers_of_an_unfinished_creation_are_taken_over(tmp_path: Path) -> None:
    for name in ("LOCK", "FORMAT.new", ".gitkeep"):
        (tmp_path / name).touch()
    (tmp_path / "lost+found").mkdir()
    assert open_format(tmp_path)
    assert not open_format(tmp_path)


def test_newer_and_older_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "FORMAT").write_text('{"vectordb": 2, "something": "new"}')
    with pytest.raises(
        FailedPrecondition, match="has format 2, this release reads format 1: install a newer"
    ) as caught:
        open_format(tmp_path)
    assert (caught.value.format, caught.value.supported) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["FORMAT"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", '{"vectordb": "1"}', '{"vectordb": 0}', '{"other": 1}', "\xff\xfe"]
)
def test_unreadable_format(tmp_path: Path, text: str) -> None:
    (tmp_path / "FORMAT").write_bytes(text.encode("latin-1"))
    with pytest.raises(Corruption, match="FORMAT' cannot be read"):
        open_format(tmp_path)


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "zoo").mkdir()
    with pytest.raises(FailedPrecondition, match=r"not a database .* holds 'notes.txt' and 1 more") as caught:
        open_format(tmp_path)
    assert caught.value.file == "notes.txt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "zoo"]


def test_lost_format_file_is_not_written_anew(tmp_path: Path) -> None:
    open_format(tmp_path)
    (tmp_path / "rocksdb").mkdir()
    (tmp_path / "FORMAT").unlink()
    with pytest.raises(FailedPrecondition, match="restore FORMAT"):
        open_format(tmp_path)


def test_files_in_the_place_of_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(FailedPrecondition, match="is a file; name a folder"):
        open_format(file)
    open_format(tmp_path / "db")
    (tmp_path / "db" / "rocksdb").write_text("x")
    with pytest.raises(FailedPrecondition, match="rocksdb' is a file where"):
        open_format(tmp_path / "db")


def test_without_create(tmp_path: Path) -> None:
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(FailedPrecondition, match="holds no database"):
            open_format(folder, create=False)
        with pytest.raises(FailedPrecondition, match="no FORMAT file"):
            read_format(folder)
    assert list(tmp_path.iterdir()) == []
