"""The planner as a table: what is asked of which part, and what it chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vectordb.index.faiss_hnsw import EFFORT
from vectordb.metadata.estimate import Estimate
from vectordb.query import costs, planner, widths
from vectordb.query.planner import Ask, PartFacts, Way, plan
from vectordb.types import FilterMode

AUTO, PRE, IN, POST = FilterMode.AUTO, FilterMode.PRE, FilterMode.IN, FilterMode.POST


def _facts(fakes: Any, rows: int = 20_000, share: float | None = None, **others: Any) -> PartFacts:
    count = None if share is None else round(rows * share)
    estimate = None if count is None else Estimate(count, count, count)
    return PartFacts(**{"rows": rows, "dead": 0, "vectors": rows, "dim": 384, "capabilities": fakes.GRAPH,
                        "estimate": estimate, "counted": share is not None, **others})  # fmt: skip


@pytest.mark.parametrize(
    ("share", "mode", "strategy"),
    [
        (0.5, PRE, "exact_filtered"),
        (0.5, IN, "graph"),
        (0.5, POST, "graph_post"),
        (0.2, IN, "graph"),
        (0.2, POST, "graph_post"),
        (0.12, PRE, "exact_filtered"),
        (0.12, IN, "exact_filtered"),
        (0.01, IN, "exact_filtered"),
        (0.01, POST, "exact_filtered"),
        (0.01, AUTO, "exact_filtered"),
        (0.0, AUTO, "empty"),
        (0.0, POST, "empty"),
        (1.0, IN, "graph"),
    ],
)
def test_modes_by_selectivity(fakes: Any, share: float, mode: FilterMode, strategy: str) -> None:
    step = plan(_facts(fakes, share=share), Ask(10, mode))
    assert step.strategy == strategy
    fell_back = strategy == "exact_filtered" and mode is not PRE and mode is not AUTO
    assert (step.reason is not None) == fell_back


@pytest.mark.parametrize("rows", [20_000, 116_659, 1_000_000])
@pytest.mark.parametrize("share", [0.003, 0.02, 0.05, 0.16, 0.3, 0.5, 0.9, 1.0])
def test_auto_is_the_cheapest(fakes: Any, rows: int, share: float) -> None:
    facts = _facts(fakes, rows, share)
    chosen = plan(facts, Ask(10))

    def cost(step: planner.Step) -> float:
        if step.way is Way.EXACT_FILTERED:
            return costs.scan_matches(rows * share, rows, 384)
        return step.cost

    for mode in (PRE, IN, POST):
        factor = 1.001 / planner.RISK if chosen.way is Way.EXACT_FILTERED else 1.001
        assert cost(chosen) <= cost(plan(facts, Ask(10, mode))) * factor


def test_filtered_walk_compares_few_rows(fakes: Any) -> None:
    for share in (0.2, 0.25, 0.5, 0.9):
        step = plan(_facts(fakes, share=share), Ask(10, IN))
        assert step.strategy == "graph"
        assert costs.visits(EFFORT, 20_000, int(step.params["ef"])) < 2_000


def test_without_a_filter(fakes: Any) -> None:
    step = plan(_facts(fakes), Ask(10))
    assert (step.way, step.strategy, step.k, step.params, step.estimated) == (
        Way.INDEX, "graph", 10 + widths.SLACK, {"ef": 64}, 20_000,
    )  # fmt: skip
    assert plan(_facts(fakes), Ask(10, params={"ef": 500, "nprobe": 3})).params == {"ef": 500}
    assert plan(_facts(fakes), Ask(10, params={"ef": 4})).params == {"ef": 10 + widths.SLACK}
    assert plan(_facts(fakes), Ask(10, exact=True)).strategy == "exact"
    assert plan(_facts(fakes, share=0.5), Ask(10, IN, exact=True)).strategy == "exact_filtered"
    assert plan(_facts(fakes, capabilities=None), Ask(10)).strategy == "exact"
    assert plan(_facts(fakes, capabilities=replace(fakes.GRAPH, exact=True)), Ask(10)).strategy == "exact"
    large = plan(_facts(fakes), Ask(10_000))
    assert (large.strategy, large.reason) == ("exact", planner.LARGE_LIMIT)
    wide = plan(_facts(fakes), Ask(2_500))
    assert wide.strategy == "exact"
    assert wide.reason is not None


def test_dead_rows(fakes: Any) -> None:
    few = plan(_facts(fakes, dead=200), Ask(10))
    assert few.way is Way.INDEX
    assert few.k > 10 + widths.SLACK
    assert few.estimated == 19_800
    many = plan(_facts(fakes, dead=8_000), Ask(10))
    assert (many.way, many.strategy) == (Way.INDEX, "graph")
    assert many.k >= 16 / 0.6
    assert plan(_facts(fakes, dead=19_990), Ask(10)).strategy == "exact"
    assert plan(_facts(fakes, dead=20_000), Ask(10)).strategy == "empty"
    assert plan(_facts(fakes, vectors=0), Ask(10)).strategy == "empty"
    estimated = _facts(fakes, dead=10_000, vectors=10_000, estimate=Estimate(0, 8_000, 20_000))
    assert plan(estimated, Ask(10, PRE)).estimated == 2_000


def test_kinds_that_cannot_filter(fakes: Any) -> None:
    facts = _facts(fakes, share=0.5, capabilities=fakes.TREES)
    assert plan(facts, Ask(10, IN)).reason == planner.CANNOT_FILTER
    assert plan(facts, Ask(10, POST)).strategy == "trees_post"
    bare = _facts(fakes, share=0.5, capabilities=None)
    assert plan(bare, Ask(10, IN)).reason == planner.NOT_INDEXED
    assert plan(bare, Ask(10)).reason is None


def test_widening_follows_the_share_that_passed(fakes: Any) -> None:
    facts = _facts(fakes, 200_000, share=0.5)
    step = plan(facts, Ask(10, POST))
    assert planner.widened(step.k, 0, step, facts, 10) == step.k * planner.WIDENING
    assert planner.widened(100, 5, step, facts, 10) == 300
    assert planner.widened(100_000, 5, step, facts, 10) is None
    rare = facts._replace(estimate=Estimate(100, 100, 100))
    assert planner.widened(1_000, 1, step._replace(estimated=100), rare, 10) is None


def test_costs_agree_with_their_measurements() -> None:
    assert costs.scan(100_000, 384) == pytest.approx(5_800, rel=0.02)
    assert costs.walk(EFFORT, 116_659, 384, 64) == pytest.approx(134, rel=0.2)
    assert costs.visits(EFFORT, 20_000, 256) == pytest.approx(3_016, rel=0.05)
    assert costs.visits(EFFORT, 50, 64) == 50
    ef = costs.widest(EFFORT, 1_000, 116_659, 384)
    assert costs.walk(EFFORT, 116_659, 384, ef) <= 1_000 < costs.walk(EFFORT, 116_659, 384, ef + 1)
    assert costs.widest(EFFORT, 1, 116_659, 384) == 0


def _between(fakes: Any, low: float, high: float) -> PartFacts:
    """Rows of which a tenth matches, so many that the index costs between these shares of the exact search."""
    for rows in range(20_000, 400_000, 5_000):
        facts = _facts(fakes, rows, 0.1)
        share = plan(facts, Ask(10, POST)).cost / costs.scan_matches(0.1 * rows, rows, 384)
        if low < share <= high:
            return facts
    raise AssertionError("no such size")


def test_whether_matches_are_scattered_decides_where_costs_are_near(fakes: Any) -> None:
    near = _between(fakes, planner.RISK, planner.RISK_SCATTERED)
    open_ = plan(near, Ask(10))
    assert (open_.way, open_.doubt) == (Way.EXACT_FILTERED, True)
    together = plan(near._replace(scattered=False), Ask(10))
    assert (together.way, together.doubt) == (Way.EXACT_FILTERED, False)
    apart = plan(near._replace(scattered=True), Ask(10))
    assert (apart.way, apart.doubt, apart.probe) == (Way.INDEX_POST, False, 0)


def test_where_matches_lie_together_a_probe_comes_first(fakes: Any) -> None:
    cheaper = _between(fakes, planner.DOUBT, planner.DOUBT + 0.05)
    assert plan(cheaper, Ask(10)).doubt
    step = plan(cheaper._replace(scattered=False), Ask(10))
    assert (step.way, step.doubt, step.probe) == (Way.INDEX_POST, False, planner.PROBE)
    assert plan(cheaper._replace(scattered=True), Ask(10)).probe == 0
    assert plan(cheaper._replace(scattered=False), Ask(10, POST)).probe == 0
    expected = planner.PROBE // 10
    assert planner.after_probe(expected, step, cheaper, 10) == step.k
    assert planner.after_probe(expected // 2, step, cheaper, 10) > step.k
    assert planner.after_probe(0, step, cheaper, 10) == 0


@pytest.mark.parametrize("mode", [AUTO, IN, POST])
def test_a_filter_that_is_expected_to_match_nothing_and_may(fakes: Any, mode: FilterMode) -> None:
    """Of several rare conditions; where a kind filters at any selectivity there was a division by 0."""
    capable = replace(fakes.GRAPH, min_filtered_selectivity=0.0)
    step = plan(_facts(fakes, capabilities=capable, estimate=Estimate(0, 0, 30)), Ask(10, mode))
    assert step.way is Way.EXACT_FILTERED


def test_an_index_that_is_far_cheaper_is_not_doubted(fakes: Any) -> None:
    step = plan(_facts(fakes, 1_000_000, 0.5), Ask(10))
    assert step.way in (Way.INDEX_FILTERED, Way.INDEX_POST)
    assert (step.doubt, step.probe) == (False, 0)
