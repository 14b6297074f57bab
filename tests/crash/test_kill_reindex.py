"""SIGKILL at random moments of a reindex under writers: nothing is lost, and it goes on when the server is back.

Each round asks for another form, lets the processes die in the middle of it, checks what came back against the
writers' model, and has every third reindex end and checked once more.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vectordb
from tests.crash import oracle
from tests.verified import verify_folder
from vectordb_client import connect

_FORMS: list[Any] = [
    {"kind": "slow", "seconds": 0.05},
    {"kind": "hnsw", "m": 8, "ef_construction": 16},
    "flat",
    {"kind": "slow", "seconds": 0.02, "tag": 1},
    {"kind": "hnsw", "m": 4, "ef_construction": 16},
]


def _kill_in_a_reindex(folder: Path, writers: list[Any], nursery: Any, rng: random.Random, target: Any) -> str:
    """What the optimizer did last before the kill."""
    server, address = nursery.serve(folder)
    stop = threading.Event()
    databases = [connect(address, retries=0) for _ in writers]
    threads = [
        threading.Thread(target=w.run, args=(db.collection("k"), stop))
        for w, db in zip(writers, databases, strict=True)
    ]
    for thread in threads:
        thread.start()
    with connect(address, retries=0) as db:
        collection = db.collection("k")
        time.sleep(rng.uniform(0.0, 0.3))
        collection.reindex(target, wait=False)
        time.sleep(rng.uniform(0.0, 0.6))
        if rng.random() < 0.15:
            collection.cancel_reindex()
        state = collection.stats().optimizer.state
    server.kill()
    stop.set()
    for thread in threads:
        thread.join(30)
    for db in databases:
        db.close()
    assert [w.fault for w in writers if w.fault] == []
    return state


def _check(folder: Path, writers: list[Any], rng: random.Random, wait: Any) -> list[str]:
    with vectordb.Database(folder) as db:
        collection = db.collection("k")
        found, problems = oracle.recovered(collection)
        for writer in writers:
            problems += writer.settle(found)
        problems += oracle.wrong_answers(collection, found, rng)
        if wait is not None:
            collection.reindex(wait)
            collection.optimize()
            stats = collection.stats()
            kind = wait if isinstance(wait, str) else wait["kind"]
            if (stats.index.kind, stats.rows) != (kind, len(found)):
                problems.append(f"after the reindex there are {stats.rows} rows of {len(found)} under {stats.index}")
            if {s.index for s in stats.segments} - {kind}:
                problems.append(f"segments of the form before are left: {stats.segments}")
            problems += oracle.wrong_answers(collection, found, rng)
    return problems


@pytest.mark.rounds(6, 200)
def test_a_reindex_survives(rounds: Any, nursery: Any, tmp_path: Path, slow_kind: ModuleType) -> None:
    folder, writers, states = tmp_path / "db", [], []
    for round in rounds:
        number, rng = round.number, round.rng
        if not writers:
            writers = [oracle.Writer(f"w{i}", random.Random(rng.random())) for i in range(3)]
            with vectordb.Database(folder) as db:
                db.create_collection("k", **{**oracle.CONFIG, "index": "flat"})
        target = _FORMS[number % len(_FORMS)]
        states.append(_kill_in_a_reindex(folder, writers, nursery, rng, target))
        problems = _check(folder, writers, rng, target if number % 3 == 2 else None)
        problems += verify_folder(folder)
        known = sum(len(w.known) for w in writers)
        print(f"{sum(w.calls for w in writers)} calls, {known} records, {states[-1]} to {target}")
        assert problems == [], f"{states[-1]} to {target}"
    assert "reindexing" in states or not states
