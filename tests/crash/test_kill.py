"""SIGKILL under four writers, at random moments, again and again on one folder; then with its caches damaged.

``test_failpoints.py`` kills at named places; together they kill more than a hundred times by default.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.crash import oracle


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


@pytest.mark.rounds(8, 5_000)
def test_nothing_acknowledged_is_lost(rounds: Any, nursery: Any, tmp_path: Path) -> None:
    """On a disk, not in memory: with syncs as slow as they are."""
    ground, done_rounds, acknowledged = None, 0, 0
    for round in rounds:
        if round.number % 100 == 0 or ground is None:
            shutil.rmtree(tmp_path, ignore_errors=True)
            tmp_path.mkdir()
            ground = oracle.Ground(tmp_path, round.rng, large=2)
        before = sum(w.calls for w in ground.writers)
        server, address = nursery.serve(ground.folder)
        end = time.monotonic() + round.rng.uniform(0.05, 1.2)
        ask = round.rng.random() < 0.3

        def drive(db: Any, end: float = end, ask: bool = ask, server: Any = server) -> None:
            if ask:
                db["k"].optimize(wait=False)
            if time.monotonic() > end:
                server.kill()

        ground.write(address, drive, lambda server=server: server.code is not None)
        done = "nothing"
        problems = ground.problems(deep=round.number % 2 == 1)
        if round.number % 3:
            done = _damage(ground.folder, ("bit flipped", "segments deleted")[round.number % 2], round.rng)
            problems += ground.problems(deep=False)
        calls = sum(w.calls for w in ground.writers) - before
        print(f"{calls} calls, {sum(len(w.known) for w in ground.writers)} records, damage: {done}")
        assert problems == [], f"damage: {done}"
        done_rounds, acknowledged = done_rounds + 1, acknowledged + calls
    if not done_rounds:
        pytest.skip("the ledger has all rounds")
    # Else it would have been shown of nothing. A few rounds may all be short ones.
    assert acknowledged > (5 * done_rounds if done_rounds >= 8 else 0)


@pytest.mark.rounds(10, 100)
def test_sigterm_under_load(rounds: Any, nursery: Any, fast_path: Path) -> None:
    """Clients see nothing but ``Unavailable``, the server ends by itself within 10 s, and all is there."""
    ground = None
    for round in rounds:
        ground = ground or oracle.Ground(fast_path, round.rng)
        server, address = nursery.serve(ground.folder)
        end = time.monotonic() + round.rng.uniform(0.02, 0.5)

        def drive(db: Any, end: float = end, server: Any = server, turn: int = round.number) -> None:
            if turn % 3:
                db["k"].optimize(wait=turn % 3 == 1)
            ids = [record.id for record in db["k"].scan(page_size=50, include=())]
            assert len(ids) == len(set(ids))
            if time.monotonic() > end:
                server.signal(15)
                assert server.wait(10) == 0

        ground.write(address, drive, lambda server=server: server.code is not None)
        assert ground.problems(deep=round.number % 5 == 4) == []
