"""``col`` builds conditions, refuses what no condition can mean, and says what to write instead."""

from __future__ import annotations

import copy
import enum
import pickle
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from vectordb.errors import InvalidFilter
from vectordb.filter import And, Condition, Field, Filter, Not, Op, Or, as_filter, col

YEAR = col("year")


@pytest.mark.parametrize(
    ("built", "op", "value"),
    [
        (YEAR == 1, Op.EQ, 1),
        (YEAR != 1, Op.NE, 1),
        (YEAR < 1, Op.LT, 1),
        (YEAR <= 1, Op.LE, 1),
        (YEAR > 1, Op.GT, 1),
        (YEAR >= 1, Op.GE, 1),
        (1 < YEAR, Op.GT, 1),
        (YEAR.isin([1, "a"]), Op.IN, (1, "a")),
        (YEAR.isin(range(3)), Op.IN, (0, 1, 2)),
        (YEAR.isin(np.arange(2)), Op.IN, (0, 1)),
        (YEAR.notin({5}), Op.NOT_IN, (5,)),
        (YEAR.isin([]), Op.IN, ()),
        (YEAR.between(1, 2.5), Op.BETWEEN, (1, 2.5)),
        (YEAR.contains("x"), Op.CONTAINS, "x"),
        (YEAR.startswith("x"), Op.STARTS_WITH, "x"),
        (YEAR.is_null(), Op.IS_NULL, None),
        (YEAR.exists(), Op.EXISTS, None),
        (YEAR == ["a", 1], Op.EQ, ("a", 1)),
        (YEAR == [], Op.EQ, ()),
    ],
)
def test_each_operator_builds_its_condition(built: Filter, op: Op, value: object) -> None:
    assert isinstance(built, Condition)
    assert (built.field, built.op, built.value) == ("year", op, value)


class Colour(str, enum.Enum):
    RED = "red"


def test_values_are_kept_in_one_plain_form() -> None:
    def value(operand: Any) -> Any:
        condition = col("a") == operand
        assert isinstance(condition, Condition)
        return condition.value

    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for given in (
        moment,
        moment.replace(tzinfo=None),
        moment.astimezone(timezone(timedelta(hours=-7))),
    ):
        assert value(given) == moment
        assert value(given).tzinfo is UTC
    for given, plain in (
        (np.int8(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (Colour.RED, "red"),
        (date(2026, 1, 31), "2026-01-31"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
    ):
        assert value(given) == plain
        assert type(value(given)) is type(plain)


def test_pandas_timestamps_become_datetimes() -> None:
    pandas = pytest.importorskip("pandas")
    assert (col("a") == pandas.Timestamp("2026-01-31T12:00:00Z")) == (col("a") == datetime(2026, 1, 31, 12, tzinfo=UTC))
    with pytest.raises(InvalidFilter):
        _ = col("a") == pandas.NaT


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: YEAR == None, "is_null"),  # noqa: E711
        (lambda: float("nan") != YEAR, "is_null"),
        (lambda: float("inf") > YEAR, "leave that bound out"),
        (lambda: YEAR == b"x", "bytes"),
        (lambda: YEAR == 2**63, "64 bits"),
        (lambda: YEAR == -(2**63) - 1, "64 bits"),
        (lambda: YEAR == {"a": 1}, "a.b"),
        (lambda: YEAR == {1, 2}, "isin"),
        (lambda: YEAR == object(), "object"),
        (lambda: YEAR == ["a", None], "is_null"),
        (lambda: YEAR == [["a"]], "list"),
        (lambda: YEAR == "\ud800", "surrogate"),
        (lambda: YEAR == "x" * 65_537, "65536"),
        (lambda: YEAR < ["a"], "list"),
        (lambda: YEAR.contains(["a"]), "list"),
        (lambda: YEAR.isin("abc"), "list"),
        (lambda: YEAR.isin(5), "list"),
        (lambda: YEAR.isin([1, None]), "is_null"),
        (lambda: YEAR.isin(range(100_001)), "100000"),
        (lambda: YEAR.startswith(5), "prefix"),
        (lambda: YEAR.between(1, "a"), "number and string"),
        (lambda: YEAR.between(1, True), "number and bool"),
        (lambda: col(""), "empty"),
        (lambda: col("a..b"), "empty"),
        (lambda: col(".a"), "empty"),
        (lambda: col(5), "string"),
        (lambda: col("x" * 5000), "4096"),
    ],
)
def test_impossible_conditions_are_refused_with_the_fix(build: Callable[[], object], says: str) -> None:
    with pytest.raises(InvalidFilter, match=says):
        build()


