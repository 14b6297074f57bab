"""``python -m bench deletes``: recall and latency after deleting 0 to 90 % at random, before and after the merge.

Each share starts from its own load, since a merge cannot be taken back. Memory and disk stand beside what the live rows
alone would need.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import plots, report
from bench.datasets import Dataset, load, nearest
from bench.loading import loaded

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench deletes", description=__doc__)
    parser.add_argument("--data", default="wordnet20k", help="as for python -m bench")
    parser.add_argument("--rows", type=int, help="only so many rows, evenly spread")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--index", default="hnsw")
    parser.add_argument("--quantization")
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--out", type=Path, help="JSON file, and a PNG beside it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    data = load(options.data, options.rows, options.queries)
    rows = []
    for share in options.shares:
        with tempfile.TemporaryDirectory(prefix="vectordb-bench-") as scratch:
            rows.append(measure(share, data, Path(scratch), options))
        print(line(rows[-1]), flush=True)
    path = report.place(options.out, f"deletes-{data.name}-{len(data.base)}-{options.index}")
    report.write(path, {"machine": report.machine(), "data": report.described(data), "deletes": rows})
    plots.deletes(path.with_suffix(".png"), rows, f"{data.name}, {len(data.base):,} rows, {options.index}")
    print(f"written to {path} and {path.with_suffix('.png').name}")


def measure(share: float, data: Dataset, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Loads, deletes, searches, merges, searches again."""
    count = len(data.base)
    dead = np.random.default_rng(13).permutation(count)[: round(share * count)]
    living = np.setdiff1d(np.arange(count), dead)
    truth = living[nearest(data.queries, data.base[living], options.limit, data.metric)]
    with loaded(folder / "db", data, options.index, options.quantization) as found:
        collection = found.collection
        # The background rewrites a segment once a fifth of it is dead: what is searched first is caught before that.
        ids = data.ids
        if len(dead):
            collection.delete([ids[row] for row in dead.tolist()])
        before = searched(collection, data, truth, options.limit)
        started = time.perf_counter()
        collection.optimize()
        merge_s = time.perf_counter() - started
        after = searched(collection, data, truth, options.limit)
        stats = collection.stats()
    return {
        "share": share,
        "living": len(living),
        "before": before,
        "merge_s": merge_s,
        "after": after,
        "memory_bytes": stats.memory_bytes,
        "disk_bytes": sum(segment.disk_bytes for segment in stats.segments),
        "bytes_a_living_row": sum(segment.disk_bytes for segment in stats.segments) / max(1, len(living)),
    }


def searched(collection: Any, data: Dataset, truth: Any, limit: int) -> dict[str, Any]:
    """Recall, median latency in microseconds, and what the segments hold."""
    deleted = collection.stats().deleted
    walls, hits = [], 0
    for vector, best in zip(data.queries, truth, strict=True):
        started = time.perf_counter()
        found = collection.search(vector, limit, include=())
        walls.append(time.perf_counter() - started)
        hits += len({int(hit.id) for hit in found} & set(best.tolist()))
    return {
        "recall": hits / truth.size,
        "p50_us": statistics.median(walls) * 1e6,
        "dead_rows": deleted,
        "strategies": sorted({segment.strategy for segment in found.plan if segment.rows}),
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    before, after = row["before"], row["after"]
    return (
        f"{row['share']:>4.0%} deleted: recall {before['recall']:.4f} p50 {before['p50_us']:>5.0f} us "
        f"({before['dead_rows']} dead, {'+'.join(before['strategies'])}); merged in {row['merge_s']:.1f} s: recall "
        f"{after['recall']:.4f} p50 {after['p50_us']:>5.0f} us ({after['dead_rows']} dead), "
        f"{row['bytes_a_living_row']:.0f} bytes of segments a living row"
    )
