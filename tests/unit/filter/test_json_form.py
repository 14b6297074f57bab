"""The JSON form: what the contract shows is read, everything else is refused at its place in the tree."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from vectordb.errors import InvalidFilter
from vectordb.filter import Filter, col


def test_the_form_of_the_contract() -> None:
    tree = (col("year") >= 2000) & ~(col("lang").isin(["de", "fr"]) | col("a.b").is_null())
    assert tree.to_json() == {
        "and": [
            {"field": "year", "op": ">=", "value": 2000},
            {
                "not": {
                    "or": [
                        {"field": "lang", "op": "in", "value": ["de", "fr"]},
                        {"field": "a.b", "op": "is_null"},
                    ]
                }
            },
        ]
    }


@pytest.mark.parametrize(
    ("op", "value", "tree"),
    [
        ("==", 1, col("f") == 1),
        ("!=", "x", col("f") != "x"),
        ("<", 1.5, col("f") < 1.5),
        ("<=", 1, col("f") <= 1),
        (">", 1, col("f") > 1),
        (">=", 1, col("f") >= 1),
        ("in", [1, True], col("f").isin([1, True])),
        ("not_in", [], col("f").notin([])),
        ("between", [1, 2], col("f").between(1, 2)),
        ("contains", "x", col("f").contains("x")),
        ("starts_with", "x", col("f").startswith("x")),
        ("==", ["x", 1], col("f") == ["x", 1]),
    ],
)
def test_every_operator_by_its_json_name(op: str, value: object, tree: Filter) -> None:
    source = {"field": "f", "op": op, "value": value}
    assert Filter.from_json(source) == tree
    assert tree.to_json() == source


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T14:00:00.000001+02:00", datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_datetimes(text: str, moment: datetime) -> None:
    tree = Filter.from_json({"field": "t", "op": "<", "value": {"$datetime": text}})
    assert tree == (col("t") < moment)
    assert Filter.from_json(json.dumps(tree.to_json())) == tree


LEAF = {"field": "a", "op": "==", "value": 1}


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({}, ""),
        ([], ""),
        ("[]", ""),
        ("{", ""),
        ("", ""),
        ('{"field": "a", "op": "==", "value": NaN}', ""),
        ('{"field": "a", "op": "==", "op": "!=", "value": 1}', ""),
        ("{" * 100_000, ""),
        ('{"not":' * 50_000, ""),
        ({"field": "a", "op": "=="}, "value"),
        ({"field": "a", "value": 1}, "op"),
        ({"op": "==", "value": 1}, "field"),
        ({"field": 5, "op": "==", "value": 1}, "field"),
        ({"field": "", "op": "==", "value": 1}, "field"),
        ({"field": "a", "op": "~", "value": 1}, "op"),
        ({"field": "a", "op": "isin", "value": [1]}, "op"),
        ({"field": "a", "op": "==", "value": None}, "value"),
        ({"field": "a", "op": "==", "value": 10**400}, "value"),
        ({"field": "a", "op": "==", "value": {"x": 1}}, "value"),
        ({"field": "a", "op": "==", "value": {"$datetime": 5}}, "value"),
        ({"field": "a", "op": "==", "value": {"$datetime": "soon"}}, "value"),
        ({"field": "a", "op": "<", "value": {"$datetime": "0001-01-01T00:00:00+12:00"}}, "value"),
        ({"field": "a", "op": "in", "value": "x"}, "value"),
        ({"field": "a", "op": "in", "value": [1, {"x": 1}]}, "value[1]"),
        ({"field": "a", "op": "between", "value": [1]}, "value"),
        ({"field": "a", "op": "exists", "value": True}, "value"),
        ({**LEAF, "extra": 1}, ""),
        ({"and": [LEAF], "or": [LEAF]}, ""),
        ({"and": []}, "and"),
        ({"or": LEAF}, "or"),
        ({"not": [LEAF]}, "not"),
        ({"and": [LEAF, {"field": "a", "op": "<", "value": [1]}]}, "and[1].value"),
        (
            {"or": [{"not": {"and": [LEAF, {"field": "a", "op": "in", "value": [1, None]}]}}]},
            "or[0].not.and[1].value[1]",
        ),
    ],
)
def test_anything_else_is_refused_with_its_path(source: Any, path: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        Filter.from_json(source)
    assert caught.value.path == path
    assert (path or "filter") in caught.value.message
    assert len(caught.value.message) < 500


def test_depth_is_bounded_before_recursion_is() -> None:
    source: dict[str, Any] = LEAF
    for _ in range(5_000):
        source = {"not": source}
    with pytest.raises(InvalidFilter, match="64 levels"):
        Filter.from_json(source)
