"""The system refuses something for a while (disk space, files, memory): what callers are told, and what is left."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import errors
from vectordb.engine.care.verify import verify
from vectordb.index.registry import get_kind
from vectordb.segments import build, store

ROWS = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
IDS = [f"i{n}" for n in range(len(ROWS))]


def _refusing(number: int) -> Callable[..., Any]:
    def refuse(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("wrong", [{"min_free_disk": "much"}, {"memory_limit": "little"}, {"max_dim": 0}])
def test_a_wrong_option_leaves_the_folder_free(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        vectordb.Database(tmp_path, **wrong)
    vectordb.Database(tmp_path).close()


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_at_opening_is_told_and_leaves_the_folder_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _refusing(errno.ENOSPC))
        with pytest.raises(errors.ResourceExhausted, match="no space is left"):
            vectordb.Database(tmp_path)
    vectordb.Database(tmp_path).close()


def _folder(path: Path) -> Path:
    """A database with a collection whose segment has an index."""
    with vectordb.Database(path) as db:
        collection = db.create_collection("c", 8, index="hnsw")
        collection.upsert(IDS, ROWS, texts=["some words"] * len(IDS))
        collection.optimize()
    return path


def _segments(folder: Path) -> list[str]:
    """Folders of segments, damaged ones among them."""
    return sorted(path.name for path in (folder / "segments").iterdir() if path.is_dir())


def test_a_stamp_that_the_disk_does_not_take_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder(tmp_path)
    before = _segments(folder)
    for stamp in (folder / "segments").glob("*.stamp"):
        stamp.unlink()
    write = Path.write_text

    def refuse(path: Path, *args: Any, **more: Any) -> int:
        return _refusing(errno.ENOSPC)() if path.name.startswith("tmp-") else write(path, *args, **more)

    monkeypatch.setattr(Path, "write_text", refuse)
    assert verify(folder, 0).problems == ()
    with vectordb.Database(folder) as db:
        assert db["c"].stats().indexed_rows == len(IDS)
        db["c"].upsert(["new"], ROWS[:1])
        db["c"].optimize()
    assert len(_segments(folder)) == len(before) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("name", ["segment.json", "vectors.f32", "index.json", "index.bin", "text.json", "text.bin"])
def test_what_cannot_be_read_for_want_of_files_or_memory_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    folder = _folder(tmp_path)
    before = _segments(folder)
    for stamp in (folder / "segments").glob("*.stamp"):
        stamp.unlink()
    read, opened = Path.read_bytes, Path.open

    def refuse(path: Path, original: Callable[..., Any], *args: Any, **more: Any) -> Any:
        return _refusing(number)() if path.name == name else original(path, *args, **more)

    with vectordb.Database(folder) as db:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path: refuse(path, read))
            patch.setattr(Path, "open", lambda path, *args, **more: refuse(path, opened, *args, **more))
            with pytest.raises(errors.ResourceExhausted, match="cannot be read"):
                db["c"].count()
        assert _segments(folder) == before
        assert db["c"].stats().indexed_rows == len(IDS)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: refuse(path, read))
        patch.setattr(Path, "open", lambda path, *args, **more: refuse(path, opened, *args, **more))
        with pytest.raises(errors.ResourceExhausted, match="cannot be read"):
            verify(folder, 0)


@pytest.mark.parametrize("made", ["segment", "index"])
def test_what_was_published_and_cannot_be_opened_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 8, index="hnsw")
        collection.upsert(IDS, ROWS)
        with monkeypatch.context() as patch:
            if made == "segment":
                patch.setattr(build, "map_segment", _refusing(errno.EMFILE))
            else:
                patch.setattr(type(get_kind("hnsw")), "load", _refusing(errno.EMFILE))
            for _ in range(2):
                with pytest.raises(errors.VectorDBError):
                    collection.optimize()
        assert len(_segments(tmp_path)) == (made == "index")
        assert not [path for path in (tmp_path / "segments").glob("*/*") if path.is_dir()]
        collection.optimize()
        assert collection.stats().indexed_rows == len(IDS)


def test_a_folder_that_is_not_there_any_more_is_told(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "db")
    db = vectordb.Database(folder)
    try:
        other = db.create_collection("open", 8)
        folder.rename(tmp_path / "moved")
        with pytest.raises(errors.FailedPrecondition, match="collection 'c' cannot be opened: No such file"):
            db["c"].count()
        with pytest.raises(errors.FailedPrecondition, match="No such file"):
            other.stats()
    finally:
        (tmp_path / "moved").rename(folder)
        db.close()


def test_what_cannot_be_removed_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(_folder(tmp_path)) as db:
        collection = db["c"]
        other = db.create_collection("other", 8)
        other.upsert(IDS, ROWS)
        other.optimize()
        with monkeypatch.context() as patch:
            patch.setattr(store, "remove_tree", _refusing(errno.EROFS))
            for kind in ("ivf", "hnsw"):
                done = threading.Thread(target=collection.reindex, args=[kind], daemon=True)
                done.start()
                done.join(30)
                assert not done.is_alive()
                assert collection.stats().index.kind == kind
            collection.delete(IDS[:10])
            collection.optimize()
            assert collection.stats().optimizer.state == "idle"
            with pytest.raises(errors.FailedPrecondition, match=r"deleted but not erased: .* cannot be removed"):
                collection.delete(IDS[10:20], erase=True)
            db.delete_collection("other")
            assert db.list_collections() == ["c"]
        assert len(_segments(tmp_path)) == 4
    with vectordb.Database(tmp_path) as db:
        assert len(_segments(tmp_path)) == 1
        assert db["c"].count() == len(IDS) - 20


@pytest.mark.parametrize("name", ["vectors.f32", "index.bin", "storage"])
def test_what_cannot_be_checked_in_the_background_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened = Path.open

    def refuse(path: Path, *args: Any, **more: Any) -> Any:
        return _refusing(errno.EMFILE)() if path.name == name else opened(path, *args, **more)

    def full(*args: object) -> None:
        raise RuntimeError("IO error: While open a file for random read: 1.sst: Too many open files")

    with vectordb.Database(_folder(tmp_path), scrub_bytes_per_second=0) as db:
        engine: Any = db._backend
        live = engine._live("c")
        monkeypatch.setattr(Path, "open", refuse)
        if name == "storage":
            monkeypatch.setattr(engine._storage, "_cursor", full)
        engine._scrubber._attempt(live)
        scrub = db["c"].stats().scrub
        assert (scrub.passes, scrub.damaged, scrub.error) == (0, 0, None)
        monkeypatch.undo()
        engine._scrubber._attempt(live)
        assert db["c"].stats().scrub.passes == 1
