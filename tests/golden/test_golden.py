"""Folders of every format, as the releases that wrote them left them: opened today they answer as they did then."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vectordb import Database
from vectordb.engine.care.upgrade import upgrade
from vectordb.engine.care.verify import verify
from vectordb.storage.keys import FORMAT_VERSION

HERE = Path(__file__).parent
ARCHIVES = sorted(HERE.glob("v*.tar.xz"))


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The script that made the newest."""
    from tests.golden import make

    return make


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the folder, and what it said."""
    with tarfile.open(request.param) as tar:
        tar.extractall(tmp_path / "db", filter="data")
    return tmp_path / "db", json.loads(request.param.with_suffix("").with_suffix(".json").read_text())


def test_there_is_one_for_every_format() -> None:
    assert [path.name for path in ARCHIVES] == [f"v{version}.tar.xz" for version in range(1, FORMAT_VERSION + 1)]


def test_an_old_folder_is_sound_and_answers_as_it_did(golden: tuple[Path, dict[str, Any]], make: ModuleType) -> None:
    folder, said = golden
    upgrade(folder)
    report = verify(folder)
    assert report.problems == ()
    assert {checked.name for checked in report.collections} == said.keys()
    with Database(folder, scrub_bytes_per_second=0) as db:
        assert db.list_collections() == sorted(said)
        for name, then in said.items():
            now = json.loads(json.dumps(make.answers(db, name)))
            # An approximate index may break ties otherwise on another processor.
            for mine, theirs in zip(now.pop("usual"), then.pop("usual"), strict=True):
                assert len(set(mine) & set(theirs)) >= 8, name
            assert now == then, name
            # And it goes on from there.
            db[name].upsert(["r1", "new"], [[1.0] * make.DIM] * 2)
            db[name].optimize()
            assert db[name].get(["new"])[0].version == now["counts"][3] + 1
    assert verify(folder).problems == ()


def test_segments_of_before_they_held_metadata_get_it_by_merging(tmp_path: Path, make: ModuleType) -> None:
    with tarfile.open(HERE / "v1.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    assert list(tmp_path.glob("segments/*/ids.utf8"))
    assert not list(tmp_path.glob("segments/*/metadata.*"))

    def check(docs: Any) -> None:
        # With texts, metadata is read from storage.
        stored = {r.id: (r.metadata, r.version) for r in docs.scan(include=("metadata", "text"))}
        assert {r.id: (r.metadata, r.version) for r in docs.scan(include=("metadata",))} == stored
        hits = docs.search([1.0] * make.DIM, limit=200)
        assert len(hits) == len(stored) - 1  # one has no vector
        assert {h.id: h.metadata for h in hits} == {h.id: stored[h.id][0] for h in hits}

    with Database(tmp_path, scrub_bytes_per_second=0) as db:
        for name in db.list_collections():
            check(db[name])
            db[name].optimize()
            check(db[name])
    folders = [path.parent for path in tmp_path.glob("segments/*/segment.json")]
    assert len(folders) == len(make.COLLECTIONS)
    assert all((path / "metadata.msgpack").is_file() and (path / "metadata.bounds").is_file() for path in folders)
    assert verify(tmp_path).problems == ()
