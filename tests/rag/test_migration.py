"""Another embedding model for a knowledge base that goes on answering."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database
from vectordb_client.rag import Document, FunctionEmbedder, KnowledgeBase, SentenceChunker, TokenChunker

Hashing = Callable[..., Any]


@pytest.fixture
def documents(xquad: Any) -> list[Document]:
    return [Document(d["id"], d["text"], d["metadata"]) for d in xquad.documents[:40]]


@pytest.fixture
def kb(db: Database, hashing: Hashing, documents: list[Document]) -> KnowledgeBase:
    kb = KnowledgeBase(db, "kb", hashing(256), chunker=TokenChunker(80, 10))
    kb.add(documents, progress=False)
    return kb


def _answers(kb: KnowledgeBase) -> list[list[tuple[str, float]]]:
    questions = ("Summer Theatre operation", "territorial division commune", "plague genome")
    return [[(p.chunk_id, p.score) for p in kb.retrieve(question)] for question in questions]


def test_there_and_back(kb: KnowledgeBase, hashing: Hashing, documents: list[Document]) -> None:
    before = _answers(kb)
    new = hashing(128, name="new", seed=7)
    report = kb.migrate(new, progress=False)
    assert report.switched
    assert (report.documents, report.chunks) == (40, kb.db["kb.g2"].count())
    assert report.embedded == report.chunks
    assert report.overlap is not None
    assert 0.3 < report.overlap <= 1.0
    assert report.lowest_overlap is not None
    assert report.lowest_overlap <= report.overlap
    assert report.compared >= 40
    assert ("'hashing'" in report.before, "'new'" in report.after) == (True, True)
    assert kb.embedder is new
    assert _answers(kb) != before
    assert kb.document("p01-0") == documents[0]
    assert kb.add(documents, progress=False).unchanged == tuple(d.id for d in documents)
    assert KnowledgeBase(kb.db, "kb", hashing(128, name="new", seed=7)).retrieve("plague genome")
    with pytest.raises(errors.ModelMismatch):
        KnowledgeBase(kb.db, "kb", hashing(256)).retrieve("plague genome")

    kb.rollback()
    assert _answers(kb) == before
    kb.rollback()
    assert kb.embedder is new
    kb.discard_previous()
    assert sorted(kb.db.list_collections()) == ["kb.g2", "kb.g2.documents", "kb.state"]
    with pytest.raises(errors.FailedPrecondition, match="no earlier generation"):
        kb.rollback()


def test_a_look_before_the_switch(kb: KnowledgeBase, hashing: Hashing) -> None:
    before = _answers(kb)
    new = hashing(128, name="new")
    seen = kb.migrate(new, switch=False, questions=["Summer Theatre", "plague"], progress=False)
    assert (seen.switched, seen.compared) == (False, 2)
    assert _answers(kb) == before
    kb.add(Document("late", "A late document about plague genomes."), progress=False)
    kb.remove("p01-0")
    done = kb.migrate(new, progress=False)
    assert (done.switched, done.documents, done.embedded) == (True, 40, 1)
    assert kb.document("p01-0") is None
    assert kb.retrieve("late document about plague genomes", limit=1)[0].document_id == "late"


def test_the_same_model_finds_the_same(kb: KnowledgeBase, hashing: Hashing) -> None:
    with pytest.raises(errors.FailedPrecondition, match="already"):
        kb.migrate(hashing(256), progress=False)
    report = kb.migrate(hashing(256, name="renamed"), progress=False)
    assert (report.overlap, report.lowest_overlap) == (1.0, 1.0)


def test_the_chunker_returns_with_the_model(kb: KnowledgeBase, hashing: Hashing) -> None:
    before = kb.chunker
    kb.migrate(hashing(128, name="new"), chunker=TokenChunker(30), progress=False)
    after = kb.chunker
    kb.rollback()
    assert kb.chunker is before
    document = kb.document(kb.documents()[0].id)
    assert kb.add(document, progress=False).unchanged
    kb.rollback()
    assert kb.chunker is after
    assert kb.add(document, progress=False).unchanged


def test_without_the_old_model(kb: KnowledgeBase, hashing: Hashing) -> None:
    """The way out that ``ModelMismatch`` names works where only the new model is at hand."""
    new = hashing(128, name="new")
    stranger = KnowledgeBase(kb.db, "kb", new, chunker=SentenceChunker(60))
    with pytest.raises(errors.ModelMismatch):
        stranger.retrieve("plague")
    report = stranger.migrate(new, questions=["plague"], progress=False)
    assert report.compared >= 40
    assert stranger.retrieve("plague")


def test_another_new_model_begins_anew(kb: KnowledgeBase, hashing: Hashing) -> None:
    kb.migrate(hashing(128, name="new"), switch=False, progress=False)
    kb.migrate(hashing(64, name="newer"), progress=False)
    assert sorted(kb.db.list_collections()) == ["kb", "kb.documents", "kb.g3", "kb.g3.documents", "kb.state"]
    kb.migrate(hashing(32, name="newest"), progress=False)
    assert sorted(kb.db.list_collections()) == ["kb.g3", "kb.g3.documents", "kb.g4", "kb.g4.documents", "kb.state"]


def test_it_answers_all_the_while(kb: KnowledgeBase, hashing: Hashing) -> None:
    """Readers in other threads see the old answers, then the new ones, and no error."""
    new = hashing(128, name="new", seed=3)
    old_answers = _answers(kb)
    slow = FunctionEmbedder(new.embed_documents, new.embed_queries, name="new", dim=128, max_tokens=4096)
    stop, seen, failures = threading.Event(), list[Any](), list[Exception]()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(_answers(kb)[0])
            except Exception as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    kb.migrate(slow, progress=False)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert failures == []
    new_answers = _answers(kb)
    assert seen
    assert all(answer in (old_answers[0], new_answers[0]) for answer in seen)


def test_calibration_belongs_to_the_model(kb: KnowledgeBase, hashing: Hashing, documents: list[Document]) -> None:
    assert kb.calibrate([one.text[:300] for one in documents], ["zebra quagga", "ostrich emu"]).stored
    calibrated = kb.min_score
    assert calibrated is not None
    kb.migrate(hashing(128, name="new"), progress=False)
    assert kb.min_score is None
    kb.rollback()
    assert kb.min_score == calibrated


def test_nothing_to_migrate(memory: Database, hashing: Hashing) -> None:
    with pytest.raises(errors.FailedPrecondition, match="empty"):
        KnowledgeBase(memory, "kb", hashing()).migrate(hashing(name="new"), progress=False)


def test_a_model_that_fails_leaves_the_old_one_in_place(kb: KnowledgeBase, hashing: Hashing) -> None:
    good, count = hashing(128, name="new"), 0

    def failing(texts: list[str]) -> np.ndarray:
        nonlocal count
        count += 1
        if count == 3:
            raise errors.Unavailable("the endpoint is down")
        return np.asarray(good.embed_documents(texts))

    before = _answers(kb)
    flaky = FunctionEmbedder(failing, good.embed_queries, name="new", dim=128)
    with pytest.raises(errors.Unavailable):
        kb.migrate(flaky, progress=False)
    assert _answers(kb) == before
    assert kb.migrate(flaky, progress=False).switched


def test_whole_after_all_of_it(kb: KnowledgeBase, hashing: Hashing, checks: ModuleType) -> None:
    kb.migrate(hashing(128, name="new"), chunker=SentenceChunker(40), progress=False)
    assert kb.chunker.name == "sentences(size=40, overlap=0)"
    kb.rollback()
    kb.discard_previous()
    kb.chunker = TokenChunker(80, 10)
    checks.check_whole(kb)
