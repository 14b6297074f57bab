"""SIGKILL at each failpoint, under writers and whatever leads to the place; then what is left against the model."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from tests.crash import oracle
from tests.verified import verify_folder
from vectordb import errors, failpoints
from vectordb.backup import archive
from vectordb.backup.places import place_of
from vectordb.engine.care.backup import restore
from vectordb_client import connect

SOURCE = Path(vectordb.__file__).parent
OPENING = [n for n in failpoints.NAMES if n.startswith(("open.", "recover."))]
ELSEWHERE = [n for n in failpoints.NAMES if n.startswith("repair.")] + ["restore.fetched"]
"""Those that ``test_killed_care.py`` and the last test here kill at."""
RARE = {"commit.piece", "acked.replace", "index.built", "reindex.swap", "reindex.swapped"}
_LATEST = {"commit": 40, "storage": 60, "acked": 40}
"""The last hit at which the process is killed, by the first word of the name; 3 elsewhere."""


def test_every_place_in_the_code_is_named_once_and_every_name_has_a_place() -> None:
    found = [
        node.args[0].value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "failpoints.hit"
        and isinstance(node.args[0], ast.Constant)
    ]
    assert sorted(found) == sorted(failpoints.NAMES)


@pytest.mark.rounds(3, 50)
@pytest.mark.parametrize("name", [n for n in failpoints.NAMES if n not in OPENING + ELSEWHERE])
def test_killed_at_work(name: str, rounds: Any, nursery: Any, fast_path: Path) -> None:
    ground = None
    for round in rounds:
        if ground is None:
            ground = oracle.Ground(fast_path, round.rng, 40 if name == "commit.piece" else 0)
        at = 1 if name in RARE else round.rng.randint(1, _LATEST.get(name.partition(".")[0], 3))
        server, address = nursery.serve(ground.folder, f"{name}=kill@{at}")
        end = time.monotonic() + 60

        def over(server: Any = server, end: float = end) -> bool:
            return server.code is not None or time.monotonic() > end

        if address is not None:
            ground.write(address, ground.drive(name), over)
        assert server.wait(30) == -9, f"{name} was not reached: {nursery.errors()}"
        assert ground.problems(deep=round.number % 3 == 2) == []
        place = place_of(str(ground.backups))
        for listing in archive.listings(place) if ground.backups.exists() else []:
            assert archive.check(place, listing) == []


@pytest.mark.rounds(3, 50)
@pytest.mark.parametrize("name", OPENING)
def test_killed_while_opening(name: str, rounds: Any, nursery: Any, fast_path: Path) -> None:
    ground = None
    for round in rounds:
        ground = ground or oracle.Ground(fast_path, round.rng, 40 if name == "recover.undo" else 0)
        kill = "commit.piece" if name == "recover.undo" else "commit.written"
        server, address = nursery.serve(ground.folder, f"{kill}=kill@{1 if name == 'recover.undo' else 20}")
        assert address is not None
        ground.write(address, lambda db: time.sleep(0.05), lambda s=server: _gone(s))
        assert server.wait() == -9
        if name in ("recover.quarantined", "recover.manifest"):
            assert ground.problems(deep=False) == []
            with vectordb.Database(ground.folder) as db:
                db["k"].upsert(["w0-0"], np.zeros((1, 16)))
                db["k"].delete(["w0-0"])
                ground.writers[0].known.pop("w0-0", None)
                db["k"].optimize()
            files = sorted((ground.folder / "segments").glob("*/vectors.f32"))
            files = [path for path in files if not path.parent.name.startswith("damaged-")]
            with round.rng.choice(files).open("r+b") as file:
                first = file.read(1)
                file.seek(0)
                file.write(bytes([first[0] ^ 1]))
        for _ in range(2 if round.number % 2 else 1):  # also at opening what was left by a kill at opening
            server, address = nursery.serve(ground.folder, f"{name}=kill")
            if address is not None:
                with connect(address, retries=0) as db, pytest.raises(errors.Unavailable):
                    db["k"].count()
            assert server.wait() == -9, f"{name} was not reached: {nursery.errors()}"
            if name == "recover.quarantined":
                break  # what was set aside is not found damaged again
        assert ground.problems(deep=round.number % 3 == 2) == []


def _gone(server: Any) -> bool:
    """Whether a server that was to be killed is dead."""
    return server.code is not None or not Path(f"/proc/{server.pid}").exists()


@pytest.mark.rounds(3, 50)
def test_killed_while_restoring(rounds: Any, nursery: Any, fast_path: Path) -> None:
    original, backups = fast_path / "db", str(fast_path / "backups")
    with vectordb.Database(original) as db:
        collection = db.create_collection("c", 2, metric="l2", seal_bytes=1_000)
        collection.upsert([f"i{n}" for n in range(300)], np.arange(600).reshape(300, 2))
        collection.optimize()
        db.backup(backups)
    for round in rounds:
        folder = fast_path / f"restored-{round.number}"
        child = nursery.fork("restore", "restore.fetched=kill", destination=backups, folder=str(folder))
        assert child.wait() == -9
        assert not folder.exists()
        restore(backups, folder)
        with vectordb.Database(folder) as db:
            assert db["c"].search([10, 11], limit=1)[0].id == "i5"
        assert verify_folder(folder) == []
