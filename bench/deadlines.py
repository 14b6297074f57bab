"""``python -m bench deadlines``: how late searches return that cannot be done in their time, and what goes on after.

Three searches get 5 ms: an exact one that needs a second (a batch), one with an enormous ``ef``, and a ``post`` search
for one row in 10,000. Each is to return within 25 ms at the 99th percentile, with ``DeadlineExceeded`` or, asked for
so, with a partial answer, and 50 ms later the process is to be idle. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.datasets import Dataset, load
from bench.loading import loaded, ranked
from vectordb.errors import DeadlineExceeded

TIMEOUT = 0.005
SETTLED = 0.05
WATCHED = 0.05


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench deadlines", description=__doc__)
    parser.add_argument("--data", default="clusters100k", help="as for python -m bench")
    parser.add_argument("--rows", type=int, help="only so many rows, evenly spread")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--batch", type=int, default=500, help="queries of the exact search")
    parser.add_argument("--folder", type=Path, help="a database that is kept and used again; else a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    data = ranked(load(options.data, options.rows))
    with (
        tempfile.TemporaryDirectory(prefix="vectordb-bench-") as scratch,
        loaded(options.folder or Path(scratch) / "db", data) as found,
    ):
        rows = [measure(name, found.collection, data, options, search) for name, search in searches(options).items()]
    path = report.place(options.out, f"deadlines-{data.name}-{len(data.base)}")
    report.write(path, {"machine": report.machine(), "data": report.described(data), "deadlines": rows})
    print(f"written to {path}")


def searches(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The arguments of each search, its number of queries among them."""
    return {
        f"exact, {options.batch} queries": {"queries": options.batch, "exact": True},
        "ef 65536": {"queries": 1, "params": {"ef": 65_536}},
        "post at 0.01 %": {
            "queries": 1,
            "where": {"field": "u", "op": "<", "value": 1},
            "filter_mode": "post",
            "limit": 10,
        },
    }


def measure(
    name: str, collection: Any, data: Dataset, options: argparse.Namespace, search: dict[str, Any]
) -> dict[str, Any]:
    """Return times in ms with the timeout, and the busy share of the process after it."""
    arguments = {key: value for key, value in search.items() if key != "queries"}
    vectors = data.queries[np.arange(search["queries"]) % len(data.queries)]
    started = time.perf_counter()
    collection.search_batch(vectors, include=(), timeout=60.0, **arguments)
    whole = time.perf_counter() - started
    taken, busy, outcomes = [], [], {"exceeded": 0, "partial": 0, "complete": 0}
    for turn in range(options.repeats):
        partial = turn % 2 == 1
        started = time.perf_counter()
        try:
            found = collection.search_batch(vectors, include=(), timeout=TIMEOUT, allow_partial=partial, **arguments)
            outcomes["complete" if all(result.complete for result in found) else "partial"] += 1
        except DeadlineExceeded:
            outcomes["exceeded"] += 1
        taken.append(time.perf_counter() - started)
        if turn % 10 == 0:
            time.sleep(SETTLED)
            before = time.process_time()
            time.sleep(WATCHED)
            busy.append((time.process_time() - before) / WATCHED)
    row = {
        "search": name,
        "whole_ms": whole * 1e3,
        "p50_ms": float(np.percentile(taken, 50)) * 1e3,
        "p99_ms": float(np.percentile(taken, 99)) * 1e3,
        "max_ms": max(taken) * 1e3,
        "busy_after": max(busy),
        **outcomes,
    }
    print(
        f"{name:<22} alone {row['whole_ms']:>7.1f} ms; with 5 ms: p50 {row['p50_ms']:.1f} p99 {row['p99_ms']:.1f} max "
        f"{row['max_ms']:.1f} ms; busy 50 ms later {row['busy_after']:.1%}; {outcomes}",
        flush=True,
    )
    return row
