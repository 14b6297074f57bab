"""Search through an index: exact scores, no dead or unmatched row, ``limit`` hits, and fallbacks that say why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vectordb.metric import Metric, prepared
from vectordb.query import indexed, planner, probe
from vectordb.query.deadline import Deadline
from vectordb.query.executor import execute
from vectordb.query.spec import SearchSpec
from vectordb.types import FilterMode

DIM = 16
ROWS = 4_000


def _part(fakes: Any, *, metric: Metric = Metric.COSINE, dead: float = 0.0, missing: float = 0.0, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return fakes.FakePart(
        "s",
        rng.normal(size=(ROWS, DIM)),
        [f"{i:05}" for i in rng.permutation(ROWS)],
        metric,
        dead=rng.random(ROWS) < dead,
        has_vector=rng.random(ROWS) >= missing,
    )


def _queries(count: int, metric: Metric = Metric.COSINE) -> Any:
    return prepared(np.random.default_rng(9).normal(size=(count, DIM)).astype(np.float32), metric)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("mode", list(FilterMode))
@pytest.mark.parametrize("dead", [0.0, 0.05, 0.6])
@pytest.mark.parametrize("share", [None, 0.02, 0.3, 0.95])
def test_every_mode_is_right_with_a_faithful_index(
    fakes: Any, metric: Metric, mode: FilterMode, dead: float, share: float | None
) -> None:
    part = _part(fakes, metric=metric, dead=dead, missing=0.1).indexed(beam=lambda ef: 20 * ef)
    tail = fakes.FakePart("tail", np.random.default_rng(4).normal(size=(90, DIM)), [f"t{i}" for i in range(90)], metric)
    rng = np.random.default_rng(1)
    where = None
    if share is not None:
        where = fakes.FakeFilter({"s": rng.random(ROWS) < share, "tail": rng.random(90) < share}, spread=0.3)
    queries = _queries(4, metric)
    for limit in (1, 10, 500):
        outcome = execute([part, tail], queries, SearchSpec(limit, where, mode, metric=metric))
        for query, got in zip(queries, fakes.answers(outcome), strict=True):
            truth = fakes.expected([part, tail], query, limit, where)
            assert len(got) == len(truth)
            assert len({id_ for id_, _ in got} & {id_ for id_, _ in truth}) >= 0.98 * len(truth)
            assert dict(got).items() <= dict(fakes.expected([part, tail], query, 10_000, where)).items()


def _strategies(outcome: Any) -> list[str]:
    return [step.strategy for step in outcome.plan]


def test_strategies_are_told(fakes: Any) -> None:
    part = _part(fakes).indexed(beam=lambda ef: 20 * ef)
    query = _queries(1)
    half = fakes.FakeFilter({"s": np.arange(ROWS) % 2 == 0})
    walk = execute([part], query, SearchSpec(10)).plan[0]
    assert (walk.strategy, walk.filtered, walk.fallback_reason, walk.matched) == ("graph", False, None, None)
    assert walk.rows_scored == 20 * 64
    within = execute([part], query, SearchSpec(10, half, FilterMode.IN)).plan[0]
    assert (within.strategy, within.filtered, within.fallback_reason, within.matched) == ("graph", True, None, 2_000)
    after = execute([part], query, SearchSpec(10, half, FilterMode.POST)).plan[0]
    assert (after.strategy, after.filtered, after.fallback_reason, after.matched) == ("graph_post", True, None, 2_000)
    assert [call["told"] for call in part.index.calls] == [False, True, False]


def test_an_inexact_index_is_rescored(fakes: Any) -> None:
    part = _part(fakes).indexed(noise=0.02)
    query = _queries(1)
    got = fakes.answers(execute([part], query, SearchSpec(10)))[0]
    everything = dict(fakes.expected([part], query[0], ROWS))
    assert all(everything[id_] == score for id_, score in got)
    assert got == sorted(got, key=lambda hit: (-hit[1], hit[0]))


def test_a_correlated_filter_goes_exact(fakes: Any) -> None:
    """The matching rows are those farthest from the query: a walk around it meets none of them."""
    part = _part(fakes).indexed(beam=lambda ef: 20 * ef)
    query = _queries(1)
    far = part.matrix @ query[0] < np.quantile(part.matrix @ query[0], 0.4)
    for mode in (FilterMode.AUTO, FilterMode.IN, FilterMode.POST):
        outcome = execute([part], query, SearchSpec(10, fakes.FakeFilter({"s": far}), mode))
        assert fakes.answers(outcome)[0] == fakes.expected([part], query[0], 10, fakes.FakeFilter({"s": far}))
        assert _strategies(outcome) == ["exact_filtered"]
        # Where no mode was asked for, the exact way is the first choice here and not a fallback.
        assert mode is FilterMode.AUTO or outcome.plan[0].fallback_reason is not None


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_walk_that_sees_the_wrong_place_is_not_believed(fakes: Any, share: float) -> None:
    """The nearest rows match least. Every list is full, but of hits that are farther out than the beam spans."""
    rng = np.random.default_rng(1)
    part = fakes.FakePart("s", rng.normal(size=(20_000, DIM)), [f"{i}" for i in range(20_000)], Metric.COSINE)
    part.indexed(beam=lambda ef: 20 * ef)
    queries = _queries(8)
    for query in queries:
        where = fakes.FakeFilter({"s": rng.random(20_000) < share})
        where.masks["s"][(part.matrix @ query).argsort()[::-1][:400]] = False
        outcome = execute([part], query[None], SearchSpec(10, where, FilterMode.IN))
        assert fakes.answers(outcome)[0] == fakes.expected([part], query, 10, where)
        widened = [call["params"]["ef"] for call in part.index.calls if call["told"]]
        assert max(widened) >= 400 / 1.5 or outcome.plan[0].fallback_reason == indexed.CORRELATED
        part.index.calls.clear()


@pytest.mark.parametrize("share", [0.2, 0.35, 0.7, 0.99])
def test_a_walk_under_an_even_filter_is_believed(fakes: Any, share: float) -> None:
    rng = np.random.default_rng(2)
    part = fakes.FakePart("s", rng.normal(size=(20_000, DIM)), [f"{i}" for i in range(20_000)], Metric.COSINE)
    part.indexed(beam=lambda ef: 17 * ef)
    where = fakes.FakeFilter({"s": rng.random(20_000) < share})
    outcome = execute([part], _queries(60), SearchSpec(10, where, FilterMode.IN))
    (step,) = outcome.plan
    assert (step.strategy, step.fallback_reason, step.filtered) == ("graph", None, True)
    assert step.rows_scored < 0.1 * 20_000 * 60


def test_widening_reaches_the_limit(fakes: Any) -> None:
    part = _part(fakes).indexed()
    part.vector_count = ROWS
    query = _queries(1)
    near = (part.matrix @ query[0]).argsort()[::-1]
    mask = np.ones(ROWS, bool)
    mask[near[:40]] = False
    outcome = execute([part], query, SearchSpec(10, fakes.FakeFilter({"s": mask}), FilterMode.POST))
    assert fakes.answers(outcome)[0] == fakes.expected([part], query[0], 10, fakes.FakeFilter({"s": mask}))
    assert [call["k"] for call in part.index.calls] == [20, 80]
    assert (outcome.plan[0].strategy, outcome.plan[0].fallback_reason) == ("graph_post", None)
    assert outcome.plan[0].params["ef"] == 80


def test_clustered_deaths_are_widened_past(fakes: Any) -> None:
    part = _part(fakes)
    query = _queries(1)
    part.dead_mask[(part.matrix @ query[0]).argsort()[::-1][:200]] = True
    part.dead = 200
    part.indexed()
    outcome = execute([part], query, SearchSpec(10))
    assert fakes.answers(outcome)[0] == fakes.expected([part], query[0], 10)


def test_an_index_that_finds_nothing_is_replaced(fakes: Any) -> None:
    part = _part(fakes).indexed(beam=lambda ef: 3)
    queries = _queries(3)
    outcome = execute([part], queries, SearchSpec(10))
    assert fakes.answers(outcome) == [fakes.expected([part], q, 10) for q in queries]
    assert (outcome.plan[0].strategy, outcome.plan[0].fallback_reason) == ("exact", indexed.SHORT)
    assert outcome.plan[0].rows_scored == 3 * 3 + 3 * ROWS


def test_only_the_failing_queries_of_a_batch_go_exact(fakes: Any) -> None:
    part = _part(fakes).indexed(beam=lambda ef: 20 * ef)
    queries = _queries(5)
    far = part.matrix @ queries[2] < np.quantile(part.matrix @ queries[2], 0.4)
    where = fakes.FakeFilter({"s": far})
    outcome = execute([part], queries, SearchSpec(10, where, FilterMode.IN))
    (step,) = outcome.plan
    assert step.strategy == "graph"
    assert "of 5 queries" in (step.fallback_reason or "")
    assert fakes.answers(outcome)[2] == fakes.expected([part], queries[2], 10, where)
    alone = [
        fakes.answers(execute([part], queries[i : i + 1], SearchSpec(10, where, FilterMode.IN)))[0] for i in range(5)
    ]
    assert fakes.answers(outcome) == alone


@pytest.mark.parametrize("mode", list(FilterMode))
@pytest.mark.parametrize("equal", [12, 30, 900])
def test_ties_at_the_cut_go_by_id(fakes: Any, mode: FilterMode, equal: int) -> None:
    """``equal`` rows lie on the query; the index returns those of the smallest row numbers, not of the smallest ids."""
    part = _part(fakes)
    query = _queries(1)
    part.matrix[:equal] = query[0]
    part.indexed()
    where = None if mode is FilterMode.AUTO else fakes.FakeFilter({"s": np.arange(ROWS) < 3_900})
    got = fakes.answers(execute([part], query, SearchSpec(10, where, mode)))[0]
    assert got == fakes.expected([part], query[0], 10, where)


def test_large_batches_are_sliced(fakes: Any) -> None:
    part = _part(fakes).indexed()
    queries = np.repeat(_queries(50), 20, axis=0)
    outcome = execute([part], queries, SearchSpec(5))
    assert len(part.index.calls) > 1
    assert sum(call["queries"] for call in part.index.calls) == 1_000
    assert fakes.answers(outcome)[20] == fakes.expected([part], queries[20], 5)


def test_a_plan_that_a_caller_changed_does_not_change_later_searches(fakes: Any) -> None:
    part = _part(fakes).indexed()
    query = _queries(1)
    first = execute([part], query, SearchSpec(10)).plan[0]
    first.params["ef"] = 1  # type: ignore[index]
    execute([part], query, SearchSpec(10))
    assert [call["params"]["ef"] for call in part.index.calls] == [64, 64]


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_first_attempt_that_failed_is_counted(fakes: Any, timeout: float | None) -> None:
    part = _part(fakes).indexed(beam=lambda ef: 3)
    (step,) = execute([part], _queries(1), SearchSpec(10), Deadline.after(timeout)).plan
    assert (step.strategy, step.fallback_reason) == ("exact", indexed.SHORT)
    assert step.rows_scored == sum(3 for _ in part.index.calls) + ROWS


def test_plans_kept_for_one_index_are_not_used_for_another(fakes: Any) -> None:
    """Same sizes, other capabilities, also after the first index is gone."""
    query = _queries(1)
    for capabilities, ef in ((fakes.GRAPH, 64), (_with_default(fakes.GRAPH, 200), 200), (fakes.GRAPH, 64)):
        part = _part(fakes).indexed(capabilities)
        assert execute([part], query, SearchSpec(10)).plan[0].params == {"ef": ef}
    deleted = _part(fakes, dead=0.05).indexed()
    assert execute([deleted], query, SearchSpec(10)).plan[0].estimated == ROWS - deleted.dead


def _with_default(capabilities: Any, ef: int) -> Any:
    parameter = replace(capabilities.search_params["ef"], default=ef)
    return replace(capabilities, search_params={"ef": parameter})


def _doubtful(fakes: Any, monkeypatch: pytest.MonkeyPatch, mask: Any, queries: Any) -> tuple[Any, Any, Any]:
    """A search in ``auto`` whose choice hangs on whether the matches are scattered: costs are near each other."""
    monkeypatch.setattr(planner, "DOUBT", 0.0)
    monkeypatch.setattr(planner, "RISK", 10.0)
    monkeypatch.setattr(planner, "RISK_SCATTERED", 10.0)
    rng = np.random.default_rng(2)
    part = fakes.FakePart("s", rng.normal(size=(20_000, DIM)), [f"{i}" for i in range(20_000)], Metric.COSINE)
    part.indexed(beam=lambda ef: 17 * ef)
    where = fakes.FakeFilter({"s": mask(part.matrix)})
    return part, where, execute([part], queries, SearchSpec(10, where))


def test_scattered_matches_need_no_probe(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = _queries(3)
    part, where, outcome = _doubtful(
        fakes, monkeypatch, lambda matrix: np.random.default_rng(3).random(len(matrix)) < 0.3, queries
    )
    assert part.spread == {where: True}
    assert outcome.plan[0].strategy in ("graph", "graph_post")
    assert probe.NEIGHBOURS + 1 in [call["k"] for call in part.index.calls]
    assert planner.PROBE not in [call["k"] for call in part.index.calls]
    part.index.calls.clear()
    execute([part], queries, SearchSpec(10, where))
    assert probe.NEIGHBOURS + 1 not in [call["k"] for call in part.index.calls], "looked up once"


def test_a_probe_tells_the_queries_that_are_far_from_the_matches(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The matches are a third of the space: queries within it are answered by the index, the others exactly."""
    direction = _queries(1)[0]
    queries = prepared(np.stack([direction, -direction, direction + 0.01, -direction + 0.01]), Metric.COSINE)
    part, where, outcome = _doubtful(
        fakes, monkeypatch, lambda matrix: matrix @ direction > np.quantile(matrix @ direction, 0.67), queries
    )
    assert part.spread == {where: False}
    assert [call["k"] for call in part.index.calls].count(planner.PROBE) == 4
    assert outcome.plan[0].fallback_reason == f"2 of 4 queries: {indexed.CORRELATED}"
    for got, query in zip(fakes.answers(outcome), queries, strict=True):
        assert got == fakes.expected([part], query, 10, where)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.DOT])
def test_a_score_of_zero_has_no_sign_whatever_way_found_it(fakes: Any, metric: Metric) -> None:
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM))
    # Four lie this side of the query's plane, two in it, the others beyond.
    vectors[:, 0] = -1.0
    vectors[:6, 0] = 4.0, 3.0, 2.0, 1.0, 0.0, 0.0
    part = fakes.FakePart("s", vectors, [f"{i:05}" for i in range(ROWS)], metric).indexed(beam=lambda ef: 20 * ef)
    queries = np.zeros((3, DIM), np.float32)
    queries[:, 0] = 1.0
    scores = {
        (exact, count): execute([part], queries[:count], SearchSpec(6, exact=exact, metric=metric)).winners[0].scores
        for exact in (True, False)
        for count in (1, 3)
    }
    assert scores[True, 1][4:].tolist() == [0.0, 0.0]
    assert len({found.tobytes() for found in scores.values()}) == 1
    assert not np.signbit(scores[False, 1]).any()
