"""``target_recall`` is kept on queries that the calibration did not see, at every selectivity, after opening again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col
from vectordb.segments import info as segment_info

SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("targets")
    return path / "db"


@pytest.fixture(scope="module")
def words(folder: Path, wordnet: Any) -> Iterator[Any]:
    """WordNet under ``hnsw`` with a random number ``u`` of its own for each row, opened again after it was built."""
    count = len(wordnet.base)
    u = np.random.default_rng(5).permutation(count)
    with vectordb.Database(folder) as db:
        collection = db.create_collection("words", wordnet.base.shape[1], index="hnsw")
        for start in range(0, count, 2_000):
            rows = slice(start, start + 2_000)
            collection.upsert(
                [str(row) for row in range(start, min(start + 2_000, count))],
                wordnet.base[rows],
                [{"u": int(value)} for value in u[rows]],
            )
        collection.optimize()
    with vectordb.Database(folder) as db:
        collection = db["words"]
        collection.u = u
        yield collection


def _recall(collection: Any, wordnet: Any, share: float, **options: Any) -> tuple[float, Any]:
    most = round(share * len(wordnet.base))
    rows = np.flatnonzero(collection.u < most)
    near = np.argsort(-(wordnet.queries @ wordnet.base[rows].T), axis=1, kind="stable")[:, :10]
    where = None if share == 1.0 else col("u") < most
    found = collection.search_batch(wordnet.queries, 10, where=where, include=(), **options)
    hits = sum(
        len({int(hit.id) for hit in result} & set(rows[best].tolist()))
        for result, best in zip(found, near, strict=True)
    )
    return hits / near.size, found[0].plan[0]


@pytest.mark.parametrize("target", [0.90, 0.95, 0.99])
@pytest.mark.parametrize("share", SHARES)
def test_the_target_is_kept(words: Any, wordnet: Any, share: float, target: float) -> None:
    for mode in ("auto", "in", "post") if share < 1.0 else ("auto",):
        recall, plan = _recall(words, wordnet, share, target_recall=target, filter_mode=mode)
        assert recall >= target - 0.01, (mode, plan)
        if share >= 0.5:
            assert plan.strategy in ("graph", "graph_post"), "the target is reached by the index"
            assert plan.rows_scored < 0.3 * plan.rows * len(wordnet.queries)
        elif share <= 0.01:
            assert plan.strategy == "exact_filtered"


def test_a_lower_target_costs_less(words: Any, wordnet: Any) -> None:
    scored = [
        _recall(words, wordnet, 1.0, params={"target_recall": target})[1].rows_scored for target in (0.9, 0.95, 0.99)
    ]
    assert scored == sorted(scored)
    assert scored[0] < 0.6 * scored[2]


def test_a_target_of_one_is_exact(words: Any, wordnet: Any) -> None:
    recall, plan = _recall(words, wordnet, 1.0, target_recall=1)
    assert recall >= 0.999  # equal but for the last bits of what truth is computed with here
    assert plan.strategy == "exact"
    plan = words.explain(wordnet.queries[0], target_recall=1.0)
    assert plan[0].reason == "a recall of 1 needs exact search"


def test_the_plan_says_what_it_goes_by(words: Any, wordnet: Any) -> None:
    plan = words.explain(wordnet.queries[0], analyze=True, target_recall=0.95)
    assert f"ef {plan[0].params['ef']} is calibrated to a recall of 0.9" in plan[0].reason
    assert plan.recall is not None
    assert plan.recall_low == plan.recall >= 0.7
    assert plan.recall_sampled == 1.0
    assert {"search", "merge", "read", "recall", "total"} <= set(plan.timings_ms)


def test_a_folder_of_an_earlier_release_has_no_calibration(words: Any, folder: Path, wordnet: Any) -> None:
    """It opens, and keeps the target by exact search."""
    words._backend.close()
    (path,) = folder.glob("segments/*/index-*/index.json")
    body = json.loads(path.read_text())["body"]
    assert body.pop("calibration") is not None
    path.write_text(json.dumps({"checksum": segment_info._checksum(body), "body": body}))
    for stamp in folder.glob("segments/*.stamp"):
        stamp.unlink()
    with vectordb.Database(folder) as db:
        plan = db["words"].search(wordnet.queries[0], target_recall=0.9).plan
        assert (plan[0].strategy, "not calibrated" in plan[0].fallback_reason) == ("exact", True)
        assert db["words"].search(wordnet.queries[0]).plan[0].strategy == "graph"
