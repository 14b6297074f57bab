"""``python -m bench growth``: how everything grows with the number of rows, with the exponents of fitted powers.

Each size is written, indexed, searched at a recall of 0.95 (the width bisected as in ``bench compare``), filtered, and
opened again in a process of its own; the smaller sets are the first rows of the larger ones. A size that is measured is
kept in the result, so an interrupted run goes on with the next. Fits are least squares of logarithms.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import plots, report
from bench.compare.arena import ALL, Arena, prepare
from bench.compare.child import Child, Failed
from bench.compare.peers import PEERS
from bench.compare.run import summary
from bench.datasets import cache_folder

TARGET = 0.95


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("--rows", default="10000,100000,1000000", help="sizes, the least first")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--data", help="instead of generated vectors: as for bench compare, cut to each size")
    parser.add_argument("--kind", help="index kind of this engine, such as hnsw or ivfpq")
    parser.add_argument("--quantization", help="of this engine, such as fp16 or sq8")
    parser.add_argument("--system", default="vectordb", choices=[*PEERS], help="what is measured")
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument(
        "--cap", type=float, default=3_600.0, help="seconds for writing, and again for indexing, a size"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--disk", type=Path, help="folder for the databases; a temporary one by default")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="generated sets and exact truth")
    parser.add_argument("--out", type=Path, help="JSON file, gone on with where it exists; a PNG lies beside it")
    options = parser.parse_args(arguments)
    try:
        options.sizes = sorted({int(float(size)) for size in options.rows.split(",")})
    except ValueError:
        parser.error(f"--rows must be numbers with commas between, got {options.rows!r}")
    return options


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    form = "-".join(filter(None, [options.system.replace(" ", "-"), options.kind, options.quantization]))
    path = options.out or report.place(None, f"growth-{form}-{options.dim}")
    what = {
        "data": options.data or f"generated:dim={options.dim}", "system": options.system, "kind": options.kind,
        "quantization": options.quantization, "queries": options.queries, "limit": options.limit,
    }  # fmt: skip
    result: dict[str, Any] = {"what": what, "machine": report.machine(), "sizes": []}
    if path.is_file():
        former = json.loads(path.read_text())
        if former.get("what") != what:
            raise SystemExit(f"{path} holds another measurement, of {former.get('what')}: give another --out")
        result["sizes"] = former["sizes"]
    interrupted = False
    try:
        for size in options.sizes:
            if all(one["rows"] != size for one in result["sizes"]):
                result["sizes"].append(_size(size, what["data"], options))
                result["sizes"].sort(key=lambda one: one["rows"])
                report.write(path, result)
                print(line(result["sizes"][-1]), flush=True)
    except KeyboardInterrupt:
        interrupted = True
    except Failed as failure:
        print(f"stopped: {failure}", flush=True)
    result["fits"] = fits(result["sizes"])
    report.write(path, result)
    if not result["sizes"]:
        raise SystemExit("no size was measured")
    print("\n" + table(result))
    plots.growth(path.with_suffix(".png"), result["sizes"], result["fits"], f"{form}, {what['data']}")
    print(f"written to {path} and {path.with_suffix('.png').name}")
    if interrupted:
        sys.exit(130)


def _size(size: int, data: str, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of one size, each a number that is to be fitted, and recalls beside them."""
    arena = prepare(data, size, options.queries, options.limit, options.cache)
    with tempfile.TemporaryDirectory(dir=options.disk, prefix="vectordb-bench-") as scratch:
        Path(scratch).chmod(0o755)
        empty = _child(options, arena, Path(scratch) / "empty")
        with empty:
            empty.ask("create", 60.0)
            empty.ask("ingest", 60.0, rows=100)
            empty.ask("finish", 60.0)
            base = empty.ask("memory", 60.0, searches=100, width=64, seconds=5.0)
        folder = Path(scratch) / "full"
        with _child(options, arena, folder) as child:
            child.ask("create", 60.0)
            written = child.ask("ingest", options.cap + 60.0, seconds=options.cap)
            indexed = child.ask("finish", options.cap)
        with _child(options, arena, folder) as child:
            opened = child.ask("reopen", 600.0)
            searched = {condition: _searched(child, condition) for condition in (ALL, *arena.conditions)}
            memory = child.ask("memory", 120.0, searches=1_000, width=searched[ALL]["width"], seconds=30.0)
    raw = arena.base.nbytes
    figures = {
        "ingest, s": written["seconds"],
        "index, s": indexed["seconds"],
        "first answer, s": opened["first_answer_s"],
        f"p50 @{TARGET}, us": searched[ALL]["p50_us"],
        "width": searched[ALL]["width"],
        "anonymous, MB": max(0.1, (memory["anonymous"] - base["anonymous"]) / 1e6),
        "file-backed, MB": max(0.1, (memory["file"] - base["file"]) / 1e6),
        "disk, MB": indexed["disk_bytes"] / 1e6,
    }
    for condition, found in searched.items():
        if condition != ALL:
            # Shares differ a little between sizes where they are drawn: the name is that of the filter's kind.
            kind = "correlated" if "correlated" in condition else condition
            figures[f"filter {kind}, us"] = found["p50_us"]
    return {
        "rows": len(arena.base), "figures": figures, "rows_per_s": written["rows_per_s"], "searched": searched,
        "disk_over_raw": indexed["disk_bytes"] / raw, "data": arena.about,
    }  # fmt: skip


