"""A log that comes back shorter than what was acknowledged is never opened in silence."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from tests.damage import flip
from tests.verified import verify_folder
from vectordb import errors
from vectordb.cli.process import ServerProcess
from vectordb_client import connect


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A folder whose server was killed after 50 acknowledged writes."""
    server = ServerProcess(tmp_path)
    with connect(server.address) as db:
        collection = db.create_collection("c", 4)
        for i in range(50):
            collection.upsert([f"id-{i}"], np.ones((1, 4)), [{"n": i}], idempotency_key=f"key-{i}")
        server.kill()
    return tmp_path


def _newest_log(folder: Path) -> Path:
    return max((p for p in (folder / "rocksdb").glob("*.log")), key=lambda p: p.stat().st_size)


def test_a_kill_alone_loses_nothing(killed: Path) -> None:
    with vectordb.Database(killed) as db:
        assert db["c"].count() == 50
        again = db["c"].upsert(["id-49"], np.ones((1, 4)), [{"n": 49}], idempotency_key="key-49")
        assert (again.version, db["c"].stats().version) == (50, 50)
    assert verify_folder(killed) == []


def test_a_lost_tail_is_told_and_opens_only_when_accepted(killed: Path) -> None:
    log = _newest_log(killed)
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 700)
    with pytest.raises(errors.Corruption, match=r"collection number 1 lost acknowledged versions? .*\('c'\)"):
        vectordb.Database(killed)
    with vectordb.Database(killed, accept_loss=True) as db:
        left = db["c"].count()
        assert 0 < left < 50
        assert sorted(r.metadata["n"] for r in db["c"].scan()) == list(range(left))
        db["c"].upsert(["new"], np.ones((1, 4)))
    with vectordb.Database(killed) as db:
        assert db["c"].count() == left + 1


def test_damage_in_the_middle_is_refused_until_the_loss_is_accepted(killed: Path) -> None:
    flip(_newest_log(killed))
    with pytest.raises(errors.Corruption, match=r"lost acknowledged versions .* to 50"):
        vectordb.Database(killed)
    with vectordb.Database(killed, accept_loss=True) as db:
        left = db["c"].count()
        assert 0 < left < 50
        assert sorted(r.metadata["n"] for r in db["c"].scan()) == list(range(left))
    assert verify_folder(killed) == []


def test_damage_behind_the_last_acknowledged_write_costs_nothing(killed: Path) -> None:
    with _newest_log(killed).open("ab") as file:
        file.write(bytes(100) + b"what a power loss left of a write that nobody was told of" * 20)
    with vectordb.Database(killed) as db:
        assert sorted(r.metadata["n"] for r in db["c"].scan()) == list(range(50))
        db["c"].upsert(["new"], np.ones((1, 4)))
    assert verify_folder(killed) == []


_LAST = 65_536


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory, nursery: Any) -> Path:
    """A killed database of batches of three rows, whose log is longer than 64 KB."""
    folder = tmp_path_factory.mktemp("log") / "db"
    server, address = nursery.serve(folder)
    with connect(address) as db:
        collection = db.create_collection("c", 32)
        n = 0
        while _newest_log(folder).stat().st_size < _LAST + 5_000:
            collection.upsert([f"{n}-{i}" for i in range(3)], np.ones((3, 32)), [{"n": n}] * 3)
            n += 1
    server.kill()
    shutil.rmtree(folder / "door")  # sockets cannot be copied
    return folder


@pytest.mark.rounds(150, _LAST)
def test_a_log_cut_anywhere(rounds: Any, long_log: Path, fast_path: Path) -> None:
    size = _newest_log(long_log).stat().st_size
    with vectordb.Database(shutil.copytree(long_log, fast_path / "whole")) as db:
        batches = db["c"].stats().version
    for round in rounds:
        back = round.number + 1 if rounds.count == _LAST else round.rng.randint(1, _LAST)
        folder = shutil.copytree(long_log, fast_path / "db")
        with _newest_log(folder).open("r+b") as file:
            file.truncate(size - back)
        # Every write was acknowledged, so that any cut takes something that must be reported.
        with pytest.raises(errors.Corruption, match=f"lost acknowledged versions? .*{batches} "):
            vectordb.Database(folder)
        with vectordb.Database(folder, accept_loss=True) as db:
            version = db["c"].stats().version
            assert version < batches
            found = sorted((r.metadata["n"], r.id) for r in db["c"].scan())
            assert found == [(n, f"{n}-{i}") for n in range(version) for i in range(3)]
        shutil.rmtree(folder)
