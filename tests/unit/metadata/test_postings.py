"""Building, merging and reading postings beyond what the property tests draw."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from vectordb.encoding import encode_metadata
from vectordb.errors import Corruption
from vectordb.filter import MISSING, Filter, col, matches
from vectordb.metadata.evaluate import evaluate
from vectordb.metadata.postings import Postings, sort_key

T = datetime(2026, 1, 31, tzinfo=UTC)


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    out = []
    for i in range(start, start + count):
        row: dict[str, Any] = {"n": i, "s": f"s{i % 300}", "even": i % 2 == 0, "tags": [f"t{i % 11}", f"t{i % 13}"]}
        if i % 3 == 0:
            row["maybe"] = i / 7 if i % 2 else T
        if i % 5 == 0:
            row["deep"] = {"er": {"x": i % 4, "y": None}}
        out.append(row)
    return out


TREES: list[Filter] = [
    (col("n") >= 4090) & (col("n") < 4100),
    col("s") == "s17",
    (col("even") == True) & col("tags").contains("t3"),  # noqa: E712
    col("maybe") > 500,
    col("maybe") == T,
    col("deep.er.x").isin([1, 2]) | col("deep.er.y").exists(),
    ~col("deep").exists(),
]


def test_parts_larger_than_a_chunk_are_built_whole() -> None:
    data = rows(10_000)
    postings = Postings.build([encode_metadata(row) for row in data])
    assert postings.n == 10_000
    assert postings.paths() == ["deep", "deep.er", "deep.er.x", "deep.er.y", "even", "maybe", "n", "s", "tags"]
    for tree in TREES:
        assert set(evaluate(tree, postings)) == {i for i, row in enumerate(data) if matches(tree, row)}


def test_combine_puts_rows_where_it_is_told() -> None:
    first, second = rows(500), rows(400, start=500)
    numbers = np.random.default_rng(3).permutation(1000)
    a, b = numbers[:500].copy(), numbers[500:900].copy()
    a[::10] = -1
    merged = Postings.combine(
        [
            (Postings.build([encode_metadata(r) for r in first]), a),
            (Postings.build([encode_metadata(r) for r in second]), b),
        ],
        1000,
    )
    expected: list[dict[str, Any]] = [{} for _ in range(1000)]
    for data, places in ((first, a), (second, b)):
        for row, place in zip(data, places.tolist(), strict=True):
            if place >= 0:
                expected[place] = row
    for tree in TREES:
        assert set(evaluate(tree, merged)) == {i for i, row in enumerate(expected) if matches(tree, row)}


def test_merging_drops_what_no_row_has_any_more() -> None:
    first = Postings.build([encode_metadata(row) for row in rows(1000)])
    small = Postings.merge([(first, np.array([1, 2])), (first, np.array([], dtype=np.int64))])
    assert small.n == 2
    assert "deep" not in small.paths()
    assert small.memory_bytes < first.memory_bytes / 100
    assert Postings.merge([]).n == 0


def test_values_and_sort_keys() -> None:
    data = [{"a": 2}, {"a": 1.5}, {"a": "x"}, {"a": True}, {"a": T}, {"a": None}, {"a": [1]}, {"a": {"b": "é"}}, {}]
    postings = Postings.build([encode_metadata(row) for row in data])
    asked = np.array([8, 7, 6, 5, 4, 3, 2, 1, 0, 0])
    assert postings.values("a", asked) == [MISSING] * 4 + [T, True, "x", 1.5, 2, 2]
    assert postings.values("a.b", np.array([7, 0])) == ["é", MISSING]
    assert postings.values("nope", asked) == [MISSING] * 10
    assert postings.values("a", np.array([], dtype=np.int64)) == []
    keys = postings.sort_keys("a", asked)
    assert keys == [None] * 4 + [(2, T), (0, True), (3, "x"), (1, 1.5), (1, 2), (1, 2)]
    ordered = sorted(key for key in keys if key is not None)
    assert [value for _, value in ordered] == [True, 1.5, 2, 2, T, "x"]
    assert sort_key([1]) is None


def test_undecodable_metadata_is_corruption_that_names_the_row() -> None:
    with pytest.raises(Corruption) as caught:
        Postings.build([b""] * 5000 + [b"\xc1"])
    assert caught.value.row == 5000


def test_building_lets_other_threads_run() -> None:
    data = [encode_metadata(row) for row in rows(20_000)]
    done = threading.Event()
    builder = threading.Thread(target=lambda: (Postings.build(data), done.set()))
    waits = []
    builder.start()
    while not done.is_set():
        before = time.perf_counter()
        time.sleep(0.001)
        waits.append(time.perf_counter() - before)
    builder.join()
    assert len(waits) > 10
    assert sorted(waits)[len(waits) // 2] < 0.1
