"""RocksDB in a forked child, which has none of the threads that its parent had for it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vectordb.errors import FailedPrecondition
from vectordb.storage.base import Family
from vectordb.storage.rocks import RocksStorage

LAST = b"\xff" * 8


def fill(storage: RocksStorage, rows: int) -> None:
    """Rows ``000000`` and so on, a hundred a batch."""
    for first in range(0, rows, 100):
        batch = storage.batch()
        numbers = range(first, min(first + 100, rows))
        batch.put_many(Family.ROWS, [b"%06d" % n for n in numbers], [b"x" * 100] * len(numbers))
        storage.write(batch)


def _ends(child: Callable[[], None]) -> int | None:
    """The exit code of a forked child; None where it hangs."""
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    code = process.exitcode
    process.kill()
    process.join()
    return code


def test_after_closing_a_child_uses_storage_as_anybody(tmp_path: Path) -> None:
    # In a process of its own: other tests may have something open in this one.
    program = [sys.executable, "-c", "import sys, tests.unit.storage.test_rocks_threads as t; t.forks(sys.argv[1])"]
    subprocess.run([*program, str(tmp_path / "db")], check=True, timeout=120)


def forks(path: str) -> None:
    storage = RocksStorage(path)
    fill(storage, 1000)
    storage.close()

    def child() -> None:
        own = RocksStorage(path)
        fill(own, 2000)
        own.flush()
        fill(own, 3000)
        own.compact(Family.ROWS, b"", LAST)
        own.close()
        os._exit(7)

    for _ in range(2):
        assert _ends(child) == 7
    storage = RocksStorage(path)
    fill(storage, 4000)
    storage.flush()
    assert len(list(storage.scan(Family.ROWS, b"", LAST))) == 4000
    storage.close()


def test_beside_an_open_one_a_child_waits_for_no_thread_that_it_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = RocksStorage(tmp_path / "db")
    fill(storage, 1000)

    def child() -> None:
        own = RocksStorage(tmp_path / "other")
        fill(own, 1000)
        for call in (own.flush, lambda: own.checkpoint(tmp_path / "copy"), lambda: own.compact(Family.ROWS, b"", LAST)):
            with pytest.raises(FailedPrecondition, match="spawn"):
                call()
        own.close()
        own.close()
        another = RocksStorage(tmp_path / "another")
        monkeypatch.setattr(another, "_stalled", lambda: True)
        with pytest.raises(FailedPrecondition, match="spawn"):
            fill(another, 10)
        os._exit(7)

    assert _ends(child) == 7
    other = RocksStorage(tmp_path / "other")
    assert len(list(other.scan(Family.ROWS, b"", LAST))) == 1000
    for each in (storage, other):
        fill(each, 1100)
        each.flush()
        each.close()
