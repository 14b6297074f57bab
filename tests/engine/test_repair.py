"""``vectordb repair`` on folders damaged in many ways: what can be read is kept, what is lost is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.damage import flip
from vectordb import Database, errors
from vectordb.engine.care import repair as repairing
from vectordb.engine.care.repair import repair_folder
from vectordb.engine.care.verify import verify
from vectordb.storage.base import Family
from vectordb.storage.rocks import RocksStorage

DIM = 32
ROWS = 3_000
VECTORS = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
IDS = [f"id-{i:05d}" for i in range(ROWS)]
LIVE = set(IDS[10:]) | {"late"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of all families at the bottom, smaller ones above them, and a log."""
    folder = tmp_path_factory.mktemp("sound") / "db"
    with Database(folder, scrub_bytes_per_second=0) as db:
        docs = db.create_collection("docs", DIM, index="hnsw", metric="l2")
        docs.upsert(IDS, VECTORS, [{"n": i} for i in range(ROWS)], [f"word{i} common" for i in range(ROWS)])
        docs.optimize()
        docs.delete(IDS[:10])
        docs.update_metadata(IDS[40:50], set={"n": -1})
        storage = db._backend._storage  # type: ignore[attr-defined]
        storage.flush()
        for family in Family:
            storage.compact(family, b"", b"\xff" * 8)
        docs.upsert(["late"], VECTORS[:1])
        storage.flush()
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "db"))


def table(folder: Path, family: Family, *, largest: bool = True) -> Path:
    """A table of one family."""
    storage = RocksStorage(folder / "rocksdb", read_only=True)
    kind = {Family.ROWS: b"P", Family.VECTORS: b"V"}.get(family)
    found = [t for t in storage.tables() if (t["end_key"][4:5] == kind if kind else t["end_key"][4:5] not in b"PV")]
    storage.close()
    chosen = (max if largest else min)(found, key=lambda t: t["size"])
    return folder / "rocksdb" / str(chosen["name"])


def content_of(folder: Path) -> dict[str, bytes]:
    """All but RocksDB's chatter and the stamps of full checks, which a copied folder gets anew."""
    names = (p for p in folder.rglob("*") if p.is_file() and p.name[:3] != "LOG" and p.suffix != ".stamp")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in names}


def repaired(folder: Path) -> Any:
    """Repairs after a look that must change nothing; checks what must hold whatever was damaged."""
    before = content_of(folder)
    planned = repair_folder(folder, dry_run=True)
    assert planned.dry_run
    assert content_of(folder) == before
    if planned.lost:
        assert repair_folder(folder).dry_run, "nothing is lost in silence"
        assert content_of(folder) == before
    done = repair_folder(folder, accept_loss=True)
    assert (done.dry_run, done.problems) == (False, ())
    assert [str(lost) for lost in done.lost] == [str(lost) for lost in planned.lost]
    for name in done.quarantined:
        assert (folder / name).exists()
    assert verify(folder).problems == ()
    return done


def records(folder: Path) -> dict[str, Any]:
    with Database(folder, scrub_bytes_per_second=0) as db:
        (name,) = db.list_collections()
        found = {r.id: r for r in db[name].scan(include=("metadata", "text", "vector"))}
        for id_, record in found.items():
            i = int(id_[3:]) if id_ != "late" else 0
            if record.vector is not None:
                assert np.array_equal(record.vector, VECTORS[i])
            if id_ != "late":
                assert record.metadata["n"] == (-1 if 40 <= i < 50 else i) or name.startswith("recovered")
                assert record.text == f"word{i} common"
        assert db[name].search(VECTORS[500], limit=1, exact=True).ids == [IDS[500]]
        assert db[name].count() == len(found)
        db[name].upsert(["new"], VECTORS[:1])
        return found


def test_a_sound_folder_is_left_alone(folder: Path) -> None:
    before = content_of(folder)
    assert repair_folder(folder).as_json() == {
        "ok": True, "path": str(folder), "dry_run": False, "rebuilt": (), "quarantined": (), "lost": (), "problems": (),
    }  # fmt: skip
    assert content_of(folder) == before


@pytest.mark.parametrize("file", ["vectors.f32", "segment.json", "text/text.bin", "index-*/index.bin"])
def test_damaged_caches_are_moved_aside_and_made_anew(folder: Path, file: str) -> None:
    (path,) = (folder / "segments").glob(f"*/{file}")
    flip(path)
    done = repaired(folder)
    assert done.lost == ()
    assert len(done.quarantined) == 1
    assert records(folder).keys() == LIVE


def test_lost_vectors_are_named_and_their_records_kept(folder: Path) -> None:
    flip(table(folder, Family.VECTORS))
    (lost,) = repaired(folder).lost
    assert (lost.kind, lost.collection) == ("vectors", "docs")
    assert 0 < lost.count == len(lost.ids) < 400
    found = records(folder)
    assert found.keys() == LIVE
    assert {id_ for id_, r in found.items() if r.vector is None} == set(lost.ids)


def test_lost_records_are_named(folder: Path) -> None:
    flip(table(folder, Family.ROWS))
    lost = {lost.kind: lost for lost in repaired(folder).lost}
    assert 0 < lost["records"].count == len(lost["records"].ids) < 1_000
    assert records(folder).keys() == LIVE - set(lost["records"].ids)


