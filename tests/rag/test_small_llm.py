"""A real language model, small and in this process: what no scripted endpoint can show. About 20 s on one core."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vectordb import errors
from vectordb_client import connect
from vectordb_client.rag import Document, KnowledgeBase, WholeDocument
from vectordb_client.rag.asking import AnswerConfig
from vectordb_client.rag.llm import LLM, LlamaCpp, Message, Role
from vectordb_client.rag.metrics import contains
from vectordb_client.rag.prompt import build
from vectordb_client.rag.templates import ANSWER, SMALL

OPTIONS = {"template": SMALL, "limit": 2, "max_tokens": 40}
COLOURS = [Message(Role.USER, "Name three colours.")]


@pytest.fixture(scope="module")
def small() -> Iterator[LlamaCpp]:
    with LlamaCpp(timeout=240.0) as model:
        yield model


@pytest.fixture(scope="module")
def kb(small: LlamaCpp, minilm: Any, xquad: Any) -> Iterator[KnowledgeBase]:
    with connect(":memory:") as db:
        answering = AnswerConfig(options=OPTIONS)
        base = KnowledgeBase(db, "kb", minilm, small, WholeDocument(), guards=(), answering=answering)
        base.add([Document(d["id"], d["text"], d["metadata"]) for d in xquad.documents[:40]], progress=False)
        yield base


def test_one_seed_one_text(small: LlamaCpp) -> None:
    assert isinstance(small, LLM)
    first = small.complete(COLOURS, max_tokens=20, seed=1)
    small.complete([Message(Role.USER, "Something else.")], max_tokens=5)
    again = small.complete(COLOURS, max_tokens=20, seed=1)
    assert first == again
    assert first.finish_reason == "length"
    assert first.usage.completion_tokens == 20
    pieces = list(small.stream(COLOURS, max_tokens=20, seed=1))
    assert len(pieces) > 5
    assert pieces[-1].completion is not None
    assert pieces[-1].completion.text == first.text


def test_its_tokens_are_counted_exactly_and_prompts_from_above(small: LlamaCpp, kb: KnowledgeBase) -> None:
    assert small.count_tokens("Hello world") == 2
    passages = kb.retrieve("Where was the Summer Theatre located?", limit=3)
    for template in (ANSWER, SMALL):
        prompt = build(template, "Where was the theatre?", passages, small, max_tokens=1, seed=0)
        used = small.complete(prompt.messages, max_tokens=1).usage.prompt_tokens
        assert used is not None
        assert used <= prompt.tokens <= used + 60


def test_limits(small: LlamaCpp) -> None:
    with pytest.raises(errors.ResourceExhausted, match="context"):
        small.complete([Message(Role.USER, "word " * 4000)])
    with pytest.raises(errors.DeadlineExceeded):
        small.complete([Message(Role.USER, "Tell a long story.")], max_tokens=1500, timeout=0.5)
    # The cancelled call does not go on computing: the next one is not behind it.
    assert small.complete(COLOURS, max_tokens=3).text


def test_nobody_else_can_use_its_port(small: LlamaCpp) -> None:
    request = urllib.request.Request(f"{small.address}chat/completions", b"{}", {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 401
    caught.value.close()


def test_context_helps_and_every_source_is_verbatim(kb: KnowledgeBase, xquad: Any) -> None:
    answered = cited = held = 0
    for number in (1, 5, 9, 29, 37, 49):
        question, place = xquad.questions[number], xquad.relevant[number]
        answer = kb.ask(question["text"], seed=0)
        held += contains(answer.text, question["answers"]) if not answer.refused else 0
        if answer.refused:
            continue
        answered += 1
        cited += xquad.documents[place]["id"] in {citation.document_id for citation in answer.citations}
        assert answer.citations
        for citation in answer.citations:
            document = kb.document(citation.document_id)
            assert document is not None
            assert document.text[citation.start : citation.end] == citation.text
    # Weak as it is, it answers some of them from the text, and what it says is traced to the right paragraph.
    assert answered >= 3
    assert held >= 2
    assert cited >= answered - 1


def test_a_stream_gives_the_same_answer(kb: KnowledgeBase) -> None:
    question = "How long was the Summer Theatre in operation?"
    whole = kb.ask(question)
    *_, last = events = list(kb.ask_stream(question))
    assert last.answer is not None
    assert last.answer.text == whole.text
    assert "".join(event.text for event in events) == whole.text
    assert kb.replay(whole.id).same_text


def test_files(tmp_path: Path, small: LlamaCpp) -> None:
    with pytest.raises(errors.NotFound, match="no model file"):
        LlamaCpp(tmp_path / "missing.gguf")
    (tmp_path / "broken.gguf").write_bytes(os.urandom(1000))
    with pytest.raises(errors.FailedPrecondition, match="cannot load"):
        LlamaCpp(tmp_path / "broken.gguf")


def test_closed() -> None:
    model = LlamaCpp()
    model.close()
    with pytest.raises(errors.Unavailable):
        model.complete(COLOURS, timeout=5.0)
