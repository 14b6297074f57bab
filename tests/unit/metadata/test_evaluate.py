"""Every operator with every awkward value against every awkward value: all evaluators agree with the reference."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from vectordb.encoding import decode_metadata, encode_metadata
from vectordb.errors import InvalidFilter
from vectordb.filter import Condition, Filter, Op, col, kind_of, matches
from vectordb.metadata.estimate import Estimate, conjunction, estimate
from vectordb.metadata.evaluate import evaluate
from vectordb.metadata.postings import Postings
from vectordb.metadata.runs import MetadataRuns
from vectordb.types import FieldSpec, FieldType

BIG = 2**53
T = datetime(2026, 1, 31, 12, tzinfo=UTC)
NUMBERS: list[Any] = [0, -0.0, 1, 1.0, 1.5, -1.5, BIG - 1, BIG, BIG + 1, BIG + 2, float(BIG), float(BIG + 2), -BIG - 1]
NUMBERS += [-float(BIG), 2**62, 2**62 + 1, float(2**62), 2**63 - 1, 2**63 - 512, -(2**63), float(2**63), -float(2**63)]
NUMBERS += [1e300, -1e300, 5e-324, -5e-324, 0.1, 3]
STRINGS = ["", "a", "a\0", "aa", "ab", "abcdefgh", "abcdefghi", "é", "\uffff", "\U00010000", "1"]
TIMES = [T, T + timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)]
SCALARS: list[Any] = [*NUMBERS, *STRINGS, *TIMES, True, False]
VALUES: list[Any] = [
    *SCALARS,
    None,
    {},
    {"g": 1},
    [],
    [None],
    *([value] for value in SCALARS),
    *([a, b] for a, b in itertools.pairwise(SCALARS)),
    [1, 1.0, True],
    [1.0, 1, True],
    ["a", None],
]
ROWS = [{"f": value} for value in VALUES] + [{}, {"other": 1}]
ENCODED = [encode_metadata(row) for row in ROWS]
DECODED = [decode_metadata(data) for data in ENCODED]

CONDITIONS: list[Condition] = [
    *(Condition("f", op, v) for op in (Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE, Op.CONTAINS) for v in SCALARS),
    *(Condition("f", Op.EQ, v) for v in VALUES if isinstance(v, list) and None not in v),
    *(Condition("f", op, (a, b)) for op in (Op.IN, Op.NOT_IN) for a, b in itertools.pairwise(SCALARS)),
    *(Condition("f", op, tuple(SCALARS)) for op in (Op.IN, Op.NOT_IN)),
    *(Condition("f", op, ()) for op in (Op.IN, Op.NOT_IN)),
    *(
        Condition("f", Op.BETWEEN, (a, b))
        for a, b in itertools.product(SCALARS, SCALARS)
        if kind_of(a) == kind_of(b) and (a, b) != (b, a)
    ),
    *(Condition("f", Op.STARTS_WITH, v) for v in STRINGS),
    *(Condition(path, op) for op in (Op.EXISTS, Op.IS_NULL) for path in ("f", "f.g", "other", "nope")),
    Condition("f.g", Op.EQ, 1),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Postings]:
    """The same rows built, merged from many parts, and mapped from a file."""
    built = Postings.build(ENCODED)
    parts = [ENCODED[start : start + 7] for start in range(0, len(ENCODED), 7)]
    merged = Postings.merge([(Postings.build(part), np.arange(len(part))) for part in parts])
    path = tmp_path_factory.mktemp("postings") / "file"
    merged.save(path)
    return [built, merged, Postings.open(path)]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["built", "merged", "mapped"])
def test_every_operator_on_every_pair_of_values(made: list[Postings], which: int) -> None:
    postings = made[which]
    for condition in CONDITIONS:
        expected = {i for i, row in enumerate(DECODED) if matches(condition, row)}
        assert set(evaluate(condition, postings)) == expected, condition
        found = estimate(condition, postings)
        assert found.low <= len(expected) <= found.high, condition
        assert found.low <= found.expected <= found.high, condition


def test_estimates_of_scalar_conditions_are_exact(made: list[Postings]) -> None:
    for condition in CONDITIONS:
        if condition.op not in (Op.CONTAINS, Op.IN, Op.NOT_IN):
            assert estimate(condition, made[0]) == Estimate.exact(len(evaluate(condition, made[0])))


def test_a_row_with_equal_elements_counts_once_from_below_and_twice_from_above() -> None:
    postings = Postings.build([encode_metadata({"f": [1, 1.0]}), encode_metadata({"f": ["a", "b"]})])
    found = estimate(col("f").contains(1), postings)
    assert (found.low, found.high) == (1, 2)
    assert estimate(col("f").isin(["a", "b"]), postings).low == 1


def test_connectives_bound_by_frechet_and_expect_independence() -> None:
    half, third = Estimate.exact(50), Estimate.exact(33)
    assert conjunction([half, third], 100) == Estimate(0, 16, 33)
    assert conjunction([Estimate.exact(90), Estimate.exact(80)], 100) == Estimate(70, 72, 80)
    rows = [encode_metadata({"a": i % 2, "b": i % 5}) for i in range(100)]
    postings = Postings.build(rows)
    assert estimate((col("a") == 0) | (col("b") == 0), postings) == Estimate(50, 60, 70)
    assert estimate(~(col("a") == 0), postings) == Estimate.exact(50)
    assert estimate(col("a") == 0, Postings.build([])) == Estimate.exact(0)
    assert estimate((col("a") == 0) & (col("b") == 0), Postings.build([])) == Estimate.exact(0)


def test_large_sets_of_values() -> None:
    rows = [{"i": i, "s": f"name-{i:05d}", "f": i / 2} for i in range(3000)]
    postings = Postings.build([encode_metadata(row) for row in rows])
    for tree in (
        col("i").isin(range(1, 20_000, 3)),
        col("s").isin(f"name-{i:05d}" for i in range(0, 20_000, 7)),
        col("f").isin(range(10_000)),
        col("i").notin([i / 2 for i in range(10_000)]),
    ):
        assert set(evaluate(tree, postings)) == {i for i, row in enumerate(rows) if matches(tree, row)}


def test_answers_belong_to_the_caller() -> None:
    postings = Postings.build([encode_metadata({"a": "dense"})] * 5000)
    for tree in (col("a") == "dense", col("a").exists(), ~(col("a") == "x")):
        evaluate(tree, postings).remove_range(0, 4000)  # type: ignore[attr-defined]
        assert len(evaluate(tree, postings)) == 5000


UNINDEXED = {"note": FieldSpec(FieldType.TEXT, indexed=False), "year": FieldSpec(FieldType.INT)}


@pytest.mark.parametrize(
    "tree",
    [
        col("note") == "x",
        col("note.deep").exists(),
        (col("year") == -1) & (col("note") == "x"),
        ~(col("note").is_null()),
    ],
)
def test_unindexed_fields_are_refused_whatever_the_data(tree: Filter, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [encode_metadata({"note": "x", "year": 2000})] * 3
    path = tmp_path_factory.mktemp("unindexed") / "file"
    Postings.build(rows, UNINDEXED).save(path)
    log = MetadataRuns(UNINDEXED)
    log.append(rows)
    for postings in (
        Postings.build(rows, UNINDEXED),
        Postings.build([], UNINDEXED),
        Postings.merge([(Postings.build(rows, UNINDEXED), np.arange(2))]),
        Postings.open(path),
    ):
        assert "note" not in postings.paths()
        for ask in (evaluate, estimate):
            with pytest.raises(InvalidFilter, match="indexed: false"):
                ask(tree, postings)
    for view in (log.view(3), log.view(0)):
        with pytest.raises(InvalidFilter, match="indexed: false"):
            view.matching(tree)
        with pytest.raises(InvalidFilter, match="indexed: false"):
            view.estimate(tree)
    assert len(log.view(3).matching(col("year") == 2000)) == 3
