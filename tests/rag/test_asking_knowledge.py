"""Asking a knowledge base, on every target: answers are kept, rated, exported, asked again and measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database, col
from vectordb_client.rag import Document, FunctionLLM, KnowledgeBase, WholeDocument
from vectordb_client.rag.asking import AnswerConfig
from vectordb_client.rag.evaluate import EvaluationQuestion
from vectordb_client.rag.telemetry import Telemetry

TOWER = Document("tower", "The tower was finished in 1889. It is 330 metres high.", {"kind": "building"})
RIVER = Document("river", "The river flows through Paris for 13 kilometres.", {"kind": "water"})
SOUP = Document("soup", "Onion soup wants an hour and plenty of butter.", {"kind": "food"})


@pytest.fixture
def kb(db: Database, hashing: Callable[..., Any], llm: Any, endpoint: Any, endpoints: ModuleType) -> KnowledgeBase:
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1].")]
    base = KnowledgeBase(db, "kb", hashing(256), llm, WholeDocument(), guards=())
    base.add([TOWER, RIVER, SOUP], progress=False)
    return base


def test_asking(kb: KnowledgeBase, endpoint: Any) -> None:
    answer = kb.ask("How high is the tower?", limit=2)
    assert (answer.grounded, answer.refused) == (True, False)
    (citation,) = answer.citations
    document = kb.document(citation.document_id)
    assert document is not None
    assert document.text[citation.start : citation.end] == citation.text == TOWER.text
    events = list(kb.ask_stream("How high is the tower?", limit=2))
    assert [event.kind for event in events] == ["passages", "text", "answer"]
    assert events[-1].answer is not None
    assert events[-1].answer.text == answer.text == events[1].text
    filtered = kb.ask("How high is the tower?", where=col("kind") == "water")
    assert [passage.document_id for passage in filtered.passages] == ["river"]
    before = len(endpoint.requests)
    refused = kb.ask("How high is the tower?", min_score=0.99)
    assert (refused.refused, refused.refusal_reason) == (True, "below_min_score")
    assert len(endpoint.requests) == before
    refusals = [one["refusal_reason"] for one in kb.answers(col("refused") == True)]  # noqa: E712
    assert refusals == ["unsupported", "below_min_score"]


def test_feedback_and_export(kb: KnowledgeBase, tmp_path: Path) -> None:
    assert list(kb.answers()) == []
    with pytest.raises(errors.NotFound, match="no answer 'x'"):
        kb.feedback("x", 1)
    first, second = kb.ask("How high is the tower?"), kb.ask("Is the tower high?")
    kb.feedback(first.id, 1, "right")
    kb.feedback(first.id, -1, "on second thoughts")
    kb.feedback(second.id, 0.5)
    with pytest.raises(errors.InvalidArgument, match="rating is a number"):
        kb.feedback(first.id, "good")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match="10000 are kept"):
        kb.feedback(first.id, 1, "x" * 10_001)
    exported = list(kb.answers())
    assert [one["id"] for one in exported] == [first.id, second.id]
    assert [[said["rating"] for said in one["feedback"]] for one in exported] == [[1.0, -1.0], [0.5]]
    assert exported[0]["feedback"][1]["comment"] == "on second thoughts"
    retrieved = exported[0]["trace"]["stages"][0]
    assert retrieved["name"] == "retrieve"
    (search,) = (stage for stage in retrieved["facts"]["plan"] if stage["name"] == "search")
    assert [segment["strategy"] for segment in search["plan"][0]] == ["exact"]
    assert exported[0]["citations"][0]["document_id"] == "tower"
    assert json.loads(json.dumps(exported)) == exported
    path = tmp_path / "answers.jsonl"
    assert kb._desk.store.write(path, col("grounded") == True) == 2  # noqa: E712
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [first.id, second.id]
    # Answers are no documents.
    assert {passage.document_id for passage in kb.retrieve("How high is the tower?", limit=10)} == {
        "tower",
        "river",
        "soup",
    }


def test_replay(kb: KnowledgeBase, endpoint: Any, endpoints: ModuleType) -> None:
    answer = kb.ask("How high is the tower?", limit=2, where=col("kind") != "food", min_score=-1.0)
    same = kb.replay(answer.id)
    assert (same.same_configuration, same.same_passages, same.same_text) == (True, True, True)
    assert endpoint.requests[-1] == endpoint.requests[-2]  # to the letter
    assert same.answer.trace.request == same.before["trace"]["request"]
    assert len(list(kb.answers())) == 1
    kb.add(Document("tower", TOWER.text + " It is painted again.", TOWER.metadata), progress=False)
    endpoint.replies = [endpoints.Reply("The tower is painted again [1].")]
    other = kb.replay(answer.id)
    assert (other.same_configuration, other.same_text) == (True, False)
    assert other.before["text"] == answer.text
    kb.llm = type(kb.llm)("another", base_url=endpoint.url)  # type: ignore[call-arg, misc]
    assert not kb.replay(answer.id).same_configuration


def test_replay_retrieves_as_it_was_asked(memory: Database, hashing: Callable[..., Any]) -> None:
    model = FunctionLLM(lambda _: "The tower is 330 metres high [1].", name="canned")

    def rewrite(question: str) -> list[str]:
        return ["a river"]

    for defaults, asked, same in (
        ({}, {"mode": "hybrid", "neighbours": 1, "diversity": 0.5}, True),
        ({"mode": "text"}, {"mode": "vector", "min_score": None}, True),
        ({"rewrite": rewrite, "fusion": {"weights": [0.5, 0.5]}}, {}, True),
        ({}, {"rewrite": rewrite}, False),  # a function cannot be kept
    ):
        answering = AnswerConfig(options={"retrieval": defaults})
        base = KnowledgeBase(memory, "kb", hashing(256), model, WholeDocument(), answering=answering)
        base.add([TOWER, RIVER, SOUP], progress=False)
        given = {"retrieval": asked} if asked else {}
        replay = base.replay(base.ask("How high is the tower?", **given).id)
        assert replay.same_configuration == same


def test_a_row_policy_that_hides_the_state_is_told(memory: Database, hashing: Callable[..., Any]) -> None:
    bound = memory.with_policy(col("kind") == "food")
    assert KnowledgeBase(bound, "kb", hashing()).retrieve("soup") == []
    KnowledgeBase(memory, "kb", hashing()).add(SOUP, progress=False)
    base = KnowledgeBase(bound, "kb", hashing())
    for call in (lambda: base.retrieve("soup"), base.documents, lambda: base.add(SOUP, progress=False)):
        with pytest.raises(errors.FailedPrecondition, match=r"a row policy hides it; .* by where="):
            call()
    seen = KnowledgeBase(memory.with_policy(col("kind") != "water"), "kb", hashing())
    assert [passage.document_id for passage in seen.retrieve("soup")] == ["soup"]


def test_nothing_is_kept_unless_wanted(memory: Database, hashing: Callable[..., Any], llm: Any) -> None:
    base = KnowledgeBase(memory, "kb", hashing(), llm, guards=(), answering=AnswerConfig(keep=False))
    base.add([TOWER], progress=False)
    answer = base.ask("How high is the tower?")
    assert list(base.answers()) == []
    assert "kb.answers" not in memory.list_collections()
    with pytest.raises(errors.NotFound):
        base.replay(answer.id)


def test_without_a_model(memory: Database, hashing: Callable[..., Any]) -> None:
    base = KnowledgeBase(memory, "kb", hashing())
    with pytest.raises(errors.FailedPrecondition, match="has no language model; give it one"):
        base.ask("How?")
    with pytest.raises(errors.FailedPrecondition):
        base.ask_stream("How?")


def test_evaluating(kb: KnowledgeBase, endpoint: Any, endpoints: ModuleType) -> None:
    def reply(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        if "soup" in text.partition("Question:")[2]:
            return endpoints.Reply("Onion soup wants butter [2].")
        return endpoints.Reply("The tower is 330 metres high [1].")

    endpoint.replies = reply
    questions = [
        EvaluationQuestion("a", "How high is the tower?", {"tower": 1.0}, ("330 metres",)),
        {"text": "Onion soup wants what?", "relevant": ["soup"], "answers": ["butter", "an hour"]},
        "zebra quagga okapi",
    ]
    retrieval = kb.evaluate(questions, answers=False, min_score=0.2)
    assert retrieval.retrieval == {"nDCG@10": 1.0, "RR@10": 1.0, "R@1": 1.0, "R@5": 1.0, "R@10": 1.0}
    assert retrieval.refusals == {"recall": 1.0, "precision": 1.0, "answerable_refused": 0.0}
    assert retrieval.answers == {}
    assert endpoint.requests == []
    whole = kb.evaluate(questions, min_score=0.2, limit=2)
    assert len(endpoint.requests) == 2
    assert list(kb.answers()) == []
    assert whole.refusals == retrieval.refusals
    figures = whole.answers
    assert figures["answered"] == pytest.approx(2 / 3)
    assert figures["contains"] == 1.0
    assert figures["exact_match"] == 0.0
    assert figures["token_f1"] == pytest.approx((2 * 2 / (2 + 5) + 2 * 1 / (1 + 4)) / 2)
    assert (figures["faithfulness"], figures["grounded"], figures["citation_recall"]) == (1.0, 1.0, 1.0)
    assert figures["citation_precision"] == 1.0
    assert "refusals:  recall 1.000" in str(whole)
    assert "rows" not in whole.as_dict()
    with pytest.raises(errors.InvalidArgument, match=r"questions\[0\] is int"):
        kb.evaluate([3])
    with pytest.raises(errors.InvalidArgument, match="questions is empty"):
        kb.evaluate([])


def test_spans_hold_content_only_when_asked(
    memory: Database, hashing: Callable[..., Any], llm: Any, endpoint: Any
) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    for content in (False, True):
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        telemetry = Telemetry(provider.get_tracer("test"), content=content)
        base = KnowledgeBase(memory, "kb", hashing(256), llm, guards=(), answering=AnswerConfig(telemetry=telemetry))
        base.add([TOWER], progress=False)
        answer = base.ask("How high is the tower?", min_score=0.0)
        spans = {span.name: span for span in exporter.get_finished_spans()}
        assert set(spans) == {"invoke_workflow ask", "retrieval kb", "prompt", "chat scripted", "check"}
        top = spans["invoke_workflow ask"]
        assert top.attributes is not None
        assert top.attributes["vectordb.answer.id"] == answer.id
        chat = spans["chat scripted"]
        assert chat.attributes is not None
        assert chat.attributes["gen_ai.operation.name"] == "chat"
        assert chat.attributes["gen_ai.request.model"] == "scripted"
        assert chat.attributes["gen_ai.usage.input_tokens"] == 100
        assert chat.parent is not None
        assert chat.parent.span_id == top.context.span_id
        everything = json.dumps([dict(span.attributes or {}) for span in spans.values()])
        assert ("How high" in everything) is content
        assert (answer.text in everything) is content


def test_an_answer_from_whole_documents_is_kept(db: Database, hashing: Callable[..., Any]) -> None:
    """Its passages are more than the metadata of one record may hold."""
    model = FunctionLLM(lambda _: "The tower is 330 metres high [1].", name="canned", context_tokens=10_000_000)
    base = KnowledgeBase(db, "long", hashing(64, max_tokens=None), model, WholeDocument(), guards=())
    long = [Document(f"d{n}", "The tower is 330 metres high. " * 20_000 + str(n)) for n in range(4)]
    base.add([*long, TOWER], progress=False)
    answer = base.ask("How high is the tower?", where=col("kind").is_null())
    short = base.ask("How high is the tower?", where=col("kind") == "building")
    assert len(answer.passages) == 4
    base.feedback(answer.id, np.float32(1))
    kept = list(base.answers())
    assert [one["id"] for one in kept] == [answer.id, short.id]
    assert [one["rating"] for one in kept[0]["feedback"]] == [1.0]
    assert [one["text"] for one in kept[0]["passages"]] == [passage.text for passage in answer.passages]
    assert base.replay(answer.id).same_text


def test_half_characters_do_not_cost_the_answer(memory: Database, hashing: Callable[..., Any]) -> None:
    model = FunctionLLM(lambda _: "The tower is 330 metres \ud83d high [1].", name="canned")
    base = KnowledgeBase(memory, "kb", hashing(256), model, WholeDocument(), guards=())
    base.add(TOWER, progress=False)
    assert base.ask("How high is the tower?").text == "The tower is 330 metres \ufffd high [1]."
    events = list(base.ask_stream("How high is the tower?"))
    assert events[-1].answer is not None
    assert events[-1].answer.text == "The tower is 330 metres \ufffd high [1]."
    assert len(list(base.answers())) == 2
    for call in (base.ask, base.retrieve):
        with pytest.raises(errors.InvalidArgument, match="question holds a lone surrogate at 5") as caught:
            call("High \ud83d?")
        assert caught.value.field == "question"


@pytest.mark.parametrize("rating", [float("nan"), float("inf"), 10**400, True, "5"])
def test_a_rating_that_is_no_number_is_refused(memory: Database, hashing: Callable[..., Any], rating: Any) -> None:
    base = KnowledgeBase(memory, "kb", hashing(), FunctionLLM(lambda _: "It is.", name="canned"))
    answer = base.ask("How high is the tower?")
    with pytest.raises(errors.InvalidArgument, match="rating is a number"):
        base.feedback(answer.id, rating)


def test_what_the_model_alone_answers_is_not_measured_as_faithful(
    memory: Database, hashing: Callable[..., Any]
) -> None:
    pytest.importorskip("ir_measures")
    base = KnowledgeBase(memory, "kb", hashing(), FunctionLLM(lambda _: "It is blue.", name="canned"))
    base.add(TOWER, progress=False)
    found = base.evaluate(["What is blue?"], below="fallback_llm", min_score=1.0, progress=False)
    assert found.answers.keys() == {"answered", "grounded", "most_sources_a_sentence", "median_ms"}


def test_grades_of_nothing_are_no_answers(memory: Database, hashing: Callable[..., Any]) -> None:
    """Judgements list by 0 what was looked at and does not answer; by hand: of ranks 1 to 3 only the second counts."""
    pytest.importorskip("ir_measures")
    base = KnowledgeBase(memory, "kb", hashing(256), chunker=WholeDocument())
    texts = {"a": "tower tower tower", "b": "tower tower river", "c": "soup"}
    base.add([Document(name, text) for name, text in texts.items()], progress=False)
    judged = {"text": "tower", "relevant": {"a": 0, "b": 2, "c": -1}}
    found = base.evaluate([judged, {"text": "soup", "relevant": {"c": 0}}], progress=False)
    assert [row.question.relevant for row in found.rows] == [{"b": 2}, {}]
    assert found.rows[0].documents == ("a", "b", "c")
    assert found.retrieval["RR@10"] == pytest.approx(0.5)
    assert found.retrieval["nDCG@10"] == pytest.approx(1 / math.log2(3))
    assert (found.retrieval["R@1"], found.retrieval["R@5"]) == (0.0, 1.0)
    for grade in (float("nan"), float("inf"), 10**400, 1e9, True, "1"):
        with pytest.raises(errors.InvalidArgument, match=r"as a grade of relevant; grades are numbers up to 1000"):
            base.evaluate([{"text": "tower", "relevant": {"a": grade}}], progress=False)