def test_a_damaged_table_hides_nothing_but_itself(folder: Path) -> None:
    """A scan over overlapping tables fails for all keys before the damage."""
    flip(table(folder, Family.ROWS, largest=False), 0.01)
    lost = {lost.kind: lost for lost in repaired(folder).lost}
    assert lost["records"].ids == ("late",)
    assert records(folder).keys() == LIVE - {"late"}


def test_lost_entries_of_ids_are_made_from_the_rows(folder: Path) -> None:
    flip(table(folder, Family.META))
    assert {lost.kind for lost in repaired(folder).lost} <= {"versions"}
    assert LIVE <= records(folder).keys()


def test_a_lost_catalogue_leaves_the_records(folder: Path) -> None:
    table(folder, Family.META).unlink()
    lost = [str(lost) for lost in repaired(folder).lost]
    assert "the records are in collection 'recovered-1' with dim 32, metric l2" in "; ".join(lost)
    assert LIVE <= records(folder).keys()


@pytest.mark.parametrize("name", ["MANIFEST-*", "CURRENT"])
def test_rocksdbs_own_catalogue_is_made_anew(folder: Path, name: str) -> None:
    (path,) = (folder / "rocksdb").glob(name)
    if name == "CURRENT":
        path.unlink()
    else:
        flip(path)
    assert repaired(folder).lost == ()
    assert records(folder).keys() == LIVE


def killed(folder: Path) -> Path:
    """The folder as a kill after 50 writes leaves it."""
    with Database(folder, scrub_bytes_per_second=0) as db:
        for i in range(50):
            db["docs"].upsert([f"id-9{i:04d}"], np.ones((1, DIM)))
        return Path(shutil.copytree(folder, folder.with_name("killed")))


def log_of(folder: Path) -> Path:
    return max((folder / "rocksdb").glob("*.log"), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_of_a_damaged_log_a_prefix_of_the_commits_is_kept(folder: Path, damage: str) -> None:
    folder = killed(folder)
    log = log_of(folder)
    if damage == "cut":
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size // 2)
    else:
        flip(log)
    with pytest.raises(errors.Corruption):
        Database(folder)
    (lost,) = repaired(folder).lost
    assert lost.kind == "versions"
    with Database(folder, scrub_bytes_per_second=0) as db:
        new = sorted(r.id for r in db["docs"].scan() if r.id.startswith("id-9"))
        assert 0 < len(new) < 50
        assert new == [f"id-9{i:04d}" for i in range(len(new))]


@pytest.mark.parametrize("kill_after", [0, 1, 2, 3])
def test_an_interrupted_repair_is_finished_by_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kill_after: int
) -> None:
    flip(table(folder, Family.VECTORS))
    move, moves = repairing._move, iter(range(kill_after))

    def killed(*arguments: Any) -> None:
        if next(moves, None) is None:
            raise KeyboardInterrupt
        move(*arguments)

    monkeypatch.setattr(repairing, "_move", killed)
    if kill_after < 3:
        with pytest.raises(KeyboardInterrupt):
            repair_folder(folder, accept_loss=True)
        for opening in (Database, verify):
            with pytest.raises(errors.FailedPrecondition, match="in the middle of a `vectordb repair`"):
                opening(folder)
        monkeypatch.setattr(repairing, "_move", move)
        assert repair_folder(folder, accept_loss=True).ok
    else:
        assert repair_folder(folder, accept_loss=True).ok
    assert not (folder / "MAINTENANCE").exists()
    assert records(folder).keys() == LIVE


@pytest.mark.parametrize("damage", [lambda p: p.write_text("x"), lambda p: p.unlink()])
def test_a_lost_format_file_is_written_anew(folder: Path, damage: Callable[[Path], object]) -> None:
    damage(folder / "FORMAT")
    assert repair_folder(folder, dry_run=True).rebuilt == ("FORMAT",)
    assert repair_folder(folder).ok
    assert records(folder).keys() == LIVE


def test_what_is_no_database_is_left_alone(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(errors.FailedPrecondition):
        repair_folder(tmp_path / "else")
    (folder / "FORMAT").write_text('{"vectordb": 999}')
    with pytest.raises(errors.FailedPrecondition, match="newer release"):
        repair_folder(folder)
    assert [p.name for p in (tmp_path / "else").iterdir()] == ["file"]


def test_the_command_asks_where_data_is_lost(folder: Path, command: Callable[..., tuple[int, str]]) -> None:
    flip(table(folder, Family.VECTORS))
    code, text = command("repair", folder)
    assert (code, "--yes" in text, "lost: collection 'docs': the vectors of" in text) == (1, True, True)
    code, text = command("repair", folder, "--yes")
    assert (code, "every checksum and every cross-check holds" in text) == (0, True)
    assert "moved aside: quarantine/" in text


def test_what_lies_in_quarantine_is_named_by_an_erasure(folder: Path) -> None:
    flip(table(folder, Family.VECTORS))
    repair_folder(folder, accept_loss=True)
    with Database(folder) as db:
        assert db["docs"].delete([IDS[77]], erase=True).remaining == ("quarantine",)
