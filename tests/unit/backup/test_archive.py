"""Backups at their destination: contents once, lists checked, damage found."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from vectordb.backup import archive
from vectordb.backup.archive import Listing
from vectordb.backup.places import Place, place_of
from vectordb.errors import Corruption, FailedPrecondition, InvalidArgument, NotFound


@pytest.fixture(params=["folder", "fsspec"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return place_of(tmp_path / "backups" if request.param == "folder" else f"memory://{uuid4().hex}/backups")


def facts(number: int) -> Listing:
    return Listing(f"2026010{number}T000000.000000Z-aaaaaa", f"2026-01-0{number}", "0.1.0", 1, {"docs": number})


def written(folder: Path, **contents: bytes) -> dict[str, Path]:
    paths = {}
    for name, content in contents.items():
        path = folder / uuid4().hex
        path.write_bytes(content)
        paths[f"segments/{name}/vectors.f32"] = path
    return paths


def test_what_was_stored_comes_back(place: Place, tmp_path: Path) -> None:
    done: list[int] = []
    made = archive.store(place, facts(1), written(tmp_path, a=b"x" * 3_000_000, b=b"", c=b"yy"), done.append)
    assert (made.files, made.total_bytes, made.new_bytes) == (3, 3_000_002, 3_000_002)
    assert sum(done) == made.total_bytes
    listing = archive.load(place)
    assert listing.collections == {"docs": 1}
    assert archive.check(place, listing) == []
    archive.fetch(place, listing, tmp_path / "back", done.append)
    assert (tmp_path / "back/segments/a/vectors.f32").read_bytes() == b"x" * 3_000_000
    assert (tmp_path / "back/segments/b/vectors.f32").read_bytes() == b""


def test_a_content_is_stored_once(place: Place, tmp_path: Path) -> None:
    archive.store(place, facts(1), written(tmp_path, a=b"same", b=b"same"), lambda n: None)
    second = archive.store(place, facts(2), written(tmp_path, a=b"same", d=b"new!!"), lambda n: None)
    assert (second.total_bytes, second.new_bytes) == (9, 5)
    assert [listing.collections["docs"] for listing in archive.listings(place)] == [1, 2]


def test_pruning_keeps_what_others_need(place: Place, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        archive.store(place, facts(number), written(tmp_path, a=b"same", b=b"%d" % number), lambda n: None)
    assert archive.prune(place, 5) == []
    assert [name[:8] for name in archive.prune(place, 1)] == ["20260101", "20260102"]
    (left,) = archive.listings(place)
    assert left.collections == {"docs": 3}
    assert archive.check(place, left) == []
    contents = {content for _, content in left.files.values()}
    there = {name for hh in {c[:2] for c in contents} for name in place.names(f"objects/{hh}")}
    assert contents <= there


def test_damage_is_found_and_never_restored(tmp_path: Path) -> None:
    place = place_of(tmp_path / "backups")
    archive.store(place, facts(1), written(tmp_path, a=b"x" * 1000), lambda n: None)
    listing = archive.load(place)
    (content,) = (path for path in (tmp_path / "backups/objects").rglob("*") if path.is_file())
    content.write_bytes(b"x" * 999 + b"y")
    assert "does not hold" in archive.check(place, listing)[0]
    with pytest.raises(Corruption, match="damaged"):
        archive.fetch(place, listing, tmp_path / "back", lambda n: None)
    content.unlink()
    with pytest.raises(Corruption, match="missing"):
        archive.fetch(place, listing, tmp_path / "back2", lambda n: None)


@pytest.mark.parametrize("change", [(b'"docs": 1', b'"docs": 2'), (b"vectors.f32", b"../../../x"), (b"}", b"")])
def test_a_list_that_was_changed_is_refused(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    place = place_of(tmp_path / "backups")
    archive.store(place, facts(1), written(tmp_path, a=b"x"), lambda n: None)
    (path,) = (tmp_path / "backups/backups").iterdir()
    path.write_bytes(path.read_bytes().replace(*change))
    with pytest.raises(Corruption, match="damaged"):
        archive.load(place)


def test_a_list_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    place = place_of(tmp_path / "backups")
    (source,) = written(tmp_path, a=b"x").values()
    archive.store(place, facts(1), {"../outside": source}, lambda n: None)
    with pytest.raises(Corruption, match="outside"):
        archive.fetch(place, archive.load(place), tmp_path / "back", lambda n: None)
    assert not (tmp_path / "outside").exists()


def test_what_is_not_there_is_named(place: Place, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there are: none"):
        archive.load(place)
    archive.store(place, facts(1), written(tmp_path, a=b"x"), lambda n: None)
    with pytest.raises(NotFound, match=r"'b7'.*20260101"):
        archive.load(place, "b7")


def test_destinations_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FailedPrecondition, match="is a file"):
        place_of(tmp_path / "file")
    with pytest.raises(InvalidArgument, match="destination"):
        place_of("")
    with pytest.raises(InvalidArgument, match="nosuch"):
        place_of("nosuch://bucket/x")
