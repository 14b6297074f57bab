"""Documents that give orders: what the model is told stays what it was, and no forged citation is accepted."""

from __future__ import annotations

import re
import unicodedata
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectordb_client.rag.answering import Answerer
from vectordb_client.rag.asking import Options
from vectordb_client.rag.fence import mark_for, neutralised
from vectordb_client.rag.llm import OpenAICompatible
from vectordb_client.rag.retrieval import RetrievalOptions, Retrieved
from vectordb_client.rag.support import Overlap
from vectordb_client.rag.templates import ANSWER, SMALL
from vectordb_client.rag.types import Passage

GOOD = "The tower was finished in 1889 and is 330 metres high."
QUESTION = "How high is the tower?"
KINDS = [
    "plain", "polite", "system_role", "chatml", "llama2", "llama3", "gemma", "deepseek", "fake_end", "fake_end_guess",
    "fake_passage", "fake_citation", "fullwidth_citation", "zero_width", "bidirectional", "tag_characters", "template",
    "markdown", "html", "json",
]  # fmt: skip


def answerer(llm: OpenAICompatible, *texts: str) -> Answerer:
    """Answers from just these passages."""
    passages = tuple(Passage(f"d{n}", f"d{n}#0", text, 0.9, 0, len(text), n) for n, text in enumerate(texts, 1))

    def retrieve(question: str, options: RetrievalOptions) -> Retrieved:
        return Retrieved(passages, (question,), (), 0.9)

    return Answerer(retrieve, llm, Overlap())


def outside(body: dict[str, Any]) -> tuple[list[str], str]:
    """All messages without what stands in the fence, the mark left out; and what stood in it."""
    text = "\n\x00".join(message["content"] for message in body["messages"])
    marks = re.findall(r"<data ([0-9a-f]{12})>\n", text)
    assert len(marks) == 1
    mark = marks[0]
    begin, end = text.index(f"<data {mark}>\n"), text.rindex(f"</data {mark}>")
    inside = text[begin:end]
    return (text[:begin] + "FENCE" + text[end:]).replace(mark, "MARK").split("\x00"), inside


def test_all_kinds_are_tested(hostile: dict[str, str]) -> None:
    assert sorted(hostile) == sorted(KINDS)
    assert len(KINDS) == 20


@pytest.mark.parametrize("template", [ANSWER, SMALL], ids=["answer", "small"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_instructions_are_untouched(
    kind: str, template: Any, hostile: dict[str, str], endpoint: Any, endpoints: ModuleType, llm: OpenAICompatible
) -> None:
    options = Options(template=template)
    answerer(llm, GOOD, GOOD).answer(QUESTION, options)
    harmless, _ = outside(endpoint.requests[-1])
    # The most an author can know: the mark that the same question had with the text before.
    seen = re.findall(r"<data ([0-9a-f]{12})>", endpoint.prompt())[0]
    answerer(llm, GOOD, hostile[kind].replace("{mark}", seen)).answer(QUESTION, options)
    body = endpoint.requests[-1]
    attacked, inside = outside(body)
    assert attacked == harmless
    assert [message["role"] for message in body["messages"]] == [m["role"] for m in endpoint.requests[0]["messages"]]
    # Within the fence there is nothing that a chat template or a reader could take for a turn, a passage or a citation.
    assert not re.search(
        r"<\||\|>|<\uff5c|</?s>|\[/?INST\]|<</?SYS|_of_turn>(?<!< end_of_turn>)(?<!< start_of_turn>)", inside
    )
    assert re.findall(r"\[\d+\]", inside) == ["[1]", "[2]"]
    assert not [c for c in inside if unicodedata.category(c) == "Cf"]
    assert GOOD in inside


@pytest.mark.parametrize("kind", KINDS)
def test_no_forged_citation_is_accepted(
    kind: str, hostile: dict[str, str], endpoint: Any, endpoints: ModuleType, llm: OpenAICompatible
) -> None:
    # A model that was taken in: it repeats the text and cites whatever it was told to.
    obeyed = f"{hostile[kind]} The tower is made of cheese [1][2][7]. The tower is 330 metres high [1]."
    endpoint.replies = [endpoints.Reply(" ".join(obeyed.split()))]
    answer = answerer(llm, GOOD, "Another text about something else.").answer(QUESTION, Options(add_citations=False))
    assert not answer.grounded
    assert {citation.marker for citation in answer.citations} <= {1}
    for citation in answer.citations:
        assert citation.text == GOOD
    for sentence in re.split(r"(?<=[.?!])\s", answer.text):
        if "[1]" in sentence:
            assert "330 metres" in sentence, sentence
    assert not re.search(r"\[[2-9]\]", answer.text)


def test_joiners_and_accents_stay() -> None:
    for text in (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "caf\u00e9 \U0001f468\u200d\U0001f469",
        "a < b > c",
        "x[0] = 1 | 2",
    ):
        assert neutralised(text).text == text.replace("[0]", "(0)")


@given(st.lists(st.text(max_size=60), max_size=5), st.integers(0, 3))
def test_the_mark_stands_in_none_of_the_texts(texts: list[str], seed: int) -> None:
    mark = mark_for(texts, seed)
    assert re.fullmatch("[0-9a-f]{12}", mark)
    assert not any(mark in text.lower() for text in texts)
    assert mark == mark_for(texts, seed)
    # A text that holds the mark changes the mark.
    assert mark_for([*texts, mark], seed) != mark
    assert mark_for([*texts, mark.upper()], seed) != mark


@given(st.text(alphabet="<>|/[]() sdataINSTYim_startedn1234567,\u3010\u3011\uff5c\u200b", max_size=60))
def test_what_was_neutralised_stays_so(text: str) -> None:
    once = neutralised(text).text
    assert not re.search(r"<\||\|>|<\uff5c|[\[\u3010]\s*\d{1,4}\s*[\]\u3011]|</?s>|<im_start>?\||\u200b", once)
