"""Batches over several threads: the answers of single searches, and no chunk lost, repeated or waited for in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import numpy as np
import pytest

from vectordb.errors import DeadlineExceeded
from vectordb.metric import Metric, prepared
from vectordb.query import parallel
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.executor import execute
from vectordb.query.run import Run
from vectordb.query.spec import SearchSpec, Winners

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


def _ones(count: int) -> list[range]:
    return [range(i, i + 1) for i in range(count)]


def test_every_chunk_is_taken_once() -> None:
    seen: list[range] = []
    parallel.for_each(_ones(103), seen.append)
    assert sorted(chunk.start for chunk in seen) == list(range(103))


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("count", [9, 33, 100, 1_001])
@pytest.mark.parametrize("size", [8, 32])
def test_stretches_give_each_thread_as_much(count: int, size: int, threads: int) -> None:
    found = parallel.stretches(count, size, threads)
    assert [item for chunk in found for item in chunk] == list(range(count)), "each once, in their order"
    assert max(map(len, found)) <= size + 1
    # Whoever has done least takes the next.
    done = [0] * threads
    for chunk in found:
        done[done.index(min(done))] += len(chunk)
    assert max(done) <= 2 + 1.2 * count / threads


def test_stretches_are_searched_in_order() -> None:
    queries = np.arange(103 * DIM, dtype=np.float32).reshape(103, DIM)
    run = Run([], queries, SearchSpec(10), NO_DEADLINE)
    assert len(parallel.over_queries(run, parallel.Sizes(103, 10), lambda run: run.queries)) == 1
    found = parallel.over_queries(run, parallel.Sizes(102, 10), lambda run: run.queries)
    assert len(found) > 10
    assert np.array_equal(np.concatenate(found), queries)


def test_chunks_run_side_by_side() -> None:
    together = threading.Barrier(4, timeout=30)
    parallel.for_each(_ones(4), lambda chunk: together.wait() and None)


def test_an_error_ends_the_batch() -> None:
    begun: list[int] = []

    def work(chunk: range) -> None:
        begun.append(chunk.start)
        raise ValueError(f"chunk {chunk.start}")

    with pytest.raises(ValueError, match="chunk"):
        parallel.for_each(_ones(1_000), work)
    assert len(begun) <= 4


def test_a_batch_does_not_wait_for_busy_helpers(helpers: parallel._Helpers) -> None:
    free = threading.Event()
    try:
        for _ in range(helpers.count):
            helpers.submit(lambda: free.wait(60) and None)
        threads: set[int] = set()
        parallel.for_each(_ones(20), lambda chunk: threads.add(threading.get_ident()))
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


def test_each_query_gets_what_was_made_of_its_winners(fakes: Any) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(ROWS, DIM))
    part = fakes.FakePart("s", vectors, [f"{i:05}" for i in range(ROWS)], Metric.L2).indexed()
    queries = rng.normal(size=(QUERIES, DIM)).astype(np.float32)
    calls: list[int] = []

    def make(winners: list[Winners]) -> list[list[str]]:
        calls.append(len(winners))
        return [hits.ids for hits in winners]

    outcome = execute([part], queries, SearchSpec(10, metric=Metric.L2), make=make)
    assert outcome.made == [hits.ids for hits in outcome.winners]
    assert sum(calls) == QUERIES
    assert len(calls) > 1
    assert set(outcome.plan.timings_ms) == {"search", "merge"}
    assert all(milliseconds >= 0.0 for milliseconds in outcome.plan.timings_ms.values())


class UpOnceSearched(Deadline):
    """Time that is up once an index was asked so often: what a machine does in a given time is not known."""

    def __init__(self, index: Any, times: int) -> None:
        super().__init__(at=monotonic() + 3_600.0, timeout=3_600.0)
        self._index = index
        self._times = times

    def remaining(self) -> float:
        return 0.0 if self.expired() else super().remaining()

    def expired(self) -> bool:
        return len(self._index.calls) >= self._times


def test_a_deadline_ends_all_threads(fakes: Any) -> None:
    rng = np.random.default_rng(5)
    part = fakes.FakePart("s", rng.normal(size=(ROWS, DIM)), [f"{i:05}" for i in range(ROWS)], Metric.L2)
    queries = rng.normal(size=(6_000, DIM)).astype(np.float32)
    part = part.indexed()
    execute([part], queries, SearchSpec(10, metric=Metric.L2))
    to_the_end = len(part.index.calls)
    assert to_the_end > 8

    part = part.indexed()
    with pytest.raises(DeadlineExceeded):
        execute([part], queries, SearchSpec(10, metric=Metric.L2), UpOnceSearched(part.index, 4))
    assert len(part.index.calls) < to_the_end

    part = part.indexed()
    spec = SearchSpec(10, metric=Metric.L2, allow_partial=True)
    some = execute([part], queries, spec, UpOnceSearched(part.index, 4))
    assert some.incomplete_reason == "deadline"
    assert 0.0 < some.searched_fraction < 1.0
    answered = sum(bool(hits.ids) for hits in some.winners)
    assert some.searched_fraction == pytest.approx(answered / len(queries))


def test_where_pools_take_no_work_any_more_the_caller_does_it_all(helpers: parallel._Helpers) -> None:
    parallel.for_each(_ones(10), lambda chunk: None)
    assert helpers._pool is not None
    helpers._pool.shutdown()  # as all are once the main thread has ended
    seen: list[range] = []
    parallel.for_each(_ones(10), seen.append)
    assert seen == _ones(10)