def test_an_error_names_field_operator_and_element() -> None:
    with pytest.raises(InvalidFilter) as caught:
        col("a.b").isin([1, None])
    assert (caught.value.field, caught.value.op, caught.value.path) == ("a.b", "in", "value[1]")
    assert "'a.b'" in caught.value.message


def test_connectives_flatten_but_keep_their_meaning() -> None:
    a, b, c = col("a") == 1, col("b") == 2, col("c") == 3
    assert a & b & c == And((a, b, c))
    assert a & (b & c) == And((a, b, c))
    assert a | b | c == Or((a, b, c))
    assert a & b | c == Or((And((a, b)), c))
    assert ~~a == Not(Not(a))


@pytest.mark.parametrize(
    "build",
    [
        lambda: (YEAR == 1) and (YEAR == 2),
        lambda: not (YEAR == 1),
        lambda: 1 < YEAR < 3,
        lambda: bool(YEAR),
        lambda: YEAR == 1 & YEAR == 2,
        lambda: YEAR | (YEAR == 1),
        lambda: (YEAR == 1) & YEAR,
        lambda: (YEAR == 1) | "x",
        lambda: ~YEAR,
    ],
)
def test_pythons_own_connectives_and_missing_parentheses_are_explained(build: Callable[[], object]) -> None:
    with pytest.raises(InvalidFilter, match=r"parentheses|compare it"):
        build()


def test_equal_trees_are_equal_keys_and_kinds_of_numbers_stay_apart() -> None:
    def tree() -> Filter:
        return (col("a") == 1) & ~col("b").isin(["x", 2.5])

    assert tree() == tree()
    assert len({tree(), tree()}) == 1
    assert {tree(): "kept"}[tree()] == "kept"
    distinct = [col("a") == value for value in (1, 1.0, True, "1", [1], [1.0], [True])]
    distinct += [col("a").isin([1]), col("a").notin([1]), col("b") == 1, col("a") != 1]
    assert len(set(distinct)) == len(distinct)
    assert (col("a") == 1) != "a"
    assert isinstance(col("a"), Field)


def test_trees_are_immutable_and_survive_copying() -> None:
    tree = (col("a") == 1) | ~(col("t") < datetime(2026, 1, 1))
    with pytest.raises(AttributeError):
        tree.children = ()  # type: ignore[attr-defined]
    assert copy.deepcopy(tree) == pickle.loads(pickle.dumps(tree)) == tree
    assert tree.fields() == {"a", "t"}
    assert repr((col("a") == 1) & ~col("b").isin(["x"])) == "((col('a') == 1) & ~col('b').isin(['x']))"


def test_depth_and_size_are_bounded() -> None:
    tree: Filter = col("a") == 1
    for _ in range(63):
        tree = ~tree
    with pytest.raises(InvalidFilter, match="64 levels"):
        _ = ~tree
    many = Or(tuple(col("a") == i for i in range(9_999)))
    with pytest.raises(InvalidFilter, match="isin"):
        _ = many | (col("a") == -1)
    with pytest.raises(InvalidFilter, match="values"):
        _ = col("a").isin(range(60_000)) | col("b").isin(range(60_000))
    with pytest.raises(InvalidFilter, match="at least one"):
        And(())


def test_as_filter_takes_trees_json_and_nothing() -> None:
    tree = col("a") == 1
    assert as_filter(None) is None
    assert as_filter(tree) is tree
    assert as_filter({"field": "a", "op": "==", "value": 1}) == tree
    assert as_filter('{"field": "a", "op": "==", "value": 1}') == tree
    for wrong in (True, 5, [tree], col("a")):
        with pytest.raises(InvalidFilter, match="where takes"):
            as_filter(wrong)
