"""The fuzzers for a moment each, and for a minute each (``-m slow``); and what a loader must not be able to do."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("messages", "json-filters", "wire-filters", "config", "keys", "segments", "loaders", "backups", "pages")

FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def fuzz(*arguments: str, timeout: float) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])}
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_a_moment_of_each() -> None:
    told = fuzz("--seconds", "0.7", "--inside", timeout=200)
    assert [line.split()[0] for line in told.splitlines()] == list(TARGETS)
    assert all(int(line.split()[1]) > 0 for line in told.splitlines())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", TARGETS)
def test_a_minute_of_each(target: str) -> None:
    fuzz("--minutes", "1", "--only", target, "--seed", "2", timeout=500)


def test_a_crash_of_a_fuzzer_is_found(tmp_path: Path) -> None:
    """A child goes on after a case that raises, and leaves the number of the one that it dies in."""
    script = (
        "import os, sys; from tests.fuzz import __main__ as driver\n"
        "class Deadly:\n"
        "    def __init__(self, folder): pass\n"
        "    def case(self, mutator):\n"
        "        self.n = getattr(self, 'n', -1) + 1\n"
        "        if self.n == 3: raise KeyError('untyped')\n"
        "        if self.n == 5: os.abort()\n"
        "    def close(self): pass\n"
        "driver.target = lambda name, folder: Deadly(folder)\n"
        "driver.main()\n"
    )
    status = tmp_path / "status"
    status.write_bytes(bytes(8))
    arguments = ["--child", "--only", "keys", "--seconds", "5", "--status", str(status)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])}
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == -6
    assert int.from_bytes(status.read_bytes(), "little") == 5


@pytest.mark.parametrize("package", ["vectordb", "client/vectordb_client"])
def test_no_code_comes_from_data(package: str) -> None:
    """No pickle, marshal, eval or exec, nor a library's form of it, anywhere in what is installed."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name.endswith(("_pb2.py", "_pb2_grpc.py")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").partition(".")[0]]
            elif isinstance(node, ast.Call):
                found += [f"{path}:{node.lineno}: {what}" for what in _forbidden(node)]
            found += [f"{path}:{node.lineno}: {name}" for name in names if name in FORBIDDEN_MODULES]
    assert found == []


def _forbidden(call: ast.Call) -> list[str]:
    told = []
    function = call.func
    if isinstance(function, ast.Name) and function.id in FORBIDDEN_CALLS:
        told.append(function.id)
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        whole = f"{function.value.id}.{function.attr}"
        if whole in ("torch.load", "yaml.load", "yaml.unsafe_load", "os.system", "builtins.eval", "builtins.exec"):
            told.append(whole)
    told += [
        f"{keyword.arg}="
        for keyword in call.keywords
        if keyword.arg in ("allow_pickle", "shell", "trust_remote_code")
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]
    return told
