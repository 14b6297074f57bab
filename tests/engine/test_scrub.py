"""Background checks: damage to the files of an open database is found and mended while searches go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectordb import Database, errors
from vectordb.engine import scrub
from vectordb.engine.scrub import read_all
from vectordb.engine.verify import verify_folder
from vectordb.storage.base import Family
from vectordb.storage.rocks import RocksStorage

DIM = 8


def fill(db: Database) -> Any:
    docs = db.create_collection("docs", DIM, index="hnsw")
    rng = np.random.default_rng(0)
    docs.upsert([f"r{i}" for i in range(900)], rng.standard_normal((900, DIM)), texts=[f"word{i}" for i in range(900)])
    docs.optimize()
    return docs


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)


def engine_of(db: Database) -> Any:
    return db._backend


def test_a_pass_reads_everything_and_finds_nothing_in_a_sound_database(tmp_path: Path) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        engine = engine_of(db)
        assert engine._scrubber.scrub(engine._live("docs")) == []
        stats = docs.stats().scrub
        assert (stats.passes, stats.damaged, stats.rebuilt, stats.error) == (1, 0, 0, None)
        assert stats.bytes > 900 * DIM * 4


@pytest.mark.parametrize("file", ["vectors.f32", "text/text.bin", "index-*/index.bin"])
def test_the_background_mends_what_a_disk_spoiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scrub, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(scrub, "_PASS_SECONDS", 0.05)
    with Database(tmp_path / "db") as db:
        docs = fill(db)
        query = np.ones(DIM)
        before = docs.search(query, exact=True).ids
        (path,) = (tmp_path / "db" / "segments").glob(f"*/{file}")
        flip(path)
        end = time.monotonic() + 60
        while docs.stats().scrub.rebuilt == 0:
            assert time.monotonic() < end, docs.stats().scrub
            docs.upsert(["busy"], np.ones((1, DIM)))
            docs.delete(["busy"])
            time.sleep(0.02)
        docs.optimize()
        stats = docs.stats()
        assert stats.scrub.damaged >= 1
        assert stats.segments[0].index == "hnsw"
        assert docs.search(query, exact=True).ids == before
        assert docs.search_text("word7").ids == ["r7"]
        assert db.verify().problems == ()
    assert "does not meet its checksum" in caplog.text
    assert verify_folder(tmp_path / "db") == []


def test_a_merge_never_passes_damage_on(tmp_path: Path) -> None:
    """What a merge writes gets checksums of its own: its sources are checked first."""
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        flip(next((tmp_path / "db" / "segments").glob("*/vectors.f32")))
        docs.upsert([f"more{i}" for i in range(300)], np.ones((300, DIM)))
        docs.optimize()
        assert len(docs.stats().segments) == 1
        assert db.verify().problems == ()


def test_damage_to_storage_is_counted_and_told(tmp_path: Path) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        engine = engine_of(db)
        engine._storage.flush()
    tables = sorted((tmp_path / "db" / "rocksdb").glob("*.sst"), key=lambda p: p.stat().st_size)
    flip(tables[-1])
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = db["docs"]
        engine = engine_of(db)
        assert "block checksum mismatch" in str(engine._scrubber.scrub(engine._live("docs")))
        stats = docs.stats().scrub
        assert (stats.damaged, stats.rebuilt) == (1, 0)
        assert "block checksum mismatch" in str(stats.error)


def test_reading_in_short_scans_reads_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = RocksStorage(tmp_path / "db")
    batch = storage.batch()
    for i in range(100):
        batch.put(Family.ROWS, b"k%03d" % i, b"x" * 996)
    storage.write(batch)
    monkeypatch.setattr(scrub, "_CHUNK", 10_000)
    sizes = list(read_all(storage, Family.ROWS, b"", b"\xff"))
    assert (sum(sizes), max(sizes)) == (100_000, 10_000)
    storage.close()


def test_the_pace_is_kept_and_given_up_when_the_database_closes() -> None:
    import threading

    stop = threading.Event()
    waited: list[float] = []
    stop.wait = waited.append  # type: ignore[assignment,method-assign]
    pace = scrub._Pace(1 << 20, lambda: False, stop)
    for _ in range(5):
        assert not pace.chunk()
    # Nothing really waited here, so each wait is for all bytes so far.
    assert [round(seconds) for seconds in waited] == [1, 2, 3, 4, 5]
    assert scrub._Pace(0, lambda: True, stop).chunk()


def test_a_negative_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="scrub_bytes_per_second"):
        Database(tmp_path / "db", scrub_bytes_per_second=-1)
