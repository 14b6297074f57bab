"""What every storage must do. One suite, run against RocksDB and memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vectordb.errors import Closed
from vectordb.storage.base import Family, Storage
from vectordb.storage.memory import MemoryStorage
from vectordb.storage.rocks import RocksStorage

LAST = b"\xff" * 64
Opener = Callable[[], Storage]


@pytest.fixture(params=["rocks", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    opened: Storage = RocksStorage(tmp_path / "db") if request.param == "rocks" else MemoryStorage()
    yield opened
    opened.close()


def put(storage: Storage, *pairs: tuple[bytes, bytes], family: Family = Family.META) -> None:
    batch = storage.batch()
    for key, value in pairs:
        batch.put(family, key, value)
    storage.write(batch)


def everything(storage: Storage, family: Family = Family.META) -> list[tuple[bytes, bytes]]:
    return list(storage.scan(family, b"", LAST))


class TestBatch:
    def test_empty_batch_changes_nothing(self, storage: Storage) -> None:
        before = storage.sequence()
        storage.write(storage.batch())
        assert storage.sequence() == before
        assert everything(storage) == []

    def test_all_kinds_of_change(self, storage: Storage) -> None:
        put(storage, (b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
        batch = storage.batch()
        batch.put(Family.META, b"d", b"4")
        batch.delete(Family.META, b"a")
        batch.delete(Family.META, b"never there")
        batch.delete_range(Family.META, b"c", b"d")
        batch.put_many(Family.META, [b"e", b"f"], [b"5", b"6"])
        assert len(batch) == 6
        storage.write(batch)
        assert everything(storage) == [(b"b", b"2"), (b"d", b"4"), (b"e", b"5"), (b"f", b"6")]

    def test_families_are_apart(self, storage: Storage) -> None:
        batch = storage.batch()
        for family in Family:
            batch.put(family, b"k", family.value.encode())
        storage.write(batch)
        batch = storage.batch()
        batch.delete_range(Family.ROWS, b"", LAST)
        storage.write(batch)
        assert [storage.get(family, b"k") for family in Family] == [b"default", None, b"vectors"]

    def test_later_calls_win(self, storage: Storage) -> None:
        put(storage, (b"old", b"0"), (b"p", b"0"))
        batch = storage.batch()
        batch.put(Family.META, b"a", b"1")
        batch.put(Family.META, b"a", b"2")
        batch.put(Family.META, b"b", b"1")
        batch.delete(Family.META, b"b")
        batch.delete(Family.META, b"c")
        batch.put_many(Family.META, [b"c", b"c"], [b"1", b"2"])
        storage.write(batch)
        assert everything(storage) == [(b"a", b"2"), (b"c", b"2"), (b"old", b"0"), (b"p", b"0")]

    def test_delete_range_takes_its_place_in_the_order(self, storage: Storage) -> None:
        put(storage, (b"k0", b"old"), (b"k1", b"old"), (b"k2", b"old"))
        batch = storage.batch()
        batch.put(Family.META, b"k1", b"gone again")
        batch.delete_range(Family.META, b"k0", b"k2")
        batch.put(Family.META, b"k0", b"after")
        storage.write(batch)
        assert everything(storage) == [(b"k0", b"after"), (b"k2", b"old")]
        batch = storage.batch()
        batch.delete_range(Family.META, b"k0", b"k0")
        batch.delete_range(Family.META, b"k9", b"k0")
        storage.write(batch)
        assert everything(storage) == [(b"k0", b"after"), (b"k2", b"old")]

    def test_put_many_needs_equal_lengths(self, storage: Storage) -> None:
        with pytest.raises(ValueError, match="2 keys and 1 values"):
            storage.batch().put_many(Family.META, [b"a", b"b"], [b"1"])

    def test_binary_keys_and_large_values(self, storage: Storage) -> None:
        pairs = [(b"\x00", b""), (b"\x00\x00", b"\x00"), (b"\xff" * 20, b"x" * 300_000)]
        put(storage, *pairs)
        assert everything(storage) == pairs

    def test_a_batch_is_seen_whole(self, storage: Storage) -> None:
        put(storage, (b"first", b"0"), (b"last", b"0"))
        stop, torn = threading.Event(), []

        def read() -> None:
            while not stop.is_set():
                last = storage.get(Family.META, b"last")
                first = storage.get(Family.META, b"first")
                assert first is not None
                assert last is not None
                # `first` is written before `last`, and read after it: it may only be newer.
                if int(first) < int(last):
                    torn.append((first, last))
                pairs = everything(storage)
                if pairs[0][1] != pairs[-1][1]:
                    torn.append((pairs[0][1], pairs[-1][1]))

        reader = threading.Thread(target=read)
        reader.start()
        for round_ in range(1, 150):
            batch = storage.batch()
            batch.put(Family.META, b"first", b"%d" % round_)
            batch.put_many(Family.META, [b"k%03d" % i for i in range(100)], [b"%d" % round_] * 100)
            batch.put(Family.META, b"last", b"%d" % round_)
            storage.write(batch)
        stop.set()
        reader.join()
        assert torn == []


class TestReads:
    def test_get_many_keeps_the_asked_order(self, storage: Storage) -> None:
        put(storage, (b"a", b"1"), (b"b", b"2"), (b"c", b"3"))
        assert storage.get_many(Family.META, [b"c", b"nope", b"a", b"c"]) == [b"3", None, b"1", b"3"]
        assert storage.get_many(Family.META, []) == []
        assert storage.get(Family.META, b"nope") is None

    def test_scan_orders_bytewise(self, storage: Storage) -> None:
        keys = [b"\x00", b"\x00\x01", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\x00"]
        put(storage, *((key, key) for key in reversed(keys)))
        assert [key for key, _ in everything(storage)] == keys

    def test_scan_bounds(self, storage: Storage) -> None:
        put(storage, *((b"%d" % i, b"") for i in range(6)))
        assert [k for k, _ in storage.scan(Family.META, b"2", b"4")] == [b"2", b"3"]
        assert [k for k, _ in storage.scan(Family.META, b"2", b"4", reverse=True)] == [b"3", b"2"]
        assert [k for k, _ in storage.scan(Family.META, b"15", b"25")] == [b"2"]
        assert [k for k, _ in storage.scan(Family.META, b"15", b"25", reverse=True)] == [b"2"]

    @pytest.mark.parametrize(("start", "end"), [(b"7", b"8"), (b"2", b"2"), (b"4", b"2"), (b"", b"")])
    @pytest.mark.parametrize("reverse", [False, True])
    def test_empty_ranges(self, storage: Storage, start: bytes, end: bytes, reverse: bool) -> None:
        put(storage, *((b"%d" % i, b"") for i in range(6)))
        assert list(storage.scan(Family.META, start, end, reverse=reverse)) == []

    @pytest.mark.parametrize("reverse", [False, True])
    def test_long_scans_are_complete(self, storage: Storage, reverse: bool) -> None:
        pairs = [(b"%06d" % i, b"v" * (i % 700)) for i in range(5000)]
        put(storage, *pairs)
        found = list(storage.scan(Family.META, b"", LAST, reverse=reverse))
        assert found == (pairs[::-1] if reverse else pairs)

    def test_scans_with_short_bounds_are_complete(self, storage: Storage) -> None:
        """Bounds of 4 bytes, in all families: native memory for them must outlive the call that made the scan."""
        batch = storage.batch()
        keys = [bytes((0, 0, 0, cid)) + b"%05d" % i for cid in (1, 2) for i in range(1000)]
        for family in Family:
            batch.put_many(family, keys, [b"v" * 100] * len(keys))
        storage.write(batch)
        for _ in range(20):
            scans = [
                (storage.scan(family, bytes((0, 0, 0, cid)), bytes((0, 0, 0, cid + 1)), reverse=reverse), cid)
                for family in Family
                for cid in (1, 2)
                for reverse in (False, True)
            ]
            storage.get_many(Family.META, keys[::7])
            assert [sum(key[3] == cid for key, _ in scan) for scan, cid in scans] == [1000] * len(scans)

    def test_scan_sees_the_moment_of_the_call(self, storage: Storage) -> None:
        pairs = [(b"%04d" % i, b"old") for i in range(2000)]
        put(storage, *pairs)
        scan = storage.scan(Family.META, b"", LAST)
        batch = storage.batch()  # before the first step, too
        batch.delete_range(Family.META, b"0500", b"1500")
        batch.put(Family.META, b"0000", b"new")
        batch.put(Family.META, b"0001x", b"new")
        storage.write(batch)
        found = [next(scan) for _ in range(10)]
        put(storage, (b"1999", b"new"), (b"9999", b"new"))
        found += scan
        assert found == pairs
        assert len(everything(storage)) == 1002

    def test_scan_beside_writers(self, storage: Storage) -> None:
        put(storage, *((b"%04d" % i, b"0") for i in range(1000)))
        stop = threading.Event()

        def write() -> None:
            version = 0
            while not stop.is_set():
                version += 1
                put(storage, *((b"%04d" % i, b"%d" % version) for i in range(1000)))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(20):
                values = {value for _, value in everything(storage)}
                assert len(values) == 1
        finally:
            stop.set()
            writer.join()

    def test_dropped_and_closed_scans(self, storage: Storage) -> None:
        put(storage, *((b"%04d" % i, b"0") for i in range(100)))
        scan = storage.scan(Family.META, b"", LAST)
        next(scan)
        del scan
        storage.scan(Family.META, b"", LAST)
        storage.close()


class TestSequence:
    def test_grows_by_every_change(self, storage: Storage) -> None:
        seen = [storage.sequence()]
        for i in range(5):
            put(storage, (b"k", b"%d" % i))
            seen.append(storage.sequence())
        assert seen == sorted(set(seen))

    def test_sync_returns_what_is_durable(self, storage: Storage) -> None:
        put(storage, (b"a", b"1"))
        before = storage.sequence()
        assert storage.sync() == before
        put(storage, (b"a", b"2"))
        assert storage.sync() > before


class TestThreads:
    def test_writers_and_readers_together(self, storage: Storage) -> None:
        faults: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for i in range(50):
                    keys = [b"%d-%03d-%d" % (number, i, j) for j in range(10)]
                    batch = storage.batch()
                    batch.put_many(Family.ROWS, keys, [b"%d" % i] * 10)
                    storage.write(batch)
                    if i % 10 == 0:
                        storage.sync()
                    assert storage.get_many(Family.ROWS, keys) == [b"%d" % i] * 10
                    assert len(list(storage.scan(Family.ROWS, b"%d" % number, b"%d." % number))) == (i + 1) * 10
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert len(everything(storage, Family.ROWS)) == 2000


class TestUpkeep:
    def test_compact_changes_nothing_visible(self, storage: Storage) -> None:
        put(storage, *((b"%04d" % i, b"v") for i in range(1000)))
        batch = storage.batch()
        batch.delete_range(Family.META, b"0100", b"0900")
        storage.write(batch)
        before = everything(storage)
        for family in Family:
            storage.compact(family, b"", LAST)
        assert everything(storage) == before
        assert len(before) == 200

    def test_figures(self, storage: Storage) -> None:
        before = storage.memory_bytes()
        put(storage, *((b"%04d" % i, b"v" * 1000) for i in range(2000)))
        assert storage.memory_bytes() >= before + 2_000_000
        assert storage.disk_bytes() >= 0


class TestClose:
    def test_everything_is_refused_afterwards(self, storage: Storage) -> None:
        put(storage, *((b"%04d" % i, b"v") for i in range(100)))
        batch = storage.batch()
        batch.put(Family.META, b"a", b"1")
        scan = storage.scan(Family.META, b"", LAST)
        untouched = storage.scan(Family.META, b"", LAST)
        next(scan)
        storage.close()
        storage.close()
        calls: list[Callable[[], object]] = [
            lambda: storage.write(batch),
            storage.sync,
            storage.sequence,
            storage.disk_bytes,
            storage.memory_bytes,
            lambda: storage.get(Family.META, b"a"),
            lambda: storage.get_many(Family.META, [b"a"]),
            lambda: storage.scan(Family.META, b"", LAST),
            lambda: storage.compact(Family.META, b"", LAST),
            lambda: next(scan),
            lambda: next(untouched),
        ]
        for call in calls:
            with pytest.raises(Closed, match="closed"):
                call()

    def test_beside_running_calls(self, storage: Storage) -> None:
        keys = [b"%05d" % i for i in range(2000)]
        put(storage, *((key, b"v" * 500) for key in keys))
        started, other = threading.Barrier(5), []

        def run(call: Callable[[], object]) -> None:
            started.wait()
            try:
                while True:
                    call()
            except Closed:
                return
            except BaseException as error:
                other.append(error)

        calls: list[Callable[[], object]] = [
            lambda: storage.get_many(Family.META, keys),
            lambda: everything(storage),
            lambda: put(storage, (b"w", b"1")),
            storage.sync,
        ]
        threads = [threading.Thread(target=run, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        started.wait()
        closers = [threading.Thread(target=storage.close) for _ in range(2)]
        for thread in closers:
            thread.start()
        for thread in threads + closers:
            thread.join(30)
            assert not thread.is_alive()
        assert other == []
