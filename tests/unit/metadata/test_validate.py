"""What metadata may hold, and filters against declared fields: refused by row, path and fix."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from vectordb.errors import InvalidArgument, InvalidFilter
from vectordb.filter import Filter, col
from vectordb.types import FieldSpec, FieldType
from vectordb.validate import MAX_BYTES, MAX_PATHS, MAX_STRING, check_filter, check_metadata, check_order

T = datetime(2026, 1, 31, tzinfo=UTC)
FIELDS = {
    "i": FieldSpec(FieldType.INT),
    "f": FieldSpec(FieldType.FLOAT),
    "k": FieldSpec(FieldType.KEYWORD),
    "x": FieldSpec(FieldType.TEXT, indexed=False),
    "b": FieldSpec(FieldType.BOOL),
    "t": FieldSpec(FieldType.DATETIME),
    "n.i": FieldSpec(FieldType.INT),
}


def nested(levels: int) -> dict[str, Any]:
    out: dict[str, Any] = {"leaf": 1}
    for _ in range(levels - 1):
        out = {"in": out}
    return out


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"s": "", "i": 2**63 - 1, "j": -(2**63), "f": 1.5, "b": True, "n": None, "t": T, "l": [], "d": {}},
        {"l": ["a", 1, 2.5, True, None, T]},
        {"日本": "語", " ": 1, "$": 1},
        nested(16),
        {str(i): i for i in range(MAX_PATHS)},
        {"s": "x" * MAX_STRING},
        {"a": "é" * 250_000, "b": "é" * 250_000},
    ],
)
def test_sound_metadata_passes(metadata: dict[str, Any]) -> None:
    check_metadata(metadata)


@pytest.mark.parametrize(
    ("metadata", "field", "says"),
    [
        ({"a.b": 1}, "a.b", "dot"),
        ({"a": {"b.c": 1}}, "a.b.c", "dot"),
        ({"": 1}, "", "empty key"),
        ({"a": {"": 1}}, "a", "empty key"),
        ({5: 1}, "", "strings"),
        ({"k" * 256: 1}, "k" * 32, "255"),
        ({"a": 2**63}, "a", "64 bits"),
        ({"a": [0, 2**64]}, "a[1]", "64 bits"),
        ({"a": float("nan")}, "a", "null"),
        ({"a": {"b": float("inf")}}, "a.b", "null"),
        ({"a": [float("-inf")]}, "a[0]", "null"),
        ({"a": b"x"}, "a", "base64"),
        ({"a": [b"x"]}, "a[0]", "base64"),
        ({"a": {1, 2}}, "a", "set"),
        ({"a": [[1]]}, "a[0]", "flatten"),
        ({"a": [{"b": 1}]}, "a[0]", "flatten"),
        (nested(17), ".".join(["in"] * 16), "16 levels"),
        ({str(i): i for i in range(MAX_PATHS + 1)}, "", "256"),
        ({"d": {str(i): i for i in range(MAX_PATHS)}}, "", "256"),
        ({"s": "x" * (MAX_STRING + 1)}, "s", "262144"),
        ({"a": ["x" * (MAX_STRING + 1)]}, "a[0]", "262144"),
        ({str(i): "é" * 200_000 for i in range(3)}, "", str(MAX_BYTES)),
        ([1], "", "dict"),
    ],
)
def test_what_is_wrong_is_named_with_row_field_and_fix(metadata: Any, field: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        check_metadata(metadata, row=17, collection="docs")
    assert (caught.value.row, caught.value.collection, caught.value.field) == (17, "docs", field)
    assert "row 17 of collection 'docs'" in caught.value.message
    assert len(caught.value.message) < 400


def test_a_bad_key_is_refused_again_after_it_was_cached() -> None:
    for _ in range(3):
        check_metadata({"fine": 1})
        with pytest.raises(InvalidArgument):
            check_metadata({"fine": 1, "not.fine": 1})


@pytest.mark.parametrize(
    "metadata",
    [
        {"i": 1, "f": 1, "k": "a", "x": "b", "b": True, "t": T, "n": {"i": 1}},
        {"i": [1, 2], "f": [1, 2.5, None], "k": [], "t": [T]},
        dict.fromkeys(("i", "f", "k", "x", "b", "t", "n")),
        {"undeclared": 1},
    ],
)
def test_declared_types_take_their_values_lists_and_null(metadata: dict[str, Any]) -> None:
    check_metadata(metadata, FIELDS, row=0)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"i": 1.0}, "i"),
        ({"i": True}, "i"),
        ({"i": "1"}, "i"),
        ({"i": [1, "a"]}, "i"),
        ({"f": True}, "f"),
        ({"f": "1"}, "f"),
        ({"k": 1}, "k"),
        ({"x": {"y": 1}}, "x"),
        ({"b": 1}, "b"),
        ({"t": "2026-01-31"}, "t"),
        ({"n": {"i": "x"}}, "n.i"),
    ],
)
def test_values_against_their_declared_type_are_refused(metadata: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match="declared as") as caught:
        check_metadata(metadata, FIELDS, row=3)
    assert (caught.value.field, caught.value.row) == (field, 3)


@pytest.mark.parametrize(
    "where",
    [
        None,
        col("i") >= 1.5,
        col("f").isin([1, 2.5]),
        col("k").startswith("a"),
        col("k") == ["a", "b"],
        col("t").between(T, T),
        col("n.i") == 1,
        col("i").is_null() | col("b").exists(),
        col("undeclared") == "x",
    ],
)
def test_filters_that_fit_the_declared_fields_pass(where: Filter | None) -> None:
    check_filter(where, FIELDS)


@pytest.mark.parametrize(
    ("where", "path"),
    [
        (col("i") == "x", "value"),
        (col("i") == True, "value"),  # noqa: E712
        ((col("k") == "a") & (col("f") < "x"), "and[1].value"),
        (~col("k").isin(["a", 1]), "not.value"),
        (col("b").contains(1), "value"),
        (col("t").startswith("2026"), "value"),
        (col("x") == "a", "field"),
        (col("x.deep").exists(), "field"),
        ((col("i") == 1) | ~(col("x").is_null()), "or[1].not.field"),
    ],
)
def test_filters_against_the_declared_fields_are_refused_at_their_place(where: Filter, path: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        check_filter(where, FIELDS)
    assert caught.value.path == path


def test_order_by_needs_an_indexed_field() -> None:
    check_order("i", FIELDS)
    check_order("anything.else", None)
    for wrong in ("x", "", "a..b"):
        with pytest.raises(InvalidArgument):
            check_order(wrong, FIELDS)
