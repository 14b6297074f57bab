"""Background checks: damage to the files of an open database is found and mended while searches go on."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.damage import flip
from tests.verified import verify_folder
from vectordb import Database, errors
from vectordb.engine.care import scrub
from vectordb.engine.care.backup import restore
from vectordb.engine.care.scrub import read_all
from vectordb.engine.jobs import trained_file
from vectordb.engine.reindexer import Reindexer
from vectordb.segments import store as store_module
from vectordb.segments.store import SegmentStore
from vectordb.storage.base import Family
from vectordb.storage.rocks import RocksStorage

DIM = 8


def fill(db: Database) -> Any:
    docs = db.create_collection("docs", DIM, index="hnsw")
    rng = np.random.default_rng(0)
    docs.upsert([f"r{i}" for i in range(900)], rng.standard_normal((900, DIM)), texts=[f"word{i}" for i in range(900)])
    docs.optimize()
    return docs


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


def test_a_merge_never_passes_damaged_words_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        flip(next((tmp_path / "db" / "segments").glob("*/text/text.bin")))
        docs.upsert([f"more{i}" for i in range(300)], np.ones((300, DIM)))
        docs.optimize()
        assert "was rebuilt from storage" in caplog.text
        assert len(docs.stats().segments) == 1
        assert db.verify().problems == ()
        assert docs.search_text("word7").ids == ["r7"]


@pytest.mark.parametrize("moment", ["before", "while", "after"])
def test_a_segment_that_is_merged_away_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before a file of it is read, while one is read, and after all were."""
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        engine = engine_of(db)
        live = engine._live("docs")
        old = live.segments[0]
        docs.upsert([f"more{i}" for i in range(300)], np.ones((300, DIM)))
        reached = []

        def away() -> None:
            if not reached:  # the merge checks its sources too
                reached.append(moment)
                docs.optimize()
                assert old not in live.segments

        facts, verify, read = SegmentStore._facts, SegmentStore.verify, store_module.checksum

        def before(self: Any, ref: str, cancelled: Any) -> Any:
            away()
            return verify(self, ref, cancelled)

        def during(path: Path, cancelled: Any) -> str:
            away()
            return read(path, cancelled)

        asked: list[str] = []

        def after(self: Any, ref: str) -> Any:
            asked.append(ref)
            if len(asked) == 2:
                away()
            return facts(self, ref)

        if moment == "before":
            monkeypatch.setattr(SegmentStore, "verify", before)
        elif moment == "while":
            monkeypatch.setattr(store_module, "checksum", during)
        else:
            monkeypatch.setattr(SegmentStore, "_facts", after)
        engine._scrubber._attempt(live)
        monkeypatch.undo()
        assert reached == [moment]
        stats = docs.stats().scrub
        assert (stats.passes, stats.damaged, stats.error) == (1, 0, None)
        assert caplog.text == ""
        assert engine._scrubber.scrub(live) == []


@pytest.mark.parametrize("gone", ["segment.json", "vectors.f32", "text", "index-*/index.json", ""])
def test_what_is_missing_of_a_serving_segment_is_mended(tmp_path: Path, gone: str) -> None:
    """A file, a folder in it, the folder itself: by a pass, and by what a check of the open database finds."""
    folder = tmp_path / "db"
    for mend in ("scrub", "repair"):
        with Database(folder, scrub_bytes_per_second=0) as db:
            docs = fill(db) if mend == "scrub" else db["docs"]
            before = docs.search(np.ones(DIM), exact=True).ids
            (segment,) = docs.stats().segments
            (path,) = (folder / "segments").glob(f"{segment.name}/{gone}" if gone else segment.name)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            if mend == "scrub":
                engine = engine_of(db)
                assert len(engine._scrubber.scrub(engine._live("docs"))) >= 1
            else:
                assert db.verify().problems != ()
                assert db.repair().rebuilt != ()
            docs.optimize()
            scrubbed = docs.stats().scrub
            assert scrubbed.rebuilt == scrubbed.damaged >= 1
            assert docs.stats().segments[0].index == "hnsw"
            assert docs.search(np.ones(DIM), exact=True).ids == before
            assert docs.search_text("word7").ids == ["r7"]
            assert db.verify().problems == ()


def test_a_backup_of_a_database_that_lacks_a_segment_restores_whole(tmp_path: Path) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        shutil.rmtree(tmp_path / "db" / "segments" / docs.stats().segments[0].name)
        db.backup(tmp_path / "backups")
    restore(str(tmp_path / "backups"), tmp_path / "again")
    with Database(tmp_path / "again") as db:
        assert db["docs"].count() == 900
        assert db["docs"].search_text("word7").ids == ["r7"]


def test_a_reindex_survives_that_an_index_it_would_learn_from_is_merged_away(tmp_path: Path) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        live = engine_of(db)._live("docs")
        docs.upsert([f"more{i}" for i in range(300)], np.ones((300, DIM)))
        stale = list(live.segments)
        docs.optimize()
        assert trained_file(engine_of(db)._segments, live.form, stale) is None
        assert trained_file(engine_of(db)._segments, live.form, [*stale, *live.segments]) is not None


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
    monkeypatch.setattr(scrub, "_SCANNED", 10_000)
    sizes = list(read_all(storage, Family.ROWS, b"", b"\xff"))
    assert (sum(sizes), max(sizes)) == (100_000, 10_000)
    storage.close()


def test_the_pace_is_kept_and_given_up_when_the_database_closes() -> None:
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


def test_a_damaged_index_of_a_running_reindex_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, built, go = Reindexer._build, threading.Event(), threading.Event()

    def slowly(self: Any, live: Any, target: Any, segment: Any) -> None:
        if target.shadows:
            built.set()
            assert go.wait(60)
        build(self, live, target, segment)

    monkeypatch.setattr(Reindexer, "_build", slowly)
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = db.create_collection(
            "docs", DIM, index="flat", seal_bytes=DIM * 4 * 200, max_segment_bytes=DIM * 4 * 200
        )
        rng = np.random.default_rng(0)
        for _ in range(2):
            docs.upsert(None, rng.standard_normal((200, DIM)))
            docs.optimize()
        docs.reindex("hnsw", wait=False)
        assert built.wait(60)
        flip(next((tmp_path / "db" / "segments").glob("*/index-*/index.bin")))
        engine = engine_of(db)
        live = engine._live("docs")
        assert len(engine._scrubber.scrub(live)) == 1
        assert live.shadows == {}
        go.set()
        docs.reindex("hnsw")
        assert {s.index for s in docs.stats().segments} == {"hnsw"}
        assert docs.stats().scrub.rebuilt == 1
        assert db.verify().problems == ()
