"""``python -m bench filters``: recall and latency against selectivity, for each ``filter_mode``.

The modes take turns in blocks of queries, so that what else the machine does falls on all alike. Filters are drawn by
chance, and by nearness to one query (correlated). ``auto / best`` compares its median with the best of the three fixed
modes that reaches a recall of 0.95: it is to stay below 1.3. In brackets processor time instead of wall time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import plots, report
from bench.datasets import Condition, Dataset, load
from bench.loading import conditions, loaded, ranked

MODES = ("auto", "pre", "in", "post")
ENOUGH = 0.95
BLOCK = 20


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench filters", description=__doc__)
    parser.add_argument("--data", default="clusters100k", help="as for python -m bench")
    parser.add_argument("--rows", type=int, help="only so many rows, evenly spread")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="times that every query is asked")
    parser.add_argument("--index", default="hnsw")
    parser.add_argument("--quantization")
    parser.add_argument("--target-recall", type=float, help="asked for in every search")
    parser.add_argument("--folder", type=Path, help="a database that is kept and used again; else a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file, and a PNG beside it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    data = ranked(load(options.data, options.rows, options.queries))
    with tempfile.TemporaryDirectory(prefix="vectordb-bench-") as scratch:
        folder = options.folder or Path(scratch) / "db"
        with loaded(folder, data, options.index, options.quantization) as found:
            rows = []
            for condition in conditions(data):
                rows.append(measure(found.collection, data, condition, options))
                print(line(rows[-1]), flush=True)
    path = report.place(options.out, f"filters-{data.name}-{len(data.base)}-{options.index}")
    report.write(path, {"machine": report.machine(), "data": report.described(data), "filters": rows})
    plots.filters(path.with_suffix(".png"), rows, f"{data.name}, {len(data.base):,} rows, {options.index}")
    print(f"written to {path} and {path.with_suffix('.png').name}")


def measure(collection: Any, data: Dataset, condition: Condition, options: argparse.Namespace) -> dict[str, Any]:
    """All modes under one filter: medians in microseconds, recall, strategies."""
    truth = data.truth(options.limit, condition)
    params = None if options.target_recall is None else {"target_recall": options.target_recall}
    taken: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    hits = dict.fromkeys(MODES, 0)
    short = dict.fromkeys(MODES, 0)
    ways: dict[str, Counter[str]] = {mode: Counter() for mode in MODES}
    for turn in range(options.rounds + 1):
        for start in range(0, len(data.queries), BLOCK):
            for mode in MODES:
                # Not the first of a block: it pays for the cache that the mode before it emptied.
                for number in range(start, min(start + BLOCK, len(data.queries))):
                    started, worked = time.perf_counter(), time.thread_time()
                    found = collection.search(
                        data.queries[number], options.limit, condition.where, mode, params=params, include=()
                    )
                    if turn and number > start:
                        taken[mode].append((time.perf_counter() - started, time.thread_time() - worked))
                    if turn:
                        continue
                    hits[mode] += len({int(hit.id) for hit in found} & set(truth[number].tolist()))
                    short[mode] += len(found) < truth.shape[1]
                    ways[mode].update(segment.strategy for segment in found.plan if segment.rows)
    modes = {
        mode: {
            "p50_us": statistics.median(wall for wall, _ in taken[mode]) * 1e6,
            "cpu_us": statistics.median(cpu for _, cpu in taken[mode]) * 1e6,
            "recall": hits[mode] / truth.size if truth.size else 1.0,
            "short": short[mode],
            "ways": dict(ways[mode]),
        }
        for mode in MODES
    }
    good = [mode for mode in MODES[1:] if modes[mode]["recall"] >= ENOUGH]
    ratios = [modes["auto"][unit] / min(modes[mode][unit] for mode in good) for unit in ("p50_us", "cpu_us")]
    return {
        "filter": condition.name,
        "matches": condition.matches,
        "share": condition.matches / len(data.base),
        "correlated": "correlated" in condition.name,
        "auto_to_best": ratios[0],
        "auto_to_best_cpu": ratios[1],
        "modes": modes,
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    cells = []
    for mode, figures in row["modes"].items():
        ways = "+".join(f"{way}" for way, _ in Counter(figures["ways"]).most_common())
        cells.append(
            f"{mode} {figures['p50_us']:>6.0f} ({figures['cpu_us']:.0f}) us @{figures['recall']:.3f} {ways:<15}"
        )
    return (
        f"{row['filter']:<18} {row['matches']:>6}  "
        + " ".join(cells)
        + f" auto/best {row['auto_to_best']:.2f} ({row['auto_to_best_cpu']:.2f})"
    )
