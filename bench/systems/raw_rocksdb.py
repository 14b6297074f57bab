"""Bare RocksDB: the same bytes a row, batch and sync a batch. The floor under the engine's durable writes."""

from __future__ import annotations

import time
from pathlib import Path

import rocksdict

from bench.datasets import Dataset
from bench.systems.base import WRITE_BATCH
from vectordb.encoding import encode_metadata


def ingest(data: Dataset, folder: Path) -> dict[str, float]:
    """Writes id -> vector and id -> metadata in batches of 1,000 rows, each synced: rows/s."""
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    db = rocksdict.Rdict(str(folder), options)
    ids = [name.encode() for name in data.ids]
    metadata = [encode_metadata(row) for row in data.metadata]
    unsynced = rocksdict.WriteOptions()
    started = time.perf_counter()
    for start in range(0, len(ids), WRITE_BATCH):
        batch = rocksdict.WriteBatch(raw_mode=True)
        for row in range(start, min(start + WRITE_BATCH, len(ids))):
            batch.put(b"v" + ids[row], data.base[row].tobytes())
            batch.put(b"m" + ids[row], metadata[row])
        db.write(batch, unsynced)
        db.flush_wal(True)
    seconds = time.perf_counter() - started
    db.close()
    return {"rows_per_s": len(ids) / seconds}
