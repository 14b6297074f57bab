"""Single searches as users make them, most of which go straight (``query/direct.py``)."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb.engine import reads
from vectordb.errors import DeadlineExceeded
from vectordb.query import parallel
from vectordb.query.direct import Direct

DIM = 8


@pytest.fixture
def collection() -> Any:
    with vectordb.Database(":memory:") as db:
        found = db.create_collection("c", DIM, metric="l2", index="hnsw", index_bytes=1)
        rows = np.random.default_rng(1).standard_normal((3_000, DIM)).astype(np.float32)
        found.upsert([f"{i}" for i in range(len(rows))], rows, [{"n": i} for i in range(len(rows))])
        found.optimize()
        yield found


QUERY = np.zeros(DIM, np.float32)


def test_the_ways_of_other_searches_are_not_kept(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    of = Direct.of
    monkeypatch.setattr(Direct, "of", lambda *given: made.append(given) or of(*given))
    for step in range(200):
        collection.search(QUERY, min_score=step / 10)
        collection.search(QUERY, allow_partial=True)
        collection.search(QUERY, exact=True)
        collection.search(QUERY)
    assert len(made) == 1


def test_arguments_need_no_hash(collection: Any) -> None:
    best = collection.search(QUERY, limit=3)
    assert collection.search(QUERY, limit=3, min_score=np.array(100.0)).ids == best.ids
    assert collection.search(QUERY, limit=np.array(3), allow_partial=np.bool_(True)).ids == best.ids


def test_only_the_names_of_search_are_taken(collection: Any) -> None:
    for call in (collection.search_batch, collection.explain):
        with pytest.raises(TypeError, match="texts"):
            call([QUERY], texts=["a"])


def test_a_plan_is_made_once(collection: Any) -> None:
    found = collection.search(QUERY)
    assert found.plan is found.plan
    assert [part.strategy for part in found.plan] == ["graph", "empty"]
    assert found.plan.rows_scored > 0


def test_what_the_straight_way_left_has_only_the_rest_of_the_time(
    collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any) -> None:
        time.sleep(0.2)

    monkeypatch.setattr(Direct, "search", slow)
    with pytest.raises(DeadlineExceeded):
        collection.search(QUERY, timeout=0.1)


def test_nothing_is_read_for_an_answer_that_is_late(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    as_it_is, calls, threads, timeout = reads._columns, [], 2, 0.5

    def slow(*args: Any) -> Any:
        calls.append(args)
        if len(calls) <= threads:
            time.sleep(timeout)
        return as_it_is(*args)

    monkeypatch.setattr(reads, "_columns", slow)
    helpers = parallel._Helpers()
    helpers.count = threads - 1
    monkeypatch.setattr(parallel, "_helpers", helpers)
    # Read by four queries at a time: the first reading of a thread lasts until the time is up.
    queries = np.random.default_rng(2).standard_normal((100, DIM)).astype(np.float32)
    with pytest.raises(DeadlineExceeded):
        collection.search_batch(queries, limit=1000, timeout=timeout)
    assert len(calls) <= threads
    # What was found by then is still read for a partial answer.
    calls.clear()
    assert len(collection.search_batch(queries, limit=1000, timeout=timeout, allow_partial=True)) == len(queries)
