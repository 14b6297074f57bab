"""A small in-memory part and indexes of known behaviour, and the brute force that answers are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.clock import Clock
from vectordb.index.base import Capabilities, Neighbours, Parameter
from vectordb.index.faiss_hnsw import EFFORT
from vectordb.metadata import rowset
from vectordb.metadata.estimate import Estimate
from vectordb.metric import Metric, distances, prepared, scores
from vectordb.segments.part import Block
from vectordb.segments.selection import Selection

GRAPH = Capabilities(
    family="graph",
    metrics=frozenset(Metric),
    filtered=True,
    search_params={"ef": Parameter(int, 64, 1, 100_000)},
    width="ef",
    effort=EFFORT,
)
TREES = Capabilities(family="trees", metrics=frozenset(Metric), search_params={})


CLOCK = Clock()
"""Passes where an index or a block says that it takes time, and nowhere else."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all deadlines."""
    CLOCK.now = 0.0
    monkeypatch.setattr("vectordb.query.deadline.monotonic", CLOCK.read)
    return CLOCK


@dataclass(eq=False)
class FakeFilter:
    """Stands for a filter: the names of the rows of each part that it matches."""

    masks: dict[str, np.ndarray[Any, Any]]
    spread: float = 0.0
    """How far the estimate is off: 0 exact, 0.5 half of it either way."""


@dataclass
class FakeIndex:
    """Exact order by single-precision distance over a beam: only ``visited(ef)`` nearest rows are ever met.

    Like a graph: with ``allowed`` it returns those of the rows that it met, padded.
    """

    vectors: np.ndarray[Any, Any]
    metric: Metric
    beam: Callable[[int], int] = lambda ef: 1_000_000
    delay: float = 0.0
    """Seconds of ``CLOCK`` a query."""
    noise: float = 0.0
    calls: list[dict[str, Any]] = field(default_factory=list)

    def search(self, queries: Any, limit: int, *, allowed: Any = None, params: Any = None) -> Neighbours:
        self.calls.append(
            {"queries": len(queries), "k": limit, "params": dict(params or {}), "told": allowed is not None}
        )
        CLOCK.let_pass(self.delay * len(queries))
        n = len(self.vectors)
        met = min(n, self.beam(int((params or {}).get("ef", 64))))
        rows = np.full((len(queries), limit), -1, np.int64)
        out = np.full((len(queries), limit), np.inf, np.float32)
        rng = np.random.default_rng(0)
        for i, query in enumerate(queries):
            d = distances(scores(query, self.vectors, self.metric), self.metric)
            if self.noise:
                d = d + rng.normal(0, self.noise, n).astype(np.float32)
            order = d.argsort(kind="stable")[:met]
            if allowed is not None:
                order = order[np.unpackbits(allowed, count=n, bitorder="little")[order] == 1]
            order = order[:limit]
            rows[i, : len(order)] = order
            out[i, : len(order)] = d[order]
        return Neighbours(rows, out, met * len(queries))

    def save(self, path: Any) -> None:
        raise NotImplementedError

    def memory_bytes(self) -> int:
        return 0


