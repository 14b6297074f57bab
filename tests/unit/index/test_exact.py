"""The superset that exact search promises, against double precision; mostly on data made to break float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vectordb.index import exact, native
from vectordb.index.exact import (
    Candidates,
    error_bound,
    exact_candidates,
    largest_norm,
    merged,
    picked_candidates,
    readable_in_place,
)
from vectordb.metric import Metric, distances, norms, prepared, scores

Floats = NDArray[np.float32]
METRICS = list(Metric)
BATCHES = [1, 3, 12]
"""Queries: direct sums, direct sums of several, and the matrix product."""


def needed(query: Floats, block: Floats, limit: int, metric: Metric) -> set[int]:
    """Rows that may be in the answer: final distance up to that of the limit-th, ties included."""
    far = distances(scores(query, block, metric), metric)
    return set(np.flatnonzero(far <= np.sort(far)[min(limit, len(far)) - 1]).tolist())


def assert_superset(found: Candidates, queries: Floats, block: Floats, limit: int, metric: Metric) -> None:
    for query, rows, far in zip(queries, found.rows, found.distances, strict=True):
        real = rows[rows >= 0]
        assert len(set(real.tolist())) == len(real)
        assert needed(query, block, limit, metric) <= set(real.tolist())
        assert (rows[: len(real)] >= 0).all()
        assert np.isposinf(far[len(real) :]).all()
        assert not np.isnan(far).any()
        assert (far[1:] >= far[:-1]).all()


def normal(rows: int, dim: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", BATCHES)
@pytest.mark.parametrize("limit", [1, 10, 300, 5000])
def test_ordinary_data_gives_little_more_than_the_limit(metric: Metric, queries: int, limit: int) -> None:
    block, asked = prepared(normal(2000, 24), metric), prepared(normal(queries, 24, 1), metric)
    found = exact_candidates(asked, block, limit, metric)
    assert_superset(found, asked, block, limit, metric)
    assert found.rows.shape[1] <= min(2000, limit + 8)
    assert found.scored == 2000 * queries


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", BATCHES)
def test_ten_thousand_equal_rows_are_all_candidates(metric: Metric, queries: int) -> None:
    block = prepared(np.repeat(normal(1, 16), 10_000, axis=0), metric)
    asked = prepared(normal(queries, 16, 1), metric)
    found = exact_candidates(asked, block, 5, metric)
    assert found.rows.shape == (queries, 10_000)
    assert (np.sort(found.rows, axis=1) == np.arange(10_000)).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", BATCHES)
@pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-7])
def test_rows_closer_together_than_float32_sums_can_tell(metric: Metric, queries: int, spread: float) -> None:
    centre = normal(1, 48)
    block = prepared((centre + spread * normal(3000, 48, 2)).astype(np.float32), metric)
    asked = prepared((centre + spread * normal(queries, 48, 3)).astype(np.float32), metric)
    assert_superset(exact_candidates(asked, block, 10, metric), asked, block, 10, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", BATCHES)
@pytest.mark.parametrize("offset", [1e2, 1e4])
def test_rows_far_from_the_origin(metric: Metric, queries: int, offset: float) -> None:
    """The expansion |q|^2 + |x|^2 - 2 q.x loses everything here."""
    block = prepared((offset + normal(1500, 32)).astype(np.float32), metric)
    asked = prepared((offset + normal(queries, 32, 1)).astype(np.float32), metric)
    found = exact_candidates(asked, block, 10, metric)
    assert_superset(found, asked, block, 10, metric)
    if metric is Metric.L2:
        assert found.rows.shape[1] <= 2 * 10 + 64, "crowded queries fall back to direct sums"


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.L2, Metric.L1])
@pytest.mark.parametrize("queries", BATCHES)
@pytest.mark.parametrize("size", [1e-40, 1e-25, 1e-12, 1e12, 1e19, 1e30, 3e37])
def test_sizes_that_float32_cannot_square(metric: Metric, queries: int, size: float) -> None:
    block = (size * normal(700, 12)).astype(np.float32)
    asked = (size * normal(queries, 12, 1)).astype(np.float32)
    assert_superset(exact_candidates(asked, block, 10, metric), asked, block, 10, metric)


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.L2, Metric.L1])
@pytest.mark.parametrize("queries", BATCHES)
def test_one_huge_row_among_ordinary_ones(metric: Metric, queries: int) -> None:
    block, asked = normal(900, 12), normal(queries, 12, 1)
    block[7] = 3e38
    block[8, 0], block[8, 1] = 3e38, -3e38
    assert_superset(exact_candidates(asked, block, 10, metric), asked, block, 10, metric)


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.L2, Metric.L1])
def test_scores_that_are_all_infinite_tie(metric: Metric) -> None:
    block = np.full((300, 8), 3e38, np.float32)
    block[:, 0] -= np.arange(300, dtype=np.float32) * np.float32(1e34)
    asked = np.full((1, 8), -3e38, np.float32)
    found = exact_candidates(asked, block, 3, metric)
    assert_superset(found, asked, block, 3, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_zero_queries_tie_with_everything_where_they_do(metric: Metric) -> None:
    block, asked = prepared(normal(400, 8), metric), np.zeros((9, 8), np.float32)
    found = exact_candidates(asked, block, 2, metric)
    assert_superset(found, asked, block, 2, metric)
    if metric.higher_is_better:
        assert found.rows.shape[1] == 400


@pytest.mark.parametrize("metric", METRICS)
def test_empty_blocks_and_no_queries(metric: Metric) -> None:
    assert exact_candidates(normal(3, 4), normal(0, 4), 5, metric).rows.shape == (3, 0)
    assert exact_candidates(normal(0, 4), normal(3, 4), 5, metric).rows.shape == (0, 0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", BATCHES)
def test_merging_blocks_gives_the_candidates_of_the_whole(metric: Metric, queries: int) -> None:
    block = prepared(np.concatenate([normal(800, 16), np.repeat(normal(1, 16), 50, axis=0)]), metric)
    asked = prepared(normal(queries, 16, 1), metric)
    parts = []
    for start in range(0, len(block), 113):
        part = exact_candidates(asked, np.ascontiguousarray(block[start : start + 113]), 20, metric)
        parts.append(part._replace(rows=np.where(part.rows >= 0, part.rows + start, -1)))
    found = merged(parts, 20)
    assert_superset(found, asked, block, 20, metric)
    assert found.rows.shape[1] <= 75
    assert found.scored == len(block) * queries


def test_merging_keeps_rows_whose_squares_overflow() -> None:
    """Infinite in float32, they tie; padding of a shorter block must not push them out."""
    block, asked = (1e30 * normal(60, 6)).astype(np.float32), (1e30 * normal(2, 6, 1)).astype(np.float32)
    parts = []
    for start, stop in ((0, 3), (3, 60)):
        part = exact_candidates(asked, block[start:stop], 10, Metric.L2)
        parts.append(part._replace(rows=np.where(part.rows >= 0, part.rows + start, -1)))
    for query, rows in zip(asked, merged(parts, 10).rows, strict=True):
        assert needed(query, block, 10, Metric.L2) <= set(rows.tolist())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [3, 100, 1000])
def test_the_bound_holds_and_is_not_idle(metric: Metric, dim: int) -> None:
    block, query = prepared(np.abs(normal(500, dim)), metric), prepared(np.abs(normal(1, dim, 1)), metric)
    got = native.block_distances(query[0], block, metric).astype(np.float64)
    wide = block.astype(np.float64)
    if metric.higher_is_better:
        true = -(wide * query[0]).sum(axis=1)
    elif metric is Metric.L2:
        true = ((wide - query[0]) ** 2).sum(axis=1)
    else:
        true = np.abs(wide - query[0]).sum(axis=1)
    bound = error_bound(norms(query), largest_norm(block), metric, dim)
    error = np.abs(got - true)
    allowed = bound.relative * np.abs(got) + bound.absolute
    assert (error <= allowed).all()
    assert allowed.max() <= 1e-3 * np.abs(true).max(), "so wide a bound separates nothing"


def test_the_largest_norm_is_an_upper_bound() -> None:
    block = normal(1000, 77)
    true = float(norms(block).max())
    assert true <= largest_norm(block) <= true * 1.01
    assert largest_norm(block[:0]) == 0.0
    assert largest_norm(np.full((1, 4), 1e30, np.float32)) == np.inf
    assert largest_norm(np.full((1, 4), 1e-30, np.float32)) >= 2e-30


@pytest.mark.parametrize("metric", [Metric.DOT, Metric.L2])
@pytest.mark.parametrize("queries", BATCHES)
def test_a_known_norm_saves_the_pass_over_the_block(
    metric: Metric, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, asked = normal(500, 8), normal(queries, 8, 1)
    known = largest_norm(block)
    wanted = exact_candidates(asked, block, 10, metric)
    refuse: Callable[[Floats], float] = lambda vectors: pytest.fail("measured although known")  # noqa: E731
    monkeypatch.setattr(exact, "largest_norm", refuse)
    found = exact_candidates(asked, block, 10, metric, max_norm=known)
    np.testing.assert_array_equal(found.rows, wanted.rows)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 120),
    dim=st.integers(1, 9),
    queries=st.integers(1, 10),
    limit=st.integers(1, 40),
    metric=st.sampled_from(METRICS),
    grain=st.sampled_from([0, 1, 4, 1000]),
    exponent=st.integers(-60, 60),
)
def test_any_data(
    seed: int, rows: int, dim: int, queries: int, limit: int, metric: Metric, grain: int, exponent: int
) -> None:
    """Few distinct values make ties, powers of ten unlike sizes."""
    rng = np.random.default_rng(seed)
    block, asked = (rng.standard_normal((n, dim)) for n in (rows, queries))
    if grain:
        block, asked = np.round(block * grain) / grain, np.round(asked * grain) / grain
    scale = 2.0**exponent if metric is not Metric.COSINE else 1.0
    ready = [prepared(np.ascontiguousarray(a * scale, np.float32), metric) for a in (block, asked)]
    assert_superset(exact_candidates(ready[1], ready[0], limit, metric), ready[1], ready[0], limit, metric)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2])
@pytest.mark.parametrize("limit", [1, 10, 700, 3_000])
def test_rows_read_in_place_give_a_superset_of_the_same(metric: Metric, limit: int) -> None:
    matrix, asked = prepared(normal(3_000, 24), metric), prepared(normal(3, 24, 1), metric)
    positions = np.flatnonzero(np.random.default_rng(2).random(3_000) < 0.3)
    found = picked_candidates(asked, matrix, positions, limit, metric)
    assert_superset(found, asked, matrix[positions], limit, metric)
    assert found.rows.shape[1] <= min(len(positions), limit + 8)
    assert found.scored == 3 * len(positions)


def test_rows_read_in_place_whose_distances_overflow_float32() -> None:
    matrix = normal(500, 8) * np.float32(1e19)
    asked = normal(2, 8, 1) * np.float32(1e19)
    positions = np.arange(0, 500, 3)
    found = picked_candidates(asked, matrix, positions, 5, Metric.L2)
    assert_superset(found, asked, matrix[positions], 5, Metric.L2)


def test_rows_read_in_place_of_none() -> None:
    matrix, asked = normal(10, 4), normal(2, 4, 1)
    assert picked_candidates(asked, matrix, np.empty(0, np.int64), 5, Metric.L2).rows.shape == (2, 0)


def test_what_is_read_in_place() -> None:
    assert [m for m in METRICS if readable_in_place(1, m)] == [Metric.COSINE, Metric.L2]
    assert not readable_in_place(32, Metric.COSINE)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2])
@pytest.mark.parametrize("limit", [1, 10, 50])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-7, 0.0])
def test_a_few_rows_that_are_nearer_hold_the_nearest(metric: Metric, limit: int, spread: float) -> None:
    matrix = prepared(normal(1, 24) + np.float32(spread) * normal(400, 24, seed=1), metric)
    positions = np.arange(0, 400, 4)
    for query in prepared(normal(5, 24, seed=2), metric):
        places = set(exact.nearer(query, matrix, positions, limit, metric).tolist())
        assert needed(query, matrix[positions], limit, metric) <= places
        assert spread < 1.0 or len(places) <= limit + 3


def test_all_rows_are_kept_whose_distances_overflow_float32() -> None:
    matrix = normal(80, 8) * np.float32(1e30)
    assert len(exact.nearer(-matrix[0], matrix, np.arange(80), 5, Metric.L2)) == 80
