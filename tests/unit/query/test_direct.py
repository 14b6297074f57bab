"""The straight way of the commonest search: the general way's answer and plan, or none."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vectordb.errors import DeadlineExceeded
from vectordb.metric import Metric, prepared
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.direct import Direct
from vectordb.query.executor import execute
from vectordb.query.spec import SearchSpec
from vectordb.types import FilterMode

DIM, ROWS = 16, 4_000


def _parts(
    fakes: Any, metric: Metric, *, dead: float = 0.0, missing: float = 0.0, copies: int = 1, **index: Any
) -> Any:
    """An indexed part, ``copies`` rows of which are equal, between two without rows."""
    rng = np.random.default_rng(3)
    some = fakes.FakePart(
        "s",
        np.repeat(rng.normal(size=(ROWS // copies, DIM)), copies, axis=0),
        [f"{i:05}" for i in rng.permutation(ROWS)],
        metric,
        dead=rng.random(ROWS) < dead,
        has_vector=rng.random(ROWS) >= missing,
    )
    none = np.empty((0, DIM), np.float32)
    before, after = fakes.FakePart("old", none, [], metric), fakes.FakePart("tail", none, [], metric)
    return [before, some.indexed(**{"noise": 1e-4, "beam": lambda ef: 20 * ef, **index}), after]


def _queries(metric: Metric, count: int = 20) -> Any:
    return prepared(np.random.default_rng(9).normal(size=(count, DIM)).astype(np.float32), metric)


def _same(fakes: Any, parts: Any, spec: SearchSpec, queries: Any) -> int:
    """How many queries went straight, each to the general way's answer and plan."""
    direct = Direct.of(parts, DIM, spec)
    assert direct is not None
    straight = 0
    for query in queries:
        found = direct.search(query[None], spec.where, NO_DEADLINE)
        if found is None:
            continue
        straight += 1
        outcome = execute(parts, query[None], spec)
        (best,) = outcome.winners
        assert found.part is parts[1]
        assert found.ids == best.ids
        assert found.scores == best.scores.tolist()
        np.testing.assert_array_equal(found.rows, best.rows)
        plan = found.plan()
        assert replace(plan, timings_ms={}) == replace(outcome.plan, timings_ms={})
        assert plan.timings_ms.keys() == outcome.plan.timings_ms.keys()
    return straight


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("limit", [1, 10, 40])
@pytest.mark.parametrize("dead", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_it_answers_as_the_general_way(fakes: Any, metric: Metric, limit: int, dead: float, missing: float) -> None:
    parts = _parts(fakes, metric, dead=dead, missing=missing)
    spec = SearchSpec(limit, metric=metric, params={"ef": 90}, version=7)
    assert _same(fakes, parts, spec, _queries(metric)) >= 18


@pytest.mark.parametrize("mode", list(FilterMode))
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.95])
@pytest.mark.parametrize("dead", [0.0, 0.1])
@pytest.mark.parametrize("indexed", [False, True])
def test_it_filters_as_the_general_way(fakes: Any, mode: FilterMode, share: float, dead: float, indexed: bool) -> None:
    parts = _parts(fakes, Metric.L2, dead=dead, missing=0.1)
    if not indexed:
        parts[1].index = parts[1].kind = None
    where = fakes.FakeFilter({"s": np.random.default_rng(1).random(ROWS) < share}, spread=0.3)
    assert _same(fakes, parts, SearchSpec(10, where, mode, metric=Metric.L2, version=3), _queries(Metric.L2)) == 20


@pytest.mark.parametrize("copies", [2, 4, 50])
def test_equal_scores_stand_in_the_order_of_their_ids_or_are_left_alone(fakes: Any, copies: int) -> None:
    parts = _parts(fakes, Metric.L2, copies=copies, noise=0.0)
    straight = _same(fakes, parts, SearchSpec(10, metric=Metric.L2), _queries(Metric.L2))
    # Fifty equal ones reach past all that was fetched.
    assert straight == (0 if copies == 50 else 20)


def test_where_candidates_are_missing_it_has_no_answer(fakes: Any) -> None:
    query = _queries(Metric.COSINE, 1)
    spec = SearchSpec(10)
    padded = Direct.of(_parts(fakes, Metric.COSINE, beam=lambda ef: 8), DIM, spec)
    assert padded is not None
    assert padded.search(query, None, NO_DEADLINE) is None
    parts = _parts(fakes, Metric.COSINE)
    parts[1].dead_mask[:] = True
    parts[1].dead_mask[:40] = False
    parts[1].dead = 100  # fewer than it was planned for
    direct = Direct.of(parts, DIM, spec)
    assert direct is not None
    assert direct.search(query, None, NO_DEADLINE) is None


def test_several_parts_with_rows_take_the_general_way(fakes: Any) -> None:
    parts, spec = _parts(fakes, Metric.COSINE), SearchSpec(10)
    filled = fakes.FakePart("tail", np.ones((1, DIM)), ["t"], Metric.COSINE)
    assert Direct.of([*parts[:2], filled], DIM, spec) is None
    assert Direct.of([parts[0], parts[2]], DIM, spec) is None


def test_a_plan_that_is_made_later_keeps_no_part(fakes: Any) -> None:
    """An answer may be kept for long; what a part holds must not be."""
    parts = _parts(fakes, Metric.COSINE)
    part = weakref.ref(parts[1])
    direct = Direct.of(parts, DIM, SearchSpec(10))
    assert direct is not None
    found = direct.search(_queries(Metric.COSINE, 1), None, NO_DEADLINE)
    assert found is not None
    plan = found.plan
    del parts, direct, found
    gc.collect()
    assert part() is None
    assert plan().rows_scored == 20 * 64


def test_a_walk_that_might_not_end_in_time_is_left_alone(fakes: Any) -> None:
    direct, query = Direct.of(_parts(fakes, Metric.COSINE), DIM, SearchSpec(10)), _queries(Metric.COSINE, 1)
    assert direct is not None
    assert direct.search(query, None, Deadline.after(5.0)) is not None
    assert direct.search(query, None, Deadline.after(1e-6)) is None


def test_a_filtered_search_ends_at_its_deadline(fakes: Any) -> None:
    parts = _parts(fakes, Metric.COSINE)
    direct = Direct.of(parts, DIM, SearchSpec(10))
    assert direct is not None
    for rows in (ROWS, 40, 0):
        some = fakes.FakeFilter({"s": np.arange(ROWS) < rows})
        with pytest.raises(DeadlineExceeded):
            direct.search(_queries(Metric.COSINE, 1), some, Deadline.after(0.0))


@pytest.mark.parametrize("params", [{"target_recall": 1.0}, None])
def test_an_exact_search_of_all_rows_takes_the_general_way(fakes: Any, params: Any) -> None:
    spec = SearchSpec(10 if params else 3_000, params=params)
    direct = Direct.of(_parts(fakes, Metric.COSINE), DIM, spec)
    assert direct is not None
    assert direct.search(_queries(Metric.COSINE, 1), None, NO_DEADLINE) is None
