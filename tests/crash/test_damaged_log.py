"""A log that comes back shorter than what was acknowledged is never opened in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vectordb
from vectordb import errors
from vectordb.cli.process import ServerProcess
from vectordb.engine.verify import verify_folder
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
        again = db["c"].upsert(["id-49"], np.ones((1, 4)), idempotency_key="key-49")
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


def test_damage_in_the_middle_is_refused(killed: Path) -> None:
    log = _newest_log(killed)
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0x40
    log.write_bytes(content)
    with pytest.raises(errors.Corruption):
        vectordb.Database(killed)
