"""Results that hold their hits by column until somebody looks: nobody can tell."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest

from vectordb.reports import Erasure
from vectordb.results import Hit, HitColumns, Plan, SearchResult, SegmentPlan
from vectordb.types import Record

PLAN = Plan((), version=3)
VECTORS = [np.arange(2, dtype=np.float32), None]
WHOLE = HitColumns(["a", "b"], [0.75, 0.5], [{"year": 1}, None], ["one", None], VECTORS)
BARE = HitColumns(["a", "b"], [0.75, 0.5])
EMPTY = HitColumns([], [])


def rows(columns: HitColumns) -> list[Hit]:
    """The hits, one after the other."""
    made = []
    for i, (id_, score) in enumerate(zip(columns.ids, columns.scores, strict=True)):
        made.append(Hit(id_, score, *(None if column is None else column[i] for column in columns[2:])))
    return made


def pair(columns: HitColumns) -> tuple[SearchResult, SearchResult]:
    return SearchResult(columns, PLAN, 1.5), SearchResult(rows(columns), PLAN, 1.5)


def told(result: SearchResult) -> Any:
    return [
        (hit.id, hit.score, hit.metadata, hit.text, None if hit.vector is None else hit.vector.tolist())
        for hit in result
    ]


@pytest.mark.parametrize("columns", [WHOLE, BARE, EMPTY])
def test_hits_are_the_same(columns: HitColumns) -> None:
    lazy, made = pair(columns)
    assert len(lazy) == len(made) == len(columns.ids)
    assert repr(lazy) == repr(made)
    assert told(lazy) == told(made)
    assert (lazy.ids, lazy.scores) == (columns.ids, columns.scores)
    assert lazy[:1] == lazy[0:1] == list(lazy)[:1]
    assert all(type(hit) is Hit for hit in lazy)
    assert all(lazy[i] is lazy[i] for i in range(len(lazy))), "made once"
    with pytest.raises(IndexError):
        lazy[len(lazy)]


@pytest.mark.parametrize("columns", [WHOLE, BARE, EMPTY])
@pytest.mark.parametrize("looked_at", [False, True])
def test_columns_are_the_same(columns: HitColumns, looked_at: bool) -> None:
    for result in pair(columns):
        if looked_at:
            assert len(list(result)) == len(columns.ids)
        got = result.by_column()
        assert got[:4] == columns[:4]
        assert [vector is None for vector in got.vectors or []] == [vector is None for vector in columns.vectors or []]


def test_what_is_handed_out_is_the_callers() -> None:
    lazy, _ = pair(BARE)
    lazy.ids.clear()
    lazy.scores.clear()
    assert lazy.ids == ["a", "b"]
    assert lazy.scores == [0.75, 0.5]


@pytest.mark.parametrize("looked_at", [False, True])
def test_results_are_pickled(looked_at: bool) -> None:
    lazy, made = pair(WHOLE)
    if looked_at:
        list(lazy)
    again = pickle.loads(pickle.dumps(lazy))
    assert told(again) == told(made)
    assert (again.plan, again.took_ms, again.complete) == (PLAN, 1.5, True)


def test_tables_have_the_columns_that_are_there() -> None:
    pandas = pytest.importorskip("pandas")
    for columns, names in ((WHOLE, ["id", "score", "metadata", "text", "vector"]), (BARE, ["id", "score"])):
        for result in pair(columns):
            table = result.to_pandas()
            assert isinstance(table, pandas.DataFrame)
            assert list(table.columns) == names
            assert table["id"].tolist() == ["a", "b"]


def test_a_table_of_arrow_has_the_same_types_with_and_without_hits() -> None:
    full = SearchResult(WHOLE, Plan(()), 1.0).to_arrow()
    assert [str(kind) for kind in full.schema.types] == ["string", "double", "string", "string", "list<item: float>"]
    empty = SearchResult(EMPTY, Plan(()), 1.0).to_arrow()
    assert (empty.num_rows, empty.schema) == (0, full.select(["id", "score"]).schema)


def test_records_are_equal_where_all_their_fields_and_numbers_are() -> None:
    vector = np.array([1, 2], np.float32)
    record = Record("a", vector, {"n": 1}, "text", 3)
    assert record == Record("a", vector.copy(), {"n": 1}, "text", 3)
    assert Record("a") == Record("a")
    others = [
        Record("b", vector, {"n": 1}, "text", 3),
        Record("a", vector + 1, {"n": 1}, "text", 3),
        Record("a", vector[:1], {"n": 1}, "text", 3),
        Record("a", None, {"n": 1}, "text", 3),
        Record("a", vector, {"n": 2}, "text", 3),
        Record("a", vector, {"n": 1}, None, 3),
        Record("a", vector, {"n": 1}, "text", 4),
        "a",
    ]
    assert [other for other in others if record == other or other == record] == []


def test_plans_of_parts_without_parameters_are_copied_pickled_and_json() -> None:
    part = SegmentPlan("tail", "empty", 0, 0)
    plan = Plan((part,), version=3)
    result = SearchResult(BARE, plan, 1.5)
    for made in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert (made.plan, list(made)) == (plan, list(result))
    assert dataclasses.asdict(plan)["segments"][0].params == {}
    assert json.loads(json.dumps(part._asdict()))["params"] == {}
    for change in (lambda: part.params.update(ef=3), lambda: part.params.__setitem__("ef", 3)):  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="not to be changed"):
            change()


def test_a_receipt_is_copied_and_pickled() -> None:
    facts: dict[str, Any] = dict.fromkeys(("ids", "segments", "files", "remaining"), ())
    facts |= {"collection": "docs", "version": 3, "rows": 2, "started": "2026", "finished": "2027"}
    receipt = Erasure(2, facts)
    for made in (pickle.loads(pickle.dumps(receipt)), copy.deepcopy(receipt)):
        assert (made, made.as_json()) == (2, receipt.as_json())