def _child(options: argparse.Namespace, arena: Arena, folder: Path) -> Child:
    folder.mkdir(exist_ok=True)
    form = {"index": options.kind, "quantization": options.quantization}
    return Child(options.system, arena.folder, folder, options.threads, form=form)


def _searched(child: Child, condition: str) -> dict[str, Any]:
    """Tuned to the target, then three turns."""
    tuned = child.ask("tune", 600.0, condition=condition, targets=[TARGET], seconds=30.0)["targets"][str(TARGET)]
    count = int(np.clip(1e6 / tuned["p50_us"], 10, 500))
    asked = {"condition": condition, "width": tuned["width"], "count": count}
    blocks = [child.ask("block", 120.0, start=turn * count, **asked) for turn in range(3)]
    return {"width": tuned["width"], **summary(blocks, blocks[0]["truth"])}


def fits(sizes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """For each figure ``factor`` and ``exponent`` of factor * rows ** exponent; empty where there are too few sizes."""
    found: dict[str, dict[str, float]] = {}
    for name in sizes[0]["figures"] if sizes else ():
        points = [(one["rows"], one["figures"][name]) for one in sizes if one["figures"].get(name, 0) > 0]
        found[name] = {}
        if len(points) > 1:
            logs = np.log(np.array(points, dtype=np.float64))
            exponent, factor = np.polyfit(logs[:, 0], logs[:, 1], 1)
            found[name] = {"factor": float(np.exp(factor)), "exponent": float(exponent)}
    return found


def line(size: Mapping[str, Any]) -> str:
    """One size in words."""
    recall = size["searched"][ALL]["recall"]
    figures = "  ".join(f"{name} {value:,.3g}" for name, value in size["figures"].items())
    return f"{size['rows']:,} rows: recall {recall:.4f}  {figures}"


def table(result: Mapping[str, Any]) -> str:
    """Markdown: a line a figure, a column a size, and the exponent."""
    sizes = result["sizes"]
    lines = ["| figure | " + " | ".join(f"{one['rows']:,}" for one in sizes) + " | exponent |"]
    lines.append("|---" + "|---:" * (len(sizes) + 1) + "|")
    for name, fit in result["fits"].items():
        cells = [f"{one['figures'][name]:,.3g}" if name in one["figures"] else "-" for one in sizes]
        exponent = f"{fit['exponent']:.2f}" if "exponent" in fit else "-"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {exponent} |")
    return "\n".join(lines)
