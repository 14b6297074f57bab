"""Keyword and hybrid search of the whole engine: what is found when, scores, filters, deadlines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from tests.engine.texts import TEXTS, fill, said
from vectordb import col, errors
from vectordb.query import keyword


@pytest.fixture(params=["tail", "sealed"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with vectordb.Database(tmp_path / "db") as db:
        made = fill(db)
        if request.param == "sealed":
            made.optimize()
        yield made


def test_words_phrases_prefixes_and_near_words(collection: Any) -> None:
    assert set(collection.search_text("fox").ids) == {"t0", "t2"}
    assert collection.search_text("FOX canines").ids == ["t2", "t0"]
    assert collection.search_text("fox*").ids[0] == "t2"
    assert collection.search_text('"quick brown fox"').ids == ["t0"]
    assert collection.search_text('"brown quick"').ids == []
    assert collection.search_text("foxs~").ids[:1] == ["t2"]
    assert collection.search_text("zurich~1").ids == ["t3"]
    assert collection.search_text("zürich").ids == ["t3"]
    assert collection.search_text("首都").ids == ["t4"]
    assert collection.search_text("都").ids == ["t4"]
    assert collection.search_text("nothing whatever ¿?").ids == []
    assert collection.search_text("¿?").ids == []
    best = collection.search_text("fox", include=("text", "metadata", "vector"))[0]
    assert (best.text, best.metadata, best.vector.tolist()) == (TEXTS[0], {"n": 0}, [0.0, 1.0])


def test_the_plan_tells(collection: Any) -> None:
    result = collection.search_text("quick", where=col("n") >= 1)
    assert result.ids == ["t1", "t2"]
    step = next(s for s in result.plan if s.rows)
    assert (step.strategy, step.rows, step.estimated, step.matched, step.rows_scored) == ("text", 8, 3, 2, 3)
    assert step.filtered
    assert result.plan.timings_ms["text"] > 0
    assert result.plan.version == collection.stats().version
    nothing = collection.search_text("absent").plan
    assert {s.strategy for s in nothing} == {"empty"}
    hybrid = collection.explain([0.0, 0.0], text="quick", where=col("n") == 1)
    assert [s.strategy for s in hybrid if s.rows] == ["exact_filtered", "text"]
    assert [s.estimated for s in hybrid if s.rows][1] == 1
    analyzed = collection.explain([0.0, 0.0], text="quick", analyze=True)
    assert analyzed.version == collection.stats().version
    assert [s.matched for s in analyzed if s.rows] == [8, 3]
    assert {"search", "text", "fuse", "total"} <= set(analyzed.timings_ms)


def test_writes_show_at_once(collection: Any) -> None:
    assert collection.search_text("platypus").ids == []
    collection.upsert(["t0", "new"], [[1.0, 1.0], None], texts=["a platypus", "platypus platypus"])
    assert collection.search_text("platypus").ids == ["new", "t0"]
    assert collection.search_text("brown").ids == []
    collection.update_metadata(["new"], set={"n": 77})
    assert collection.search_text("platypus", where=col("n") == 77)[0].metadata == {"n": 77}
    collection.upsert(["t0"], [[1.0, 1.0]])
    assert collection.search_text("platypus").ids == ["new"]
    assert collection.delete(["new"]) == 1
    assert collection.search_text("platypus").ids == []
    collection.optimize()
    assert collection.search_text("platypus brown").ids == []


def test_updated_metadata_keeps_the_text_through_seals_and_merges(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = fill(db)
        collection.optimize()
        collection.update_metadata(["t0"], set={"n": 50})
        collection.upsert(["x"], [[0.0, 0.0]], texts=["fox"])
        collection.update_metadata(["x"], set={"n": 51})
        before = said(collection.search_text("fox", where=col("n") >= 50))
        assert {i for i, _ in before} == {"t0", "x"}
        collection.optimize()
        assert said(collection.search_text("fox", where=col("n") >= 50)) == before
    with vectordb.Database(tmp_path) as db:
        assert said(db["c"].search_text("fox", where=col("n") >= 50)) == before


def test_min_score_limit_and_ties_by_id(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 1)
        ids = [f"{i:03d}" for i in range(300)]
        collection.upsert(ids[::-1], texts=["same words"] * 300)
        for _ in range(2):
            result = collection.search_text("same", limit=7)
            assert result.ids == ids[:7]
            assert len(set(result.scores)) == 1
            assert collection.search_text("same", min_score=result.scores[0]).ids == ids[:10]
            assert collection.search_text("same", min_score=result.scores[0] * 1.001).ids == []
            collection.optimize()


def test_filters_give_the_true_best_among_matches(tmp_path: Path, wordnet5k: Any, data: Any) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 384, seal_bytes=384 * 4 * 900)
        collection.upsert(wordnet5k.ids, wordnet5k.base, wordnet5k.metadata, data.invented_texts(5_000))
        for query in ("bado bega dobu kute", "biki", '"bado bega" do* kuti~'):
            everything = collection.search_text(query, limit=5000)
            for name, where in wordnet5k.filters.items():
                matching = {i for i, there in zip(wordnet5k.ids, wordnet5k.matching[name], strict=True) if there}
                expected = [pair for pair in said(everything) if pair[0] in matching][:20]
                result = collection.search_text(query, limit=20, where=where)
                assert said(result) == expected
                assert len(expected) == 20
                assert result.complete


def test_records_without_a_vector_and_without_a_text(collection: Any) -> None:
    collection.upsert(["words"], texts=["only words here"])
    collection.upsert(["numbers"], [[3.0, 3.0]])
    assert collection.search_text("words").ids == ["words"]
    found = collection.search([3.0, 3.0], text="words", limit=100)
    assert {"words", "numbers"} <= set(found.ids)
    assert "words" not in collection.search([3.0, 3.0], limit=100).ids
    everything = collection.search_text("quick fox the a zürich 首都 words only", limit=100).ids
    assert not {"numbers", "t5", "t6", "t7"} & set(everything)


def _order(result: Any) -> list[str]:
    return list(result.ids)


def test_reciprocal_ranks(collection: Any) -> None:
    vector, text = [2.0, 1.0], "quick fox canines"
    legs = [_order(collection.search(vector, limit=100)), _order(collection.search_text(text, limit=100))]
    for k, fusion in ((60.0, None), (60.0, "rrf"), (60.0, {"rrf": {}}), (1.5, {"rrf": {"k": 1.5}})):
        scores: dict[str, float] = {}
        for leg in legs:
            for rank, id_ in enumerate(leg, 1):
                scores[id_] = scores.get(id_, 0.0) + 1.0 / (k + rank)
        expected = sorted(((float(np.float32(s)), i) for i, s in scores.items()), key=lambda e: (-e[0], e[1]))
        result = collection.search(vector, limit=5, text=text, fusion=fusion)
        assert [(h.score, h.id) for h in result] == expected[:5]


def test_weights_scale_each_leg_over_its_candidates(collection: Any) -> None:
    vector, text = [2.0, 1.0], "quick fox canines"
    legs = [collection.search(vector, limit=100), collection.search_text(text, limit=100)]
    scores: dict[str, float] = {}
    for leg, weight, sign in zip(legs, (0.7, 0.3), (-1.0, 1.0), strict=True):
        good = [sign * s for s in leg.scores]
        for id_, score in zip(leg.ids, good, strict=True):
            scores[id_] = scores.get(id_, 0.0) + weight * ((score - good[-1]) / (good[0] - good[-1]))
    expected = sorted(((float(np.float32(s)), i) for i, s in scores.items()), key=lambda e: (-e[0], e[1]))
    result = collection.search(vector, text=text, fusion={"weights": [0.7, 0.3]})
    assert [(h.score, h.id) for h in result] == expected[:10]
    alone = collection.search(vector, text="canines", fusion={"weights": [0, 1]})
    assert (alone.ids[0], alone.scores[0], alone.scores[1]) == ("t2", 1.0, 0.0)
    without = collection.search(vector, text="absent", fusion={"weights": [2, 1]})
    assert without.scores[0] == 2.0
    assert without.ids[0] == "t2"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_hybrid_by_weights_over_scores_beyond_single_precision(metric: str) -> None:
    """Infinite scores made shares that are no numbers, and any order."""
    with vectordb.Database(":memory:") as db:
        docs = db.create_collection("docs", dim=2, metric=metric)
        docs.upsert(["far", "near"], [[-3e38, -3e38], [1e38, 1e38]], texts=["rain", "rain"])
        hits = docs.search([1e38, 1e38], text="rain", fusion={"weights": [0.7, 0.3]})
        assert [(hit.id, round(hit.score, 6)) for hit in hits] == [("near", 1.0), ("far", 0.3)]
        with pytest.raises(errors.InvalidArgument, match="at most 1e"):
            docs.search([1.0, 1.0], text="rain", fusion={"weights": [1e39, 1e39]})


def test_min_score_bounds_the_vectors_leg(collection: Any) -> None:
    result = collection.search([2.0, 1.0], text="zürich", min_score=0.5)
    assert set(result.ids) == {"t2", "t3"}


def test_a_batch_with_one_text_or_one_each(collection: Any) -> None:
    vectors = [[0.0, 1.0], [4.0, 1.0]]
    each = collection.search_batch(vectors, text=["zürich", "canines"])
    assert [said(r) for r in each] == [
        said(collection.search(v, text=t)) for v, t in zip(vectors, ("zürich", "canines"), strict=True)
    ]
    shared = collection.search_batch(vectors, text="zürich")
    assert [said(r) for r in shared] == [said(collection.search(v, text="zürich")) for v in vectors]


def test_languages(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 1, analyzer="english")
        collection.upsert(["a"], texts=["Running with machines"])
        for _ in range(2):
            assert collection.search_text("runs machine").ids == ["a"]
            assert collection.search_text('"runs with a" "with machine"').ids == ["a"]
            assert collection.search_text("running*").ids == ["a"]
            collection.optimize()
        with pytest.raises(errors.FailedPrecondition, match="analyzer is 'english', not 'standard'"):
            db.create_collection("c", 1, exist_ok=True)
    with vectordb.Database(tmp_path) as db:
        assert db["c"].config.analyzer == "english"
        assert db["c"].search_text("runs").ids == ["a"]


class Clock:
    """A deadline that passes after some looks at it."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def expired(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def cancelled(self) -> bool:
        return False

    def error(self) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded("late", timeout=1.0)


