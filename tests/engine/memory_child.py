"""A child process: fills a folder beyond its memory limit, and prints what private memory that took, as JSON.

    python -m tests.engine.memory_child FOLDER LIMIT_BYTES SECONDS

It writes twice the limit of vectors, reads until the caches are full, then searches, writes and deletes for so many
seconds.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import vectordb
import vectordb.index.faiss_hnsw
import vectordb.storage.rocks
from vectordb import errors
from vectordb.engine.capacity.allocator import give_back, private_bytes

DIM, BATCH = 768, 250
WINDOWS = 30


class Gauge(threading.Thread):
    """Private memory beyond that at the start, every 10 ms: its peak, and its floor in each of ``WINDOWS`` windows.

    Between two seals memory rises by a tail, and for moments by what a merge takes: a saw-tooth of 15 MB, in which a
    line through all samples cannot tell what stays from where it happens to begin and end. What stays lifts the floors.

    Attributes:
        floors: Bytes and when they were seen.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.base = private_bytes()
        self.peak = 0
        self.floors: list[tuple[int, float]] = []
        self._window = seconds / WINDOWS

    def run(self) -> None:
        lowest, end = (sys.maxsize, 0.0), time.monotonic() + self._window
        while True:
            now, at = private_bytes() - self.base, time.monotonic()
            self.peak = max(self.peak, now)
            lowest = min(lowest, (now, at))
            if at >= end:
                self.floors.append(lowest)
                lowest, end = (sys.maxsize, 0.0), at + self._window
            time.sleep(0.01)

    def slope(self) -> float:
        """Bytes a second by which the floors rise after the first sixth of the time.

        The median of all pairs of floors (Theil 1950, Sen 1968): a leak is in every pair, a step only in those around
        it. One is no leak: CPython takes memory by the MiB, and keeps a MiB of which one object is left.
        """
        floors = np.array(self.floors[WINDOWS // 6 :], np.float64)
        earlier, later = np.triu_indices(len(floors), 1)
        rise = floors[later] - floors[earlier]
        return float(np.median(rise[:, 0] / rise[:, 1]))


def main() -> None:
    folder, limit, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    rng = np.random.default_rng(5)
    # One row of each batch that stays is remembered: the data itself would be the largest thing in memory.
    kept: dict[str, Any] = {}
    refused = wrong = 0
    gauge = Gauge(seconds)
    gauge.start()
    with vectordb.Database(folder, memory_limit=limit) as db:
        collection = db.create_collection("c", DIM, index={"kind": "hnsw", "m": 6, "ef_construction": 24})
        try:
            collection.upsert(
                [str(i) for i in range(limit // (6 * DIM))], np.ones((limit // (6 * DIM), DIM), np.float32)
            )
        except errors.ResourceExhausted:
            refused += 1
        give_back()
        gauge.peak = 0  # what the caller's own array took
        batches = 2 * limit // (4 * DIM * BATCH)

        def write(number: int) -> None:
            nonlocal refused
            rows = rng.standard_normal((BATCH, DIM), dtype=np.float32)
            ids = [f"{number}-{i}" for i in range(BATCH)]
            while True:
                try:
                    collection.upsert(ids, rows, [{"n": number}] * BATCH)
                    break
                except errors.ResourceExhausted as error:
                    refused += 1
                    time.sleep(error.retry_after)
            if number < batches:
                kept[ids[0]] = rows[0].copy()

        for number in range(batches):
            write(number)
        collection.optimize()
        # What RocksDB keeps of the blocks that it reads would grow for half an hour before it meets its bound.
        for number in range(batches // 5):
            collection.get([f"{number}-{i}" for i in range(BATCH)], include=("vector",))
        first = {name: kept[name] for name in list(kept)[:: max(1, len(kept) // 32)]}
        gauge.floors.clear()
        end, number = time.monotonic() + seconds, batches
        while True:
            for name, row in first.items():
                wrong += collection.search(row, limit=3, exact=True)[0].id != name
                collection.search(row, limit=3)
            if time.monotonic() >= end:
                break
            write(number)
            collection.delete(where=vectordb.col("n") == number)
            number += 1
        wrong += collection.count() != batches * BATCH
        stats = collection.stats()
        filled, slope = gauge.peak, gauge.slope()
    give_back()
    gauge.peak = 0
    with vectordb.Database(folder, memory_limit=limit) as db:
        collection = db["c"]
        for name, row in first.items():
            wrong += collection.search(row, limit=3, exact=True)[0].id != name
    give_back()
    report = {
        "rows": batches * BATCH,
        "indexed": stats.indexed_rows,
        "filled_peak": filled,
        "opened_peak": gauge.peak,
        "slope": slope,
        "floors": [round(floor / 2**20, 2) for floor, _ in gauge.floors],
        "refused": refused,
        "wrong": wrong,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
