"""``python -m bench indexes``: recall against speed for every kind and quantization, with what each costs to have.

For each pair the data set is stored and indexed anew, opened again, and searched at several widths (the kind's own
parameter, from a quarter of its default to 16 times as much). Memory is what a process has more after opening and
searching than before, file-backed pages apart; disk is the folder of segments. Kinds follow each other, so compare
them on a quiet machine, or by processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import plots, report
from bench.datasets import Dataset, load
from bench.loading import loaded
from vectordb.errors import VectorDBError
from vectordb.index.registry import get_kind, usable_kind_names
from vectordb.metric import Metric

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench indexes", description=__doc__)
    parser.add_argument("--data", default="wordnet20k", help="as for python -m bench")
    parser.add_argument("--rows", type=int, help="only so many rows, evenly spread")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--kinds", nargs="*", help="index kinds; all that are installed by default")
    parser.add_argument("--quantizations", nargs="*", help="all that each kind supports by default; 'none' for none")
    parser.add_argument("--disk", type=Path, help="folder for the databases; a temporary one by default")
    parser.add_argument("--out", type=Path, help="JSON file, and a PNG beside it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    data = load(options.data, options.rows, options.queries)
    rows = []
    for kind, quantization in pairs(options, Metric(data.metric)):
        with tempfile.TemporaryDirectory(dir=options.disk, prefix="vectordb-bench-") as scratch:
            try:
                rows.append(measure(kind, quantization, data, Path(scratch), options.limit))
            except (VectorDBError, ImportError) as error:
                print(f"{kind} {quantization or ''}: not measured, {error}")
                continue
        print(table(rows[-1]), flush=True)
    path = report.place(options.out, f"indexes-{data.name}-{len(data.base)}")
    report.write(path, {"machine": report.machine(), "data": report.described(data), "indexes": rows})
    plots.indexes(path.with_suffix(".png"), rows, f"{data.name}, {len(data.base):,} rows, limit {options.limit}")
    print(f"written to {path} and {path.with_suffix('.png').name}")


def pairs(options: argparse.Namespace, metric: Metric) -> Iterator[tuple[str, str | None]]:
    """Kinds and the quantizations that they support under the metric."""
    for name in options.kinds or usable_kind_names():
        try:
            capabilities = get_kind(name).capabilities
        except VectorDBError as error:
            print(f"{name}: not measured, {error}")
            continue
        if metric not in capabilities.metrics:
            continue
        able = [None, *(q for q, metrics in capabilities.quantizations.items() if metric in metrics)]
        for quantization in able:
            if options.quantizations is None or (quantization or "none") in options.quantizations:
                yield name, quantization


def measure(kind: str, quantization: str | None, data: Dataset, folder: Path, limit: int) -> dict[str, Any]:
    """One pair: what it takes to have, and recall and speed by width."""
    with loaded(folder / "db", data, kind, quantization) as made:
        build_s, stats = made.build_s, made.collection.stats()
    held = resident(folder / "db", data)
    with loaded(folder / "db", data) as opened:
        points = [point(opened.collection, data, limit, params) for params in settings(kind, quantization)]
    return {
        "kind": kind,
        "quantization": quantization,
        "build_s": build_s,
        "index_memory_bytes": stats.memory_bytes,
        "resident_bytes": held,
        "disk_bytes": sum(file.stat().st_size for file in (folder / "db" / "segments").rglob("*") if file.is_file()),
        "points": points,
    }


def resident(folder: Path, data: Dataset) -> dict[str, int]:
    """What a process of its own holds more after opening the folder and searching it, in bytes by kind of memory."""
    queries = folder.parent / "queries.npy"
    np.save(queries, data.queries)
    command = [sys.executable, "-m", "bench.resident", str(folder), str(queries)]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=True)
    held: dict[str, int] = json.loads(done.stdout)
    return held


def settings(kind: str, quantization: str | None) -> list[dict[str, Any]]:
    """Search parameters to go through: widths, and the kind's own defaults first."""
    capabilities = get_kind(kind).capabilities
    found: list[dict[str, Any]] = [{}]
    if capabilities.width is not None:
        parameter = capabilities.search_params[capabilities.width]
        for factor in FACTORS:
            width = max(1, round(float(parameter.default) * factor))
            found.append({capabilities.width: width if parameter.high is None else min(width, int(parameter.high))})
    elif quantization is not None:
        found += [{"oversampling": factor} for factor in (1.0, 4.0, 16.0, 64.0)]
    return found


def point(collection: Any, data: Dataset, limit: int, params: dict[str, Any]) -> dict[str, Any]:
    """Recall, and microseconds of single searches."""
    truth = data.truth(limit)
    walls, cpus, hits = [], [], 0
    for turn in range(2):
        for vector, nearest in zip(data.queries, truth, strict=True):
            started, worked = time.perf_counter(), time.thread_time()
            found = collection.search(vector, limit, params=params or None, include=())
            if turn == 0:
                hits += len({int(hit.id) for hit in found} & set(nearest.tolist()))
                continue
            walls.append(time.perf_counter() - started)
            cpus.append(time.thread_time() - worked)
    return {
        "params": params,
        "recall": hits / truth.size,
        "p50_us": statistics.median(walls) * 1e6,
        "cpu_us": statistics.median(cpus) * 1e6,
        "strategies": sorted({segment.strategy for segment in found.plan if segment.rows}),
    }


def table(row: dict[str, Any]) -> str:
    """What one pair costs, and its points."""
    name = row["kind"] + (f" {row['quantization']}" if row["quantization"] else "")
    resident = row["resident_bytes"]
    head = (
        f"{name}: index {row['build_s']:.1f} s, resident {resident.get('RssAnon', 0) / 1e6:.0f} MB + "
        f"{resident.get('RssFile', 0) / 1e6:.0f} MB of files, segments on disk {row['disk_bytes'] / 1e6:.0f} MB"
    )
    lines = [
        f"    {one['params']!s:<24} recall {one['recall']:.4f}  p50 {one['p50_us']:>7.0f} us  "
        f"CPU {one['cpu_us']:>7.0f} us  {'+'.join(one['strategies'])}"
        for one in row["points"]
    ]
    return "\n".join([head, *lines])
