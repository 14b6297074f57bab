"""``target_recall``: what the planner makes of a calibration, and how a calibration is measured."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from vectordb.index.base import BuildCancelled, Parameter
from vectordb.index.calibration import AFTER, ALL, WITHIN, Calibration, Curve, Point
from vectordb.metadata.estimate import Estimate
from vectordb.metric import Metric, prepared
from vectordb.query import targets
from vectordb.query.calibrate import LEAST_ROWS, LEAST_STEP, STEP, _next_width, calibrate
from vectordb.query.executor import execute
from vectordb.query.planner import Ask, PartFacts, Way, plan
from vectordb.query.spec import SearchSpec
from vectordb.types import FilterMode

ROWS = 50_000


def _calibration(capabilities: Any = None) -> Calibration:
    points = (Point(30, 1.0, 0.91), Point(60, 1.0, 0.96), Point(200, 1.0, 0.992))
    return Calibration(tuple(Curve(w, s, 10, points) for w, s in ((ALL, 1.0), (WITHIN, 0.5), (AFTER, 0.5))))


def _facts(fakes: Any, share: float | None = None, **others: Any) -> PartFacts:
    count = None if share is None else round(ROWS * share)
    estimate = None if count is None else Estimate(count, count, count)
    facts = PartFacts(ROWS, 0, ROWS, 384, fakes.GRAPH, estimate, share is not None, _calibration())
    return facts._replace(**others)


@pytest.mark.parametrize(("target", "width"), [(0.9, 30), (0.95, 60), (0.99, 200)])
def test_the_width_is_the_calibrated_one(fakes: Any, target: float, width: int) -> None:
    step = plan(_facts(fakes), Ask(10, target=target))
    assert (step.way, step.params) == (Way.INDEX, {"ef": width})
    assert step.recall >= target
    for mode, way in ((FilterMode.IN, Way.INDEX_FILTERED), (FilterMode.POST, Way.INDEX_POST)):
        step = plan(_facts(fakes, 0.6), Ask(10, mode, target=target))
        assert step.way is way
        # Never narrower than its candidates.
        assert step.params["ef"] == max(width, step.k if way is Way.INDEX_POST else 0)


@pytest.mark.parametrize(
    ("ask", "share", "others", "reason"),
    [
        (Ask(10, target=1.0), None, {}, targets.ALL_WANTED),
        (Ask(10, target=0.9), None, {"calibration": None}, targets.UNCALIBRATED),
        (Ask(10, target=0.9), 0.5, {"calibration": None}, targets.UNCALIBRATED),
        (Ask(10, target=0.999), None, {}, targets.MISSED),
        (Ask(10, FilterMode.IN, target=0.999), 0.5, {}, targets.MISSED),
        (Ask(10, FilterMode.POST, target=0.9), 0.2, {}, targets.MISSED),
        (Ask(10, FilterMode.PRE, target=0.9), 0.5, {}, None),
        (Ask(10, FilterMode.PRE, target=1.0), 0.5, {}, None),
        (Ask(10, exact=True, target=0.9), None, {}, None),
        (Ask(10, target=0.9), None, {"capabilities": None, "calibration": None}, None),
    ],
)
def test_exact_where_nothing_is_promised(
    fakes: Any, ask: Ask, share: float | None, others: dict[str, Any], reason: str | None
) -> None:
    step = plan(_facts(fakes, share, **others), ask)
    assert step.way is (Way.EXACT if share is None else Way.EXACT_FILTERED)
    assert step.reason == reason


def test_nothing_matches_whatever_the_target(fakes: Any) -> None:
    for target in (0.9, 1.0):
        assert plan(_facts(fakes, 0.0), Ask(10, target=target)).way is Way.EMPTY


def test_the_cheapest_of_width_and_oversampling(fakes: Any) -> None:
    parameter = Parameter(float, 4.0, 1.0, 100.0)
    able = replace(
        fakes.GRAPH, oversampling=4.0, search_params={**fakes.GRAPH.search_params, "oversampling": parameter}
    )
    points = (Point(400, 4.0, 0.95), Point(120, 8.0, 0.95))
    calibration = Calibration((Curve(ALL, 1.0, 10, points),))
    step = plan(_facts(fakes, capabilities=able, calibration=calibration), Ask(10, target=0.95))
    assert (step.params, step.rescored) == ({"ef": 120}, 84)


def _part(fakes: Any, metric: Metric = Metric.COSINE, rows: int = 5_000, **options: Any) -> Any:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((50, 12))
    vectors = centres[rng.integers(0, 50, rows)] + 0.4 * rng.standard_normal((rows, 12))
    return fakes.FakePart("s", vectors, [f"{i:05d}" for i in range(rows)], metric).indexed(**options)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2])
def test_a_calibration_is_kept_on_queries_that_it_did_not_see(fakes: Any, metric: Metric) -> None:
    """A toy index that finds the more, the wider it is: distances with noise, over as many rows as its width allows."""
    scale = 0.05 if metric is Metric.COSINE else 1.0
    part = _part(fakes, metric, noise=scale, beam=lambda ef: 20 * ef)
    part.calibration = calibrate(part, metric, lambda: False)
    assert part.calibration is not None
    assert {curve.way for curve in part.calibration.curves} >= {ALL}
    for curve in part.calibration.curves:
        widths = [point.width for point in curve.points]
        assert widths == sorted(set(widths))
        recalls = [point.recall for point in curve.points]
        assert recalls == sorted(recalls)
    rng = np.random.default_rng(4)
    queries = prepared((part.matrix[:60] + 0.1 * rng.standard_normal((60, 12))).astype(np.float32), metric)
    for target in (0.9, 0.95):
        spec = SearchSpec(10, params={"target_recall": target}, metric=metric)
        outcome = execute([part], queries, spec)
        found = fakes.answers(outcome)
        truth = [fakes.expected([part], query, 10) for query in queries]
        hits = sum(len(set(a) & set(b)) for a, b in zip(found, truth, strict=True))
        assert hits / 600 >= target - 0.01, (metric, target, outcome.plan[0])


def test_the_same_index_has_the_same_calibration(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectordb.query.calibrate.QUERIES", {10: 20})
    part = _part(fakes, noise=0.02)
    assert calibrate(part, Metric.COSINE, lambda: False) == calibrate(part, Metric.COSINE, lambda: False)


class _Blurred:
    """Ranks by vectors of its own, a little off: the same however often and beside whatever others a query is asked."""

    def __init__(self, fakes: Any, part: Any, **options: Any) -> None:
        noise = 0.02 * np.random.default_rng(7).standard_normal(part.matrix.shape)
        self.inner = fakes.FakeIndex((part.matrix + noise).astype(np.float32), part.metric, **options)
        self.search = self.inner.search
        self.memory_bytes = self.inner.memory_bytes


def test_what_curves_share_is_done_once_and_changes_nothing(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectordb.query.calibrate.QUERIES", {10: 24, 100: 8})
    part = _part(fakes, rows=20_000)
    part.index = _Blurred(fakes, part)
    shared = calibrate(part, Metric.COSINE, lambda: False)
    calls = [(call["params"]["ef"], call["k"], call["queries"]) for call in part.index.inner.calls if not call["told"]]
    widths = {ef for ef, _, _ in calls}
    assert all(sum(queries for ef, _, queries in calls if ef == width) <= 32 for width in widths)
    assert len({curve.way for curve in shared.curves}) == 3
    assert any(curve.points[0].recall < 0.97 for curve in shared.curves)
    monkeypatch.setattr("vectordb.query.calibrate.KEPT_WIDTH", 0)
    monkeypatch.setattr("vectordb.query.calibrate.DEEPEST", 1.0)
    part.index.inner.calls.clear()
    assert calibrate(part, Metric.COSINE, lambda: False) == shared
    assert sum(call["queries"] for call in part.index.inner.calls if not call["told"]) > sum(q for _, _, q in calls)


def test_ladders_meet_at_the_same_widths() -> None:
    for start in range(1, 3_000, 7):
        widths = [start]
        while len(widths) < 6:
            widths.append(_next_width(widths[-1]))
        assert all(b > a and b >= LEAST_STEP * a for a, b in pairwise(widths))
        assert all(b <= STEP * LEAST_STEP * a + 2 for a, b in pairwise(widths))
        powers = {math.ceil(STEP**i) for i in range(30)}
        assert powers >= set(widths[1:])


def test_dead_rows_are_neither_asked_nor_missed(fakes: Any) -> None:
    part = _part(fakes, rows=8_000)
    dead = np.random.default_rng(5).random(8_000) < 0.3
    other = fakes.FakePart("s", part.matrix, part.names, Metric.COSINE, dead=dead).indexed()
    found = calibrate(other, Metric.COSINE, lambda: False)
    assert found is not None
    assert all(curve.points[-1].recall >= 0.99 for curve in found.curves)


def test_a_kind_without_a_width_has_one_point(fakes: Any) -> None:
    found = calibrate(_part(fakes, capabilities=fakes.TREES), Metric.COSINE, lambda: False)
    assert found is not None
    assert all(len(curve.points) == 1 and curve.points[0].width is None for curve in found.curves)


def test_nothing_to_calibrate(fakes: Any) -> None:
    assert calibrate(_part(fakes, rows=LEAST_ROWS - 1), Metric.COSINE, lambda: False) is None
    plain = fakes.FakePart("s", np.ones((5_000, 4)), [f"{i}" for i in range(5_000)], Metric.L2)
    assert calibrate(plain, Metric.L2, lambda: False) is None
    exact = replace(fakes.GRAPH, exact=True)
    assert calibrate(_part(fakes, capabilities=exact), Metric.COSINE, lambda: False) is None


def test_cancelled(fakes: Any) -> None:
    with pytest.raises(BuildCancelled):
        calibrate(_part(fakes), Metric.COSINE, lambda: True)
