"""The timing loop: blocks of single searches, the systems in turn, so that noise of the machine falls on all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.datasets import Condition, Dataset
from bench.systems.base import Query, System

BLOCK = 100


@dataclass(frozen=True)
class Figures:
    """One system at one width of search.

    Attributes:
        p50_us, p99_us: Wall time of a single search.
        cpu_us: Median of the processor time of a search, read from the clock of the searching process before and
            after each. On a shared machine its mean is led by stolen time slices of milliseconds.
        cpu_mean_us: The mean, for the record: it holds what went on beside the searches too.
        recall: Mean share of the exact nearest ``limit`` found.
        short: Share of answers with fewer rows than there are to find.
        strategies: How the engine answered, as its plans say.
    """

    system: str
    condition: str
    matches: int
    ef: int
    p50_us: float
    p99_us: float
    cpu_us: float
    cpu_mean_us: float
    recall: float
    short: float
    strategies: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    systems: Sequence[System], data: Dataset, condition: Condition | None, ef: int, rounds: int, limit: int = 10
) -> list[Figures]:
    """Each system's figures for all queries of the set, ``rounds`` times over."""
    truth = data.truth(limit, condition)
    queries = [Query(vector, limit, ef, condition) for vector in data.queries]
    walls: dict[str, list[float]] = {system.name: [] for system in systems}
    cpus: dict[str, list[float]] = {system.name: [] for system in systems}
    answers: dict[str, list[Any]] = {system.name: [] for system in systems}
    for system in systems:
        for query in queries[:50]:
            system.search(query)
    for turn in range(rounds):
        for start in range(0, len(queries), BLOCK):
            block = queries[start : start + BLOCK]
            for system in systems:
                wall, cpu, found = _block(system, block)
                walls[system.name] += wall
                cpus[system.name] += cpu
                if turn == 0:
                    answers[system.name] += found
    return [
        Figures(
            system=system.name,
            condition="none" if condition is None else condition.name,
            matches=len(data.base) if condition is None else condition.matches,
            ef=ef,
            p50_us=float(np.percentile(walls[system.name], 50)) * 1e6,
            p99_us=float(np.percentile(walls[system.name], 99)) * 1e6,
            cpu_us=statistics.median(cpus[system.name]) * 1e6,
            cpu_mean_us=statistics.fmean(cpus[system.name]) * 1e6,
            recall=_recall([system.rows(answer) for answer in answers[system.name]], truth),
            short=_short([system.rows(answer) for answer in answers[system.name]], truth),
            strategies=_strategies(answers[system.name]),
        )
        for system in systems
    ]


def _block(system: System, queries: Sequence[Query]) -> tuple[list[float], list[float], list[Any]]:
    """Wall seconds, CPU seconds and answer of each query.

    One reading of the CPU clock ends a query and begins the next: what a server still does after its answer counts.
    """
    walls, cpus, found = [], [], []
    before = system.cpu()
    for query in queries:
        started = time.perf_counter()
        answer = system.search(query)
        walls.append(time.perf_counter() - started)
        after = system.cpu()
        cpus.append(after - before)
        before = after
        found.append(answer)
    return walls, cpus, found


def _recall(found: Sequence[Sequence[int]], truth: Any) -> float:
    if truth.shape[1] == 0:
        return 1.0
    hits: int = sum(len(set(rows) & set(best.tolist())) for rows, best in zip(found, truth, strict=True))
    return hits / int(truth.size)


def _short(found: Sequence[Sequence[int]], truth: Any) -> float:
    short: int = sum(len(rows) < truth.shape[1] for rows in found)
    return short / len(found)


def _strategies(answers: Sequence[Any]) -> str:
    """The strategies of the first answer's plan, such as ``graph`` or ``exact_filtered``; empty for bare libraries."""
    plan = getattr(answers[0], "plan", ()) if answers else ()
    return "+".join(sorted({segment.strategy for segment in plan if segment.rows}))
