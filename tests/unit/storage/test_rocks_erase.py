"""What leaves the files of RocksDB, shown on its bare files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from vectordb.errors import DeadlineExceeded
from vectordb.storage import rocks
from vectordb.storage.base import Family
from vectordb.storage.rocks import RocksStorage
from vectordb.storage.rocks_erase import erase_deleted

RANGE = b"\0\0\0\1", b"\0\0\0\2"


@pytest.fixture(autouse=True)
def uncompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    none = rocks.rocksdict.DBCompressionType.none
    monkeypatch.setattr(rocks.rocksdict, "DBCompressionType", SimpleNamespace(none=none, lz4=none, zstd=none))


def _put(storage: RocksStorage, *keys: bytes) -> None:
    batch = storage.batch()
    for key in keys:
        batch.put(Family.META, RANGE[0] + key, b"value")
    storage.write(batch)
    storage.sync()


def _delete(storage: RocksStorage, *keys: bytes) -> None:
    batch = storage.batch()
    for key in keys:
        batch.delete(Family.META, RANGE[0] + key)
    storage.write(batch)


def _files_with(folder: Path, needle: bytes) -> list[str]:
    """Also as hexadecimal digits, as RocksDB's own log would write a key."""
    forms = needle, needle.hex().encode(), needle.hex().upper().encode()
    return sorted(p.name for p in folder.iterdir() if any(form in p.read_bytes() for form in forms))


def test_log_tables_and_manifest_are_written_anew(tmp_path: Path) -> None:
    """The first and the last key of each table stand in the manifest, too."""
    folder = tmp_path / "db"
    storage = RocksStorage(folder)
    for number in range(3):
        _put(storage, b"aaa-needle", *(b"kept-%d-%d" % (number, i) for i in range(200)), b"zzz-needle")
        if number < 2:
            storage.flush()
    held = _files_with(folder, b"needle")
    assert {name.partition("-")[0].rpartition(".")[2] for name in held} == {"log", "sst", "MANIFEST"}
    _delete(storage, b"aaa-needle", b"zzz-needle")
    gone = erase_deleted(storage, *RANGE, lambda: 60.0)
    assert _files_with(folder, b"needle") == []
    assert set(held) <= set(gone)
    assert sum(1 for _ in storage.scan(Family.META, *RANGE)) == 600
    storage.close()
    again = RocksStorage(folder)
    assert sum(1 for _ in again.scan(Family.META, *RANGE)) == 600
    again.close()


def test_tables_without_the_range_stay(tmp_path: Path) -> None:
    storage = RocksStorage(tmp_path / "db")
    batch = storage.batch()
    batch.put(Family.META, b"\0\0\0\7kept-needle", b"value")
    storage.write(batch)
    storage.flush()
    kept = _files_with(tmp_path / "db", b"kept-needle")
    _put(storage, b"needle")
    _delete(storage, b"needle")
    erase_deleted(storage, *RANGE, lambda: 60.0)
    assert next(name for name in kept if name.endswith(".sst")) in _files_with(tmp_path / "db", b"kept-needle")
    storage.close()


def test_a_scan_that_holds_old_files_is_waited_for(tmp_path: Path) -> None:
    storage = RocksStorage(tmp_path / "db")
    _put(storage, *(b"needle-%d" % i for i in range(600)))
    storage.flush()
    scan = storage.scan(Family.META, *RANGE)
    next(scan)
    _delete(storage, *(b"needle-%d" % i for i in range(600)))
    left = iter([60.0] * 10 + [0.0] * 10)
    with pytest.raises(DeadlineExceeded, match=r"old files .* in use, such as \d+\.sst"):
        erase_deleted(storage, *RANGE, lambda: next(left, 0.0))
    scan.close()
    erase_deleted(storage, *RANGE, lambda: 60.0)
    assert _files_with(tmp_path / "db", b"needle") == []
    storage.close()
