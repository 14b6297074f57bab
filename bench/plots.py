"""The bench's pictures. The only file that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as missing:
        raise SystemExit("the pictures need matplotlib: pip install 'vectordb-engine[bench]'") from missing
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def filters(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Latency and recall against the share of matching rows, a line a mode; correlated filters in a column apart."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), sharex="col", sharey="row", layout="constrained")
    for column, correlated in enumerate((False, True)):
        chosen = [row for row in rows if row["correlated"] == correlated and row["matches"]]
        for mode in chosen[0]["modes"] if chosen else ():
            shares = [row["share"] for row in chosen]
            style = {"marker": "o", "linewidth": 3 if mode == "auto" else 1.2, "label": mode, "alpha": 0.8}
            axes[0][column].plot(shares, [row["modes"][mode]["p50_us"] for row in chosen], **style)
            axes[1][column].plot(shares, [row["modes"][mode]["recall"] for row in chosen], **style)
        axes[0][column].set_title("matches near one query" if correlated else "matches by chance")
        axes[1][column].set_xlabel("share of the rows that match")
        for axis in (axes[0][column], axes[1][column]):
            axis.set_xscale("log")
            axis.grid(alpha=0.3)
    axes[0][0].set_yscale("log")
    axes[0][0].set_ylabel("median latency, us")
    axes[1][0].set_ylabel("recall")
    axes[0][0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def indexes(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Recall against searches a second, a line an index; beside it build time, memory and disk."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(14, 6), layout="constrained", width_ratios=(2, 1))
    names = [f"{row['kind']} {row['quantization'] or ''}".strip() for row in rows]
    for name, row in zip(names, rows, strict=True):
        points = sorted((point["recall"], 1e6 / point["p50_us"]) for point in row["points"])
        axes[0].plot(*zip(*points, strict=True), marker="o", label=name, alpha=0.8)
    axes[0].set_yscale("log")
    axes[0].set_xlabel("recall")
    axes[0].set_ylabel("searches a second, one thread")
    axes[0].grid(alpha=0.3)
    axes[0].legend()
    costs = {
        "build, s": [row["build_s"] for row in rows],
        "resident, MB": [max(0, sum(row["resident_bytes"].values())) / 1e6 for row in rows],
        "disk, MB": [row["disk_bytes"] / 1e6 for row in rows],
    }
    for i, (label, values) in enumerate(costs.items()):
        places = [place + 0.27 * i for place in range(len(rows))]
        axes[1].barh(places, values, height=0.25, label=label)
    axes[1].set_yticks([place + 0.27 for place in range(len(rows))], names)
    axes[1].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def deletes(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Recall and latency against the share of deleted rows, before and after the merge."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    shares = [row["share"] for row in rows]
    for axis, figure_name, label in ((axes[0], "recall", "recall"), (axes[1], "p50_us", "median latency, us")):
        for state in ("before", "after"):
            axis.plot(shares, [row[state][figure_name] for row in rows], marker="o", label=f"{state} the merge")
        axis.set_xlabel("share of the rows that were deleted")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
