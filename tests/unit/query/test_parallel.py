"""Batches over several threads: the answers of single searches, and no chunk lost, repeated or waited for in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from vectordb.errors import DeadlineExceeded
from vectordb.metric import Metric, prepared
from vectordb.query import parallel
from vectordb.query.deadline import Deadline
from vectordb.query.executor import execute
from vectordb.query.spec import SearchSpec

DIM = 16
ROWS = 4_000
QUERIES = 150


@pytest.fixture(autouse=True)
def helpers(monkeypatch: pytest.MonkeyPatch) -> Iterator[parallel._Helpers]:
    """Three helpers, whatever the machine has."""
    found = parallel._Helpers()
    found.count = 3
    monkeypatch.setattr(parallel, "_helpers", found)
    yield found
    if found._pool is not None:
        found._pool.shutdown()


def test_every_item_is_in_one_chunk() -> None:
    seen: list[range] = []
    parallel.for_each_chunk(103, 10, seen.append)
    assert sorted(item for chunk in seen for item in chunk) == list(range(103))
    assert max(map(len, seen)) == 10


def test_chunks_run_side_by_side() -> None:
    together = threading.Barrier(4, timeout=30)
    parallel.for_each_chunk(4, 1, lambda chunk: together.wait() and None)


def test_an_error_ends_the_batch() -> None:
    begun: list[int] = []

    def work(chunk: range) -> None:
        begun.append(chunk.start)
        raise ValueError(f"chunk {chunk.start}")

    with pytest.raises(ValueError, match="chunk"):
        parallel.for_each_chunk(1_000, 1, work)
    assert len(begun) <= 4


def test_a_batch_does_not_wait_for_busy_helpers(helpers: parallel._Helpers) -> None:
    free = threading.Event()
    try:
        for _ in range(helpers.count):
            helpers.submit(lambda: free.wait(60) and None)
        threads: set[int] = set()
        parallel.for_each_chunk(20, 1, lambda chunk: threads.add(threading.get_ident()))
        assert threads == {threading.get_ident()}
    finally:
        free.set()


@pytest.mark.parametrize("share", [None, 0.3])
@pytest.mark.parametrize("dead", [0.0, 0.2])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_a_batch_gives_the_answers_of_single_searches(
    fakes: Any, share: float | None, dead: float, exact: bool, tied: bool
) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.integers(-1, 2, (ROWS, DIM)) if tied else rng.normal(size=(ROWS, DIM))
    ids = [f"{i:05}" for i in rng.permutation(ROWS)]
    part = fakes.FakePart("s", vectors, ids, Metric.L2, dead=rng.random(ROWS) < dead).indexed(beam=lambda ef: 20 * ef)
    tail = fakes.FakePart("tail", rng.normal(size=(90, DIM)), [f"t{i}" for i in range(90)], Metric.L2)
    where = None
    if share is not None:
        where = fakes.FakeFilter({"s": rng.random(ROWS) < share, "tail": rng.random(90) < share})
    queries = prepared(rng.normal(size=(QUERIES, DIM)).astype(np.float32), Metric.L2)
    spec = SearchSpec(10, where=where, exact=exact, metric=Metric.L2)
    for parts in ([part], [part, tail]):
        batch = execute(parts, queries, spec)
        assert [len(hits) for hits in batch.winners] == [10] * QUERIES
        for query, hits in enumerate(batch.winners):
            single = execute(parts, queries[query : query + 1], spec).winners[0]
            assert hits.ids == single.ids
            assert hits.scores.tobytes() == single.scores.tobytes()
            assert hits.rows.tolist() == single.rows.tolist()
            assert hits.parts.tolist() == single.parts.tolist()
        assert batch.incomplete_reason is None
        assert batch.plan.segments[0].rows_scored >= QUERIES * 10


def test_a_deadline_ends_all_threads(fakes: Any) -> None:
    rng = np.random.default_rng(5)
    part = fakes.FakePart("s", rng.normal(size=(ROWS, DIM)), [f"{i:05}" for i in range(ROWS)], Metric.L2)
    part = part.indexed(delay=0.001)
    queries = rng.normal(size=(6_000, DIM)).astype(np.float32)
    with pytest.raises(DeadlineExceeded):
        execute([part], queries, SearchSpec(10, metric=Metric.L2), Deadline.after(0.2))
    some = execute([part], queries, SearchSpec(10, metric=Metric.L2, allow_partial=True), Deadline.after(0.2))
    assert some.incomplete_reason == "deadline"
    assert 0.0 < some.searched_fraction < 1.0
    answered = sum(bool(hits.ids) for hits in some.winners)
    assert some.searched_fraction == pytest.approx(answered / len(queries))
