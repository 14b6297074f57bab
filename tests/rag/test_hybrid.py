"""Keyword and hybrid retrieval, on real questions: both targets, scores that stay cosine similarities."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from vectordb_client import Database, col
from vectordb_client.rag import Document, KnowledgeBase, WholeDocument

_EXPECTED = {"cranfield": (0.49, 0.545), "xquad_a_en": (0.965, 0.968)}
"""nDCG@10 at least, by keywords and by both, where the judged sets are: BM25's variants differ in the third digit."""


@pytest.fixture
def kb(db: Database, hashing: Callable[..., Any], xquad: Any) -> KnowledgeBase:
    kb = KnowledgeBase(db, "kb", hashing(256), chunker=WholeDocument())
    kb.add([Document(d["id"], d["text"], d["metadata"]) for d in xquad.documents], progress=False)
    return kb


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_keywords_find_what_they_name(kb: KnowledgeBase, mode: str) -> None:
    passages = kb.retrieve("Upati Institute of Dramatic Arts", mode=mode, limit=3)
    assert passages[0].document_id == "p01-0"
    by_vector = {p.chunk_id: p.score for p in kb.retrieve("Upati Institute of Dramatic Arts", limit=120, exact=True)}
    assert {p.chunk_id: p.score for p in passages} == {p.chunk_id: by_vector[p.chunk_id] for p in passages}
    assert kb.retrieve("Upati", mode=mode, min_score=0.99) == []
    filtered = kb.retrieve("theatre", mode=mode, limit=10, where=col("article") == 1)
    assert filtered
    assert {p.metadata["article"] for p in filtered} == {1}
    fused = kb.retrieve("Upati", mode=mode, limit=10, rewrite=lambda question: ["plague genome"], neighbours=1)
    # In a hybrid search, passages that several legs find go before the one that a rare word names in a single leg.
    assert ({"p01", "p20"} if mode == "text" else {"p20"}) <= {p.document_id.partition("-")[0] for p in fused}


def test_weights(kb: KnowledgeBase) -> None:
    question = "theatre of the city"
    words = [p.chunk_id for p in kb.retrieve(question, mode="text", limit=3)]
    fused = kb.retrieve(question, mode="hybrid", fusion={"weights": [0.0, 1.0]}, limit=3)
    assert [p.chunk_id for p in fused] == words
    meaning = kb.retrieve(question, mode="hybrid", fusion={"weights": [1.0, 0.0]}, limit=3)
    assert [p.chunk_id for p in meaning] == [p.chunk_id for p in kb.retrieve(question, limit=3)]


def test_judged_questions(db: Database, data: ModuleType, quality: ModuleType) -> None:
    for name, (by_words, by_both) in _EXPECTED.items():
        if data.have_shared_data():
            judged = quality.load(data, name)
            kb = KnowledgeBase(db, name, judged.reference_embedder(), chunker=WholeDocument())
            kb.add(judged.documents, progress=False)
            assert quality.mean_ndcg(kb, judged, mode="text") >= by_words
            assert quality.mean_ndcg(kb, judged, mode="hybrid", candidates=100) >= by_both
