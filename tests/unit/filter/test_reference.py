"""The reference evaluator against the words of the contract, one sentence at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from vectordb.filter import Filter, col, matches

T = datetime(2026, 1, 31, 12, tzinfo=UTC)
BIG = 2**53
F = col("f")

HOLDS: list[tuple[Filter, Any]] = [
    (F == 1, 1.0),
    (F == 1.0, 1),
    (F == 0.0, -0.0),
    (F > BIG, BIG + 1),
    (float(BIG) < F, BIG + 1),
    (F < BIG + 1, float(BIG)),
    (float(2**63) > F, 2**63 - 1),
    (F.between(1, 2), 1),
    (F.between(1, 2), 2),
    (F.between(1.5, 2), 1.5),
    (F == "é", "é"),
    (F < "\U00010000", "\uffff"),
    (F < "b", "a"),
    (F.startswith(""), ""),
    (F.startswith("ab"), "abc"),
    (F == True, True),  # noqa: E712
    (F > False, True),
    (F == T, T.replace(tzinfo=None)),
    (F == T, T.astimezone(timezone(timedelta(hours=3)))),
    (F > T, T + timedelta(microseconds=1)),
    (F.isin([1, "a"]), "a"),
    (F.isin([1.0]), 1),
    (F.isin(["a"]), ["b", "a"]),
    (F.contains("a"), ["b", "a"]),
    (F.contains(1), [1.0]),
    (F == ["a", 1], ["a", 1.0]),
    (F == [], []),
    (F != ["a"], "a"),
    (F != 1, None),
    (F != 1, [1]),
    (F.notin([1]), None),
    (F.notin([]), 1),
    (F.is_null(), None),
    (F.exists(), None),
    (F.exists(), {}),
    (col("f.g") == 1, {"g": 1}),
    (col("f.g.h").exists(), {"g": {"h": None}}),
]
FAILS: list[tuple[Filter, Any]] = [
    (F == BIG + 1, float(BIG)),
    (F == float(BIG), BIG + 1),
    (F == 1, True),
    (F == True, 1),  # noqa: E712
    (F < 2, True),
    (F == "1", 1),
    (F < "2", 1),
    (F > 0, "1"),
    (F == 1, None),
    (F < 1, None),
    (F >= "", None),
    (F == T, T.isoformat()),
    (F > 0, T),
    (F.isin([]), 1),
    (F.isin([1]), True),
    (F.isin(["a"]), []),
    (F.contains("a"), "a"),
    (F.contains("a"), "abc"),
    (F == "a", ["a"]),
    (F == ["a", 1], [1, "a"]),
    (F == ["a"], ["a", None]),
    (F == ["a"], ["a", "a"]),
    (F == [1], [True]),
    (F < 2, [1]),
    (F.startswith("a"), ["a"]),
    (F.between(0, 5), [1]),
    (F.between(5, 1), 3),
    (F.startswith("ab"), "a"),
    (F.is_null(), False),
    (F.is_null(), [None]),
    (F.is_null(), {}),
    (F == 1, {"g": 1}),
    (col("f.g").exists(), 1),
    (col("f.g").exists(), [{"g": 1}]),
]


@pytest.mark.parametrize(("tree", "value"), HOLDS)
def test_holds(tree: Filter, value: Any) -> None:
    assert matches(tree, {"f": value})
    assert not matches(~tree, {"f": value})


@pytest.mark.parametrize(("tree", "value"), FAILS)
def test_fails(tree: Filter, value: Any) -> None:
    assert not matches(tree, {"f": value})
    assert matches(~tree, {"f": value})


def test_a_missing_field_meets_only_null_tests_and_complements() -> None:
    for tree in (F == 1, F < 1, F >= "", F.isin([1]), F.contains(1), F.startswith(""), F.exists(), F == []):
        assert not matches(tree, {})
    for tree in (F != 1, F.notin([1]), F.is_null(), ~F.exists(), ~(F < 1)):
        assert matches(tree, {})


def test_connectives() -> None:
    a, b = col("a") == 1, col("b") == 1
    for x in (0, 1):
        for y in (0, 1):
            row = {"a": x, "b": y}
            assert matches(a & b, row) == bool(x and y)
            assert matches(a | b, row) == bool(x or y)
            assert matches(~a, row) == (not x)
