"""Rows copied at half precision: a superset of the true nearest ones, whatever the rounding did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectordb.index.halves import HalfCopy, HalfRows
from vectordb.metric import Metric, distances, prepared, scores

METRICS = [Metric.COSINE, Metric.DOT, Metric.L2]


def copied(vectors: Any, metric: Metric, rows: Any = None, piece: int = 300) -> HalfRows | None:
    rows = np.arange(len(vectors)) if rows is None else rows
    copy = HalfCopy(rows, vectors.shape[1], metric)
    while not copy.finished():
        wanted = copy.wanted(piece)
        copy.add(vectors[np.searchsorted(rows, wanted)])
    return copy.result()


def nearest(query: Any, vectors: Any, metric: Metric, limit: int) -> set[int]:
    """Places of the ``limit`` best final scores, and of all that equal the last of them."""
    far = distances(scores(query, vectors, metric), metric)
    return set(np.flatnonzero(far <= np.sort(far)[min(limit, len(far)) - 1]).tolist())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("limit", [1, 10, 100])
def test_the_nearest_are_among_few_candidates(metric: Metric, limit: int) -> None:
    rng = np.random.default_rng(limit)
    vectors = prepared(rng.standard_normal((3_000, 48), dtype=np.float32), metric)
    rows = copied(vectors, metric)
    assert rows is not None
    queries = prepared(rng.standard_normal((30, 48), dtype=np.float32), metric)
    together = rows.all_candidates(queries, limit)
    assert together is not None
    assert together.shape[1] <= 2 * limit + 20
    for query, found in zip(queries, together.tolist(), strict=True):
        places = rows.candidates(query, limit)
        assert places is not None
        assert nearest(query, vectors, metric, limit) <= set(places.tolist()) <= set(found)
        assert len(set(found)) == len(found)
        assert len(places) <= 2 * limit + 20


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e-3, 300.0])
def test_rows_that_half_precision_tells_apart_badly(metric: Metric, scale: float) -> None:
    """Rows nearly alike, tiny, or large: what is returned still holds the nearest, or nothing is returned."""
    rng = np.random.default_rng(1)
    base = rng.standard_normal(32)
    vectors = prepared((scale * (base + 1e-4 * rng.standard_normal((800, 32)))).astype(np.float32), metric)
    rows = copied(vectors, metric)
    assert rows is not None
    queries = prepared((scale * (base + 0.1 * rng.standard_normal((20, 32)))).astype(np.float32), metric)
    together = rows.all_candidates(queries, 10)
    for i, query in enumerate(queries):
        best = nearest(query, vectors, metric, 10)
        places = rows.candidates(query, 10)
        assert places is None or best <= set(places.tolist())
        assert together is None or best <= set(together[i].tolist())


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_at_the_cut_are_all_returned_or_none(metric: Metric) -> None:
    rng = np.random.default_rng(2)
    vectors = prepared(rng.standard_normal((2_000, 16), dtype=np.float32), metric)
    for equal, some in ((40, True), (1_500, False)):
        vectors[:equal] = vectors[0]
        rows = copied(vectors, metric)
        assert rows is not None
        places = rows.candidates(vectors[0], 10)
        assert (places is not None) == some
        assert places is None or set(range(equal)) <= set(places.tolist())
        together = rows.all_candidates(vectors[[0, 1_999]], 10)
        assert (together is not None) == some
        assert together is None or set(range(equal)) <= set(together[0].tolist())


def test_what_half_precision_does_not_hold_is_not_copied() -> None:
    vectors = np.ones((100, 8), np.float32)
    assert copied(vectors, Metric.L2) is not None
    vectors[70, 3] = 1e6
    assert copied(vectors, Metric.L2) is None


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.L2])
def test_queries_beyond_single_precision_are_left_to_others(metric: Metric) -> None:
    rows = copied(np.random.default_rng(3).standard_normal((500, 8), dtype=np.float32), metric)
    assert rows is not None
    far = np.full(8, 1e30, np.float32)
    assert rows.candidates(far, 10) is None
    assert rows.all_candidates(np.stack([far / np.float32(1e30), far]), 10) is None


def test_small_copies_are_returned_whole() -> None:
    rows = copied(np.eye(15, dtype=np.float32), Metric.COSINE)
    assert rows is not None
    assert rows.candidates(np.eye(15, dtype=np.float32)[0], 10).tolist() == list(range(15))  # type: ignore[union-attr]
    assert rows.all_candidates(np.eye(15, dtype=np.float32), 10) is None


def test_the_copy_takes_half_the_bytes_and_its_row_numbers() -> None:
    rows = copied(np.eye(64, dtype=np.float32), Metric.COSINE, np.arange(0, 640, 10))
    assert rows is not None
    assert rows.nbytes == 64 * (2 * 64 + 8)
