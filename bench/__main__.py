"""``python -m bench``: this engine, embedded and served, beside bare faiss and bare RocksDB, in one run.

Served: over each transport that is installed, beside a bare handler around bare faiss on the same transport.

Recall stands beside every speed. The systems take turns in blocks of 100 searches, so that what else the machine does
falls on all of them. ``--disk`` says where the databases lie: durable writes are only as fast as that disk's sync.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import report, throughput
from bench.datasets import Dataset, load
from bench.measure import Figures, measure
from bench.reopen import reopen
from bench.systems import raw_rocksdb
from bench.systems.base import Graph, System
from bench.systems.engine import Embedded, Served, transports
from bench.systems.raw_faiss import RawFaiss
from bench.systems.raw_served import RawServed

COMMANDS = {
    "calibrate": "bench.calibrate",
    "compare": "bench.compare.command",
    "deadlines": "bench.deadlines",
    "deletes": "bench.deletes",
    "filters": "bench.filters",
    "growth": "bench.growth",
    "indexes": "bench.indexes",
    "overload": "bench.overload",
    "rag": "bench.rag",
}
"""``python -m bench NAME ...`` runs ``main(arguments)`` of the module; without a name it is this one."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, epilog=f"Further benches: {', '.join(COMMANDS)}"
    )
    parser.add_argument("--data", default="wordnet20k", help="a name in bench/datasets.py, or an .hdf5 file")
    parser.add_argument("--rows", type=int, help="only so many rows, evenly spread")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="times that every query is asked")
    parser.add_argument("--ef", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--filter-ef", type=int, default=64)
    parser.add_argument("--turn", type=float, default=2.0, help="seconds of each turn of several clients at once")
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=200)
    parser.add_argument("--precision", choices=["f32", "fp16", "int8"], default="int8", help="of bare faiss's vectors")
    parser.add_argument("--disk", type=Path, help="folder for the databases; a temporary one by default")
    parser.add_argument("--out", type=Path, help="JSON file; by default under bench/results/local")
    return parser.parse_args()


def main() -> None:
    # Ends as Ctrl-C does: with what was started ended, paused or not, and what was measured written.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        importlib.import_module(COMMANDS[sys.argv[1]]).main(sys.argv[2:])
        return
    options = parse()
    data = load(options.data, options.rows, options.queries)
    graph = Graph(options.m, options.ef_construction, options.precision)
    kind = "real" if data.real else "DERIVED"
    print(f"{data.name}: {len(data.base):,} x {data.base.shape[1]} ({kind}), {data.metric}; {graph}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.disk, prefix="vectordb-bench-") as scratch:
        result = run(data, graph, Path(scratch), options)
    path = report.place(options.out, f"{data.name}-{len(data.base)}")
    report.write(path, result)
    print(f"\nwritten to {path}")


def run(data: Dataset, graph: Graph, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Loads every system, searches them side by side, opens the folder again."""
    with ExitStack() as stack:
        raw = RawFaiss(graph)
        over = transports()
        limits = [RawServed(raw, scratch / "raw.faiss", name) for name in over]
        served = [Served(scratch / f"served-{name}", graph, transport=name) for name in over]
        systems: list[System] = [
            raw,
            Embedded(scratch / "embedded", graph),
            # The same folder once more: within a process the engine is shared, and its rows are there already.
            Embedded(scratch / "embedded", graph, include=("metadata",)),
            *served,
        ]
        for system in systems:
            stack.callback(system.close)
        for limit in limits:
            stack.callback(limit.close)
        loaded = {"raw rocksdb": raw_rocksdb.ingest(data, scratch / "rocksdb")}
        for system in systems:
            if figures := system.load(data):
                loaded[system.name] = figures
        raw.save(scratch / "raw.faiss")
        for limit in limits:
            limit.load(data)
        print("\n" + report.figures("Writing and indexing", loaded), flush=True)
        found: list[Figures] = []
        for ef in options.ef:
            found += measure([*systems, *limits], data, None, ef, options.rounds)
        for condition in data.conditions:
            found += measure(systems, data, condition, options.filter_ef, options.rounds)
        print("\n" + report.searches(found), flush=True)
        many = throughput.measure([*served, *limits], data, options.filter_ef, options.rounds, options.turn)
        print("\n" + report.figures(f"{throughput.CLIENTS} clients at once, ef {options.filter_ef}", many), flush=True)
    opened = reopen(data, scratch / "embedded")
    print("\n" + report.figures("Opening again", {"this engine": opened}))
    return {
        "machine": report.machine(),
        "data": report.described(data),
        "graph": vars(graph),
        "loading": loaded,
        "searches": [figures.as_dict() for figures in found],
        "throughput": many,
        "reopening": opened,
    }


if __name__ == "__main__":
    main()
