"""A filter that is asked for again and again is answered from a copy of its rows; what was written shows at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col
from vectordb.index.copied_bytes import ByteRows
from vectordb.index.copied_halves import HalfRows
from vectordb.segments import selection

ROWS, DIM, GROUPS = 6_000, 24, 20
WHERE = col("group") == 3


class Model:
    """The collection, and what it must hold."""

    def __init__(self, db: Any, metric: str, index: Any) -> None:
        rng = np.random.default_rng(5)
        self.vectors = rng.standard_normal((ROWS, DIM)).astype(np.float32)
        self.queries = rng.standard_normal((40, DIM)).astype(np.float32)
        self.groups = {f"{row}": row % GROUPS for row in range(ROWS)}
        self.metric = metric
        self.docs = db.create_collection("docs", DIM, metric=metric, index=index)
        ids = list(self.groups)
        self.docs.upsert(ids, self.vectors, [{"group": group} for group in self.groups.values()])
        self.docs.optimize()
        self.live = db._backend._live("docs")

    def copies(self) -> list[Any]:
        """Of the filter, in each segment."""
        views = [part for part in self.live.snapshot.parts if part.name != "tail"]
        return [view.selection(WHERE).copied for view in views]

    def check(self, times: int = 12) -> None:
        """Searches by single queries: each answer is the exact one."""
        ids = sorted((id_ for id_, group in self.groups.items() if group == 3), key=int)
        rows = self.vectors[[int(id_) for id_ in ids]].astype(np.float64)
        for query in self.queries[:times].astype(np.float64):
            if self.metric == "l2":
                far = np.linalg.norm(rows - query, axis=1)
            else:
                far = -(rows @ query)
                if self.metric == "cosine":
                    far /= np.linalg.norm(rows, axis=1)
            best = [ids[place] for place in np.argsort(far, kind="stable")[:10]]
            found = self.docs.search(query.astype(np.float32), 10, where=WHERE, include=())
            assert [hit.id for hit in found] == best
            assert {part.strategy for part in found.plan if part.rows} <= {"exact_filtered", "empty", "exact"}


KINDS = {"bytes": ByteRows, "halves": HalfRows}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "bytes":
        monkeypatch.setattr(selection, "BYTES_LEAST", 1)
    return KINDS[request.param]


# Quickly built: what is compared is exact, or as good as the graph is.
GRAPH = {"kind": "hnsw", "m": 8, "ef_construction": 32}
INDEXES = {"cosine-hnsw": ("cosine", GRAPH), "l2-flat": ("l2", "flat"), "dot-hnsw": ("dot", GRAPH)}


@pytest.fixture(params=INDEXES.values(), ids=INDEXES)
def model(request: pytest.FixtureRequest, kind: Any) -> Iterator[Model]:
    with vectordb.Database(":memory:") as db:
        yield Model(db, *request.param)


def test_answers_stay_right_through_writes(model: Model, kind: Any) -> None:
    model.check()
    assert all(isinstance(copied.vectors, kind) for copied in model.copies())
    counted = model.docs.stats().segments[0].memory_bytes
    # Nearest rows die: the copy serves on, without them.
    gone = [hit.id for hit in model.docs.search(model.queries[0], 5, where=WHERE, include=())]
    model.docs.delete(gone)
    for id_ in gone:
        del model.groups[id_]
    model.check(3)
    assert [len(copied.dead) for copied in model.copies()] == [5]
    # Rows leave the filter and others enter it.
    changed = [id_ for id_, group in model.groups.items() if group in (3, 4)][:80]
    model.docs.update_metadata(changed, set={"group": 3})
    model.groups |= dict.fromkeys(changed, 3)
    model.docs.update_metadata(changed[:7], set={"group": 9})
    model.groups |= dict.fromkeys(changed[:7], 9)
    assert not any(model.copies())
    model.check()
    assert all(model.copies())
    # More die than a copy bears, also many times over.
    for start in range(0, 160, 40):
        gone = [id_ for id_, group in model.groups.items() if group == 3][start : start + 40]
        model.docs.delete(gone)
        for id_ in gone:
            del model.groups[id_]
        model.check()
    assert all(model.copies())
    assert model.docs.stats().segments[0].memory_bytes < counted + (1 << 20)
    # New rows in the tail, and replaced ones.
    model.groups |= {"11": 3, "12": 3, "23": 3}
    model.vectors[[11, 12, 23]] = model.queries[:3]
    model.docs.upsert(["11", "12", "23"], model.vectors[[11, 12, 23]], [{"group": 3}] * 3)
    model.check()
    model.docs.optimize()
    model.check()
    assert all(model.copies())


def test_a_copy_is_counted_and_bounded(model: Model) -> None:
    before = model.docs.stats().segments[0].memory_bytes
    model.check()
    held = model.docs.stats().segments[0].memory_bytes - before
    assert ROWS // GROUPS * DIM <= held <= ROWS // GROUPS * (2 * DIM + 40) + ROWS + 4_096
    for group in range(GROUPS):
        for query in model.queries[:10]:
            model.docs.search(query, 10, where=col("group") == group, include=())
    assert model.docs.stats().segments[0].memory_bytes - before <= 4 * ROWS * DIM // 8 + (9 << 20)


def test_batches_and_single_queries_agree(model: Model) -> None:
    model.check()
    batch = model.docs.search_batch(model.queries[:12], 10, where=WHERE, include=())
    for query, found in zip(model.queries[:12], batch, strict=True):
        alone = model.docs.search(query, 10, where=WHERE, include=())
        assert [(hit.id, hit.score) for hit in alone] == [(hit.id, hit.score) for hit in found]


def test_batches_get_a_copy_too(model: Model) -> None:
    for _ in range(6):
        first = model.docs.search_batch(model.queries, 10, where=WHERE, include=())
    assert all(model.copies())
    again = model.docs.search_batch(model.queries, 10, where=WHERE, include=())
    assert [list(result) for result in again] == [list(result) for result in first]
    gone = [hit.id for hit in again[0][:3]]
    model.docs.delete(gone)
    left = model.docs.search_batch(model.queries, 10, where=WHERE, include=())
    assert all(len(result) == 10 for result in left)
    assert not {hit.id for result in left for hit in result} & set(gone)
    assert all(model.copies()), "it serves on without them"
    for query, found in zip(model.queries, left, strict=True):
        assert list(model.docs.search(query, 10, where=WHERE, filter_mode="pre", include=())) == list(found)


def test_an_answer_by_another_mode_is_not_bound_to_the_copy(model: Model) -> None:
    model.check()
    result = model.docs.search(model.queries[0], 10, where=WHERE, filter_mode="pre", include=())
    assert len(result) == 10
    explained = model.docs.explain(model.queries[0], where=WHERE, analyze=True)
    assert explained[0].strategy == "exact_filtered"
    assert explained[0].cost_us < 60
