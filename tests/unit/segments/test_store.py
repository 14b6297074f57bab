"""Publication, damage and garbage: whatever happens to the files, it is noticed before anything reads them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.damage import flip
from vectordb.errors import Corruption, ResourceExhausted
from vectordb.index.base import BuildOptions
from vectordb.segments.build import build_index, seal
from vectordb.segments.columns import SealOptions
from vectordb.segments.files import checksum
from vectordb.segments.opening import open_segment
from vectordb.segments.segment import Segment
from vectordb.segments.store import SegmentStore, text_ref
from vectordb.segments.tail import TailSection
from vectordb.segments.texts import open_text
from vectordb.text.analyzers import analyzer
from vectordb.types import QuantizationSpec


@pytest.fixture
def world(make_world: Callable):
    return make_world(1, holes=True)


@pytest.fixture
def segment(world, store: SegmentStore, options: SealOptions, kind) -> Segment:
    section = TailSection(6, 0, None)
    world.holders = [section]
    section.append(world.batch(120))
    world.churn(4)
    sealed = seal([section.view(world.version)], store, options)
    return build_index(sealed, store, kind, BuildOptions(params={"p": 3}, quantization=QuantizationSpec("sq8")))


def files(store: SegmentStore) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file() and path.suffix != ".stamp")


def forget(store: SegmentStore) -> None:
    """Removes all stamps, as a copy of the folder would."""
    for stamp in store.root.glob("*.stamp"):
        stamp.unlink()


def reopened(store: SegmentStore, ref: str) -> tuple[Segment | None, list[str]]:
    """What can be opened of a segment, its text index included, and all problems."""
    opened = open_segment(store, ref, None)
    problems = list(opened.problems)
    if opened.segment is not None:
        problems += open_text(store, opened.segment, analyzer("standard").fingerprint).problems
    return opened.segment, problems


def count_checksums(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    monkeypatch.setattr(
        "vectordb.segments.store.checksum", lambda path, cancelled: read.append(path) or checksum(path, cancelled)
    )
    return read


def test_a_published_segment_comes_back_whole(world, store: SegmentStore, segment: Segment) -> None:
    opened, problems = reopened(SegmentStore(store.root), segment.ref)
    assert problems == []
    assert opened.ref == segment.ref
    assert opened.data.info == segment.data.info
    assert opened.built.info == segment.built.info
    assert opened.built.info.params == {"p": 3}
    assert (
        opened.disk_bytes
        == segment.disk_bytes
        == sum(path.stat().st_size for path in files(store) if path.suffix != ".json")
    )
    world.check(opened.view(world.version), exactly=world.alive(world.version))
    assert store.refs() == [segment.name, segment.ref]


def test_unchanged_files_are_not_read_again(
    store: SegmentStore, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_checksums(monkeypatch)
    assert reopened(SegmentStore(store.root), segment.ref)[1] == []
    assert read == []
    forget(store)
    assert reopened(SegmentStore(store.root), segment.ref)[1] == []
    assert len(read) == len([path for path in files(store) if path.suffix != ".json"])
    read.clear()
    assert reopened(SegmentStore(store.root), segment.ref)[1] == []
    assert read == []


def test_a_touched_file_is_read_again(store: SegmentStore, segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    read = count_checksums(monkeypatch)
    os.utime(store.path(segment.name) / "vectors.f32", ns=(1, 1))
    assert store.check(segment.name) == []
    assert read
    read.clear()
    # A copy in its place: same bytes and times, another inode.
    original = store.path(segment.name) / "ids.utf8"
    shutil.copy2(original, store.root / "copy")
    (store.root / "copy").replace(original)
    assert store.check(segment.name) == []
    assert read


@pytest.mark.parametrize("stamp", ["", "[]", "{", '{"vectors.f32": 3}'])
def test_a_torn_stamp_only_costs_a_check(
    store: SegmentStore, segment: Segment, stamp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_checksums(monkeypatch)
    (store.root / f"{segment.name}.stamp").write_text(stamp)
    assert store.check(segment.name) == []
    assert read


DAMAGES = {
    "flipped": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "missing": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found(
    store: SegmentStore, segment: Segment, damage: str, stamped: bool, tmp_path: Path
) -> None:
    pristine = tmp_path / "pristine"
    shutil.copytree(store.root, pristine)
    for path in files(store):
        shutil.rmtree(store.root)
        shutil.copytree(pristine, store.root)
        if not stamped:
            forget(store)
        DAMAGES[damage](path)
        of_index, of_text = "index-" in str(path), path.parent.name == "text"
        ref = segment.ref if of_index else text_ref(segment.name) if of_text else segment.name
        assert store.check(ref), path
        assert store.verify(ref), path
        opened, problems = reopened(store, segment.ref)
        assert problems, path
        # A damaged index costs the index, damaged words the words, a damaged segment all; what is damaged is set aside.
        assert (opened is not None) == (of_index or of_text), path
        if of_index:
            assert opened.built is None
            assert opened.ref == segment.name
            assert opened.data.text is not None
            assert store.refs() == [segment.name]
        elif of_text:
            assert opened.built is not None
            assert opened.data.text is None
            assert store.refs() == [segment.name, segment.ref]
        else:
            assert store.refs() == []
        assert len(list(store.root.glob("damaged-*"))) == 1


def test_problems_name_the_file(store: SegmentStore, segment: Segment) -> None:
    path = store.path(segment.name) / "ids.utf8"
    flip(path)
    assert store.verify(segment.name) == [f"'{path}' does not meet its checksum"]
    os.truncate(path, 3)
    assert "has 3 bytes instead of" in store.verify(segment.name)[0]


def test_facts_are_guarded_too(store: SegmentStore, segment: Segment) -> None:
    path = store.path(segment.name) / "segment.json"
    facts = json.loads(path.read_text())
    facts["body"]["rows"] += 1
    path.write_text(json.dumps(facts))
    with pytest.raises(Corruption, match="does not meet its checksum"):
        store.info(segment.name)


def test_a_newer_format_is_not_read(store: SegmentStore, segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectordb.segments.info.FORMAT", 0)
    with pytest.raises(Corruption, match="has format 1, this release reads up to 0"):
        store.info(segment.name)
    assert open_segment(store, segment.ref, None).segment is None


def test_an_index_that_does_not_load_is_left_out(
    store: SegmentStore, segment: Segment, kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object) -> None:
        raise RuntimeError("of another build")

    monkeypatch.setattr(kind, "load", load)
    opened = open_segment(store, segment.ref, None)
    assert opened.segment.built is None
    assert "of another build" in opened.problems[0]


def test_a_kind_that_is_not_installed_leaves_its_index_alone(
    store: SegmentStore, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vectordb.segments.opening.get_kind", {}.__getitem__)
    opened = open_segment(store, segment.ref, None)
    assert opened.segment.built is None
    assert opened.problems


def test_few_damaged_folders_are_kept(store: SegmentStore) -> None:
    for i in range(7):
        store.path(f"{i}").mkdir()
        assert store.quarantine(f"{i}").is_dir()
    assert [path.name.split("-")[-1] for path in sorted(store.root.glob("damaged-*"))] == ["3", "4", "5", "6"]
    assert store.quarantine("gone") is None


def test_garbage_is_what_the_manifest_does_not_name(store: SegmentStore, segment: Segment, kind) -> None:
    other = build_index(segment, store, kind, BuildOptions())
    (store.root / "tmp-left").mkdir()
    (store.root / "tmp-left" / "vectors.f32").write_bytes(b"half")
    (store.root / "tmp-stamp").write_text("{")
    removed = store.collect_garbage({other.ref})
    assert sorted(removed) == sorted([segment.ref, "tmp-left", "tmp-stamp"])
    assert store.refs() == [segment.name, other.ref]
    assert sorted(path.name for path in store.root.iterdir()) == sorted(
        [segment.name, *(f"{ref}.stamp" for ref in (segment.name, other.ref.replace("/", "."), f"{segment.name}.text"))]
    )
    assert open_segment(store, other.ref, None).problems == []
    store.collect_garbage(set())
    assert list(store.root.iterdir()) == []


def test_views_outlive_their_files(world, store: SegmentStore, segment: Segment) -> None:
    view = segment.view(world.version)
    store.remove(segment.name)
    assert list(store.root.iterdir()) == []
    world.check(view)


def test_nothing_is_left_of_an_abandoned_draft(store: SegmentStore) -> None:
    def fill() -> None:
        with store.draft() as draft, draft.writer("vectors.f32") as file:
            file.write(b"some")
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(ResourceExhausted, match="free disk space"):
        fill()
    assert list(store.root.iterdir()) == []


def test_a_check_can_be_cancelled(store: SegmentStore, segment: Segment) -> None:
    with pytest.raises(InterruptedError):
        store.verify(segment.name, lambda: True)


def test_everything_is_synced_before_its_name_shows(
    world, store: SegmentStore, options: SealOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of a crash-safe publication: contents, facts, the folder, its name, and the folder above."""
    done: list[tuple[str, str]] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        done.append(("sync", os.readlink(f"/proc/self/fd/{fd}")))
        real_fsync(fd)

    def rename(self: Path, target: Path) -> Path:
        done.append(("rename", str(target)))
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    section = TailSection(6, 0, None)
    section.append(world.batch(20))
    sealed = seal([section.view(1)], store, options)
    folder = str(store.path(sealed.name))
    at = done.index(("rename", folder))
    draft = os.path.dirname(done[0][1])
    before = [name.removeprefix(draft) for _, name in done[:at]]
    assert {f"/{path.name}" for path in store.path(sealed.name).iterdir() if path.is_file()} <= set(before)
    assert before[-2:] == ["/segment.json", ""]
    assert done[at + 1] == ("sync", str(store.root))
    # Then the words of its texts, in the same order, inside it.
    at_text = done.index(("rename", str(store.path(text_ref(sealed.name)))))
    assert [os.path.basename(name) for _, name in done[at + 2 : at_text - 1]] == ["text.bin", "text.json"]
    assert done[at_text + 1] == ("sync", folder)


def test_no_room_for_the_words_leaves_no_segment(
    world, store: SegmentStore, options: SealOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(index: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("vectordb.segments.texts.encoded", full)
    section = TailSection(6, 0, None)
    section.append(world.batch(20))
    with pytest.raises(ResourceExhausted, match="free disk space"):
        seal([section.view(1)], store, options)
    assert list(store.root.iterdir()) == []


def test_words_of_another_segment_are_not_taken(store: SegmentStore, segment: Segment) -> None:
    mine = analyzer("standard").fingerprint
    segment.rows += 1
    opened = open_text(store, segment, mine)
    assert not opened.there
    assert f"covers {segment.rows - 1} rows, its segment has {segment.rows}" in opened.problems[0]
    assert not store.path(text_ref(segment.name)).exists()
    assert open_text(store, segment, mine) == (False, [])
