"""What a run leaves behind: a table to read and JSON to compare."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bench.datasets import Dataset
from bench.measure import Figures


def machine() -> dict[str, Any]:
    """What the figures hang on: processor, cores, load, releases."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    libraries = ("vectordb-engine", "faiss-cpu", "rocksdict", "numpy", "grpcio", "pygrpc-native")
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "releases": {name: _release(name) for name in libraries},
    }


def _release(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def place(given: Path | None, name: str) -> Path:
    """Where a result goes: as asked for, else a file of the day under ``bench/results/local``."""
    return given or Path(__file__).parent / "results" / "local" / f"{name}-{date.today().isoformat()}.json"


def described(data: Dataset) -> dict[str, Any]:
    """What was measured."""
    return {"name": data.name, "real": data.real, "metric": data.metric, "shape": list(data.base.shape)}


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Writes the whole result as JSON, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def searches(figures: Sequence[Figures]) -> str:
    """One line a system and width, blocks apart by filter; the last column is CPU above the first system's."""
    lines = [
        f"{'filter':<28} {'ef':>4}  {'system':<20} {'p50 us':>8} {'p99 us':>8} {'CPU us':>8} {'above':>7} "
        f"{'recall':>7} {'short':>6}  strategy"
    ]
    before = None
    floor = 0.0
    for one in figures:
        block = (one.condition, one.ef)
        if block != before:
            lines.append("")
            floor = one.cpu_us
        before = block
        lines.append(
            f"{one.condition:<28} {one.ef:>4}  {one.system:<20} {one.p50_us:>8.0f} {one.p99_us:>8.0f} "
            f"{one.cpu_us:>8.0f} {one.cpu_us - floor:>+7.0f} {one.recall:>7.4f} {one.short:>6.1%}  {one.strategies}"
        )
    return "\n".join(lines)


def figures(title: str, values: Mapping[str, Mapping[str, float]]) -> str:
    """Named figures, one line a system."""
    lines = [title]
    for name, row in values.items():
        lines.append(f"  {name:<20} " + "  ".join(f"{key} {_number(value)}" for key, value in row.items()))
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
