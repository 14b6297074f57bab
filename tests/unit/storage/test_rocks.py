"""What only RocksDB must do: survive crashes, refuse damage, behave beside forks, stalls and other processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vectordb import failpoints
from vectordb.errors import Closed, Corruption, DirectoryLocked, FailedPrecondition, Internal, ResourceExhausted
from vectordb.storage import stall
from vectordb.storage.acked import Loss, lost, read_acked
from vectordb.storage.base import Family
from vectordb.storage.rocks import RocksStorage
from vectordb.storage.rocks_errors import translated

LAST = b"\xff" * 64
Crash = Callable[[Path, int], int]


def fill(storage: RocksStorage, rows: int, size: int = 100) -> None:
    batch = storage.batch()
    batch.put_many(Family.ROWS, [b"%06d" % i for i in range(rows)], [os.urandom(size) for _ in range(rows)])
    storage.write(batch)


def wal(folder: Path) -> Path:
    return max((folder / "rocksdb").glob("*.log"), key=lambda path: path.stat().st_size)


def recovered(folder: Path) -> tuple[int, int, list[int]]:
    """(version, sequence, numbers of the batches that are there) after opening; every batch must be whole."""
    storage = RocksStorage(folder / "rocksdb")
    try:
        version = int(storage.get(Family.META, b"version") or b"0")
        sequence = storage.sequence()
        found: dict[Family, dict[int, int]] = {Family.ROWS: {}, Family.VECTORS: {}}
        for family, counts in found.items():
            for key, _ in storage.scan(family, b"", LAST):
                number = int(key.split(b"-")[0])
                counts[number] = counts.get(number, 0) + 1
        assert found[Family.ROWS] == found[Family.VECTORS]
        assert set(found[Family.ROWS].values()) <= {20}
        return version, sequence, sorted(found[Family.ROWS])
    finally:
        storage.close()


class TestReopen:
    def test_data_and_sequence_come_back(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 500)
        before, sequence = list(storage.scan(Family.ROWS, b"", LAST)), storage.sequence()
        storage.close()
        for _ in range(3):
            storage = RocksStorage(tmp_path / "db")
            assert list(storage.scan(Family.ROWS, b"", LAST)) == before
            assert storage.sequence() >= sequence
            sequence = storage.sequence()
            storage.close()

    def test_lock_is_free_after_closing_beside_an_open_scan(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 1000)
        scan = storage.scan(Family.ROWS, b"", LAST)
        next(scan)
        storage.close()
        again = RocksStorage(tmp_path / "db")
        with pytest.raises(Closed):
            next(scan)
        again.close()

    def test_second_open_is_refused(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        with pytest.raises(DirectoryLocked, match="db"):
            RocksStorage(tmp_path / "db")
        fill(storage, 1)
        storage.close()

    def test_checkpoint_opens(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 100)
        storage.checkpoint(tmp_path / "copy")
        expected = list(storage.scan(Family.ROWS, b"", LAST))
        fill(storage, 200)
        storage.close()
        copy = RocksStorage(tmp_path / "copy")
        assert list(copy.scan(Family.ROWS, b"", LAST)) == expected
        copy.close()


class TestReadOnly:
    def test_reads_and_refuses(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 10)
        storage.close()
        files = {path.name: path.read_bytes() for path in (tmp_path / "db").glob("*.sst")}
        reader = RocksStorage(tmp_path / "db", read_only=True)
        assert len(list(reader.scan(Family.ROWS, b"", LAST))) == 10
        batch = reader.batch()
        batch.put(Family.META, b"a", b"1")
        for call in (lambda: reader.write(batch), reader.sync):
            with pytest.raises(FailedPrecondition, match="read-only"):
                call()
        reader.close()
        assert files == {path.name: path.read_bytes() for path in (tmp_path / "db").glob("*.sst")}

    def test_nothing_to_read(self, tmp_path: Path) -> None:
        with pytest.raises(FailedPrecondition, match="holds no RocksDB data"):
            RocksStorage(tmp_path / "db", read_only=True)
        assert not (tmp_path / "db").exists()

    def test_sees_the_wal_of_a_killed_writer(self, tmp_path: Path, crash: Crash) -> None:
        crash(tmp_path, 3)
        reader = RocksStorage(tmp_path / "rocksdb", read_only=True)
        assert reader.get(Family.META, b"version") == b"3"
        reader.close()


class TestCrash:
    @pytest.mark.parametrize("batches", [-1, -40])
    def test_killed_while_writing(self, tmp_path: Path, crash: Crash, batches: int) -> None:
        acked = crash(tmp_path, batches)
        page = read_acked(tmp_path / "ACKED")
        version, sequence, numbers = recovered(tmp_path)
        assert version >= acked
        assert numbers == list(range(1, version + 1))
        assert page.known
        assert lost(page, sequence, {1: version}) == []
        assert page.versions[1] >= acked

    def test_torn_last_record_opens(self, tmp_path: Path, crash: Crash) -> None:
        crash(tmp_path, 30)
        log = wal(tmp_path)
        os.truncate(log, log.stat().st_size - 7)
        version, _, numbers = recovered(tmp_path)
        assert version == 29
        assert numbers == list(range(1, 30))

    def test_truncated_acknowledged_tail_is_told(self, tmp_path: Path, crash: Crash) -> None:
        crash(tmp_path, 30)
        log = wal(tmp_path)
        os.truncate(log, log.stat().st_size // 2)
        page = read_acked(tmp_path / "ACKED")
        version, sequence, numbers = recovered(tmp_path)
        assert 0 < version < 30
        assert numbers == list(range(1, version + 1))
        assert lost(page, sequence, {1: version}) == [Loss(1, 30, version)]
        assert sequence < page.sequence

    @pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
    def test_damage_in_the_middle_is_refused(self, tmp_path: Path, crash: Crash, where: float) -> None:
        crash(tmp_path, 100)
        log = wal(tmp_path)
        with open(log, "r+b") as file:
            file.seek(int(log.stat().st_size * where))
            old = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes((old[0] ^ 0x10,)))
        with pytest.raises(Corruption, match="rocksdb' is damaged: Corruption") as caught:
            RocksStorage(tmp_path / "rocksdb")
        assert caught.value.path == str(tmp_path / "rocksdb")

    def test_lost_wal_is_told(self, tmp_path: Path, crash: Crash) -> None:
        crash(tmp_path, 5)
        os.truncate(wal(tmp_path), 0)
        version, sequence, _ = recovered(tmp_path)
        losses = lost(read_acked(tmp_path / "ACKED"), sequence, {} if not version else {1: version})
        assert [str(loss) for loss in losses] == ["collection number 1, acknowledged at version 5, is lost"]


class TestDamage:
    def test_missing_current_is_not_created_anew(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 10)
        storage.close()
        (tmp_path / "db" / "CURRENT").unlink()
        for read_only in (False, True):
            with pytest.raises(Corruption, match="CURRENT"):
                RocksStorage(tmp_path / "db", read_only=read_only)

    def test_unfinished_creation_starts_again(self, tmp_path: Path) -> None:
        (tmp_path / "db").mkdir()
        (tmp_path / "db" / "LOCK").touch()
        (tmp_path / "db" / "MANIFEST-000001").write_bytes(b"")
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 1)
        storage.close()

    def test_flipped_byte_in_a_table_is_found_by_every_reader(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 3000)
        storage.close()
        table = max((tmp_path / "db").glob("*.sst"), key=lambda path: path.stat().st_size)
        with open(table, "r+b") as file:
            file.seek(table.stat().st_size // 2)
            file.write(b"garbage")
        storage = RocksStorage(tmp_path / "db")
        keys = [b"%06d" % i for i in range(3000)]
        for call in (
            lambda: list(storage.scan(Family.ROWS, b"", LAST)),
            lambda: list(storage.scan(Family.ROWS, b"", LAST, reverse=True)),
            lambda: storage.get_many(Family.ROWS, keys),
            lambda: [storage.get(Family.ROWS, key) for key in keys],
        ):
            with pytest.raises(Corruption, match="checksum mismatch"):
                call()
        storage.close()

    def test_missing_table_is_refused(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 3000)
        storage.close()
        next((tmp_path / "db").glob("*.sst")).unlink()
        with pytest.raises(Corruption, match="db"):
            RocksStorage(tmp_path / "db").get(Family.ROWS, b"000001")

    def test_a_file_instead_of_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "db").write_text("hello")
        with pytest.raises(FailedPrecondition, match="is a file"):
            RocksStorage(tmp_path / "db")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("IO error: No space left on device: While appending to file: /x/000012.log", ResourceExhausted),
            ("IO error: Disk quota exceeded: /x", ResourceExhausted),
            ("IO error: lock hold by current process: /x/LOCK: No locks available", DirectoryLocked),
            ("Corruption: block checksum mismatch", Corruption),
            ("IO error: Input/output error: /x/000012.log", Internal),
        ],
    )
    def test_words_of_rocksdb(self, text: str, expected: type[Exception]) -> None:
        error = translated(Exception(text), Path("/x"))
        assert type(error) is expected
        assert text in str(error)


class TestFork:
    def test_the_child_is_refused_and_the_parent_goes_on(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        fill(storage, 1000)
        scan = storage.scan(Family.ROWS, b"", LAST)
        next(scan)

        def child() -> None:
            for call in (storage.sync, lambda: storage.get(Family.ROWS, b"000001"), lambda: next(scan)):
                try:
                    call()
                except Closed:
                    continue
                os._exit(1)
            storage.close()
            os._exit(7)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(20)
        assert process.exitcode == 7
        assert len(list(scan)) == 999
        fill(storage, 1100)
        storage.close()
        storage = RocksStorage(tmp_path / "db")
        assert len(list(storage.scan(Family.ROWS, b"", LAST))) == 1100
        storage.close()


class TestStall:
    def test_a_writer_waits_without_the_gil_and_the_lock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = RocksStorage(tmp_path / "db")
        stalls = iter([True] * 20)
        monkeypatch.setattr(storage, "_stalled", lambda: next(stalls, False))
        writer = threading.Thread(target=fill, args=(storage, 10))
        writer.start()
        reads = 0
        while writer.is_alive():
            storage.get(Family.ROWS, b"x")
            reads += 1
        writer.join()
        assert reads > 20
        assert len(list(storage.scan(Family.ROWS, b"", LAST))) == 10
        storage.close()

    def test_a_refused_batch_is_replayed_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = RocksStorage(tmp_path / "db")

        class Refusing:
            def __init__(self, db: object) -> None:
                self.db, self.refused = db, 0

            def __getattr__(self, name: str) -> object:
                return getattr(self.db, name)

            def write(self, batch: object, options: object) -> None:
                if self.refused < 3:
                    self.refused += 1
                    raise Exception("Result incomplete: Write stall")
                self.db.write(batch, options)  # type: ignore[attr-defined]

        refusing = Refusing(storage._db)
        monkeypatch.setattr(storage, "_db", refusing)
        fill(storage, 10)
        monkeypatch.setattr(storage, "_db", refusing.db)
        assert refusing.refused == 3
        assert len(list(storage.scan(Family.ROWS, b"", LAST))) == 10
        storage.close()

    def test_a_stall_that_goes_on_is_told_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        storage = RocksStorage(tmp_path / "db")
        stalls = iter([True] * 5)
        monkeypatch.setattr(storage, "_stalled", lambda: next(stalls, False))
        fill(storage, 10)
        assert caplog.text == ""
        monkeypatch.setattr(stall, "_TOLD_SECONDS", 0.0)
        stalls = iter([True] * 5)
        fill(storage, 10)
        assert caplog.text.count("has taken no writes for 0 s: its disk is slow, or fails") == 1
        storage.close()

    def test_a_write_that_is_held_up_is_told_what_stopped_rocksdb_for_good(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = RocksStorage(tmp_path / "db")
        monkeypatch.setattr(stall, "_TRIED_SECONDS", 0.0)
        monkeypatch.setattr(storage, "_stalled", lambda: True)
        fill(storage, 10)
        with (
            failpoints.armed("storage.write", failpoints.fail(errno.ENOSPC)),
            pytest.raises(ResourceExhausted, match="no space left"),
        ):
            fill(storage, 10)
        assert storage.failure is not None
        monkeypatch.undo()
        storage.close()

    def test_before_closing_a_stalled_write_is_given_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = RocksStorage(tmp_path / "db")
        monkeypatch.setattr(stall, "_LAST_SECONDS", 0.0)
        storage.hurry()
        stalls = iter([False, True])
        monkeypatch.setattr(storage, "_stalled", lambda: next(stalls, True))
        fill(storage, 10)  # what is not held up is written
        with pytest.raises(ResourceExhausted, match="is being closed"):
            fill(storage, 20)
        assert storage.failure is None
        assert len(list(storage.scan(Family.ROWS, b"", LAST))) == 10
        storage.close()

    def test_closing_ends_a_stalled_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = RocksStorage(tmp_path / "db")
        monkeypatch.setattr(storage, "_stalled", lambda: True)
        failed: list[Exception] = []

        def write() -> None:
            try:
                fill(storage, 10)
            except Closed as error:
                failed.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.05)
        storage.close()
        writer.join(10)
        assert len(failed) == 1

    def test_closing_cuts_a_compaction_short_and_keeps_the_data(self, tmp_path: Path) -> None:
        storage = RocksStorage(tmp_path / "db")
        for _ in range(4):
            fill(storage, 5000, size=1000)
        compactor = threading.Thread(target=storage.compact, args=(Family.ROWS, b"", LAST))
        compactor.start()
        time.sleep(0.01)
        fill(storage, 6000)
        started = time.monotonic()
        storage.close()
        compactor.join(10)
        assert time.monotonic() - started < 5
        storage = RocksStorage(tmp_path / "db")
        assert len(list(storage.scan(Family.ROWS, b"", LAST))) == 6000
        storage.close()
