"""Opening a folder again: time to the first answer and memory after 1,000 searches, each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.datasets import Dataset
from bench.systems.base import memory
from bench.systems.engine import COLLECTION
from vectordb.cli.process import ServerProcess
from vectordb_client import connect

SEARCHES = 1_000


def reopen(data: Dataset, folder: Path) -> dict[str, float]:
    """Seconds to the first answer, embedded and served; memory above that of an empty database, in bytes and as a
    multiple of the raw vectors."""
    embedded = _embedded(folder, data.queries[0].tolist())
    with tempfile.TemporaryDirectory(dir=folder.parent) as empty:
        base = _served(Path(empty), data, fill=False)
    full = _served(folder, data, fill=True)
    above = {name: full[name] - base[name] for name in ("RssAnon", "RssFile")}
    return {
        "embedded_first_answer_s": embedded,
        "served_first_answer_s": full["first_answer_s"],
        "rss_anon_bytes": above["RssAnon"],
        "rss_file_bytes": above["RssFile"],
        "memory_over_raw_vectors": sum(above.values()) / data.base.nbytes,
    }


def _embedded(folder: Path, vector: list[float]) -> float:
    asked = json.dumps({"folder": str(folder), "vector": vector})
    done = subprocess.run(
        [sys.executable, "-m", "bench.reopen"], input=asked, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _served(folder: Path, data: Dataset, fill: bool) -> dict[str, Any]:
    """A server's memory after the searches; the empty one holds a collection of one row, to load the same libraries."""
    started = time.perf_counter()
    with ServerProcess(folder) as server, connect(server.address) as db:
        if fill:
            collection = db.collection(COLLECTION)
        else:
            collection = db.create_collection(COLLECTION, data.base.shape[1], metric=data.metric)
            collection.upsert(["0"], data.base[:1], metadata=data.metadata[:1])
        collection.search(data.queries[0])
        first = time.perf_counter() - started
        for turn in range(SEARCHES):
            collection.search(data.queries[turn % len(data.queries)])
        return {"first_answer_s": first, **memory(server.pid)}


def main() -> None:
    """The child process: reads ``{"folder", "vector"}``, prints the seconds from ``connect`` to the first answer."""
    asked = json.loads(sys.stdin.read())
    vector = np.asarray(asked["vector"], np.float32)
    started = time.perf_counter()
    db = connect(asked["folder"])
    db.collection(COLLECTION).search(vector)
    print(time.perf_counter() - started)
    db.close()


if __name__ == "__main__":
    main()
