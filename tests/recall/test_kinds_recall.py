"""Recall of every kind that is installed, plain and quantized, through the whole engine with defaults.

Over all 20,000 rows by default for graphs and lists as they come, for the codes that are taken for want of memory, and
for the coarsest codes, which find the fewer the more rows there are; over 8,000 of them, of which the truth is made
anew, for the others. Those take all with ``-m slow``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from vectordb.index import registry
from vectordb.metric import Metric

MODES = ("auto", "pre", "in", "post")
LIMIT = 10
FULL = {("hnsw", None), ("hnsw", "sq8"), ("ivf", None), ("flat", "binary"), ("lsh", None)}
"""Over all rows by default."""


def _cases() -> list[Any]:
    kinds = {name: registry.get_kind(name).capabilities for name in registry.usable_kind_names()}
    found = [(name, None) for name, able in kinds.items() if Metric.COSINE in able.metrics and not able.exact]
    found += [
        (name, q) for name, able in kinds.items() for q, metrics in able.quantizations.items() if "cosine" in metrics
    ]
    cases = []
    for name, quantization in sorted(found, key=str):
        id_ = "-".join(filter(None, (name, quantization)))
        full = (name, quantization) in FULL
        cases.append(pytest.param((name, quantization, not full), id=id_))
        if not full:
            cases.append(pytest.param((name, quantization, False), id=f"{id_}-full", marks=pytest.mark.slow))
    return cases


class Indexed(NamedTuple):
    """A collection under one kind and quantization, what is in it, and the recall that its family owes."""

    collection: Any
    wordnet: Any
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
    return Indexed(
        collection, wordnet, "compressed" if family == "exact" else family, 0.98 if family == "graph" else 0.95
    )


@pytest.fixture(scope="module", params=_cases())
def words(request: pytest.FixtureRequest, database: Any) -> Iterator[Indexed]:
    index, quantization, fewer = request.param
    rows = request.getfixturevalue("wordnet8k" if fewer else "wordnet")
    yield _loaded(database, "words", rows, len(rows.base), index, quantization)
    database.delete_collection("words")


def _recall(collection: Any, queries: np.ndarray, truth: np.ndarray, **options: Any) -> tuple[float, Any]:
    hits = 0
    results = collection.search_batch(queries, limit=LIMIT, include=(), **options)
    for result, nearest in zip(results, truth, strict=True):
        assert result.complete
        assert len(result) == LIMIT
        hits += len({int(h.id) for h in result} & set(nearest[:LIMIT].tolist()))
    return hits / (LIMIT * len(queries)), results[0].plan.segments[0]


def test_unfiltered(words: Indexed) -> None:
    recall, plan = _recall(words.collection, words.wordnet.queries, words.wordnet.truth)
    assert recall >= words.floor
    assert plan.strategy == words.family
    assert plan.fallback_reason is None


def test_filtered(words: Indexed) -> None:
    for name, where in words.wordnet.filters.items():
        truth = words.wordnet.filtered_truth[name]
        recall, _ = _recall(words.collection, words.wordnet.queries[: len(truth)], truth, where=where)
        assert recall >= 0.95, name


def test_as_many_rows_as_asked_for_in_every_mode(words: Indexed) -> None:
    for where in words.wordnet.filters.values():
        matching = words.collection.count(where)
        for mode in MODES:
            for limit in (1, 1_000):
                result = words.collection.search(words.wordnet.queries[3], limit, where, mode, include=())
                assert result.complete
                assert len(result) == min(limit, matching)


def test_a_wide_limit(words: Indexed) -> None:
    results = words.collection.search_batch(words.wordnet.queries[:50], limit=100, include=())
    hits = [len({int(h.id) for h in r} & set(t.tolist())) for r, t in zip(results, words.wordnet.truth, strict=False)]
    # Invented rows lie in all directions alike: their hundredth neighbours are hardly nearer than others.
    assert sum(hits) / (50 * 100) >= (0.95 if words.wordnet.real else 0.93)


HALVED = {
    ("flat", "pq"): 6_000,
    ("flat", "binary"): 10_000,
    ("hnsw", "rabitq"): 6_000,
    ("ivf", None): 6_000,
    ("ivf", "sq8"): 6_000,
    ("ivfpq", None): 6_000,
    ("lsh", None): 10_000,
}
"""Of how many rows, by index and quantization: so many that codes are worth it, with the half that is left."""


@pytest.mark.parametrize(
    ("index", "quantization", "rows"),
    [
        *((*case, rows) for case, rows in HALVED.items()),
        *(pytest.param(*case, 10_000, marks=pytest.mark.slow) for case, rows in HALVED.items() if rows < 10_000),
    ],
)
def test_recall_after_half_is_deleted_and_after_the_merge(
    database: Any, wordnet: Any, index: str, quantization: str | None, rows: int
) -> None:
    collection, _, family, floor = _loaded(
        database, f"halved-{index}-{quantization}", wordnet, rows, index, quantization
    )
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
    database.delete_collection(collection.name)
