"""Upgrading folders of older formats, with steps made for the test: format 1 is the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from vectordb import Database, errors
from vectordb.cli.main import main
from vectordb.engine.care.upgrade import STEPS, Step, upgrade
from vectordb.storage.format import read_format, write_format
from vectordb.storage.keys import FORMAT_VERSION


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Database(tmp_path / "db").close()
    return tmp_path / "db"


def _noting(word: str, fails: list[BaseException]) -> Step:
    def run(folder: Path) -> None:
        with (folder / "notes").open("a") as file:
            file.write(word)
        if fails:
            raise fails.pop()

    return Step(f"writes {word}", run)


def test_every_older_format_has_a_step() -> None:
    assert sorted(STEPS) == list(range(1, FORMAT_VERSION))


def test_the_present_format_needs_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert upgrade(folder).steps == ()
    with pytest.raises(SystemExit) as ended:
        main(["upgrade", str(folder), "--dry-run"])
    assert (ended.value.code, "nothing to do" in capsys.readouterr().out) == (0, True)


def test_a_newer_format_is_refused_untouched(folder: Path) -> None:
    write_format(folder, "9.9", 9)
    with pytest.raises(errors.FailedPrecondition, match="newer release"):
        upgrade(folder)
    assert read_format(folder) == 9


def test_a_way_with_a_gap_is_refused_before_its_first_step(folder: Path) -> None:
    with pytest.raises(errors.FailedPrecondition, match="nothing leads from format 2 on"):
        upgrade(folder, steps={1: _noting("a", [])}, target=3)
    assert not (folder / "notes").exists()


def test_steps_are_done_one_after_the_other(folder: Path) -> None:
    steps = {1: _noting("a", []), 2: _noting("b", [])}
    planned = upgrade(folder, dry_run=True, steps=steps, target=3)
    assert (planned.found, planned.format) == (1, 3)
    assert planned.steps == ("format 1 to 2: writes a", "format 2 to 3: writes b")
    assert not (folder / "notes").exists()
    assert upgrade(folder, steps=steps, target=3) == planned
    assert ((folder / "notes").read_text(), read_format(folder)) == ("ab", 3)
    assert not (folder / "MAINTENANCE").exists()


def test_what_broke_off_is_finished_and_nobody_opens_it_meanwhile(folder: Path) -> None:
    steps = {1: _noting("a", []), 2: _noting("b", [KeyboardInterrupt()])}
    with pytest.raises(KeyboardInterrupt):
        upgrade(folder, steps=steps, target=3)
    assert read_format(folder) == 2
    write_format(folder, "", FORMAT_VERSION)  # as if this release were the one upgraded to
    with pytest.raises(errors.FailedPrecondition, match="in the middle of a `vectordb upgrade`"):
        Database(folder)
    write_format(folder, "", 2)
    assert upgrade(folder, steps=steps, target=3).steps == ("format 2 to 3: writes b",)
    assert (folder / "notes").read_text() == "abb"
    assert not (folder / "MAINTENANCE").exists()


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    with Database(folder), pytest.raises(errors.DirectoryLocked):
        upgrade(folder, steps={1: _noting("a", [])}, target=2)
    assert not (folder / "notes").exists()
