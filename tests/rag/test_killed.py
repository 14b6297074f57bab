"""SIGKILL at every write of an addition and of a migration: running again completes, nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vectordb.cli.process import ServerProcess
from vectordb_client import connect
from vectordb_client.rag import KnowledgeBase, TokenChunker

SCRIPT = Path(__file__).with_name("killed.py")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _killed(root: Path, what: str, step: int) -> int:
    """Checks what every kill left; returns how many there were."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(root), what, str(step)], env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    undisturbed, *killed = [json.loads(line) for line in done.stdout.splitlines()]
    for run in killed:
        for part in ("collections", "documents", "chunks", "found"):
            assert run[part] == undisturbed[part], f"killed before write {run['count']}: {part} differ"
    return len(killed)


@pytest.mark.parametrize(("what", "step"), [("add", 5), ("migrate", 8)])
def test_killed_before_some_writes(tmp_path: Path, what: str, step: int) -> None:
    assert _killed(tmp_path, what, step) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(("what", "least"), [("add", 20), ("migrate", 20)])
def test_killed_before_every_write(tmp_path: Path, what: str, least: int) -> None:
    assert _killed(tmp_path, what, 1) >= least


@pytest.mark.slow
def test_killed_at_any_time_against_a_server(
    tmp_path: Path, hashing: Callable[..., Any], checks: ModuleType, xquad: Any
) -> None:
    """The client dies at random moments, again and again, while the server lives on."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for document in xquad.documents:
        (texts / f"{document['id']}.txt").write_text(document["text"])
    rng = random.Random(0)
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
        "from killed import *\n"
        "with connect(sys.argv[1]) as db:\n"
        "    base(db, hashing_embedder()).add(sys.argv[2], progress=False)\n"
    )
    with ServerProcess(tmp_path / "data") as server:
        for _ in range(12):
            process = subprocess.Popen(
                [sys.executable, "-c", code, server.address, str(texts)], env=_environment(), stderr=subprocess.DEVNULL
            )
            time.sleep(rng.uniform(0.3, 2.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
        with connect(server.address) as db:
            kb = KnowledgeBase(db, "kb", hashing(), chunker=TokenChunker(20, 4))
            kb.add(texts, progress=False)
            checks.check_whole(kb)
            assert len(kb.documents()) == len(xquad.documents)
            before = checks.versions(db)
            kb.add(texts, progress=False)
            assert checks.versions(db) == before
