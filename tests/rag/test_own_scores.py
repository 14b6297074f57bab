"""Rerankers, judges and classifiers of users that return something else than one number a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database
from vectordb_client.rag import Document, FunctionLLM, KnowledgeBase
from vectordb_client.rag.asking import AnswerConfig
from vectordb_client.rag.guards import Toxicity
from vectordb_client.rag.support import NLIJudge, Pair

TOWER = "The tower is 330 metres high."
QUESTION = "How high is the tower?"

_NO_SCORES = [None, [], [1.0], [float("nan")] * 2, ["a", "b"], [[1.0, 2.0], [3.0]], 5, {"a": 1}]


@pytest.mark.parametrize("found", _NO_SCORES, ids=str)
def test_a_reranker_that_returns_no_scores_is_named(memory: Database, hashing: Callable[..., Any], found: Any) -> None:
    reranker: Any = SimpleNamespace(name="mine", scores=lambda question, texts, timeout=None: found)
    kb = KnowledgeBase(memory, "kb", hashing(256), reranker=reranker)
    kb.add([Document("tower", TOWER), Document("river", "It flows.")], progress=False)
    with pytest.raises(errors.InvalidArgument, match=r"reranker 'mine' returned .* it returns a list of 2 numbers"):
        kb.retrieve(QUESTION)
    reranker.scores = lambda question, texts, timeout=None: np.array([[1], [2]])
    assert [passage.rerank_score for passage in kb.retrieve(QUESTION)] == [2.0, 1.0]


@pytest.mark.parametrize("part", ["judge", "verifier"])
@pytest.mark.parametrize("found", [None, [], [float("nan")], ["a"]], ids=str)
def test_a_judge_that_returns_no_scores_is_named(
    memory: Database, hashing: Callable[..., Any], part: str, found: Any
) -> None:
    judge = SimpleNamespace(name="mine", threshold=0.5, scores=lambda question, pairs, timeout=None: found)
    answering = AnswerConfig(**{part: judge})
    model = FunctionLLM(lambda _: f"{TOWER} [1]", name="canned")
    kb = KnowledgeBase(memory, "kb", hashing(256), model, guards=(), answering=answering)
    kb.add(Document("tower", TOWER), progress=False)
    with pytest.raises(errors.InvalidArgument, match=r"judge 'mine' returned .* it returns a list of 1 numbers"):
        kb.ask(QUESTION)


@pytest.mark.parametrize("found", [None, [], [float("nan")], ["a"]], ids=str)
def test_a_classifier_that_returns_no_probability_is_named(found: Any) -> None:
    def mine(texts: Sequence[str]) -> Any:
        return found

    with pytest.raises(errors.InvalidArgument, match=r"classifier 'mine' returned .* it returns a list of 1 numbers"):
        Toxicity(mine).check("question", "a text")
    with pytest.raises(errors.InvalidArgument, match=r"judge 'nli.*' returned"):
        NLIJudge(mine, "mine").scores(QUESTION, [Pair(TOWER, TOWER)])