class FakePart:
    """One part in memory. ``has_vector`` and ``dead_mask`` are bool[rows]."""

    def __init__(
        self,
        name: str,
        vectors: np.ndarray[Any, Any],
        ids: list[str],
        metric: Metric,
        *,
        dead: np.ndarray[Any, Any] | None = None,
        has_vector: np.ndarray[Any, Any] | None = None,
        block_rows: int = 1000,
    ) -> None:
        n = len(ids)
        self.name = name
        self.rows = n
        self.names = ids
        self.dead_mask = np.zeros(n, bool) if dead is None else dead
        self.dead = int(self.dead_mask.sum())
        self.has_vector = np.ones(n, bool) if has_vector is None else has_vector
        self.row_of_position = np.flatnonzero(self.has_vector).astype(np.int64)
        self.position_of_row = np.cumsum(self.has_vector) - 1
        self.matrix = np.ascontiguousarray(prepared(vectors.astype(np.float32), metric)[self.row_of_position])
        self.vector_count = len(self.matrix)
        self.whole = self.vector_count == n
        self.metric = metric
        self.block_rows = block_rows
        self.index: Any = None
        self.kind: Any = None
        self.calibration: Any = None
        self.spread: dict[Any, bool] = {}
        self.block_delay = 0.0
        self.blocks_read = 0

    def indexed(self, capabilities: Capabilities = GRAPH, **options: Any) -> FakePart:
        self.index = FakeIndex(self.matrix, self.metric, **options)
        self.kind = SimpleNamespace(name="fake", capabilities=capabilities)
        return self

    def blocks(self, max_bytes: int) -> Iterator[Block]:
        step = max(1, min(self.block_rows, max_bytes // (4 * self.matrix.shape[1])))
        for first in range(0, self.vector_count, step):
            self.blocks_read += 1
            CLOCK.let_pass(self.block_delay)
            rows = None if self.whole else self.row_of_position[first : first + step]
            yield Block(self.matrix[first : first + step], rows, first)

    def vectors_at(self, rows: Any) -> Any:
        assert self.has_vector[rows].all()
        return self.matrix[self.position_of_row[rows]]

    def in_place(self, rows: Any) -> Any:
        assert self.has_vector[rows].all()
        return self.matrix, self.position_of_row[rows]

    def rows_of(self, positions: Any) -> Any:
        return positions if self.whole else np.where(positions < 0, -1, self.row_of_position[positions])

    def allowed_positions(self, rows: Any) -> Any:
        mask = np.zeros(self.rows, bool)
        mask[rowset.to_rows(rows)] = True
        return np.packbits(mask[self.row_of_position], bitorder="little")

    def with_vector(self, rows: Any) -> Any:
        kept = rowset.to_rows(rows)
        return rowset.from_rows(kept[self.has_vector[kept]])

    def alive(self, rows: Any) -> Any:
        return ~self.dead_mask[rows]

    def dead_rows(self) -> Any:
        return rowset.from_rows(np.flatnonzero(self.dead_mask))

    def matching(self, where: FakeFilter) -> Any:
        return rowset.from_rows(np.flatnonzero(where.masks[self.name]))

    def selection(self, where: FakeFilter) -> Selection:
        return Selection.of(self, where)  # type: ignore[arg-type]

    def copy_on(self, selection: Selection, metric: Metric) -> None:
        raise NotImplementedError  # nothing selected here is copyable

    def estimate(self, where: FakeFilter) -> Estimate:
        count = int(where.masks[self.name].sum())
        off = int(count * where.spread)
        return Estimate(max(0, count - off), min(self.rows, count + off // 2), min(self.rows, count + off))

    def ids(self, rows: Any) -> list[str]:
        return [self.names[row] for row in rows.tolist()]


def expected(parts: list[FakePart], query: Any, limit: int, where: FakeFilter | None = None) -> list[tuple[str, float]]:
    """The answer by definition: every living matching row with a vector, by (better score, id)."""
    metric = parts[0].metric
    everything: list[tuple[float, str, float]] = []
    for part in parts:
        keep = part.has_vector & ~part.dead_mask
        if where is not None:
            keep = keep & where.masks[part.name]
        rows = np.flatnonzero(keep)
        if len(rows):
            found = scores(query, part.vectors_at(rows), metric)
            keys = distances(found, metric)
            everything += zip(keys.tolist(), part.ids(rows), found.tolist(), strict=True)
    return [(id_, score) for _, id_, score in sorted(everything)[:limit]]


def answers(outcome: Any) -> list[list[tuple[str, float]]]:
    """The winners of each query as (id, score)."""
    return [list(zip(hits.ids, hits.scores.tolist(), strict=True)) for hits in outcome.winners]


@pytest.fixture(scope="session")
def fakes() -> SimpleNamespace:
    """This module's names."""
    return SimpleNamespace(
        FakePart=FakePart,
        FakeFilter=FakeFilter,
        FakeIndex=FakeIndex,
        GRAPH=GRAPH,
        TREES=TREES,
        expected=expected,
        answers=answers,
    )
