"""Exact answers equal sorting everything by (score, id), however rows lie in parts and queries in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectordb.metric import Metric, prepared
from vectordb.query import deadline, exact
from vectordb.query.deadline import Deadline
from vectordb.query.executor import execute
from vectordb.query.explain import explain
from vectordb.query.spec import SearchSpec
from vectordb.types import FilterMode

DIM = 8


def _scene(fakes: Any, seed: int, metric: Metric, *, copies: bool = False) -> tuple[list[Any], Any, Any]:
    """Parts of random sizes with deaths, rows without vectors and a filter; many equal vectors where asked for."""
    rng = np.random.default_rng(seed)
    parts, masks = [], {}
    number = iter(rng.permutation(5000).tolist())
    for name, n in (("a", int(rng.integers(200, 900))), ("b", int(rng.integers(1, 60))), ("empty", 0), ("tail", 150)):
        vectors = rng.normal(size=(n, DIM)).astype(np.float32)
        if copies:
            vectors = np.round(vectors[:, :1] * 2) * np.ones((1, DIM), np.float32) + 0.25
        part = fakes.FakePart(
            name,
            vectors,
            [f"id{next(number)}" for _ in range(n)],
            metric,
            dead=rng.random(n) < rng.choice([0.0, 0.03, 0.5]),
            has_vector=rng.random(n) < rng.choice([0.8, 1.0]),
            block_rows=int(rng.integers(20, 400)),
        )
        parts.append(part)
        masks[name] = rng.random(n) < rng.choice([0.02, 0.3, 0.9])
    queries = prepared(rng.normal(size=(3, DIM)).astype(np.float32), metric)
    if copies:
        queries = np.vstack([queries, parts[0].matrix[:1]])
    return parts, queries, fakes.FakeFilter(masks)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force(fakes: Any, metric: Metric, copies: bool, seed: int) -> None:
    parts, queries, where = _scene(fakes, seed, metric, copies=copies)
    for limit in (1, 10, 77, 3000):
        for condition in (None, where):
            outcome = execute(parts, queries, SearchSpec(limit, condition, metric=metric))
            assert fakes.answers(outcome) == [fakes.expected(parts, q, limit, condition) for q in queries]
            assert outcome.incomplete_reason is None
            assert outcome.searched_fraction == 1.0


@pytest.mark.parametrize("metric", list(Metric))
def test_batches_and_layouts_give_the_same_bits(fakes: Any, metric: Metric) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(600, DIM)).astype(np.float32)
    ids = [f"k{i}" for i in rng.permutation(600)]
    queries = prepared(rng.normal(size=(40, DIM)).astype(np.float32), metric)
    one = [fakes.FakePart("s", vectors, ids, metric, block_rows=600)]
    many = [
        fakes.FakePart(str(i), vectors[i : i + 90], ids[i : i + 90], metric, block_rows=29) for i in range(0, 600, 90)
    ]
    spec = SearchSpec(10, metric=metric)
    together = fakes.answers(execute(one, queries, spec))
    assert fakes.answers(execute(many, queries, spec)) == together
    assert [fakes.answers(execute(many, queries[i : i + 1], spec))[0] for i in range(40)] == together


def test_winners_name_part_and_row(fakes: Any) -> None:
    parts, queries, where = _scene(fakes, 3, Metric.L2)
    hits = execute(parts, queries, SearchSpec(20, where, metric=Metric.L2)).winners[0]
    assert len(hits) == 20
    assert [parts[p].names[r] for p, r in zip(hits.parts.tolist(), hits.rows.tolist(), strict=True)] == hits.ids
    assert hits.scores.dtype == np.float32
    assert hits.rows.dtype == np.int64


@pytest.mark.parametrize("metric", list(Metric))
def test_min_score_is_in_the_metrics_direction(fakes: Any, metric: Metric) -> None:
    parts, queries, _ = _scene(fakes, 1, metric)
    everything = fakes.answers(execute(parts, queries, SearchSpec(50, metric=metric)))
    bound = everything[0][20][1]
    kept = fakes.answers(execute(parts, queries, SearchSpec(50, min_score=bound, metric=metric)))
    better = (lambda s: s >= bound) if metric.higher_is_better else (lambda s: s <= bound)
    assert kept == [[hit for hit in hits if better(hit[1])] for hits in everything]
    assert len(kept[0]) == 21


def test_min_score_compares_in_double_precision(fakes: Any) -> None:
    part = fakes.FakePart("t", np.array([[0.7]], np.float32), ["a"], Metric.DOT)
    query = np.ones((1, 1), np.float32)
    assert fakes.answers(execute([part], query, SearchSpec(1, min_score=0.7, metric=Metric.DOT))) == [[]]
    assert (
        len(execute([part], query, SearchSpec(1, min_score=float(np.float32(0.7)), metric=Metric.DOT)).winners[0]) == 1
    )


def test_nothing_to_search(fakes: Any) -> None:
    query = np.ones((2, DIM), np.float32)
    assert [len(w) for w in execute([], query, SearchSpec(5)).winners] == [0, 0]
    none = fakes.FakePart("tail", np.empty((0, DIM)), [], Metric.COSINE)
    outcome = execute([none], query, SearchSpec(5))
    assert [len(w) for w in outcome.winners] == [0, 0]
    assert outcome.plan[0].strategy == "empty"
    dead = fakes.FakePart("s", np.ones((3, DIM)), ["a", "b", "c"], Metric.COSINE, dead=np.ones(3, bool))
    assert len(execute([dead, none], query, SearchSpec(5)).winners[0]) == 0
    bare = fakes.FakePart("s", np.ones((3, DIM)), ["a", "b", "c"], Metric.COSINE, has_vector=np.zeros(3, bool))
    assert len(execute([bare], query, SearchSpec(5)).winners[0]) == 0


def test_plan_counts_what_was_compared(fakes: Any) -> None:
    rng = np.random.default_rng(0)
    part = fakes.FakePart("s", rng.normal(size=(500, DIM)), [str(i) for i in range(500)], Metric.COSINE)
    query = prepared(rng.normal(size=(2, DIM)).astype(np.float32), Metric.COSINE)
    (step,) = execute([part], query, SearchSpec(5)).plan
    assert (step.strategy, step.rows, step.estimated, step.matched, step.rows_scored) == ("exact", 500, 500, 500, 1000)
    assert not step.filtered
    where = fakes.FakeFilter({"s": np.arange(500) < 40}, spread=0.5)
    outcome = execute([part], query, SearchSpec(5, where, FilterMode.PRE))
    (step,) = outcome.plan
    assert (step.strategy, step.matched, step.rows_scored, step.filtered) == ("exact_filtered", 40, 80, True)
    assert set(outcome.plan.timings_ms) == {"filter", "search", "merge"}
    (step,) = execute([part], query, SearchSpec(5, fakes.FakeFilter({"s": np.zeros(500, bool)}))).plan
    assert (step.strategy, step.matched, step.rows_scored) == ("empty", 0, 0)


def test_explain_runs_nothing(fakes: Any) -> None:
    rng = np.random.default_rng(0)
    part = fakes.FakePart("s", rng.normal(size=(20_000, DIM)), [str(i) for i in range(20_000)], Metric.COSINE).indexed()
    where = fakes.FakeFilter({"s": rng.random(20_000) < 0.01})
    (step,) = explain([part], SearchSpec(5), DIM)
    assert (step.strategy, step.params) == ("graph", {"ef": 64})
    (step,) = explain([part], SearchSpec(5, where, FilterMode.IN), DIM)
    assert step.strategy == "exact_filtered"
    assert "loses recall" in (step.fallback_reason or "")
    assert step.estimated == int(where.masks["s"].sum())
    assert part.index.calls == []
    assert part.blocks_read == 0


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("count", [1, 64])
def test_with_little_time_left_the_deadline_is_asked_more_often(
    fakes: Any, monkeypatch: pytest.MonkeyPatch, filtered: bool, count: int
) -> None:
    """Work between two looks, in rows compared, on a clock that stands still."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40_000, 64))
    part = fakes.FakePart("s", vectors, [str(i) for i in range(40_000)], Metric.COSINE, block_rows=100_000)
    queries = prepared(rng.normal(size=(count, 64)).astype(np.float32), Metric.COSINE)
    where = fakes.FakeFilter({"s": np.arange(40_000) % 4 != 0}) if filtered else None
    work: list[int] = []
    compare = exact._compare

    def counted(run: Any, part: Any, stretch: Any, numbers: Any) -> Any:
        work.append(stretch.covered * len(numbers))
        return compare(run, part, stretch, numbers)

    monkeypatch.setattr(exact, "_compare", counted)
    monkeypatch.setattr(exact, "BLOCK_BYTES", 4 << 20)
    monkeypatch.setattr(exact, "IN_PLACE_BYTES", 4 << 20)
    monkeypatch.setattr(exact, "GATHER_BYTES", 4 << 20)
    monkeypatch.setattr(deadline, "monotonic", lambda: 1_000.0)
    most = {}
    for left in (10.0, 0.005):
        work.clear()
        outcome = execute([part], queries, SearchSpec(5, where, FilterMode.PRE), Deadline(1_000.0 + left, left))
        assert outcome.incomplete_reason is None
        assert sum(work) == count * (30_000 if filtered else 40_000)
        most[left] = max(work)
    assert most[10.0] >= exact.FINER * min(count, exact.FINER) * most[0.005] * 0.9
