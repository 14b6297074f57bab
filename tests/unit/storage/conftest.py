"""A child process that writes and is killed: the crashes that storage must survive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_CHILD = """
import sys
from vectordb.storage.acked import AckedPage
from vectordb.storage.base import Family
from vectordb.storage.rocks import RocksStorage

path, rounds = sys.argv[1], int(sys.argv[2])
storage, page = RocksStorage(path + "/rocksdb"), AckedPage(path + "/ACKED")
for n in range(1, rounds + 1) if rounds else iter(range(1, 1 << 30)):
    batch = storage.batch()
    batch.put_many(Family.ROWS, [b"%06d-%02d" % (n, i) for i in range(20)], [b"%d" % n * 50] * 20)
    batch.put_many(Family.VECTORS, [b"%06d-%02d" % (n, i) for i in range(20)], [b"v" * 100] * 20)
    batch.put(Family.META, b"version", b"%d" % n)
    storage.write(batch)
    page.store(storage.sync(), {1: n})
    print(n, flush=True)
sys.stdin.read()
"""

Crash = Callable[[Path, int], int]


@pytest.fixture
def crash() -> Crash:
    """``crash(folder, n)``: a child writes and acknowledges n batches, then is killed; returns the last acknowledged.

    With n below 0 it is killed while it writes, once -n batches are acknowledged. Batch n holds the ROWS and VECTORS
    keys ``b"%06d-%02d" % (n, 0..19)``, and META ``b"version"`` = n; the ACKED page knows collection 1 at version n.
    """

    def run(folder: Path, batches: int) -> int:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(folder), str(max(batches, 0))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
        )
        assert child.stdin is not None
        assert child.stdout is not None
        acked = 0
        for line in child.stdout:
            acked = int(line)
            if acked == abs(batches):
                break
        child.kill()
        with child.stdout, child.stdin:
            lines = child.stdout.read().split(b"\n")
        child.wait()
        # What came after the last line feed was not acknowledged.
        return max([acked, *(int(line) for line in lines[:-1])])

    return run
