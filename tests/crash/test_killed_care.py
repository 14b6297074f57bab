"""SIGKILL at each failpoint of repairs and erasures: nothing is lost by it, and done again they come to their end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vectordb
from tests.damage import flip
from vectordb import errors, failpoints
from vectordb.engine.care.repair import repair_folder
from vectordb.engine.care.verify import verify
from vectordb.storage import rocks
from vectordb.storage.base import Family

DIM, ROWS = 16, 600
VECTORS = np.random.default_rng(3).standard_normal((ROWS, DIM)).astype(np.float32)
DEAD = [0, 299, ROWS - 1]
IDS = [f"{'needle' if i in DEAD else 'id'}-{i:05d}" for i in range(ROWS)]
NEEDLES = [b"needle-", b"secretword", *(VECTORS[i].tobytes() for i in DEAD)]
REPAIRS = [n for n in failpoints.NAMES if n.startswith("repair.")]
ERASURES = [n for n in failpoints.NAMES if n.startswith("erase.")]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in tables that are not compressed, and in three segments."""
    folder = tmp_path_factory.mktemp("sound") / "db"
    with pytest.MonkeyPatch.context() as patch:
        none = rocks.rocksdict.DBCompressionType.none
        patch.setattr(rocks.rocksdict, "DBCompressionType", SimpleNamespace(none=none, lz4=none, zstd=none))
        with vectordb.Database(folder, scrub_bytes_per_second=0) as db:
            docs = db.create_collection("docs", DIM, index="hnsw", metric="l2", max_segment_bytes=DIM * 4 * 200)
            texts = [f"{'secretword' if i in DEAD else 'common'} word{i}" for i in range(ROWS)]
            for start in range(0, ROWS, 200):
                part = slice(start, start + 200)
                docs.upsert(IDS[part], VECTORS[part], [{"n": i} for i in range(ROWS)[part]], texts[part])
                docs.optimize()
            assert len(docs.stats().segments) == 3
            storage: Any = db._backend._storage  # type: ignore[attr-defined]
            storage.flush()
            for family in Family:
                storage.compact(family, b"", b"\xff" * 8)
    return folder


@pytest.fixture
def folder(sound: Path, fast_path: Path) -> Path:
    return Path(shutil.copytree(sound, fast_path / "db"))


def holders(folder: Path) -> set[str]:
    """The files that hold anything of what is to be erased."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)) for p in files if any(needle in p.read_bytes() for needle in NEEDLES)}


def lacking(folder: Path, erased: bool) -> list[str]:
    """What does not stand in the folder as it was written; the records to erase may be gone, all or none."""
    with vectordb.Database(folder, scrub_bytes_per_second=0) as db:
        docs = db["docs"]
        found = {r.id: r for r in docs.scan(include=("metadata", "text", "vector"))}
        wrong = []
        for i, id_ in enumerate(IDS):
            if i in DEAD and erased:
                continue
            record = found.get(id_)
            if record is None or not np.array_equal(record.vector, VECTORS[i]) or record.metadata != {"n": i}:
                wrong.append(id_)
        there = sum(IDS[i] in found for i in DEAD)
        if erased and there not in (0, len(DEAD)):
            wrong.append(f"{there} of the erased")
        if docs.count() != len(found) or docs.search(VECTORS[7], limit=1, exact=True).ids != [IDS[7]]:
            wrong.append("count or search")
        if docs.search_text("word8").ids != [IDS[8]]:
            wrong.append("words")
    return wrong


@pytest.mark.rounds(1, 20)
@pytest.mark.parametrize("name", ERASURES)
def test_killed_while_erasing(name: str, rounds: Any, nursery: Any, sound: Path, fast_path: Path) -> None:
    """No receipt before the end, and none for bytes that are still there."""
    for round in rounds:
        folder = Path(shutil.copytree(sound, fast_path / f"db{round.number}"))
        assert any(path.startswith("rocksdb/") for path in holders(folder))
        assert any(path.startswith("segments/") for path in holders(folder))
        ids = [IDS[i] for i in DEAD]
        child = nursery.fork("erase", f"{name}=kill", folder=str(folder), ids=ids)
        assert child.says("receipt") is None
        assert child.wait() == -9, f"{name} was not reached: {nursery.errors()}"
        assert lacking(folder, erased=True) == []
        # It was deleted durably before; what is left is to erase it.
        again = nursery.fork("erase", "", folder=str(folder), ids=[])
        assert again.says("receipt") is not None
        assert holders(folder) == set()
        assert again.wait() == 0
        assert lacking(folder, erased=True) == []
        assert verify(folder).problems == ()
        shutil.rmtree(folder)


def _damage_cache(folder: Path) -> None:
    for path in (folder / "segments").glob("*/vectors.f32"):
        flip(path)


def _damage_storage(folder: Path) -> None:
    """What storage can lose without losing a record: its own catalogue."""
    for path in (folder / "rocksdb").glob("MANIFEST-*"):
        path.unlink()


def _damage_format(folder: Path) -> None:
    (folder / "FORMAT").write_text("x")


CASES = [
    ("repair.format", _damage_format, 1),
    ("repair.moved", _damage_format, 1),
    *(("repair.moved", _damage_cache, at) for at in (1, 2)),
    *(("repair.moved", _damage_storage, at) for at in (1, 2, 3)),
    *((name, _damage_storage, 1) for name in REPAIRS if name not in ("repair.format", "repair.moved")),
]


def test_every_failpoint_of_a_repair_is_among_the_cases() -> None:
    assert {name for name, _, _ in CASES} == set(REPAIRS)


@pytest.mark.rounds(1, 20)
@pytest.mark.parametrize(("name", "damage", "at"), CASES)
def test_killed_while_repairing(
    name: str, damage: Callable[[Path], None], at: int, rounds: Any, nursery: Any, sound: Path, fast_path: Path
) -> None:
    """What was acknowledged is there after the next repair, wherever the one before ended, also after two such ends."""
    for round in rounds:
        folder = Path(shutil.copytree(sound, fast_path / f"db{round.number}"))
        damage(folder)
        child = nursery.fork("repair", f"{name}=kill@{at}", folder=str(folder))
        assert child.wait() == -9, f"{name} was not reached: {nursery.errors()}"
        if (folder / "MAINTENANCE").exists():
            with pytest.raises(errors.FailedPrecondition, match="in the middle of a `vectordb repair`"):
                vectordb.Database(folder)
            # Once more, in what is left to do.
            child = nursery.fork("repair", f"{round.rng.choice(REPAIRS)}=kill", folder=str(folder))
            assert child.wait() in (0, -9)
        done = nursery.fork("repair", "", folder=str(folder))
        assert done.says("rebuilt") is not None, nursery.errors()
        assert done.wait() == 0
        assert not (folder / "MAINTENANCE").exists()
        assert verify(folder).problems == ()
        assert lacking(folder, erased=False) == []
        report = repair_folder(folder)
        assert (report.rebuilt, report.problems) == ((), ())
        shutil.rmtree(folder)


def test_a_folder_whose_damaged_caches_were_moved_halfway_opens(nursery: Any, folder: Path) -> None:
    _damage_cache(folder)
    child = nursery.fork("repair", "repair.moved=kill@2", folder=str(folder))
    assert child.wait() == -9
    assert lacking(folder, erased=False) == []
    assert verify(folder).problems == ()
