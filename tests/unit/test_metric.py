"""Scores: the same pair has the same one, however it is asked for. Normalised rows, each by itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vectordb.metric import Metric, distances, length, nearest_first, norms, prepared, scores

DIMENSIONS = [1, 2, 3, 7, 8, 15, 16, 31, 33, 100, 127, 384, 768, 1_536, 4_097, 8_192, 8_193, 20_000]


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dim", DIMENSIONS)
def test_a_pair_has_one_score(metric: Metric, dim: int) -> None:
    """Alone, among others, at any address, in any layout, in a batch, on any thread: to the last bit."""
    rng = np.random.default_rng(dim)
    rows = rng.standard_normal((24, dim)).astype(np.float32)
    queries = rng.standard_normal((3, dim)).astype(np.float32)
    expected = np.stack([np.concatenate([scores(q, row[None], metric) for row in rows]) for q in queries])

    for query, best in zip(queries, expected, strict=True):
        np.testing.assert_array_equal(scores(query, rows, metric), best)
        np.testing.assert_array_equal(scores(query, np.asfortranarray(rows), metric), best)
        np.testing.assert_array_equal(scores(query, rows[::-3], metric), best[::-3])
        for offset in range(1, 5):
            room = np.empty(rows.size + offset, np.float32)
            moved = room[offset:].reshape(rows.shape)
            moved[:] = rows
            some = rng.permutation(len(rows))[: 5 + offset]
            np.testing.assert_array_equal(scores(query, moved[some], metric), best[some])
            np.testing.assert_array_equal(scores(query, moved[offset:], metric), best[offset:])
    batch = np.broadcast_to(rows, (len(queries), *rows.shape))
    np.testing.assert_array_equal(scores(queries[:, None], batch, metric), expected)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: scores(queries[0], rows, metric), range(16)):
            np.testing.assert_array_equal(found, expected[0])


@pytest.mark.parametrize("metric", Metric)
def test_scores_are_those_of_double_precision(metric: Metric) -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((50, 96)).astype(np.float32)
    query = rng.standard_normal(96).astype(np.float32)
    if metric is Metric.COSINE:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        query /= np.linalg.norm(query)
    wide, wide_query = rows.astype(np.float64), query.astype(np.float64)
    expected = {
        Metric.COSINE: wide @ wide_query,
        Metric.DOT: wide @ wide_query,
        Metric.L2: np.linalg.norm(wide - wide_query, axis=1),
        Metric.L1: np.abs(wide - wide_query).sum(axis=1),
    }[metric]
    np.testing.assert_allclose(scores(query, rows, metric), expected, rtol=1e-7, atol=1e-8)


def test_scores_beyond_float32_are_infinite() -> None:
    row = np.full((1, 4), 3e38, np.float32)
    assert scores(row[0], row, Metric.DOT).tolist() == [np.inf]
    assert scores(-row[0], row, Metric.L2).tolist() == [np.inf]


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (300, 384), (3, 40_000), (33_000, 1)])
def test_rows_are_normalised_each_by_itself(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(5).standard_normal(shape, dtype=np.float32)
    vectors[1:2] = 0.0
    lengths = norms(vectors)
    lengths[lengths == 0.0] = 1.0
    expected = (vectors / lengths[:, None]).astype(np.float32)
    got = prepared(vectors, Metric.COSINE)
    np.testing.assert_array_equal(got, expected)
    if len(vectors):
        np.testing.assert_array_equal(prepared(vectors[-1:], Metric.COSINE), got[-1:])
    assert prepared(vectors, Metric.L2) is vectors


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dim", [1, 2, 33, 384, 8_193])
def test_the_nearest_come_first_with_the_scores_of_all_others(metric: Metric, dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows = prepared(rng.standard_normal((30, dim)).astype(np.float32), metric)
    rows[5:8] = rows[4]
    rows[9] = -rows[4]  # as far as can be: rounding may put either a hair outside [-1, 1]
    for query in rows[:8]:
        order, found = nearest_first(query, rows, metric)
        expected = distances(scores(query, rows, metric), metric)
        np.testing.assert_array_equal(found, expected[order])
        np.testing.assert_array_equal(found, np.sort(expected))
        assert sorted(order.tolist()) == list(range(len(rows)))
    order, found = nearest_first(rows[0], rows[:0], metric)
    assert (len(order), len(found)) == (0, 0)


@pytest.mark.parametrize("dim", [1, 7, 384, 20_000])
def test_one_length_is_that_among_many(dim: int) -> None:
    vectors = np.random.default_rng(dim).standard_normal((9, dim)).astype(np.float32)
    lengths = norms(vectors)
    for row, expected in zip(vectors, lengths, strict=True):
        assert length(row[None])[0] == expected
        assert length(np.repeat(row, 2)[None, ::2])[0] == expected
