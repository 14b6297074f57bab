"""SIGKILL at each failpoint, under four writers and whatever leads to the place; then the model against what is left."""

from __future__ import annotations

import ast
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import errors, failpoints
from vectordb.backup import archive
from vectordb.backup.places import place_of
from vectordb.engine.backup import restore
from vectordb.engine.verify import verify_folder
from vectordb_client import connect

SOURCE = Path(vectordb.__file__).parent
OPENING = [n for n in failpoints.NAMES if n.startswith(("open.", "recover."))]
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


class _Ground:
    """A folder with four writers' collection ``k``, and collections, reindexes and backups that come and go."""

    def __init__(self, folder: Path, oracle: SimpleNamespace, rng: random.Random, large: int) -> None:
        self.folder, self.oracle, self.rng = folder / "db", oracle, rng
        self.backups = folder / "backups"
        self.writers = [
            oracle.Writer(f"w{i}", random.Random(rng.random()), span=500, large=large) for i in range(4)
        ]
        self.others: set[str] = set()
        self.unknown: str | None = None
        self.next = 0
        with vectordb.Database(self.folder) as db:
            db.create_collection("k", **oracle.CONFIG)

    def drive(self, name: str) -> Callable[[Any], None]:
        """What leads to a place, again and again."""
        subject = name.partition(".")[0]
        if subject in ("create", "delete"):
            return self._come_and_go
        if subject == "reindex":
            return self._cancel if name == "reindex.dropped" else self._reindex
        if subject == "backup":
            return lambda db: db.backup(self.backups)
        return lambda db: db["k"].optimize(wait=self.rng.random() < 0.5)

    def _come_and_go(self, db: Any) -> None:
        name, self.next = f"other{self.next}", self.next + 1
        self.unknown = name
        other = db.create_collection(name, 2, metric="l2", seal_bytes=1_000)
        self.others.add(name)
        other.upsert(["a"], [[1, 2]])
        other.optimize()
        self.others.discard(name)
        db.delete_collection(name)
        self.unknown = None

    def _reindex(self, db: Any) -> None:
        kind = self.rng.choice(["flat", {"kind": "hnsw", "m": self.rng.choice([4, 5, 6]), "ef_construction": 16}])
        db["k"].reindex(kind)

    def _cancel(self, db: Any) -> None:
        db["k"].reindex({"kind": "hnsw", "m": self.rng.choice([4, 5, 6]), "ef_construction": 40}, wait=False)
        db["k"].cancel_reindex()

    def write(self, address: str, drive: Callable[[Any], None], until: Callable[[], bool]) -> None:
        """Writers and driver at a server, until it is gone."""
        stop = threading.Event()
        with connect(address, retries=0) as db:
            collection = db["k"]
            threads = [threading.Thread(target=w.run, args=(collection, stop)) for w in self.writers]
            for thread in threads:
                thread.start()
            try:
                while not until():
                    drive(db)
                    time.sleep(0.005)
            except errors.Unavailable:
                until()
            finally:
                stop.set()
                for thread in threads:
                    thread.join(30)
        assert [w.fault for w in self.writers if w.fault] == []

    def problems(self, deep: bool) -> list[str]:
        """What is not as the model says, after opening once more."""
        with vectordb.Database(self.folder) as db:
            collection = db["k"]
            found, problems = self.oracle.recovered(collection)
            for writer in self.writers:
                problems += writer.settle(found)
            problems += self.oracle.wrong_answers(collection, found, self.rng)
            there = set(db.list_collections()) - {"k"}
            if not self.others - {self.unknown} <= there <= self.others | {self.unknown}:
                problems.append(f"collections {there} where {self.others} were acknowledged, {self.unknown} under way")
            self.others, self.unknown = there, None
            for name in there:
                rows = [(r.id, r.vector.tolist()) for r in db[name].scan(include=("vector",))]
                if rows not in ([], [("a", [1, 2])]):
                    problems.append(f"collection {name} holds {rows}")
        return problems + (verify_folder(self.folder) if deep else [])


@pytest.mark.rounds(3, 50)
@pytest.mark.parametrize("name", [n for n in failpoints.NAMES if n not in OPENING and n != "restore.fetched"])
def test_killed_at_work(name: str, rounds: Any, nursery: Any, fast_path: Path, oracle: SimpleNamespace) -> None:
    ground = None
    for round in rounds:
        if ground is None:
            ground = _Ground(fast_path, oracle, round.rng, 40 if name == "commit.piece" else 0)
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
def test_killed_while_opening(name: str, rounds: Any, nursery: Any, fast_path: Path, oracle: SimpleNamespace) -> None:
    ground = None
    for round in rounds:
        ground = ground or _Ground(fast_path, oracle, round.rng, 40 if name == "recover.undo" else 0)
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
