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


def comparison(path: Path, result: Mapping[str, Any]) -> None:
    """Recall against latency, latency by filter, and bars of throughput, writing, memory and opening."""
    pyplot = _pyplot()
    systems = {name: entry for name, entry in result["systems"].items() if entry.get("search")}
    figure, axes = pyplot.subplots(2, 3, figsize=(18, 10), layout="constrained")
    colours = {name: pyplot.get_cmap("tab20")(i % 20) for i, name in enumerate(systems)}
    for name, entry in systems.items():
        style = {"color": colours[name], "label": name, "linewidth": 3.0 if name.startswith("vectordb") else 1.2}
        style["linestyle"] = ":" if entry["family"] == "raw" else "-"
        curve = [point for point in entry["tuning"]["none"]["curve"] if point["recall"] > 0.5]
        curve.sort(key=lambda point: point["recall"])
        recalls, walls = [point["recall"] for point in curve], [point["p50_us"] for point in curve]
        axes[0][0].plot(recalls, walls, marker="o", markersize=3, **style)
        filtered = [
            (result["data"]["matches"][condition] / result["data"]["shape"][0], next(iter(found.values())))
            for condition, found in entry["search"].items()
            if condition != "none" and "correlated" not in condition
        ]
        # A hollow mark stands where the recall was not reached.
        if filtered:
            shares, points = [share for share, _ in filtered], [one["p50_us"] for _, one in filtered]
            axes[0][1].plot(shares, points, **style)
            good = [one["recall"] >= one["target"] - 0.005 for _, one in filtered]
            faces = [colours[name] if one else "white" for one in good]
            axes[0][1].scatter(shares, points, c=faces, edgecolors=[colours[name]], zorder=3)
    axes[0][0].set(yscale="log", xlabel="recall (tuning queries)", ylabel="median latency, us", title="single search")
    axes[0][1].set(
        xscale="log", yscale="log", xlabel="share that matches", ylabel="median latency, us", title="filters"
    )
    axes[0][0].legend(fontsize=7)
    _bars(axes[0][2], "batch of 500, searches/s", colours, _values(systems, "throughput", "batch 500", "qps"))
    _bars(axes[1][0], "acknowledged rows/s", colours, _values(systems, "ingest", "rows_per_s"), ("raw",), systems)
    _bars(axes[1][1], "opening to first answer, s", colours, _values(systems, "reopen", "first_answer_s"))
    held = {
        name: max(1.0, sum(entry["memory"][part] - entry["empty"][part] for part in ("anonymous", "file")) / 1e6)
        for name, entry in systems.items()
        if "memory" in entry and "empty" in entry
    }
    _bars(axes[1][2], "resident above empty, MB", colours, held)
    rows, dim = result["data"]["shape"]
    figure.suptitle(f"{result['data']['name']}, {rows:,} x {dim}, {result['machine']['when'][:10]}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _values(systems: Mapping[str, Any], *keys: str) -> dict[str, float]:
    """What lies at that path in each system's entry, where it does."""
    found: dict[str, float] = {}
    for name, entry in systems.items():
        value: Any = entry
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found[name] = float(value)
    return found


def _bars(
    axis: Any,
    title: str,
    colours: Mapping[str, Any],
    values: Mapping[str, float],
    without: Sequence[str] = (),
    systems: Mapping[str, Any] | None = None,
) -> None:
    names = [name for name in values if systems is None or systems[name]["family"] not in without]
    axis.barh(names, [values[name] for name in names], color=[colours[name] for name in names])
    axis.set(xscale="log", title=title)
    axis.invert_yaxis()
    axis.grid(alpha=0.3, axis="x")


def growth(path: Path, sizes: Sequence[Mapping[str, Any]], fits: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Each figure against the number of rows, both logarithmic, with the fitted power."""
    pyplot = _pyplot()
    columns = 3
    lines = -(-len(fits) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(14, 3.6 * lines), layout="constrained", squeeze=False)
    for axis, (name, fit) in zip(axes.flat, fits.items(), strict=False):
        points = [(one["rows"], one["figures"][name]) for one in sizes if one["figures"].get(name)]
        axis.plot(*zip(*points, strict=True), marker="o")
        label = f"{name}: exponent {fit['exponent']:.2f}" if "exponent" in fit else name
        axis.set(xscale="log", yscale="log", title=label, xlabel="rows")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(fits) :]:
        axis.set_axis_off()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
