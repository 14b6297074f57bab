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
