"""``vectordb backup``, ``restore``, ``export``, ``import`` and ``doctor`` as commands."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from vectordb.cli import checkup
from vectordb_client import connect

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with connect(tmp_path / "db") as db:
        db.create_collection("docs", 2).upsert(["a", "b"], [[1, 0], [0, 1]], [{"n": 1}, {"n": 2}], ["x", "y"])
    return tmp_path / "db"


def test_backup_and_restore(command: Run, folder: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    for _ in range(3):
        code, text = command("backup", folder, backups)
        assert (code, text.count("1 collections")) == (0, 1), text
    code, text = command("backup", folder, backups, "--keep", 2)
    assert text.count("removed backup") == 2
    assert len(command("restore", backups, "--list")[1].strip().splitlines()) == 2
    assert "every checksum holds" in command("restore", backups, "--check")[1]
    code, text = command("restore", backups, tmp_path / "back")
    assert code == 0, text
    with connect(tmp_path / "back") as db:
        assert db["docs"].count() == 2
    code, text = command("restore", backups, tmp_path / "back")
    assert (code, "not empty" in text) == (1, True)


def test_what_is_missing_is_said(command: Run, folder: Path, tmp_path: Path) -> None:
    assert "NotFound" in command("backup", tmp_path / "nowhere", tmp_path / "b")[1]
    assert not (tmp_path / "nowhere").exists()
    assert "destination" in command("backup", folder)[1]
    assert str(tmp_path / "no backups") in command("restore", tmp_path / "no backups", tmp_path / "r")[1]
    assert "name the folder" in (command("backup", folder, tmp_path / "b"), command("restore", tmp_path / "b"))[1][1]


def test_export_and_import(command: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "docs.parquet"
    where = json.dumps({"field": "n", "op": ">", "value": 1})
    assert "1 records" in command("export", folder, "docs", path, "--where", where)[1]
    assert "no JSON" in command("export", folder, "docs", path, "--where", "{")[1]
    assert "1 records in copy" in command("import", tmp_path / "other", path, "--collection", "copy")[1]
    assert "CollectionNotFound" in command("export", folder, "nope", path)[1]
    assert "InvalidArgument: path names a file" in command("export", folder, "docs", ".")[1]


def test_no_database_is_made_for_a_file_that_cannot_be_imported(command: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no parquet")
    code, text = command("import", tmp_path / "new", tmp_path / "notes.txt")
    assert (code, "no Parquet file" in text) == (1, True)
    assert not (tmp_path / "new").exists()
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a"]}), tmp_path / "foreign.parquet")
    code, text = command("import", tmp_path / "new", tmp_path / "foreign.parquet", "--collection", "docs")
    assert (code, "NotFound: there is no database" in text) == (1, True)
    assert not (tmp_path / "new").exists()


def test_doctor_finds_nothing_wrong_here(command: Run, folder: Path) -> None:
    code, text = command("doctor", folder, "--json")
    findings = {finding["name"]: finding for finding in json.loads(text)}
    assert (code, {name for name, f in findings.items() if f["state"] == "fail"}) == (0, set())
    assert "format 1" in findings["database"]["found"]
    assert "median" in findings["sync"]["found"]
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
    with connect(folder):
        assert "in use" in command("doctor", folder)[1]


@pytest.mark.parametrize("name", ["info", "verify", "repair", "upgrade", "doctor"])
def test_every_command_finds_the_folder_that_connect_made(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    monkeypatch.chdir(tmp_path)
    for target in ("~/at home", "link/../beside", "~nobody-of-this-name"):
        with connect(target) as db:
            db.create_collection("docs", 2)
        code, text = command(name, target)
        assert code == 0, text
    assert (tmp_path / "elsewhere" / "beside").is_dir()


def test_names_that_the_terminals_locale_does_not_know_are_written_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "数据"
    connect(folder).close()
    command = [sys.executable, "-m", "vectordb.cli.main", "verify", str(folder)]
    told = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    line = f"{tmp_path}/\\u6570\\u636e: every checksum and every cross-check holds"
    assert (told.returncode, told.stdout.splitlines()[-1]) == (0, line)


@pytest.mark.parametrize("name", ["info", "verify", "repair", "upgrade", "doctor", "export"])
def test_a_folder_that_the_system_refuses_is_named(command: Run, tmp_path: Path, name: str) -> None:
    """As one that another user made, which root would be let into: here by a name longer than names can be."""
    code, text = command(
        name, tmp_path / ("x" * 300), *(["docs", tmp_path / "docs.parquet"] if name == "export" else [])
    )
    assert (code, "File name too long" in text, "Traceback" in text) == (1, True, False)


@pytest.mark.parametrize("name", ["verify", "repair", "upgrade"])
def test_a_file_is_no_folder_of_a_database(command: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    code, text = command(name, tmp_path / "file")
    assert (code, "is a file; name a folder for the database" in text) == (1, True)


def test_doctor_names_what_is_wrong(command: Run, folder: Path, tmp_path: Path) -> None:
    os.chmod(folder, 0o755)
    assert "chmod 700" in command("doctor", folder)[1]
    (folder / "FORMAT").write_text('{"vectordb": 999}')
    code, text = command("doctor", folder)
    assert (code, "fail" in text, "999" in text) == (1, True, True)
    (tmp_path / "file").touch()
    for given in (tmp_path / "file", tmp_path / "file" / "db"):
        code, text = command("doctor", given)
        assert (code, f"{tmp_path / 'file'} is a file" in text) == (1, True)


def test_doctor_tells_who_can_read_the_secrets(command: Run, folder: Path, tmp_path: Path) -> None:
    keys, log = tmp_path / "keys.toml", tmp_path / "audit.jsonl"
    keys.touch(0o600)
    config = tmp_path / "vectordb.toml"
    config.write_text(f"api_keys = '{keys}'\naudit_log = '{log}'\n")
    assert f"{keys}, mode 600" in command("doctor", folder, "--config", config)[1]
    keys.chmod(0o640)
    assert f"chmod 600 {keys}" in command("doctor", folder, "--config", config)[1]
    keys.unlink()
    code, text = command("doctor", folder, "--config", config)
    assert (code, "No such file" in text, str(log) in text) == (1, True, False)


def test_folders_are_made_for_this_user_alone(folder: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with connect(tmp_path / "new" / "db", share=True) as db:
            db.create_collection("docs", 2).upsert(["a"], [[1, 0]])
            db.backup(tmp_path / "backups")
            root = tmp_path / "new" / "db"
            modes = {path: path.stat().st_mode & 0o777 for path in (root, root / "LOCK", root / "door")}
            assert modes == {root: 0o700, root / "LOCK": 0o600, root / "door": 0o700}
            assert (tmp_path / "backups").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_doctor_knows_every_extra() -> None:
    told = ["numpy>=2.0", "a-b>=1; extra == 'x'", "c[d]<3,>=2; (python_version < '3.14') and extra == 'x'"]
    assert checkup.packages_of_extras([*told, 'e; extra == "y"']) == {"x": {"a-b", "c"}, "y": {"e"}}
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    known = checkup.packages_of_extras(importlib.metadata.requires(project["name"]) or ())
    assert known.keys() == project["optional-dependencies"].keys()


def test_doctor_names_the_extras_whose_packages_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["pytest; extra == 'x'", "no-such; extra == 'y'"])
    assert checkup._extras().found == "x"
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: None)
    assert checkup._extras().found == "none installed"


def test_doctor_knows_a_file_system_in_memory() -> None:
    assert checkup._file_system(Path("/proc/self")) == "proc"
    assert checkup._file_system(Path("/")) not in ("proc", "unknown")


def test_a_new_key_and_what_to_add_to_the_file(command: Run, tmp_path: Path) -> None:
    from vectordb.server.keys import KeyRing, Role

    code, text = command("key", "new", "ingest", "--role", "write", "--collection", "docs", "--collection", "news-*")
    assert code == 0
    table, _, shown = text.partition("key (shown once, kept nowhere): ")
    (tmp_path / "keys.toml").write_text(table)
    key = KeyRing(tmp_path / "keys.toml").authenticate(shown.strip())
    assert (key.name, key.role, key.collections) == ("ingest", Role.WRITE, ("docs", "news-*"))


def test_a_new_key_with_a_policy(command: Run, tmp_path: Path) -> None:
    from vectordb.filter import col
    from vectordb.server.keys import KeyRing

    where = json.dumps({"field": "tenant", "op": "==", "value": 'a "quoted" \u00fc \U0001f600'}, ensure_ascii=False)
    code, text = command("key", "new", "app", "--role", "write", "--filter", where, "--expires", "2999-01-31")
    assert code == 0
    table, _, shown = text.partition("key (shown once, kept nowhere): ")
    (tmp_path / "keys.toml").write_text(table)
    key = KeyRing(tmp_path / "keys.toml").authenticate(shown.strip())
    assert key.policy == (col("tenant") == 'a "quoted" \u00fc \U0001f600')
    assert key.expires is not None
    for wrong, said in (
        (("--role", "god"), "role is"),
        (("--filter", "{"), "filter is not JSON"),
        (("--role", "admin", "--filter", where), "is 'read' or 'write'"),
        (("--expires", "soon"), "such as 2027-01-31, got 'soon'"),
    ):
        code, text = command("key", "new", "x", *wrong)
        assert code == 1
        assert said in text
        assert "vdb_" not in text


def test_a_server_is_no_folder_that_is_empty(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("doctor", "upgrade"):
        code, text = command(name, "127.0.0.1:50051")
        assert (code, f"'127.0.0.1:50051' is a server, and {name} is about a folder" in text) == (1, True)
    (tmp_path / "data:1").mkdir()
    assert "data:1" in command("doctor", "data:1")[1]
