"""Recall of every kind that is installed, plain and quantized, through the whole engine with defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from vectordb.index import registry
from vectordb.metric import Metric

MODES = ("auto", "pre", "in", "post")
LIMIT = 10


def _cases() -> list[Any]:
    kinds = {name: registry.get_kind(name).capabilities for name in registry.usable_kind_names()}
    found = [(name, None) for name, able in kinds.items() if Metric.COSINE in able.metrics and not able.exact]
    found += [
        (name, q) for name, able in kinds.items() for q, metrics in able.quantizations.items() if "cosine" in metrics
    ]
    return [pytest.param(case, id="-".join(filter(None, case))) for case in sorted(found, key=str)]


class Indexed(NamedTuple):
    """A collection under one kind and quantization, and the recall that its family owes."""

    collection: Any
    family: str
    floor: float


def _loaded(database: Any, name: str, wordnet: Any, rows: int, index: str, quantization: str | None) -> Indexed:
    collection = database.create_collection(name, wordnet.base.shape[1], index=index, quantization=quantization)
    ids = [str(i) for i in range(rows)]
    for start in range(0, rows, 5_000):
        stop = min(rows, start + 5_000)
        collection.upsert(ids[start:stop], wordnet.base[start:stop], wordnet.metadata[start:stop])
    collection.optimize()
    family = registry.get_kind(index).capabilities.family
    return Indexed(collection, "compressed" if family == "exact" else family, 0.98 if family == "graph" else 0.95)


@pytest.fixture(scope="module", params=_cases())
def words(request: pytest.FixtureRequest, database: Any, wordnet: Any) -> Iterator[Indexed]:
    index, quantization = request.param
    yield _loaded(database, "words", wordnet, len(wordnet.base), index, quantization)
    database.delete_collection("words")


def _recall(collection: Any, queries: np.ndarray, truth: np.ndarray, **options: Any) -> tuple[float, Any]:
    hits = 0
    results = collection.search_batch(queries, limit=LIMIT, include=(), **options)
    for result, nearest in zip(results, truth, strict=True):
        assert result.complete
        assert len(result) == LIMIT
        hits += len({int(h.id) for h in result} & set(nearest[:LIMIT].tolist()))
    return hits / (LIMIT * len(queries)), results[0].plan.segments[0]


def test_unfiltered(words: Indexed, wordnet: Any) -> None:
    recall, plan = _recall(words.collection, wordnet.queries, wordnet.truth)
    assert recall >= words.floor
    assert plan.strategy == words.family
    assert plan.fallback_reason is None


def test_filtered(words: Indexed, wordnet: Any) -> None:
    for name, where in wordnet.filters.items():
        truth = wordnet.filtered_truth[name]
        recall, _ = _recall(words.collection, wordnet.queries[: len(truth)], truth, where=where)
        assert recall >= 0.95, name


def test_as_many_rows_as_asked_for_in_every_mode(words: Indexed, wordnet: Any) -> None:
    for where in wordnet.filters.values():
        matching = words.collection.count(where)
        for mode in MODES:
            for limit in (1, 1_000):
                result = words.collection.search(wordnet.queries[3], limit, where, mode, include=())
                assert result.complete
                assert len(result) == min(limit, matching)


def test_a_wide_limit(words: Indexed, wordnet: Any) -> None:
    results = words.collection.search_batch(wordnet.queries[:50], limit=100, include=())
    hits = [len({int(h.id) for h in r} & set(t.tolist())) for r, t in zip(results, wordnet.truth, strict=False)]
    # Invented rows lie in all directions alike: their hundredth neighbours are hardly nearer than others.
    assert sum(hits) / (50 * 100) >= (0.95 if wordnet.real else 0.93)


@pytest.mark.parametrize(
    ("index", "quantization"),
    [
        ("flat", "pq"),
        ("flat", "binary"),
        ("hnsw", "rabitq"),
        ("ivf", None),
        ("ivf", "sq8"),
        ("ivfpq", None),
        ("lsh", None),
    ],
)
def test_recall_after_half_is_deleted_and_after_the_merge(
    database: Any, wordnet: Any, index: str, quantization: str | None
) -> None:
    rows = 10_000
    collection, family, floor = _loaded(database, "halved", wordnet, rows, index, quantization)
    dead = np.random.default_rng(4).permutation(rows)[: rows // 2]
    collection.delete([str(row) for row in dead])
    alive = np.setdiff1d(np.arange(rows), dead)
    queries = wordnet.queries[:200]
    truth = alive[np.argsort(-(queries @ wordnet.base[alive].T), axis=1)[:, :LIMIT]]
    before, _ = _recall(collection, queries, truth)
    collection.optimize()
    after, plan = _recall(collection, queries, truth)
    assert min(before, after) >= floor
    assert plan.strategy == family
    assert plan.rows == len(alive)
    database.delete_collection("halved")
