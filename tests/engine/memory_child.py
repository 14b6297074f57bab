"""A child process: fills a folder beyond its memory limit, and prints what private memory that took, as JSON.

    python -m tests.engine.memory_child FOLDER LIMIT_BYTES SECONDS

It writes twice the limit of vectors, then searches, writes and deletes for so many seconds.
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
from vectordb.engine.allocator import give_back, private_bytes

DIM, BATCH = 768, 250


class Gauge(threading.Thread):
    """Private memory beyond that at the start, every 10 ms.

    Few of the figures are kept: those of half an hour would take a third of the limit.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.base = private_bytes()
        self.peak = 0
        self.seen: list[tuple[float, int]] = []
        self._every = seconds / 500

    def run(self) -> None:
        started = noted = time.monotonic()
        while True:
            now = private_bytes() - self.base
            self.peak = max(self.peak, now)
            if (at := time.monotonic()) - noted >= self._every:
                self.seen.append((at - started, now))
                noted = at
            time.sleep(0.01)

    def slope(self) -> float:
        """Bytes a second over the second half."""
        seen = np.array(self.seen[len(self.seen) // 2 :], np.float64)
        return float(np.polyfit(seen[:, 0], seen[:, 1], 1)[0]) if len(seen) > 10 else 0.0


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
        first = {name: kept[name] for name in list(kept)[:: max(1, len(kept) // 32)]}
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
        filled = gauge.peak
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
        "slope": gauge.slope(),
        "refused": refused,
        "wrong": wrong,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
