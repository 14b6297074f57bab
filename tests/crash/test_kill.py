"""SIGKILL under four writers, at random moments, again and again on one folder; then with its caches damaged.

``pytest -m slow tests/crash`` runs 100 rounds; ``VECTORDB_CRASH_ROUNDS`` and ``VECTORDB_CRASH_SEED`` override.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vectordb.cli.process import ServerProcess
from vectordb.engine.verify import verify_folder
from vectordb_client import connect


def _write_until_killed(folder: Path, writers: list[Any], oracle: SimpleNamespace, rng: random.Random) -> None:
    server = ServerProcess(folder)
    stop = threading.Event()
    databases = [connect(server.address, retries=0) for _ in writers]
    threads = [
        threading.Thread(target=w.run, args=(db.create_collection("k", exist_ok=True, **oracle.CONFIG), stop))
        for w, db in zip(writers, databases, strict=True)
    ]
    for thread in threads:
        thread.start()
    with connect(server.address, retries=0) as db:
        time.sleep(rng.uniform(0.05, 1.2))
        if rng.random() < 0.3:
            db.collection("k").optimize(wait=False)
            time.sleep(rng.uniform(0.0, 0.2))
    server.kill()
    stop.set()
    for thread in threads:
        thread.join(30)
    for db in databases:
        db.close()
    assert [w.fault for w in writers if w.fault] == []


def _damage(folder: Path, how: str, rng: random.Random) -> str:
    segments = folder / "segments"
    if how == "segments deleted":
        shutil.rmtree(segments)
        return how
    files = sorted(p for p in segments.rglob("*") if p.is_file() and p.stat().st_size)
    if how == "bit flipped" and files:
        path = rng.choice(files)
        content = bytearray(path.read_bytes())
        place = rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        return f"bit {place} of {path.relative_to(folder)} flipped"
    return "nothing"


def _check(folder: Path, writers: list[Any], oracle: SimpleNamespace, rng: random.Random) -> list[str]:
    with ServerProcess(folder) as server, connect(server.address) as db:
        collection = db.collection("k")
        found, problems = oracle.recovered(collection)
        for writer in writers:
            problems += writer.settle(found)
        return problems + oracle.wrong_answers(collection, found, rng)


def _rounds(folder: Path, oracle: SimpleNamespace, count: int, seed: int) -> None:
    rng = random.Random(seed)
    writers = [oracle.Writer(f"w{i}", random.Random(rng.random())) for i in range(4)]
    for number in range(count):
        _write_until_killed(folder, writers, oracle, rng)
        problems = _check(folder, writers, oracle, rng)
        done = "nothing"
        if number % 3:
            done = _damage(folder, ("bit flipped", "segments deleted")[number % 2], rng)
            problems += _check(folder, writers, oracle, rng)
        elif number % 2:
            problems += verify_folder(folder)
        known = sum(len(w.known) for w in writers)
        print(f"round {number}: {sum(w.calls for w in writers)} calls, {known} records, damage: {done}")
        assert problems == [], f"seed {seed}, round {number}, damage: {done}"
    assert sum(w.calls for w in writers) > 5 * count


def test_nothing_acknowledged_is_lost(tmp_path: Path, oracle: SimpleNamespace) -> None:
    _rounds(tmp_path / "db", oracle, 8, random.SystemRandom().randrange(10**9))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_nothing_acknowledged_is_lost_in_many_rounds(tmp_path: Path, oracle: SimpleNamespace) -> None:
    seed = int(os.environ.get("VECTORDB_CRASH_SEED", random.SystemRandom().randrange(10**9)))
    _rounds(tmp_path / "db", oracle, int(os.environ.get("VECTORDB_CRASH_ROUNDS", "100")), seed)