def test_time_runs_out_between_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vectordb.engine import reads

    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 2, seal_bytes=1 << 30, merge_factor=64)
        for part in range(3):
            collection.upsert([f"{part}-{i}" for i in range(50)], texts=["word"] * 50)
            collection.optimize()
        full = collection.search_text("word", limit=200)
        stops: dict[float, int] = {}
        raised = 0
        for looks in range(12):
            monkeypatch.setattr(reads.Deadline, "after", classmethod(lambda cls, timeout, n=looks: Clock(n)))
            partial = collection.search_text("word", limit=200, allow_partial=True)
            if partial.complete:
                assert said(partial) == said(full)
                break
            assert partial.incomplete_reason == "deadline"
            assert {s.strategy for s in partial.plan} & {"skipped"}
            assert set(said(partial)) <= set(said(full))
            stops[partial.searched_fraction] = len(partial)
            with pytest.raises(errors.DeadlineExceeded):
                collection.search_text("word", limit=200)
            raised += 1
        else:
            pytest.fail("it never ended")
        assert raised > 2
        assert 0.0 in stops


def test_a_tail_is_indexed_only_as_long_as_there_is_time(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 1)
        ids = [str(i) for i in range(20_000)]
        collection.upsert(ids, texts=[f"common word{i % 977} " * 20 for i in range(20_000)])
        with pytest.raises(errors.DeadlineExceeded):
            collection.search_text("common", timeout=0.02)
        began = time.monotonic()
        partial = collection.search_text("common", timeout=0.02, allow_partial=True)
        assert not partial.complete
        assert len(partial) == 0
        assert time.monotonic() - began < 10
        assert len(collection.search_text("common", limit=10_000)) == 10_000


def test_rows_are_scored_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Any) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 1)
        metadata = [{"n": i % 10} for i in range(5_000)]
        collection.upsert([str(i) for i in range(5_000)], metadata=metadata, texts=data.invented_texts(5_000))
        queries = ("bado bega dobu kute", "ki*", '"bado bado"', "kuti~")
        whole = [said(collection.search_text(q, limit=300, where=col("n") > 4)) for q in queries]
        assert all(whole)
        monkeypatch.setattr(keyword, "BLOCK_ROWS", 700)
        for _ in range(2):
            cut = [said(collection.search_text(q, limit=300, where=col("n") > 4)) for q in queries]
            assert cut == whole
            collection.optimize()
