"""``python -m bench calibrate``: measures what ``query/costs.py`` and each kind's ``Effort`` claim, and prints both.

Processor time of one thread, medians, so that other work on the machine counts little; the planner compares costs with
each other only, so look at the ratios. A constant that is off by more than a half is worth writing anew, with the run
that it comes from.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.datasets import Dataset, load
from vectordb.errors import VectorDBError
from vectordb.index import exact, native
from vectordb.index.base import BuildOptions, Capabilities, capabilities_of
from vectordb.index.copied_bytes import ByteCopy, sample_of
from vectordb.index.registry import get_kind, usable_kind_names
from vectordb.metadata import rowset
from vectordb.metric import Metric, scores
from vectordb.query import costs

REPEATS = 60


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench calibrate", description=__doc__)
    parser.add_argument("--data", default="clusters100k", help="as for python -m bench")
    parser.add_argument("--rows", type=int, help="only so many rows, evenly spread")
    parser.add_argument("--kinds", nargs="*", help="index kinds; all that are installed by default")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    data = load(options.data, options.rows)
    native.single_threaded()
    measured = constants(data)
    print(f"{data.name}, {len(data.base):,} x {data.base.shape[1]}: microseconds of one thread\n")
    print(f"{'costs.py':<12} {'written':>12} {'measured':>12}")
    for name, value in measured.items():
        print(f"{name:<12} {getattr(costs, name):>12.3g} {value:>12.3g}")
    efforts = {}
    for name in options.kinds or usable_kind_names():
        if not get_kind(name).capabilities.exact:
            efforts[name] = effort(name, data)
    path = report.place(options.out, f"calibrate-{data.name}-{len(data.base)}")
    report.write(
        path, {"machine": report.machine(), "data": report.described(data), "costs": measured, "efforts": efforts}
    )
    print(f"\nwritten to {path}")


def constants(data: Dataset) -> dict[str, float]:
    """The constants of ``query/costs.py`` as they are here."""
    base, queries, metric = data.base, data.queries, Metric(data.metric)
    count, dim = base.shape
    rng = np.random.default_rng(0)
    tenth, hundredth = (np.sort(rng.choice(count, count // part, replace=False)) for part in (10, 100))
    half = rowset.from_rows(np.sort(rng.choice(count, count // 2, replace=False)))
    bits = rowset.to_bits(half, count)
    few = base[:64]
    copy = ByteCopy(tenth, base[sample_of(tenth)], metric)
    copy.add(base[tenth])
    copied = copy.result()
    assert copied is not None
    # Blocks as the executor reads them: no larger than lets a deadline be asked.
    step = (16 << 20) // (4 * dim)
    scan = _median(
        lambda q: [exact.exact_candidates(q, base[i : i + step], 10, metric) for i in range(0, count, step)], queries
    )
    picked = _median(lambda q: exact.picked_candidates(q, base, tenth, 10, metric), queries)
    fewer = _median(lambda q: exact.picked_candidates(q, base, hundredth, 10, metric), queries)
    none = np.empty(0, np.int64)
    together = _median(
        lambda q: copied.nearest(q[0], 10, none, lambda rows: -scores(q[0], base.take(rows, axis=0), metric)), queries
    )
    per_row = max(0.0, picked - fewer) / (len(tenth) - len(hundredth))
    candidates = rng.integers(0, count, 1_000)
    membership = _median(lambda q: np.flatnonzero((bits[candidates >> 3] >> (candidates & 7)) & 1), queries)
    rescoring = _median(lambda q: scores(q[0], base.take(candidates, axis=0), metric), queries)
    rescored_few = _median(lambda q: scores(q[0], few, metric), queries)
    return {
        "SCAN": scan / (count * dim),
        "GATHER": per_row / dim,
        "COPIED": together / (len(tenth) * dim),
        "EXACT_CALL": max(0.0, fewer - per_row * len(hundredth)),
        "BITMAP": _median(lambda q: rowset.to_bits(half, count), queries),
        "MEMBERSHIP": membership / len(candidates),
        "RESCORE": max(0.0, rescoring - rescored_few) / ((len(candidates) - len(few)) * dim),
    }


def effort(name: str, data: Dataset) -> dict[str, Any]:
    """What a kind's searches cost by width, beside what its ``Effort`` says; with a fit of factor and exponent."""
    kind = get_kind(name)
    metric = Metric(data.metric)
    try:
        index = kind.build(data.base, metric, BuildOptions(threads=2))
    except (VectorDBError, ImportError) as error:
        print(f"\n{name}: not measured, {error}")
        return {}
    capabilities = capabilities_of(index, kind)
    count, dim = data.base.shape
    written = costs.effort_of(capabilities, count)
    rows = []
    print(f"\n{name}: {'width':>7} {'compared':>9} {'written':>9} {'us':>9} {'written':>9}")
    for width in _widths(capabilities):
        params = {} if width is None else {str(capabilities.width): width}
        k = 10 if width is None or not capabilities.has_beam else min(10, width)
        compared: list[float] = []

        def search(query: Any, k: int = k, params: Any = params, compared: list[float] = compared) -> None:
            compared.append(index.search(query, k, params=params).scored)

        taken = _median(search, data.queries)
        row = {
            "width": width,
            "compared": statistics.mean(compared),
            "compared_written": costs.visits(written, count, width),
            "us": taken,
            "us_written": costs.walk(written, count, dim, width),
        }
        rows.append(row)
        print(
            f"{'':<{len(name) + 1}} {width or '-':>7} {row['compared']:>9.0f} {row['compared_written']:>9} "
            f"{taken:>9.0f} {row['us_written']:>9.0f}"
        )
    found: dict[str, Any] = {"written": {n: getattr(written, n) for n in written.__dataclass_fields__}, "widths": rows}
    fitted = [(row["width"], row["compared"] - written.compared) for row in rows if row["width"]]
    if len(fitted) > 1 and all(compared > 0 for _, compared in fitted):
        logs = np.log(np.array(fitted, np.float64))
        exponent, factor = np.polyfit(logs[:, 0], logs[:, 1], 1)
        found["fit"] = {"factor": float(np.exp(factor)), "exponent": float(exponent)}
        print(
            f"{'':<{len(name) + 1}} fit: factor {found['fit']['factor']:.3g} (written {written.factor:.3g}), "
            f"exponent {exponent:.3g} (written {written.exponent:.3g})"
        )
    return found


def _widths(capabilities: Capabilities) -> list[int | None]:
    """From a quarter of the default to 16 times as much."""
    if capabilities.width is None:
        return [None]
    parameter = capabilities.search_params[capabilities.width]
    widths = [max(1, round(float(parameter.default) * factor)) for factor in (0.25, 0.5, 1, 2, 4, 8, 16)]
    return sorted({width if parameter.high is None else min(width, int(parameter.high)) for width in widths})


def _median(call: Callable[[Any], Any], queries: Any) -> float:
    """Microseconds of processor time of this thread, the median over single queries float32[1, d]."""
    taken = []
    for i in range(REPEATS + 5):
        query = np.ascontiguousarray(queries[i % len(queries)][None])
        started = time.thread_time()
        call(query)
        taken.append(time.thread_time() - started)
    return statistics.median(taken[5:]) * 1e6
