"""Plans for people: reasons, the ways not chosen, and the estimate of an answer's recall."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectordb.errors import DeadlineExceeded
from vectordb.index.calibration import ALL, Calibration, Curve, Point
from vectordb.metric import Metric
from vectordb.query import costs, sampling
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.executor import execute
from vectordb.query.explain import analyzed, explain
from vectordb.query.run import Run
from vectordb.query.spec import SearchSpec
from vectordb.types import FilterMode

DIM = 16
ROWS = 20_000


@pytest.fixture(scope="module")
def part(fakes: Any) -> Any:
    """An index that finds about half of what there is: it meets only the rows with an even number."""
    rng = np.random.default_rng(1)
    part = fakes.FakePart("s", rng.standard_normal((ROWS, DIM)), [f"{i:06d}" for i in range(ROWS)], Metric.COSINE)
    part.indexed()
    search = part.index.search

    def even(queries: Any, limit: int, **options: Any) -> Any:
        found = search(queries, 2 * limit + 40, **options)
        rows = np.full((len(queries), limit), -1, np.int64)
        for i, met in enumerate(found.rows):
            kept = met[(met >= 0) & (met % 2 == 0)][:limit]
            rows[i, : len(kept)] = kept
        return found._replace(rows=rows, distances=np.zeros(rows.shape, np.float32))

    part.index.search = even
    return part


def _query(part: Any) -> Any:
    return np.ascontiguousarray(part.matrix[:1] + np.float32(0.01))


def _true_recall(fakes: Any, part: Any, query: Any, limit: int, where: Any = None) -> float:
    found = fakes.answers(execute([part], query, SearchSpec(limit, where)))[0]
    return len(set(found) & set(fakes.expected([part], query[0], limit, where))) / limit


@pytest.mark.parametrize("limit", [10, 40])
@pytest.mark.parametrize("share", [None, 0.6])
def test_of_all_rows_the_recall_is_exact(fakes: Any, part: Any, limit: int, share: float | None) -> None:
    where = None if share is None else fakes.FakeFilter({"s": np.random.default_rng(2).random(ROWS) < share})
    query = _query(part)
    spec = SearchSpec(limit, where)
    plan = analyzed([part], query, spec, execute([part], query, spec), NO_DEADLINE)
    assert plan.recall == pytest.approx(_true_recall(fakes, part, query, limit, where))
    assert 0.2 < plan.recall < 0.8
    assert plan.recall_low == plan.recall
    assert plan.recall_sampled == 1.0
    assert plan.timings_ms["recall"] > 0


def test_of_a_sample_it_is_near_and_its_bound_holds(fakes: Any, part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BLOCK_BYTES", 4 * DIM * 200)
    query = _query(part)
    spec = SearchSpec(200)
    winners = execute([part], query, spec).winners[0]
    # A clock that ends the sampling after 40 of 100 blocks.
    ticks = iter(range(1_000))
    monkeypatch.setattr(sampling, "perf_counter", lambda: float(next(ticks)))
    found = sampling.estimate(Run([part], query, spec, NO_DEADLINE), winners, budget=39.5)
    true = _true_recall(fakes, part, query, 200)
    assert found is not None
    assert found.sampled == pytest.approx(0.4)
    assert found.recall == pytest.approx(true, abs=0.1)
    assert found.low <= true
    assert found.low < found.recall


def test_a_sample_without_a_miss_promises_little(fakes: Any, part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BLOCK_BYTES", 4 * DIM * ROWS // 2)
    query = _query(part)
    spec = SearchSpec(10, exact=True)
    winners = execute([part], query, spec).winners[0]
    found = sampling.estimate(Run([part], query, spec, NO_DEADLINE), winners, budget=0.0)
    assert found is not None
    assert (found.recall, found.sampled) == (1.0, 0.5)
    assert found.low == pytest.approx(0.63, abs=0.01)


def test_after_an_exact_search_nothing_is_compared(part: Any) -> None:
    query = _query(part)
    spec = SearchSpec(10, exact=True)
    plan = analyzed([part], query, spec, execute([part], query, spec), NO_DEADLINE)
    assert (plan.recall, plan.recall_low, plan.recall_sampled) == (1.0, 1.0, 1.0)
    assert plan[0].reason == "exact search was asked for"
    assert [(other.strategy, other.cost_us is not None) for other in plan[0].alternatives] == [("graph", True)]


def test_the_deadline_counts_for_the_estimate_too(part: Any) -> None:
    query = _query(part)
    winners = execute([part], query, SearchSpec(10)).winners[0]
    gone = Deadline(0.0, 1.0)
    with pytest.raises(DeadlineExceeded):
        sampling.estimate(Run([part], query, SearchSpec(10), gone), winners)
    assert sampling.estimate(Run([part], query, SearchSpec(10, allow_partial=True), gone), winners) is None


def test_why_and_what_else(fakes: Any, part: Any) -> None:
    def one(share: float | None = None, *options: Any, **more: Any) -> Any:
        where = None if share is None else fakes.FakeFilter({"s": np.arange(ROWS) < share * ROWS})
        return explain([part], SearchSpec(10, where, *options, **more), 384)[0]

    plain = one()
    assert (plain.strategy, plain.reason) == ("graph", "the least estimated cost")
    assert [other.strategy for other in plain.alternatives] == ["exact"]
    assert 0 < plain.cost_us < plain.alternatives[0].cost_us
    half = one(0.5)
    names = {half.strategy, *(other.strategy for other in half.alternatives)}
    assert names == {"exact_filtered", "graph", "graph_post"}
    assert all(half.cost_us <= other.cost_us for other in half.alternatives)
    few = one(0.01)
    assert (few.strategy, few.reason) == ("exact_filtered", "the least estimated cost")
    (graph,) = [other for other in few.alternatives if other.strategy == "graph"]
    assert graph.cost_us is None
    assert "1.0% of the rows match" in graph.reason
    assert one(0.5, FilterMode.POST).reason == "filter_mode is 'post'"
    assert one(0.5, FilterMode.PRE).reason == "filter_mode is 'pre'"
    assert one(0.01, FilterMode.IN).reason == one(0.01, FilterMode.IN).fallback_reason
    assert one(0.0).reason == "nothing in it can match"
    assert "not calibrated" in one(params={"target_recall": 0.9}).reason
    part.calibration = Calibration((Curve(ALL, 1.0, 10, (Point(77, 1.0, 0.93),)),))
    try:
        aimed = one(params={"target_recall": 0.9})
    finally:
        part.calibration = None
    assert (aimed.params, aimed.reason) == ({"ef": 77}, "ef 77 is calibrated to a recall of 0.930")


def test_a_part_without_an_index_has_no_alternatives(fakes: Any) -> None:
    part = fakes.FakePart("tail", np.eye(4), list("abcd"), Metric.L2)
    (plan,) = explain([part], SearchSpec(2), 4)
    assert (plan.reason, plan.alternatives) == ("it has no index", ())


def test_costs_are_those_of_the_rows_that_have_a_vector(fakes: Any) -> None:
    rng = np.random.default_rng(1)
    with_vector = np.arange(ROWS) % 2 == 0
    part = fakes.FakePart(
        "s", rng.standard_normal((ROWS, DIM)), [f"{i:06d}" for i in range(ROWS)], Metric.COSINE, has_vector=with_vector
    ).indexed()
    where = fakes.FakeFilter({"s": rng.random(ROWS) < 0.1})
    spec = SearchSpec(10, where, FilterMode.PRE)
    query = np.ascontiguousarray(part.matrix[:1])
    (found,) = analyzed([part], query, spec, execute([part], query, spec), NO_DEADLINE).segments
    matching = len(part.selection(where))
    assert found.matched is not None
    assert found.matched > 1.8 * matching
    assert found.cost_us == costs.scan_matches(matching, part.vector_count, DIM)
