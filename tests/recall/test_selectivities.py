"""``auto`` from all rows to one in 10,000, by chance and correlated: recall, plans, and as many rows as there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col

SHARES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0.0001)
LIMIT = 10


@pytest.fixture(scope="module")
def words(wordnet: Any) -> Iterator[Any]:
    """WordNet; ``u`` orders its rows by chance, ``rank`` by nearness to the first query."""
    count = len(wordnet.base)
    orders = {
        "u": np.random.default_rng(5).permutation(count),
        "rank": np.argsort(np.argsort(-(wordnet.base @ wordnet.queries[0]))),
    }
    metadata = [{name: int(order[row]) for name, order in orders.items()} for row in range(count)]
    with vectordb.Database(":memory:") as db:
        collection = db.create_collection("words", wordnet.base.shape[1], index="hnsw")
        for start in range(0, count, 2_000):
            rows = slice(start, start + 2_000)
            ids = [str(row) for row in range(start, min(start + 2_000, count))]
            collection.upsert(ids, wordnet.base[rows], metadata[rows])
        collection.optimize()
        collection.orders = orders
        yield collection


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("field", ["u", "rank"])
def test_recall_and_plan(words: Any, wordnet: Any, field: str, share: float) -> None:
    most = round(share * len(wordnet.base))
    rows = np.flatnonzero(words.orders[field] < most)
    queries = wordnet.queries[:100]
    near = rows[np.argsort(-(queries @ wordnet.base[rows].T), axis=1, kind="stable")[:, :LIMIT]]
    strategies: set[str] = set()
    hits = 0
    for query, best in zip(queries, near, strict=True):
        result = words.search(query, LIMIT, where=col(field) < most, include=())
        assert result.complete
        assert len(result) == min(LIMIT, most)
        hits += len({int(hit.id) for hit in result} & set(best.tolist()))
        (plan,) = (part for part in result.plan if part.rows)
        assert plan.matched == most
        strategies.add(plan.strategy)
    assert hits / near.size >= 0.95
    if share == 1.0 or (field == "u" and share >= 0.5):
        assert strategies <= {"graph", "graph_post"}
    elif share <= 0.05:
        assert strategies == {"exact_filtered"}
        assert plan.rows_scored == most


def test_the_ways_are_each_chosen_somewhere(words: Any, wordnet: Any) -> None:
    found = set()
    for share in SHARES:
        most = round(share * len(wordnet.base))
        found.add(words.search(wordnet.queries[0], LIMIT, where=col("u") < most, include=()).plan[0].strategy)
    assert found == {"graph", "graph_post", "exact_filtered"}


def test_nothing_matches(words: Any, wordnet: Any) -> None:
    for mode in ("auto", "pre", "in", "post"):
        result = words.search(wordnet.queries[0], LIMIT, where=col("u") < 0, filter_mode=mode)
        assert (len(result), result.complete) == (0, True)
        assert result.plan[0].strategy == "empty"
