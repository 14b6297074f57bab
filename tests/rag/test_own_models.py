"""Models, functions and guards that users bring: how a function becomes one, and what is said where one misbehaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database
from vectordb_client.rag import (
    CachedEmbedder,
    Document,
    FunctionEmbedder,
    FunctionLLM,
    KnowledgeBase,
    SentenceChunker,
)
from vectordb_client.rag.answering import Answerer
from vectordb_client.rag.asking import Options
from vectordb_client.rag.embedding.vectors import embedded_within
from vectordb_client.rag.llm import LLM, Completion, Delta, Message
from vectordb_client.rag.retrieval import RetrievalOptions, Retrieved
from vectordb_client.rag.rewrite import as_rewriter
from vectordb_client.rag.support import LLMJudge, Overlap, Pair
from vectordb_client.rag.trace import Action, Verdict
from vectordb_client.rag.types import Passage

TOWER = "The tower is 330 metres high."
QUESTION = "How high is the tower?"


class Own:
    """A language model of the user's: ``complete`` and ``stream`` do what the test says."""

    name = "own"
    context_tokens = 4096

    def __init__(self, complete: Callable[[], Any] | None = None, stream: Callable[[], Any] | None = None) -> None:
        self._complete, self._stream = complete, stream

    def count_tokens(self, text: str) -> int:
        return len(text) // 3 + 1

    def complete(self, messages: Sequence[Message], **_: Any) -> Any:
        return None if self._complete is None else self._complete()

    def stream(self, messages: Sequence[Message], **_: Any) -> Any:
        return None if self._stream is None else self._stream()


def answerer(llm: LLM, **further: Any) -> Answerer:
    """Over one passage that answers the question."""

    def retrieve(question: str, options: RetrievalOptions) -> Retrieved:
        return Retrieved((Passage("d", "d#0", TOWER, 0.8, 0, len(TOWER), 1),), (question,), (), 0.8)

    return Answerer(retrieve, llm, Overlap(), **further)


def asked(llm: LLM, *, streamed: bool, timeout: float | None = None, **further: Any) -> Any:
    parts, options = answerer(llm, **further), Options(timeout=timeout)
    return list(parts.stream(QUESTION, options)) if streamed else parts.answer(QUESTION, options)


