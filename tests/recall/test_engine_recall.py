"""Recall and plans of the whole engine with defaults, on real data, against exact truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.recall.measured import loaded, recall_of
from vectordb import col

MODES = ("auto", "pre", "in", "post")


@pytest.fixture(scope="module")
def words(database: Any, wordnet: Any) -> Any:
    """WordNet with a random bucket 0..99 beside its own metadata."""
    buckets = np.random.default_rng(5).integers(0, 100, len(wordnet.base)).tolist()
    metadata = [{**m, "bucket": b} for m, b in zip(wordnet.metadata, buckets, strict=True)]
    collection = loaded(database, "words", wordnet.base, metadata)
    collection.buckets = np.array(buckets)
    return collection


def test_unfiltered(words: Any, wordnet: Any) -> None:
    recall, plan = recall_of(words, wordnet.queries[:300], wordnet.truth[:300])
    assert recall >= 0.98
    assert plan.strategy == "graph"
    assert plan.rows_scored < 0.15 * plan.rows


@pytest.mark.parametrize("mode", MODES)
def test_every_given_filter_in_every_mode(words: Any, wordnet: Any, mode: str) -> None:
    for name, filter_ in wordnet.filters.items():
        truth = wordnet.filtered_truth[name]
        recall, plan = recall_of(words, wordnet.queries[: len(truth)], truth, where=filter_, filter_mode=mode)
        assert recall >= 0.95, name
        assert mode != "pre" or plan.strategy == "exact_filtered"


@pytest.mark.parametrize("percent", [80, 50, 20])
def test_plans_at_uncorrelated_selectivities(words: Any, wordnet: Any, percent: int) -> None:
    where = col("bucket") < percent
    chosen = np.flatnonzero(words.buckets < percent)
    queries = wordnet.queries[:100]
    truth = chosen[np.argsort(-(queries @ wordnet.base[chosen].T), axis=1)[:, :10]]
    for mode, strategy in (("in", "graph"), ("post", "graph_post"), ("pre", "exact_filtered"), ("auto", None)):
        recall, plan = recall_of(words, queries, truth, where=where, filter_mode=mode)
        assert recall >= 0.95, mode
        assert strategy is None or plan.strategy == strategy
        assert plan.filtered
        if mode == "in":
            assert plan.rows_scored < 0.1 * plan.rows
        if mode == "pre":
            assert plan.rows_scored == plan.matched == len(chosen)


def test_a_correlated_filter_keeps_recall(words: Any, wordnet: Any) -> None:
    """Only rows near one topic match, and the queries come from elsewhere."""
    near = np.argsort(-(wordnet.base @ wordnet.queries[0]))[:1_200]
    words.update_metadata(ids=[str(i) for i in near], set={"topic": True})
    away = wordnet.queries[1:101]
    truth = near[np.argsort(-(away @ wordnet.base[near].T), axis=1)[:, :10]]
    for mode in MODES:
        recall, _ = recall_of(words, away, truth, where=col("topic") == True, filter_mode=mode)  # noqa: E712
        assert recall >= 0.95, mode


@pytest.mark.parametrize("mode", MODES)
def test_as_many_rows_as_asked_for_whenever_they_match(words: Any, wordnet: Any, mode: str) -> None:
    for where in (col("bucket") < 50, col("bucket") == 7, col("lexname") == "noun.animal", col("bucket") == 1000):
        matching = words.count(where)
        for limit in (1, 100, 1_000):
            result = words.search(wordnet.queries[3], limit, where, mode, include=())
            assert result.complete
            assert len(result) == min(limit, matching)
            assert matching or result.plan[0].strategy == "empty"


def test_recall_holds_after_deletes_and_with_a_full_tail(database: Any, wordnet: Any) -> None:
    half = len(wordnet.base) // 2
    collection = loaded(database, "churned", wordnet.base[:half], None)
    rest = np.arange(half, half + half // 2)
    collection.upsert([str(i) for i in rest], wordnet.base[rest])
    dead = np.random.default_rng(3).choice(half, 3 * half // 10, replace=False)
    assert collection.delete([str(i) for i in dead]) == len(dead)
    alive = np.setdiff1d(np.arange(half + half // 2), dead)
    queries = wordnet.queries[:100]
    truth = alive[np.argsort(-(queries @ wordnet.base[alive].T), axis=1)[:, :10]]
    before, _ = recall_of(collection, queries, truth)
    collection.optimize()
    after, plan = recall_of(collection, queries, truth)
    assert min(before, after) >= 0.98
    assert plan.rows == len(alive)
    assert collection.stats().deleted == 0


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_digits(database: Any, mnist: Any, metric: str) -> None:
    base, queries = mnist.base.astype(np.float32), mnist.queries[:100].astype(np.float32)
    truth = mnist.truth[:100]
    if metric == "l1":
        truth = np.array([np.argsort(np.abs(base - q).sum(axis=1), kind="stable")[:10] for q in queries])
    collection = loaded(database, f"digits-{metric}", base, None, metric=metric, index="hnsw")
    recall, plan = recall_of(collection, queries, truth)
    assert recall >= 0.98
    assert plan.strategy == "graph"


def test_varied_norms_under_dot(database: Any, wordnet: Any) -> None:
    norms = np.random.default_rng(9).lognormal(0.0, 0.5, len(wordnet.base)).astype(np.float32)
    base = wordnet.base * norms[:, None]
    queries = wordnet.queries[:200]
    truth = np.argsort(-(queries @ base.T), axis=1)[:, :10]
    collection = loaded(database, "scaled", base, None, metric="dot")
    recall, plan = recall_of(collection, queries, truth)
    assert recall >= 0.98
    assert plan.strategy == "graph"
