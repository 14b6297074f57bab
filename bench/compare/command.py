"""``python -m bench compare``: the command line, and what a run leaves behind.

Nothing is installed: the systems that are (extra ``bench-peers``) are measured, the others are named. Each runs in a
process of its own, pinned to the same cores. Interrupt it when you like: what was measured so far is written.
``--resume FILE`` measures only what a former run has not finished and puts both together; ``--merge FILE ...`` only
writes the report of several. Figures of one run are comparable; the report says which system was measured when.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from bench import plots, report
from bench.compare import tables
from bench.compare.arena import prepare
from bench.compare.peers import PEERS, versions
from bench.compare.run import Comparison, Plan
from bench.datasets import cache_folder


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = "wordnet, wordnet20k, clusters100k, corpus, an .hdf5 or .parquet file, generated[:rows=1000000,dim=384,...]"
    parser.add_argument("--data", default="wordnet", help=data)
    parser.add_argument("--rows", type=int, help="only so many rows")
    parser.add_argument("--queries", type=int, default=1_000, help="half of them choose the width, half are reported")
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--systems", nargs="+", metavar="NAME", help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--without", nargs="+", metavar="NAME", default=[], help="all but these")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.95, 0.99], help="recalls, the least first")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each system in each measurement")
    parser.add_argument("--budget", type=float, default=1_500.0, help="seconds for everything")
    parser.add_argument("--build-cap", type=float, default=240.0, help="seconds for one system's writing and indexing")
    parser.add_argument("--step-cap", type=float, default=6.0, help="seconds for tuning one system to one filter")
    parser.add_argument("--turn", type=float, default=0.5, help="seconds of one turn of a system, about")
    parser.add_argument("--stream", type=float, default=5.0, help="seconds of searches beside writes")
    parser.add_argument("--threads", type=int, default=2, help="cores for each system")
    parser.add_argument("--disk", type=Path, help="folder for the databases; a temporary one by default")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="prepared data and exact truth")
    parser.add_argument("--out", type=Path, help="JSON file; the report and the pictures lie beside it")
    parser.add_argument("--resume", type=Path, help="a former result to complete")
    parser.add_argument("--merge", type=Path, nargs="+", help="former results to put together; nothing is measured")
    options = parser.parse_args(arguments)
    for name in [*(options.systems or ()), *options.without]:
        if name not in PEERS:
            parser.error(f"unknown system {name!r}: choose of {', '.join(map(repr, PEERS))}")
    if options.targets != sorted(options.targets) or not all(0.0 < target <= 1.0 for target in options.targets):
        parser.error("--targets must rise and lie within 0 and 1")
    return options


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    if options.merge:
        results = [json.loads(path.read_text()) for path in options.merge]
        leave(merged(results), options.out or options.merge[0].with_name("merged.json"))
        return
    names, absent = installed(options.systems or [name for name in PEERS if name not in options.without])
    arena = prepare(options.data, options.rows, options.queries, options.limit, options.cache)
    former = json.loads(options.resume.read_text()) if options.resume else None
    if former is not None:
        if former["data"] != arena.about:
            raise SystemExit(f"{options.resume} is of other data: {former['data']['name']} {former['data']['shape']}")
        names = [name for name in names if not former["systems"].get(name, {}).get("done")]
    plan = Plan(
        tuple(options.targets), options.rounds, options.budget, options.build_cap, options.step_cap, options.turn,
        options.stream, options.threads,
    )  # fmt: skip
    result: dict[str, Any] = {
        "command": "python -m bench compare " + " ".join(arguments),
        "machine": {**report.machine(), "used_cores": sorted(os.sched_getaffinity(0))[: plan.threads]},
        "data": arena.about, "plan": vars(plan), "absent": absent, "systems": {},
    }  # fmt: skip
    path = options.out or report.place(None, f"compare-{arena.about['name']}-{len(arena.base)}")
    print(tables.head(result), flush=True)
    with tempfile.TemporaryDirectory(dir=options.disk, prefix="vectordb-bench-") as scratch:
        Path(scratch).chmod(0o755)  # A server that refuses to run as root reaches its folder as somebody else.
        run = Comparison(arena, plan, Path(scratch), lambda: report.write(path, result), result["systems"])
        try:
            run.run(names)
        except KeyboardInterrupt:
            result["interrupted"] = True
            print("\ninterrupted: what was measured so far is written", flush=True)
    if former is not None:
        result = merged([former, result])
    leave(result, path)
    if result.get("interrupted"):
        sys.exit(130)


def installed(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Those that can be measured here, and for the others the package that is missing."""
    found, absent = [], {}
    for name in names:
        try:
            versions(name)
        except PackageNotFoundError as missing:
            absent[name] = f"{missing.name} is not installed"
        else:
            found.append(name)
    return found, absent


def merged(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result; a system that several have is taken from the last that finished it, else from the last.

    Raises:
        SystemExit: They are of different data.
    """
    first, last = results[0], results[-1]
    systems: dict[str, Any] = {}
    for result in results:
        if result["data"] != first["data"]:
            raise SystemExit("the results are of different data and cannot be put together")
        for name, entry in result["systems"].items():
            if entry.get("done") or not systems.get(name, {}).get("done"):
                systems[name] = entry
    order = [name for name in PEERS if name in systems]
    runs = [
        run for result in results for run in result.get("runs", [{"command": result["command"], **result["machine"]}])
    ]
    absent = {name: reason for name, reason in last["absent"].items() if name not in systems}
    return {**last, "systems": {name: systems[name] for name in order}, "runs": runs, "absent": absent}


def leave(result: dict[str, Any], path: Path) -> None:
    """JSON, a Markdown report and pictures; the report goes to the screen too."""
    report.write(path, result)
    text = tables.markdown(result)
    path.with_suffix(".md").write_text(text)
    print("\n" + text)
    written = [path, path.with_suffix(".md")]
    if any(entry.get("search") for entry in result["systems"].values()):
        plots.comparison(path.with_suffix(".png"), result)
        written.append(path.with_suffix(".png"))
    print("written to " + ", ".join(map(str, written)))
