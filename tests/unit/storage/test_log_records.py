"""Records of a log that RocksDB would not come back from."""

from __future__ import annotations

from pathlib import Path

import pytest

from vectordb.errors import Corruption
from vectordb.storage import log_records
from vectordb.storage.base import Family
from vectordb.storage.log_records import BLOCK, HEADER, disarm, records
from vectordb.storage.rocks import RocksStorage


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Of a storage that was not closed: records shorter and longer than a block."""
    storage = RocksStorage(tmp_path / "live")
    for size in (10, 100, BLOCK - 50, 3 * BLOCK, 7):
        batch = storage.batch()
        batch.put(Family.META, b"k%d" % size, b"v" * size)
        storage.write(batch)
    storage.sync()
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in (tmp_path / "live").iterdir():
        if path.name != "LOCK":
            (folder / path.name).write_bytes(path.read_bytes())
    storage.close()
    (found,) = folder.glob("*.log")
    return found


def test_all_records_of_a_sound_log_are_found(log: Path) -> None:
    content = log.read_bytes()
    found = list(records(content))
    # Full ones, and of the long ones a first, middle ones and a last.
    assert {kind for _, kind in found} >= {1, 2, 3, 4}
    assert {kind for _, kind in found} <= {1, 2, 3, 4, 9, 10, 130}
    assert sum(HEADER.unpack_from(content, at)[1] for at, _ in found) > 4 * BLOCK
    before = log.stat().st_mtime_ns
    disarm(log.parent)
    assert (log.read_bytes(), log.stat().st_mtime_ns) == (content, before)


def test_what_would_be_read_for_ever_is_told_as_damage(log: Path) -> None:
    content = bytearray(log.read_bytes())
    at = [at for at, kind in records(bytes(content)) if kind == 1][2]
    content[at + HEADER.size - 1] ^= 4
    log.write_bytes(content)
    with pytest.raises(Corruption):
        RocksStorage(log.parent)
    assert dict(records(log.read_bytes()))[at] == 255
    storage = RocksStorage(log.parent, rescue=True)
    assert storage.get(Family.META, b"k10") == b"v" * 10
    storage.close()


def test_where_it_cannot_be_written_the_damage_is_told(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(log.read_bytes())
    content[HEADER.size - 1] = 5
    log.write_bytes(content)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(log_records.os, "fsync", refuse)
    with pytest.raises(Corruption, match="Read-only file system"):
        disarm(log.parent)


def test_a_log_that_ends_anywhere(log: Path) -> None:
    content = log.read_bytes()
    for size in (0, 1, 6, 7, 8, BLOCK - 1, BLOCK, BLOCK + 6, len(content) - 1):
        log.write_bytes(content[:size])
        assert all(at + HEADER.size <= size for at, _ in records(content[:size]))
        disarm(log.parent)
