"""The seam of the bench: what a system must do to be measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from bench.datasets import Condition, Dataset

WRITE_BATCH = 1_000


@dataclass(frozen=True)
class Graph:
    """Parameters of the HNSW graph, the same for every system. Source: Malkov & Yashunin 2018 (M, efConstruction)."""

    m: int = 16
    ef_construction: int = 200
    precision: str = "int8"


@dataclass(frozen=True)
class Query:
    """One search: the vector float32[d], how many, the width of the search, and a filter."""

    vector: NDArray[Any]
    limit: int
    ef: int
    condition: Condition | None = None


class System(Protocol):
    """A system under measurement. ``search`` is the timed call and does nothing but search."""

    name: str

    def load(self, data: Dataset) -> dict[str, float]:
        """Stores and indexes everything; figures by name, rows/s and seconds."""
        ...

    def search(self, query: Query) -> Any: ...

    def rows(self, answer: Any) -> list[int]:
        """The row numbers in an answer of :meth:`search`."""
        ...

    def cpu(self) -> float:
        """Seconds of processor time so far of the process that does the search, all its threads."""
        ...

    def close(self) -> None: ...


def process_cpu(pid: int) -> float:
    """Processor time of another process in seconds, to the nanosecond, all its threads, ended ones too (Linux)."""
    # The kernel's encoding of "CPU clock of process pid", as clock_getcpuclockid(3) builds it.
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int) -> dict[str, int]:
    """Anonymous and file-backed resident memory of a process, in bytes (Linux)."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("RssAnon", "RssFile"):
            found[name] = int(value.split()[0]) * 1024
    return found
