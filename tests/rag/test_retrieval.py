"""The stages of a retrieval, each alone and together; and the deadline over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database
from vectordb_client.rag import CrossEncoderReranker, Document, FunctionEmbedder, KnowledgeBase, TokenChunker
from vectordb_client.rag.llm.base import Completion, Delta, Message
from vectordb_client.rag.ranking import maximal_marginal_relevance, reciprocal_rank_fusion
from vectordb_client.rag.retrieval import RetrievalOptions

FRUIT = {
    "apple": "apple apple apple fruit red",
    "apple2": "apple apple apple fruit red round",
    "apple3": "apple apple apple fruit red sweet",
    "pear": "pear apple fruit green",
    "car": "engine wheel road",
}


class Words:
    """A reranker that counts the words of the question in the text; ``pause`` seconds a call."""

    name = "words"

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause

    def scores(self, question: str, texts: Sequence[str], timeout: float | None = None) -> list[float]:
        if self._pause and timeout is not None and timeout < self._pause:
            raise errors.DeadlineExceeded("too slow", timeout=timeout)
        return [float(sum(text.count(word) for word in question.split())) for text in texts]


class Parrot:
    """A language model that always writes the same; remembers what it was asked."""

    name = "parrot"
    context_tokens = 1000

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[tuple[Sequence[Message], float | None]] = []

    def count_tokens(self, text: str) -> int:
        return len(text)

    def complete(self, messages: Sequence[Message], *, timeout: float | None = None, **_: Any) -> Completion:
        self.asked.append((messages, timeout))
        if timeout is not None and timeout < 0.5:
            raise errors.DeadlineExceeded("too slow", timeout=timeout)
        return Completion(self.text, self.name, "stop")

    def stream(self, messages: Sequence[Message], **options: Any) -> Iterator[Delta]:
        yield Delta("", self.complete(messages, **options))


@pytest.fixture
def kb(memory: Database, hashing: Callable[..., Any]) -> KnowledgeBase:
    kb = KnowledgeBase(memory, "kb", hashing(256))
    kb.add([Document(name, text, {"kind": name.rstrip("23")}) for name, text in FRUIT.items()], progress=False)
    return kb


def _ids(passages: Sequence[Any]) -> list[str]:
    return [passage.document_id for passage in passages]


def test_fusion_by_reciprocal_rank() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "d"], ["c", "a"]])
    assert [one for one, _ in fused] == ["c", "a", "b", "d"]
    assert dict(fused)["c"] == pytest.approx(1 / 63 + 1 / 61 + 1 / 61)
    assert reciprocal_rank_fusion([]) == []
    assert [one for one, _ in reciprocal_rank_fusion([["b"], ["a"]])] == ["a", "b"]


def test_diversity_leaves_repetitions_behind() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0.7, 0.7], [0, 1]], dtype=np.float32)
    relevance = np.array([1.0, 0.99, 0.9, 0.0])
    assert maximal_marginal_relevance(relevance, vectors, 4, 0.0) == [0, 1, 2, 3]
    assert maximal_marginal_relevance(relevance, vectors, 2, 0.5) == [0, 2]
    assert maximal_marginal_relevance(relevance, vectors, 2, 1.0) == [0, 3]
    assert maximal_marginal_relevance(relevance[:1], vectors[:1], 5, 0.5) == [0]
    assert maximal_marginal_relevance(np.array([]), np.empty((0, 2), np.float32), 5, 0.5) == []
    assert maximal_marginal_relevance(np.ones(4), vectors, 4, 0.5)[:2] == [0, 3]


def test_diversity_end_to_end(kb: KnowledgeBase) -> None:
    assert _ids(kb.retrieve("apple fruit red", limit=3)) == ["apple", "apple2", "apple3"]
    diverse = kb.retrieve("apple fruit red", limit=3, diversity=0.6)
    assert _ids(diverse)[0] == "apple"
    assert "pear" in _ids(diverse) or "car" in _ids(diverse)
    assert [passage.rank for passage in diverse] == [1, 2, 3]


def test_a_reranker_orders_and_its_scores_are_told(kb: KnowledgeBase) -> None:
    kb.reranker = Words()
    passages = kb.retrieve("green pear", limit=2)
    assert passages[0].document_id == "pear"
    assert passages[0].rerank_score == 2.0
    question = "engine apple"
    by_vector = {p.document_id: p.score for p in kb.retrieve(question, limit=5, rerank=False)}
    reranked = kb.retrieve(question, limit=5)
    assert [p.rerank_score for p in reranked] == sorted((p.rerank_score for p in reranked), reverse=True)
    assert {p.document_id: p.score for p in reranked} == by_vector
    assert kb.retrieve(question, rerank=False)[0].rerank_score is None


def test_a_cross_encoder_is_asked_in_batches() -> None:
    class Model:
        def __init__(self) -> None:
            self.calls: list[int] = []

        def predict(self, pairs: list[tuple[str, str]], **_: Any) -> np.ndarray:
            self.calls.append(len(pairs))
            return np.array([[float(len(text))] for _, text in pairs], dtype=np.float32)

    model = Model()
    reranker = CrossEncoderReranker(model, batch_size=2)
    assert reranker.scores("q", ["a", "bbb", "cc"]) == [1.0, 3.0, 2.0]
    assert model.calls == [2, 1]
    with pytest.raises(errors.DeadlineExceeded, match="judged 0 of 1"):
        reranker.scores("q", ["a"], timeout=0.0)


def test_several_queries_are_fused(kb: KnowledgeBase) -> None:
    passages = kb.retrieve("green", limit=2, rewrite=lambda question: ["engine wheel", "", question])
    assert set(_ids(passages)) == {"pear", "car"}
    alone = kb.retrieve("engine wheel", limit=1)[0]
    assert next(p for p in passages if p.document_id == "car").score == alone.score
    found = kb.retrieved("green", RetrievalOptions(rewrite=lambda question: ["engine wheel", question]))
    assert found.queries == ("green", "engine wheel")


def test_an_llm_rewrites(kb: KnowledgeBase) -> None:
    model = Parrot('1. "engine wheel"\n- road\n\n* green pear\nfourth')
    found = kb.retrieved("vehicles", RetrievalOptions(rewrite=model))
    assert found.queries == ("vehicles", "engine wheel", "road", "green pear")
    assert model.asked[0][0][-1].content == "vehicles"
    with pytest.raises(errors.InvalidArgument, match="rewrite is a function"):
        kb.retrieve("q", rewrite="words")


def test_min_score_and_what_was_below_it(kb: KnowledgeBase) -> None:
    best = kb.retrieve("apple fruit red", limit=5)
    bound = best[1].score
    assert _ids(kb.retrieve("apple fruit red", limit=5, min_score=bound)) == _ids(best)[:2]
    none = kb.retrieved("apple fruit red", RetrievalOptions(min_score=1.1))
    assert (none.passages, none.best_score) == ((), best[0].score)


def test_neighbours_are_joined_verbatim(memory: Database, hashing: Callable[..., Any], xquad: Any) -> None:
    for overlap in (0, 4):
        kb = KnowledgeBase(memory, f"kb{overlap}", hashing(256), chunker=TokenChunker(30, overlap))
        text = "\n\n".join(d["text"] for d in xquad.documents[:4])
        kb.add([Document("d", text), Document("e", "unrelated")], progress=False)
        plain = kb.retrieve("Summer Theatre operation 1870 1939", limit=2)
        longer = kb.retrieve("Summer Theatre operation 1870 1939", limit=2, neighbours=2)
        assert [p.chunk_id for p in longer] == [p.chunk_id for p in plain]
        for before, after in zip(plain, longer, strict=True):
            assert after.start <= before.start < before.end <= after.end
            assert after.text == text[after.start : after.end]
        assert longer[0].end - longer[0].start > 2 * (plain[0].end - plain[0].start)


def test_neighbours_never_repeat_a_chunk(memory: Database, hashing: Callable[..., Any]) -> None:
    kb = KnowledgeBase(memory, "kb", hashing(256), chunker=TokenChunker(8, 0))
    text = " ".join(f"word{n}" for n in range(200))
    kb.add(Document("d", text), progress=False)
    passages = kb.retrieve("word40 word43 word46", limit=6, neighbours=3)
    spans = sorted((p.start, p.end) for p in passages)
    assert all(a_end <= b_start for (_, a_end), (b_start, _) in pairwise(spans))
    assert sum(end - start for start, end in spans) > 6 * 30


@pytest.mark.parametrize("reach", [40, 10**9])
def test_more_neighbours_than_there_are_are_the_whole_document(
    memory: Database, hashing: Callable[..., Any], reach: int
) -> None:
    kb = KnowledgeBase(memory, "kb", hashing(256), chunker=TokenChunker(8, 0))
    text = " ".join(f"word{n}" for n in range(400))
    kb.add(Document("d", text), progress=False)
    assert memory["kb"].count() > 90
    (passage,) = kb.retrieve("word200", limit=1, neighbours=reach, timeout=30)
    (near,) = kb.retrieve("word200", limit=1, neighbours=20, timeout=30)
    assert text[passage.start : passage.end] == passage.text
    assert (passage.text == text) == (reach > 100)
    assert len(near.text) < len(passage.text)


def test_the_stages_are_told(kb: KnowledgeBase) -> None:
    kb.reranker = Words()
    found = kb.retrieved(
        "apple", RetrievalOptions(rewrite=lambda q: ["pear"], diversity=0.3, neighbours=1, timeout=30.0)
    )
    assert [s.name for s in found.stages] == ["rewrite", "embed", "search", "rerank", "diversify", "neighbours"]
    assert all(stage.milliseconds >= 0 for stage in found.stages)
    assert found.stages[0].details["queries"] == ["pear"]


def test_what_is_not_needed_is_left_out_when_time_is_short(kb: KnowledgeBase) -> None:
    kb.reranker = Words(pause=60.0)
    found = kb.retrieved("apple", RetrievalOptions(rewrite=Parrot("x"), timeout=1.0))
    skipped = [stage.name for stage in found.stages if stage.details.get("skipped") == "deadline"]
    assert skipped == ["rewrite", "rerank"]
    assert found.passages[0].rerank_score is None


def test_past_the_deadline_it_raises(memory: Database, hashing: Callable[..., Any]) -> None:
    good = hashing()

    def slow(texts: list[str]) -> np.ndarray:
        time.sleep(0.05)
        return np.asarray(good.embed_queries(texts))

    kb = KnowledgeBase(memory, "kb", FunctionEmbedder(good.embed_documents, slow, name="slow", dim=64))
    kb.add(Document("d", "text"), progress=False)
    with pytest.raises(errors.DeadlineExceeded, match="before the stage 'search'") as raised:
        kb.retrieve("text", timeout=0.01)
    assert raised.value.timeout == 0.01
    assert kb.retrieve("text", timeout=10.0)[0].document_id == "d"


def test_candidates_are_what_reordering_works_on(kb: KnowledgeBase) -> None:
    kb.reranker = Words()
    found = kb.retrieved("apple fruit", RetrievalOptions(limit=1, candidates=3))
    assert len(found.passages) == 1
    assert next(stage for stage in found.stages if stage.name == "rerank").details["candidates"] == 3


def test_exact_search_finds_what_an_index_finds(kb: KnowledgeBase) -> None:
    assert kb.retrieve("apple", exact=True) == kb.retrieve("apple")
