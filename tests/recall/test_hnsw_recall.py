"""Recall of ``hnsw`` with defaults, kind by itself: real vectors, every metric, against exact truth."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vectordb.index.base import BuildOptions, Neighbours
from vectordb.index.faiss_hnsw import HNSW, HnswIndex
from vectordb.index.hnsw_storage import Precision
from vectordb.metric import Metric, prepared
from vectordb.query.widths import candidates

FLOOR = 0.98
LIMIT = 10


def recall(found: Neighbours, truth: np.ndarray, limit: int = LIMIT) -> float:
    """Share of the true ``limit`` among those found: all of them are scored from their full vectors."""
    shared = [len(set(a) & set(b)) for a, b in zip(found.rows.tolist(), truth[:, :limit].tolist(), strict=True)]
    return sum(shared) / (limit * len(truth))


def search(index: HnswIndex, queries: np.ndarray, limit: int = LIMIT, **options: Any) -> Neighbours:
    """As many candidates as the engine asks for."""
    wanted = candidates(index.capabilities, limit, None) if index.precision is Precision.BYTE else limit
    return index.search(queries, wanted, **options)


def build(vectors: np.ndarray, metric: Metric) -> HnswIndex:
    return HNSW.build(vectors, metric, BuildOptions(threads=2))


@pytest.fixture(scope="module")
def words(wordnet: Any) -> HnswIndex:
    return build(prepared(wordnet.base, Metric.COSINE), Metric.COSINE)


def test_text_embeddings_under_cosine(words: HnswIndex, wordnet: Any) -> None:
    assert words.precision is Precision.BYTE
    found = search(words, prepared(wordnet.queries, Metric.COSINE))
    assert recall(found, wordnet.truth) >= FLOOR
    assert found.scored < 0.10 * len(wordnet.base) * len(wordnet.queries)


@pytest.mark.parametrize("selectivity", [0.2, 0.5])
def test_text_embeddings_under_a_random_filter(
    words: HnswIndex, wordnet: Any, data: ModuleType, selectivity: float
) -> None:
    queries = prepared(wordnet.queries[:200], Metric.COSINE)
    mask = np.random.default_rng(1).random(len(wordnet.base)) < selectivity
    rows = np.flatnonzero(mask)
    truth = rows[data.brute_force(queries, wordnet.base[rows], LIMIT)]
    found = search(words, queries, allowed=np.packbits(mask, bitorder="little"))
    assert mask[found.rows].all()
    assert recall(found, truth) >= 0.97
    # Under a tenth of the rows: exact search cannot stand in for it. Invented rows lie in all directions alike, which
    # makes any walk a little longer.
    assert found.scored < (0.10 if wordnet.real else 0.12) * len(wordnet.base) * len(queries)


def test_text_embeddings_with_a_wide_limit(words: HnswIndex, wordnet: Any) -> None:
    found = search(words, prepared(wordnet.queries[:100], Metric.COSINE), 100)
    assert recall(found, wordnet.truth[:100], 100) >= (FLOOR if wordnet.real else 0.95)


@pytest.mark.parametrize(("sigma", "rows"), [(0.5, 20_000), (1.0, 10_000)])
def test_text_embeddings_of_varied_length_under_inner_product(
    wordnet: Any, data: ModuleType, sigma: float, rows: int
) -> None:
    picked = np.linspace(0, len(wordnet.base) - 1, rows).astype(np.int64)
    lengths = np.random.default_rng(0).lognormal(0.0, sigma, (rows, 1)).astype(np.float32)
    base = np.ascontiguousarray(wordnet.base[picked] * lengths)
    queries = wordnet.queries[:300]
    index = build(base, Metric.DOT)
    assert index.precision is not Precision.SINGLE
    assert recall(search(index, queries), data.brute_force(queries, base, LIMIT)) >= FLOOR


@pytest.mark.parametrize("metric", [Metric.L2, Metric.L1])
def test_digits_under_euclidean_and_manhattan_distance(mnist: Any, data: ModuleType, metric: Metric) -> None:
    truth = mnist.truth if metric is Metric.L2 else data.brute_force(mnist.queries, mnist.base, LIMIT, metric="l1")
    assert recall(search(build(mnist.base, metric), mnist.queries), truth) >= FLOOR
