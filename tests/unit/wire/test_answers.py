"""Answers are the same after a trip as bytes: hits, plans, records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.given import SCALAR, TEXT, again
from vectordb.results import Alternative, Hit, HitColumns, Plan, RepeatedPlan, SearchResult, SegmentPlan
from vectordb.types import FilterMode, Record
from vectordb.wire import answer, results, stats
from vectordb_proto.v1 import service_pb2, types_pb2

IDS_OF_HITS = st.text(min_size=1, max_size=8) | st.integers(100, 512).map(lambda size: "a" * size)


HIT = st.builds(
    Hit, TEXT, st.floats(width=32, allow_nan=False),
    st.none() | st.dictionaries(TEXT, SCALAR, max_size=2), st.none() | TEXT,
    st.none() | st.just(np.array([1, -2.5, 0], np.float32)),
)  # fmt: skip
ALTERNATIVE = st.builds(Alternative, TEXT, st.none() | st.floats(0, 1), st.none() | TEXT)
PLAN = st.builds(
    Plan,
    st.lists(
        st.builds(
            SegmentPlan,
            TEXT,
            TEXT,
            st.integers(0, 9),
            st.integers(0, 9),
            st.none() | st.integers(0, 9),
            st.integers(0, 9),
            st.none() | TEXT,
            st.booleans(),
            st.dictionaries(TEXT, st.integers(0, 9), max_size=2),
            st.none() | TEXT,
            st.floats(0, 1),
            st.lists(st.builds(Alternative, TEXT, st.none() | st.floats(0, 1), st.none() | TEXT), max_size=2).map(
                tuple
            ),
        ),
        max_size=3,
    ).map(tuple),
    st.sampled_from(FilterMode),
    st.integers(0, 2**63),
    st.dictionaries(TEXT, st.floats(0, 1), max_size=2),
).flatmap(lambda plan: st.sampled_from([plan, replace(plan, recall=0.75, recall_low=0.5, recall_sampled=0.25)]))


@given(st.lists(st.lists(HIT, max_size=4), max_size=3), PLAN, st.none() | TEXT, st.floats(0, 1))
def test_search_results(found, plan, reason, fraction):
    given_ = [SearchResult(hits, plan, 1.25, reason, fraction) for hits in found]
    data = answer.answer_to_bytes(given_, ("metadata", "text", "vector"))
    assert len(service_pb2.SearchResponse.FromString(data).plans) <= 1, "a shared plan is sent once"
    for got, want in zip(answer.answer_from_bytes(data, ("metadata",)), given_, strict=True):
        assert (got.complete, got.incomplete_reason, got.searched_fraction) == (reason is None, reason, fraction)
        assert (got.took_ms, got.plan) == (1.25, plan)
        for a, b in zip(got, want, strict=True):
            assert a[:4] == b[:4]
            np.testing.assert_array_equal(a.vector, b.vector)


@given(st.lists(st.lists(st.tuples(IDS_OF_HITS, st.floats(width=32, allow_nan=False)), max_size=4), max_size=4), PLAN)
def test_search_results_of_ids_and_scores(found, plan):
    """Also where ids are long, or not ASCII, and where queries have none."""
    given_ = [SearchResult(HitColumns([i for i, _ in hits], [s for _, s in hits]), plan, 1.25) for hits in found]
    data = answer.answer_to_bytes(given_, ())
    message = service_pb2.SearchResponse.FromString(data)
    assert [list(zip(entry.hits.ids, entry.scores, strict=True)) for entry in message.results] == found
    for got, want in zip(answer.answer_from_bytes(data, ()), found, strict=True):
        assert [hit[:2] for hit in got] == want
        assert (got.complete, got.took_ms, got.plan) == (True, 1.25, plan)


@given(
    st.integers(8, 20), st.integers(0, 3), st.sampled_from(["7", "é", "\0", "日"]),
    st.sampled_from([1, 3, 40, 127, 130]), st.none() | TEXT, PLAN,
)  # fmt: skip
def test_batches_of_results_of_one_size(queries, hits, letter, size, reason, plan):
    ids = [[f"{letter}{i}{j}".ljust(size, letter)[:size] for j in range(hits)] for i in range(queries)]
    scores = [[float(np.float32(i / 7 + j)) for j in range(hits)] for i in range(queries)]
    given_ = [SearchResult(HitColumns(i, s), plan, 1.25, reason, 0.5) for i, s in zip(ids, scores, strict=True)]
    data = answer.answer_to_bytes(given_, ())
    message = service_pb2.SearchResponse.FromString(data)
    assert [list(entry.hits.ids) for entry in message.results] == ids
    assert [list(entry.scores) for entry in message.results] == scores
    assert len(message.plans) == 1
    for got, want in zip(answer.answer_from_bytes(data, ()), given_, strict=True):
        assert (got.ids, got.scores) == (want.ids, want.scores)
        assert (got.took_ms, got.incomplete_reason, got.searched_fraction, got.plan) == (1.25, reason, 0.5, plan)


@given(PLAN.filter(lambda plan: plan.segments), st.data(), st.integers(0, 2**40), st.floats(0, 1), st.floats(0, 1))
def test_plans_like_others_but_for_what_they_took(plan, data, scored, searching, merging):
    bare = tuple(SegmentPlan(*segment[:9])._replace(rows_scored=0) for segment in plan.segments)
    number = data.draw(st.integers(0, len(bare) - 1))
    made = RepeatedPlan(Plan(bare, plan.filter_mode, plan.version), number, scored, searching, merging)
    first = SearchResult([Hit("a", 1.0)], made, 1.0)
    (got,) = answer.answer_from_bytes(answer.answer_to_bytes([first], ()), ())
    assert isinstance(first.plan_or_maker(), RepeatedPlan), "it is not made in order to be sent"
    assert got.plan == first.plan == made()
    assert got.plan.timings_ms == {"search": searching, "merge": merging}
    assert [segment.rows_scored for segment in got.plan.segments] == [
        scored if i == number else 0 for i in range(len(bare))
    ]


@pytest.mark.parametrize("odd", ["id", "hits", "took", "plan", "none"])
def test_a_batch_with_one_result_that_is_not_as_the_others(odd):
    found = [HitColumns(["aa", "bb"], [2.0, 1.0]) for _ in range(10)]
    plans, took = [Plan((), version=1)] * 10, [1.0] * 10
    if odd == "id":
        found[7] = HitColumns(["a", "bbb"], [2.0, 1.0])
    elif odd == "hits":
        found[7] = HitColumns(["aa"], [2.0])
    elif odd == "took":
        took[7] = 2.0
    elif odd == "plan":
        plans[7] = Plan((), version=2)
    given_ = [SearchResult(*each) for each in zip(found, plans, took, strict=True)]
    data = answer.answer_to_bytes(given_, ())
    for got, want in zip(answer.answer_from_bytes(data, ()), given_, strict=True):
        assert (list(got), got.plan, got.took_ms) == (list(want), want.plan, want.took_ms)


def test_results_of_one_answer_may_end_differently():
    plans = [Plan((), version=1), Plan((), version=2)]
    given_ = [
        SearchResult([Hit("a", 1.0)], plans[0], 1.0),
        SearchResult([Hit("b", 2.0)], plans[1], 1.0),
        SearchResult([], plans[0], 1.0, "deadline", 0.5),
        SearchResult([Hit("c", 3.0)], plans[0], 2.0),
    ]
    data = answer.answer_to_bytes(given_, ())
    for got, want in zip(answer.answer_from_bytes(data, ()), given_, strict=True):
        assert (list(got), got.plan, got.took_ms) == (list(want), want.plan, want.took_ms)
        assert (got.incomplete_reason, got.searched_fraction) == (want.incomplete_reason, want.searched_fraction)


@given(st.lists(HIT, max_size=5))
def test_records(hits):
    given_ = [Record(hit.id, hit.vector, hit.metadata, hit.text, 2**63 - i) for i, hit in enumerate(hits)]
    message = types_pb2.Records()
    results.records_to_message(given_, message)
    for got, want in zip(results.records_from_message(again(message)), given_, strict=True):
        np.testing.assert_array_equal(got.vector, want.vector)
        assert (got.id, got.metadata, got.text, got.version) == (want.id, want.metadata, want.text, want.version)


@pytest.mark.parametrize("value", [1, True, 1.0])
def test_plans_alike_but_for_a_type_are_kept_apart(value):
    plan = Plan((SegmentPlan("s", "graph", 5, 5, params={"x": value}),))
    for given_ in (plan, Plan((plan.segments[0]._replace(rows_scored=7),))):
        message = types_pb2.Plan()
        stats.plan_to_message(given_, message)
        got = stats.plan_from_message(again(message))
        assert got == given_
        assert type(got.segments[0].params["x"]) is type(value)
