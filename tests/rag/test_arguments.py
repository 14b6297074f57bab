"""What a knowledge base is given: parts, lists, options and sources of a wrong type are told by name, at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database, col
from vectordb_client.rag import (
    AnswerConfig,
    Document,
    EvaluationQuestion,
    FunctionLLM,
    KnowledgeBase,
    MiniLM,
    Section,
    WholeDocument,
)
from vectordb_client.rag.asking import Options
from vectordb_client.rag.evaluate import as_question
from vectordb_client.rag.guards import MaxLength
from vectordb_client.rag.retrieval import RetrievalOptions

TOWER = Document("tower", "The tower is 330 metres high.")
RIVER = Document("river", "The river flows through Paris.")
QUESTION = "How high is the tower?"


@pytest.fixture
def kb(memory: Database, hashing: Callable[..., Any]) -> KnowledgeBase:
    model = FunctionLLM(lambda messages: "The tower is 330 metres high [1].", name="canned")
    base = KnowledgeBase(memory, "kb", hashing(256), model, WholeDocument(), guards=())
    base.add([TOWER, RIVER], progress=False)
    return base


# The parts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedder": "all-MiniLM-L6-v2"}, r"embedder is a model .* got str 'all-MiniLM-L6-v2'"),
        ({"embedder": lambda texts: texts}, r"as FunctionEmbedder\(fn, name=\.\.\.\); got function"),
        ({"embedder": MiniLM}, r"embedder is the class MiniLM; give one of it: MiniLM\(\.\.\.\)"),
        ({"llm": "gpt-4"}, "llm is a model .* got str 'gpt-4'"),
        ({"llm": lambda prompt: "x"}, r"as FunctionLLM\(fn, name=\.\.\.\); got function"),
        ({"llm": object()}, r"got object .* \(it has no name, context_tokens, count_tokens, complete, stream\)"),
        ({"chunker": "token"}, r"chunker is a strategy such as TokenChunker\(\); got str 'token'"),
        ({"reranker": "cross-encoder"}, "reranker is a model"),
        ({"guards": ["max_length"]}, "guards are objects with name, stages and check, got str"),
        ({"guards": [lambda stage, text: True]}, "guards are objects .* got function"),
        ({"guards": [MaxLength]}, "guards are objects .* got the class MaxLength"),
        ({"guards": MaxLength()}, "guards is a list of guards"),
        ({"answering": {"keep": False}}, "answering is an AnswerConfig"),
        ({"answering": AnswerConfig(judge="strict")}, "judge is a judge"),  # type: ignore[arg-type]
        ({"answering": AnswerConfig(verifier=5)}, "verifier is a judge"),  # type: ignore[arg-type]
        ({"answering": AnswerConfig(telemetry=True)}, "telemetry is a Telemetry"),  # type: ignore[arg-type]
        ({"answering": AnswerConfig(options=5)}, "options is a mapping"),  # type: ignore[arg-type]
        ({"answering": AnswerConfig(options={"tempo": 1})}, "asking has no option 'tempo'"),
        ({"config": "hnsw"}, "config is a mapping"),
        ({"config": {"metric": "l2"}}, "config has 'metric'; a knowledge base compares by cosine"),
        ({"config": {"dim": 5}}, "config has 'dim'; it is the embedder's"),
        ({"config": {"name": "x"}}, "config has 'name'"),
        ({"name": "my notes"}, r"name is a string of 1 to 200 characters, .* got 'my notes'"),
        ({"name": "K\u00f6ln"}, "name is a string"),
        ({"name": "a" * 201}, "name is a string"),
        ({"name": ""}, "name is a string"),
        ({"db": "./kb"}, r"db is what connect\(\) returns"),
    ],
)
def test_a_part_that_is_none_is_told_when_the_knowledge_base_is_made(
    memory: Database, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=message):
        KnowledgeBase(**{"db": memory, "name": "kb", **arguments})
    assert memory.list_collections() == []


def test_a_model_that_is_set_later_is_checked_when_it_is_asked(kb: KnowledgeBase) -> None:
    kb.llm = "gpt-4"  # type: ignore[assignment]
    with pytest.raises(errors.InvalidArgument, match="llm is a model"):
        kb.ask(QUESTION)
    with pytest.raises(errors.InvalidArgument, match="embedder is a model"):
        kb.migrate("x")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match="chunker is a strategy"):
        kb.migrate(MiniLM(), chunker="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["answers", "documents", "state", "g2", "g2.documents"])
def test_names_that_a_knowledge_base_gives_its_own_collections_are_refused(memory: Database, ending: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"ends in .* calls a collection of its own") as caught:
        KnowledgeBase(memory, f"k.{ending}")
    assert caught.value.field == "name"


@pytest.mark.parametrize("name", ["answers", "documents", "g2", "k.answered", "k-state", "k.g", "my.notes", "a" * 200])
def test_other_names_are_free(memory: Database, name: str) -> None:
    assert KnowledgeBase(memory, name).name == name


def test_a_filter_of_documents_may_be_json(kb: KnowledgeBase) -> None:
    kb.add(Document("old", "The old bridge.", {"year": 1607}), progress=False)
    for where in (col("year") < 1700, {"field": "year", "op": "<", "value": 1700}, '{"field": "year", "op": "exists"}'):
        assert [entry.id for entry in kb.documents(where)] == ["old"]


# Lists and strings


def test_a_string_is_no_list_of_its_characters(kb: KnowledgeBase, hashing: Callable[..., Any]) -> None:
    for call, field in (
        (lambda: kb.calibrate("How high?", ["who", "why"]), "answerable"),
        (lambda: kb.calibrate(["How high?", "Where?"], "who"), "foreign"),
        (lambda: kb.evaluate("Who?"), "questions"),
        (lambda: kb.evaluate({"text": "Who?"}), "questions"),  # type: ignore[arg-type]
        (lambda: kb.evaluate(None), "questions"),  # type: ignore[arg-type]
        (lambda: kb.migrate(hashing(name="new"), questions="Who?"), "questions"),
        (lambda: kb.remove(5), "ids"),  # type: ignore[arg-type]
        (lambda: kb.remove(None), "ids"),  # type: ignore[arg-type]
        (lambda: kb.remove(["tower", 5]), "ids"),  # type: ignore[list-item]
    ):
        with pytest.raises(errors.InvalidArgument) as caught:
            call()
        assert caught.value.field == field
    assert len(kb.documents()) == 2


def test_one_relevant_document_may_be_a_string() -> None:
    question = as_question({"text": QUESTION, "relevant": "tower", "answers": "330 metres"})
    assert question == EvaluationQuestion("0", QUESTION, {"tower": 1.0}, ("330 metres",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": QUESTION, "relevant": [None]}, "has None in relevant"),
        ({"text": QUESTION, "relevant": 5}, "has 5 as relevant"),
        ({"text": QUESTION, "relevant": {"tower": "high"}}, "has 'high' as a grade"),
        ({"text": QUESTION, "answers": [5]}, r"has \(5,\) as answers"),
        ({"text": " ", "relevant": ["tower"]}, "has no text"),
        (EvaluationQuestion("a", QUESTION, "tower"), "has 'tower' as relevant; give a mapping"),  # type: ignore[arg-type]
        (EvaluationQuestion("a", QUESTION, {"tower": 1.0}, "330"), "has '330' as answers"),  # type: ignore[arg-type]
    ],
)
def test_a_question_of_wrong_types_is_named(given: Any, message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=rf"questions\[3\] {message}"):
        as_question(given, 3)


def test_evaluating_names_its_own_options_too(kb: KnowledgeBase) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"no option 'depht'; .*, answers, depth, progress"):
        kb.evaluate(["Who?"], depht=3)
    with pytest.raises(errors.InvalidArgument, match="depth is a whole number, at least 1, got 0"):
        kb.evaluate(["Who?"], depth=0)
    with pytest.raises(errors.InvalidArgument, match="answers is True or False, got 'no'"):
        kb.evaluate(["Who?"], answers="no")


# Questions and options


@pytest.mark.parametrize("question", [None, 5, "", "  ", ["a"]], ids=str)
def test_what_is_no_question_is_not_asked(kb: KnowledgeBase, question: Any) -> None:
    guarded = KnowledgeBase(kb.db, "kb", kb.embedder, kb.llm, guards=[MaxLength()])
    for base in (kb, guarded):
        for call in (base.ask, base.ask_stream, base.retrieve):
            with pytest.raises(errors.InvalidArgument, match="question is a text that is not empty"):
                call(question)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "5"}, "timeout is seconds greater than 0, or None, got '5'"),
        ({"timeout": True}, "timeout is seconds"),
        ({"temperature": "x"}, "temperature is a number, at least 0, got 'x'"),
        ({"temperature": -1}, "temperature is a number, at least 0, got -1"),
        ({"seed": "a"}, "seed is a whole number, got 'a'"),
        ({"seed": 0.5}, "seed is a whole number"),
        ({"min_score": float("nan")}, "min_score is a number, .* got nan"),
        ({"min_score": "0.5"}, "min_score is a number, .* got '0.5'"),
        ({"add_citations": "no"}, "add_citations is True or False, got 'no'"),
        ({"template": "Answer: {q}"}, "template is a PromptTemplate"),
        ({"retrieval": "hybrid"}, "retrieval is a mapping, such as .* got 'hybrid'"),
        ({"refusals": "no"}, "refusals is a mapping, such as .* got 'no'"),
        ({"refusals": {"toxicity": None}}, r"refusals\['toxicity'\] is a string, got None"),
        ({"limit": "3"}, "limit is a whole number, at least 1, got '3'"),
    ],
)
def test_an_option_of_asking_of_a_wrong_type_is_named(kb: KnowledgeBase, options: dict[str, Any], message: str) -> None:
    for call in (kb.ask, kb.ask_stream):
        with pytest.raises(errors.InvalidArgument, match=message) as caught:
            call(QUESTION, **options)
        assert caught.value.field == next(iter(options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "1"}, "timeout is seconds, at least 0, or None for no bound, got '1'"),
        ({"timeout": -1}, "timeout is seconds, at least 0"),
        ({"diversity": "x"}, "diversity is from 0 to 1, got 'x'"),
        ({"diversity": float("nan")}, "diversity is from 0 to 1, got nan"),
        ({"min_score": "0.5"}, "min_score is a number"),
        ({"min_score": float("nan")}, "min_score is a number"),
        ({"rerank": "no"}, "rerank is True or False"),
        ({"exact": 1}, "exact is True or False"),
    ],
)
def test_an_option_of_retrieval_of_a_wrong_type_is_named(
    kb: KnowledgeBase, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=message):
        kb.retrieve(QUESTION, **options)


def test_numbers_of_numpy_are_numbers() -> None:
    options = Options(min_score=np.float32(0.5), limit=np.int64(3), seed=np.int64(4))  # type: ignore[arg-type]
    assert (options.min_score, options.limit, options.seed) == (0.5, 3, 4)
    assert {type(value) for value in (options.min_score, options.limit, options.seed)} == {int, float}
    assert type(RetrievalOptions(limit=np.int64(3)).limit) is int  # type: ignore[arg-type]


def test_a_comment_is_a_string(kb: KnowledgeBase) -> None:
    answer = kb.ask(QUESTION)
    for comment in (None, 5):
        with pytest.raises(errors.InvalidArgument, match=f"comment is a string, got {comment}"):
            kb.feedback(answer.id, 1, comment)  # type: ignore[arg-type]


def test_none_is_the_knowledge_base_s_threshold_and_minus_one_no_bound(
    memory: Database, hashing: Callable[..., Any]
) -> None:
    embedder = hashing(256)
    embedder.min_score = 0.99
    model = FunctionLLM(lambda messages: "The tower is 330 metres high [1].", name="canned")
    kb = KnowledgeBase(memory, "kb", embedder, model, WholeDocument(), guards=())
    kb.add([TOWER, RIVER], progress=False)
    for options in ({}, {"min_score": None}):
        answer = kb.ask(QUESTION, **options)
        assert (answer.refusal_reason, answer.trace.request["min_score"]) == ("below_min_score", 0.99)
    assert kb.ask(QUESTION, min_score=-1.0).grounded
    assert kb.replay(kb.ask(QUESTION, min_score=-1.0).id).same_text
    # Passages alone are not bounded unless asked to be.
    assert len(kb.retrieve(QUESTION)) == len(kb.retrieve(QUESTION, min_score=None)) == 2


# Sources


@pytest.mark.parametrize("sources", ["", ["tower.txt", ""]])
def test_an_empty_path_is_not_the_current_folder(
    kb: KnowledgeBase, sources: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("Nobody asked for this.")
    with pytest.raises(errors.InvalidArgument, match=r'is an empty path; write "\." for this folder'):
        kb.add(sources, progress=False)
    assert {entry.id for entry in kb.documents()} == {"river", "tower"}
    assert kb.add(".", progress=False).added == ("secret.txt",)


def test_a_mapping_is_no_list_of_paths(kb: KnowledgeBase) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"sources is a mapping, .* write Document\(id=\.\.\."):
        kb.add({"id": "a", "text": "b"}, progress=False)
    with pytest.raises(errors.InvalidArgument, match=r"sources\[0\] is a path or a Document, got dict; write Document"):
        kb.add([{"id": "a", "text": "b"}], progress=False)


def test_documents_of_wrong_types_fail_alone(kb: KnowledgeBase) -> None:
    bad: list[Any] = [
        Document("a", None),  # type: ignore[arg-type]
        Document("b", "text", "a"),  # type: ignore[arg-type]
        Document("c", "text", {"x": object()}),
        Document("d", "text", {}, None),  # type: ignore[arg-type]
        Document("e", "text", {}, (Section(0, "page"),)),  # type: ignore[arg-type]
        Document(5, "text"),  # type: ignore[arg-type]
    ]
    report = kb.add([*bad, Document("fine", "text")], progress=False)
    assert report.added == ("fine",)
    assert [(failure.source, failure.reason.partition(";")[0]) for failure in report.failed] == [
        ("a", "needs an id and a text, both strings, the id not empty"),
        ("b", "has str as metadata"),
        ("c", "cannot be stored: metadata field 'x' is a object"),
        ("d", "has something else than Section(start, metadata) as sections"),
        ("e", "has something else than Section(start, metadata) as sections"),
        ("5", "needs an id and a text, both strings, the id not empty"),
    ]


def test_metadata_of_documents_are_those_of_records(kb: KnowledgeBase) -> None:
    identity = UUID(int=7)
    given = {
        "n": np.int64(3),
        "x": np.float32(0.5),
        "yes": np.bool_(True),
        "pair": (1, np.int8(2)),
        "id": identity,
        "day": date(2026, 1, 31),
    }
    document = Document("d", "text", given, (Section(0, {"page": np.int32(4)}),))
    assert kb.add(document, progress=False).failed == ()
    kb.db.create_collection("same", dim=1).upsert(["d"], metadata=[given])
    (record,) = kb.db["same"].get(["d"])
    (entry,) = kb.documents(col("n") == 3)
    assert entry.metadata == record.metadata
    assert kb.retrieve("text", where=col("page") == 4)[0].metadata == {**(record.metadata or {}), "page": 4}
    plain = Document("d", "text", dict(record.metadata or {}), (Section(0, {"page": 4}),))
    assert kb.add(plain, progress=False).unchanged == ("d",)
