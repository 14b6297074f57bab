"""Real questions, real judgements: what exact search gives, the whole stack gives, embedded and served."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from vectordb_client import Database, connect
from vectordb_client.rag import Document, KnowledgeBase, MiniLM, WholeDocument

# Without the real sets the shipped corpus is measured, below.
_SETS = (("cranfield", 0.500), ("xquad_a_en", 0.958))


@pytest.fixture(scope="session")
def sets(data: ModuleType, quality: ModuleType) -> dict[str, Any]:
    """The sets that are here, by name."""
    return {name: quality.load(data, name) for name, _ in _SETS} if data.have_shared_data() else {}


def test_the_reference_model_through_the_whole_stack(db: Database, sets: dict[str, Any], quality: ModuleType) -> None:
    for name, expected in _SETS:
        if name in sets:
            kb = KnowledgeBase(db, name, sets[name].reference_embedder(), chunker=WholeDocument())
            report = kb.add(sets[name].documents, progress=False)
            assert len(report.added) + len(report.failed) == len(sets[name].documents)
            assert all(failure.reason == "has no text" for failure in report.failed)
            assert quality.mean_ndcg(kb, sets[name]) == pytest.approx(expected, abs=0.005)


def test_the_shipped_model_on_the_shipped_corpus(db: Database, minilm: Any, xquad: Any, quality: ModuleType) -> None:
    """XQuAD by ONNX: within 0.01 of the unquantised model's 0.958, whole and in chunks."""
    documents = [Document(d["id"], d["text"]) for d in xquad.documents]
    corpus = quality.Collection(
        documents=documents,
        questions={question["id"]: question["text"] for question in xquad.questions},
        relevant={q["id"]: {documents[row].id: 1.0} for q, row in zip(xquad.questions, xquad.relevant, strict=True)},
        vectors={},
    )
    minilm.embed_queries(list(corpus.questions.values()))  # together: side by side on all processors
    kb = KnowledgeBase(db, "whole", minilm, chunker=WholeDocument("truncate"))
    report = kb.add(documents, progress=False)
    assert 0 < report.truncated < 15
    assert quality.mean_ndcg(kb, corpus) == pytest.approx(0.958, abs=0.01)
    chunked = KnowledgeBase(db, "chunked", minilm)
    assert chunked.add(documents, progress=False).truncated == 0
    assert quality.mean_ndcg(chunked, corpus) > 0.948


def test_foreign_questions_are_told_from_answerable_ones(memory: Database, sets: dict[str, Any]) -> None:
    """Each set asked the other's questions: at the shipped threshold, and calibrated, on the held-out half."""
    for name, other in (("xquad_a_en", "cranfield"), ("cranfield", "xquad_a_en")):
        if name not in sets:
            continue
        both = type(sets[name])(
            sets[name].documents, sets[name].questions, {}, {**sets[other].vectors, **sets[name].vectors}
        )
        kb = KnowledgeBase(memory, name, both.reference_embedder(), chunker=WholeDocument())
        kb.add(sets[name].documents, progress=False)
        own, foreign = list(sets[name].questions.values()), list(sets[other].questions.values())
        report = kb.calibrate(own, foreign)
        assert report.sufficient, str(report)
        kept, passed = (
            sum(bool(kb.retrieve(question, limit=1, min_score=MiniLM.min_score)) for question in questions)
            for questions in (own, foreign)
        )
        assert kept >= 0.95 * len(own)
        assert passed <= 0.10 * len(foreign)


@pytest.mark.slow
def test_the_shipped_model_on_cranfield(minilm: Any, sets: dict[str, Any], quality: ModuleType) -> None:
    if "cranfield" not in sets:
        return
    with connect(":memory:") as db:
        kb = KnowledgeBase(db, "cranfield", minilm, chunker=WholeDocument("truncate"))
        kb.add(sets["cranfield"].documents, progress=False)
        assert quality.mean_ndcg(kb, sets["cranfield"]) == pytest.approx(0.500, abs=0.01)