def failing(error: Exception) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that clocks of calls see; it stands still unless the test moves it."""
    time = [0.0]
    monkeypatch.setattr("vectordb_client.transport.retry.time", SimpleNamespace(monotonic=lambda: time[0]))
    return time


# Functions as language models


def test_a_function_is_a_language_model(memory: Database, hashing: Callable[..., Any]) -> None:
    conversations: list[Sequence[Message]] = []

    def write(messages: Sequence[Message]) -> str:
        conversations.append(messages)
        return f"{TOWER} [1]"

    model = FunctionLLM(write, name="canned", context_tokens=2000)
    assert isinstance(model, LLM)
    assert (model.name, model.context_tokens, model.count_tokens("abc")) == ("canned", 2000, 1)
    kb = KnowledgeBase(memory, "kb", hashing(256), model, guards=())
    kb.add(Document("tower", TOWER), progress=False)
    answer = kb.ask(QUESTION)
    assert (answer.text, answer.grounded) == ("The tower is 330 metres high [1].", True)
    assert [message.role for message in conversations[0]] == ["system", "user"]
    assert QUESTION in conversations[0][1].content
    assert [event.kind for event in kb.ask_stream(QUESTION)] == ["passages", "text", "answer"]
    assert FunctionLLM(write, name="x", count_tokens=len).count_tokens("abc") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"write": None, "name": "x"}, "write is a function, got None"),
        ({"write": len, "name": ""}, "name is a string that is not empty"),
        ({"write": len, "name": "x", "context_tokens": 0}, "context_tokens is a whole number, at least 1"),
        ({"write": len, "name": "x", "count_tokens": 3}, "count_tokens is a function, got 3"),
    ],
)
def test_what_is_no_function_is_no_language_model(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=message):
        FunctionLLM(**arguments)


async def _later(_: Any) -> str:
    return TOWER


@pytest.mark.parametrize("write", [lambda _: None, lambda _: 5, lambda _: Completion("a", "b", "stop"), _later])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_function_that_writes_no_text_is_told_so(write: Any, streamed: bool) -> None:
    with pytest.raises(errors.InvalidArgument, match="the function of FunctionLLM 'odd' returned"):
        asked(FunctionLLM(write, name="odd"), streamed=streamed)


# Language models that misbehave


@pytest.mark.parametrize(
    "answer",
    [None, "a text", 5, {"text": "a"}, iter(["a"]), Completion(None, "own", "stop")],  # type: ignore[arg-type]
    ids=lambda answer: type(answer).__name__,
)
def test_what_is_no_completion_is_told_by_the_model_s_name(answer: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"'own': complete\(\) returned .* a Completion\(text") as caught:
        asked(Own(lambda: answer), streamed=False)
    assert caught.value.field == "llm"
    assert [passage.text for passage in caught.value.passages] == [TOWER]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (None, r"stream\(\) returned NoneType"),
        ("a text", r"stream\(\) returned str"),
        (["a", "text"], r"stream\(\) yielded str 'a'"),
        ([Delta("a"), None], r"stream\(\) yielded NoneType"),
        ([Delta(None)], r"stream\(\) yielded Delta"),  # type: ignore[arg-type]
        ([Delta("a", "stop")], r"stream\(\) gave str 'stop'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_stream_of_deltas_is_told_by_the_model_s_name(stream: Any, message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=message) as caught:
        asked(Own(stream=lambda: stream), streamed=True)
    assert len(caught.value.passages) == 1


def test_a_context_that_is_no_number_is_named() -> None:
    model = Own()
    model.context_tokens = "4096"  # type: ignore[assignment]
    with pytest.raises(errors.InvalidArgument, match="context_tokens is a whole number, at least 1, got '4096'"):
        asked(model, streamed=False)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("raised", "kind"),
    [(RuntimeError("boom"), errors.Unavailable), (TimeoutError("slow"), errors.DeadlineExceeded)],
)
def test_what_a_model_raises_becomes_the_promised_error(
    raised: Exception, kind: type[errors.VectorDBError], streamed: bool
) -> None:
    with pytest.raises(kind, match="language model 'own'") as caught:
        asked(Own(failing(raised), failing(raised)), streamed=streamed)
    assert caught.value.__cause__ is raised
    assert [passage.text for passage in caught.value.passages] == [TOWER]
    assert "error" in caught.value.trace.stage("generate").facts


def test_a_stream_that_breaks_off_keeps_what_came() -> None:
    def stream() -> Iterator[Delta]:
        yield Delta("The tower is ")
        raise ConnectionError("gone")

    with pytest.raises(errors.Unavailable, match="ConnectionError: gone") as caught:
        asked(Own(stream=stream), streamed=True)
    assert caught.value.partial == "The tower is "
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_an_answer_that_comes_too_late_is_no_answer(now: list[float]) -> None:
    def slow() -> Completion:
        now[0] += 3.0
        return Completion(f"{TOWER} [1]", "own", "stop")

    with pytest.raises(errors.DeadlineExceeded, match=r"did not finish within 0\.5 s") as caught:
        asked(Own(slow), streamed=False, timeout=0.5)
    assert [passage.text for passage in caught.value.passages] == [TOWER]
    assert caught.value.partial == f"{TOWER} [1]"
    assert asked(Own(slow), streamed=False, timeout=4.0).grounded
    assert asked(Own(slow), streamed=False).grounded


def test_a_stream_is_looked_at_between_its_pieces(now: list[float]) -> None:
    closed: list[bool] = []

    def slow() -> Iterator[Delta]:
        try:
            for piece in ("The tower ", "is 330 ", "metres high [1]."):
                now[0] += 0.3
                yield Delta(piece)
        finally:
            closed.append(True)

    with pytest.raises(errors.DeadlineExceeded) as caught:
        asked(Own(stream=slow), streamed=True, timeout=0.5)
    assert caught.value.partial == "The tower is 330 "
    assert len(caught.value.passages) == 1
    assert closed == [True]
    assert asked(Own(stream=slow), streamed=True, timeout=1.0)[-1].answer.grounded


def test_all_pairs_of_a_judge_share_one_time(now: list[float]) -> None:
    def slow() -> Completion:
        now[0] += 0.3
        return Completion("yes", "own", "stop")

    judge = LLMJudge(Own(slow))
    assert judge.scores(QUESTION, [Pair(TOWER, TOWER)], timeout=0.5) == [1.0]
    with pytest.raises(errors.DeadlineExceeded):
        judge.scores(QUESTION, [Pair(TOWER, TOWER)] * 2, timeout=0.5)
    with pytest.raises(errors.Unavailable, match="boom"):
        LLMJudge(Own(failing(RuntimeError("boom")))).scores(QUESTION, [Pair(TOWER, TOWER)])


# Rewriting


def test_a_rewrite_that_returns_a_string_is_one_query(memory: Database, hashing: Callable[..., Any]) -> None:
    kb = KnowledgeBase(memory, "kb", hashing(256))
    kb.add(Document("tower", TOWER), progress=False)
    options = RetrievalOptions(rewrite=lambda question: question.upper())
    assert kb.retrieved(QUESTION, options).queries == (QUESTION, QUESTION.upper())
    pieces = RetrievalOptions(rewrite=lambda question: iter(question.split()[:2]))
    assert kb.retrieved(QUESTION, pieces).queries == (QUESTION, "How", "high")


@pytest.mark.parametrize("written", [None, 5, ["a", None], {"a": 1}, b"a"], ids=str)
def test_a_rewrite_that_returns_no_queries_is_named(written: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="rewrite returns a query or a list of queries") as caught:
        as_rewriter(lambda _: written)(QUESTION, None)
    assert caught.value.field == "rewrite"


# Guards


def guard(verdict: Any) -> Any:
    return SimpleNamespace(name="mine", stages=("question",), check=lambda stage, text: verdict)


@pytest.mark.parametrize("verdict", [True, False, None, "refuse"])
def test_a_guard_that_returns_no_verdict_is_named(verdict: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"guard 'mine' returned .* it returns a Verdict") as caught:
        asked(Own(), streamed=False, guards=(guard(verdict),))
    assert caught.value.field == "guards"


def test_a_verdict_s_action_may_be_its_text() -> None:
    verdict = Verdict("mine", "question", "refuse")  # type: ignore[arg-type]
    assert verdict.action is Action.REFUSE
    answer = asked(Own(), streamed=False, guards=(guard(verdict),))
    assert (answer.refused, answer.refusal_reason) == (True, "mine")
    with pytest.raises(errors.InvalidArgument, match="action is one of pass, mark, replace, refuse, got 'no'"):
        Verdict("mine", "question", "no")  # type: ignore[arg-type]


def test_guards_may_come_from_a_generator(memory: Database, hashing: Callable[..., Any]) -> None:
    refusing = guard(Verdict("mine", "question", Action.REFUSE))
    kb = KnowledgeBase(memory, "kb", hashing(), Own(), guards=(one for one in [refusing]))  # type: ignore[arg-type]
    for _ in range(2):
        assert kb.ask(QUESTION).refusal_reason == "mine"


# Functions as embedding models


async def _embedded_later(texts: list[str]) -> list[list[float]]:
    return [[1.0]] * len(texts)


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (lambda texts: None, "returned None"),
        (lambda texts: ([1.0] for _ in texts), "returned a generator"),
        (lambda texts: [1.0, 2.0], r"returned an array of shape \(2,\)"),
        (lambda texts: [[1.0, 2.0]], r"returned an array of shape \(1, 2\) for 2 texts"),
        (lambda texts: ["abc"] * len(texts), "returned a list of <U3"),
        (lambda texts: [["1", "2"]] * len(texts), "returned a list of <U1"),
        (lambda texts: [[1.0] * (n + 1) for n, _ in enumerate(texts)], "returned a list that is no array"),
        (lambda texts: {"a": 1}, "returned a dict"),
        (_embedded_later, "returned a coroutine"),
    ],
)
def test_a_function_that_returns_no_vectors_is_told_what_it_returned(function: Any, returned: str) -> None:
    embedder = FunctionEmbedder(function, name="odd", dim=2)
    for embed in (embedder.embed_documents, embedder.embed_queries, CachedEmbedder(embedder).embed_documents):
        with pytest.raises(errors.InvalidArgument, match=f"embedder 'odd' {returned}.* n rows of numbers"):
            embed(["one", "two"])


def test_time_is_told_to_embedders_that_take_it() -> None:
    assert embedded_within(lambda texts, timeout=None: (texts, timeout), ["a"], 1.5) == (["a"], 1.5)
    assert embedded_within(lambda texts: texts, ["a"], 1.5) == ["a"]
    with pytest.raises(ValueError, match="no signature found"):  # of functions of C nobody need know what they take
        inspect.signature(max)
    assert embedded_within(max, ["a", "b"], 1.5) == "b"


def test_one_vector_for_one_text_is_no_batch() -> None:
    with pytest.raises(errors.InvalidArgument, match=r"shape \(2,\) for one text"):
        FunctionEmbedder(lambda texts: [1.0, 2.0], name="flat").dim  # noqa: B018


def test_an_embedder_of_another_class_is_checked_too(memory: Database, hashing: Callable[..., Any]) -> None:
    class Flaky:
        """Gives vectors of the right shape until it is told otherwise."""

        name, revision, dim = "flaky", "", 64
        good = hashing()
        answer: Any = None

        def embed_documents(self, texts: Sequence[str]) -> Any:
            return self.answer or self.good.embed_documents(texts)

        def embed_queries(self, texts: Sequence[str]) -> Any:
            return self.answer or self.good.embed_queries(texts)

    model = Flaky()
    kb = KnowledgeBase(memory, "kb", model, chunker=SentenceChunker())
    kb.add(Document("tower", TOWER), progress=False)
    model.answer = "nothing"
    for call in (
        lambda: kb.retrieve(QUESTION),
        lambda: kb.add(Document("river", "It flows."), progress=False),
        lambda: kb.calibrate(["a", "b"], ["c", "d"]),
    ):
        with pytest.raises(errors.InvalidArgument, match="embedder 'flaky' returned a str"):
            call()
    model.answer = [[1.0, 2.0]]
    with pytest.raises(errors.DimensionMismatch, match=r"returned shape \(1, 2\) for 1 texts, it promised \(1, 64\)"):
        kb.retrieve(QUESTION)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"documents": None}, "documents is a function, got None"),
        ({"queries": 5}, "queries is a function, got 5"),
        ({"tokenizer": "words"}, "tokenizer is a function"),
        ({"name": ""}, "name is a string that is not empty"),
        ({"name": None}, "name is a string that is not empty"),
        ({"revision": 3}, "revision is a string"),
        ({"dim": "3"}, "dim is a whole number, at least 1, got '3'"),
        ({"max_tokens": 0}, "max_tokens is a whole number, at least 1, got 0"),
        ({"min_score": "high"}, "min_score is a number"),
    ],
)
def test_what_a_function_embedder_is_made_of_is_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=message):
        FunctionEmbedder(**{"documents": lambda texts: np.ones((len(texts), 3)), "name": "f", **arguments})
