"""Citations: parsing what models write, deciding what holds, and writing it back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectordb_client.rag.citations import MAX_SOURCES, Cited, Sentence, citations, decide, parse, relevant, rendered
from vectordb_client.rag.types import Passage


def support(*rows: list[float]) -> Any:
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The tower is tall [1].", [("The tower is tall.", (1,))]),
        ("The tower is tall. [1]", [("The tower is tall.", (1,))]),
        ("The tower is tall.[1] It is old.[2]", [("The tower is tall.", (1,)), ("It is old.", (2,))]),
        ("[3] The tower is tall.", [("The tower is tall.", (3,))]),
        ("It is tall [1][2] and old [1, 3].", [("It is tall and old.", (1, 2, 3))]),
        ("It is tall [1-3].", [("It is tall.", (1, 2, 3))]),
        ("It is tall [1\u20132; 7].", [("It is tall.", (1, 2, 7))]),
        ("It is tall [1-900].", [("It is tall.", (1, 900))]),
        ("See [Smith] and [a1].", [("See [Smith] and [a1].", ())]),
        ("Dr. Smith built it in 1889 [2]. Why?", [("Dr. Smith built it in 1889.", (2,)), ("Why?", ())]),
        (
            "\u5854\u5f88\u9ad8\u3002[1]\u5f88\u8001\u3002[2]",
            [("\u5854\u5f88\u9ad8\u3002", (1,)), ("\u5f88\u8001\u3002", (2,))],
        ),
        ("", []),
        ("  \n ", []),
        ("[1]", []),
    ],
)
def test_parsing(text: str, expected: list[tuple[str, tuple[int, ...]]]) -> None:
    assert [(sentence.text, sentence.cited) for sentence in parse(text)] == expected


def test_paragraphs_stay_paragraphs() -> None:
    first, second, third = parse("One tower. Two towers.\n\nThree towers.")
    assert (first.gap, second.gap, third.gap) == ("", " ", "\n\n")
    assert rendered([Cited(first), Cited(second), Cited(third)]) == "One tower. Two towers.\n\nThree towers."


def test_what_claims_something() -> None:
    claims = [
        sentence.claims for sentence in parse("It is tall. Is it? Here is what is known:\n\nAnswer: it is so. 1889.")
    ]
    assert claims == [True, False, False, False, True]


def test_only_supported_markers_of_known_passages_are_accepted() -> None:
    sentences = parse("It is tall [1]. It is old [2]. It is red [9]. It is new [1][2][3].")
    rows = support([0.9, 0.1, 0.1], [0.9, 0.1, 0.1], [0.2, 0.1, 0.1], [0.6, 0.7, 0.8])
    found = decide(sentences, rows, 0.5)
    assert [one.accepted for one in found] == [(1,), (), (), (3, 2)]
    assert [one.unsupported for one in found] == [(), (2,), (), (1,)]
    assert [one.unknown for one in found] == [(), (), (9,), ()]
    assert [one.grounded for one in found] == [True, False, False, True]
    assert rendered(found) == "It is tall [1]. It is old. It is red. It is new [2][3]."


def test_sources_are_added_where_a_passage_supports_the_sentence() -> None:
    sentences = parse("It is tall. It is old [2]. Why? It is red.")
    rows = support([0.8, 0.75, 0.79], [0.2, 0.3, 0.9], [0.9, 0.9, 0.9], [0.1, 0.2, 0.3])
    found = decide(sentences, rows, 0.5, (True, True, True))
    assert [one.accepted for one in found] == [(1, 3), (3,), (), ()]
    assert [one.added for one in found] == [(1, 3), (3,), (), ()]
    assert found[1].unsupported == (2,)
    assert [one.grounded for one in found] == [True, True, True, False]
    assert rendered(found) == "It is tall [1][3]. It is old [3]. Why? It is red."
    # Only from passages that are about the question.
    assert [one.accepted for one in decide(sentences, rows, 0.5, (False, False, True))] == [(3,), (3,), (), ()]


def test_only_passages_about_the_question_are_added() -> None:
    passages = [Passage("d", f"d#{n}", "", score, 0, 0, n) for n, score in enumerate((0.8, 0.75, 0.5), 1)]
    assert relevant(passages) == (True, True, False)
    assert relevant([]) == ()


def test_a_citation_names_the_chunk_and_its_span() -> None:
    document = "First part. Second part."
    passages = [Passage("d", "d#0", document[:11], 0.9, 0, 11, 1), Passage("d", "d#1", document[12:], 0.8, 12, 24, 2)]
    found = decide(parse("Second [2]. First [1]. Again [2]."), support([0.0, 1.0], [1.0, 0.0], [0.0, 1.0]), 0.5)
    made = citations(found, passages)
    assert [(one.marker, one.chunk_id) for one in made] == [(2, "d#1"), (1, "d#0")]
    assert all(document[one.start : one.end] == one.text for one in made)


texts = st.text(st.one_of(st.sampled_from("[]0123456789,;-. !?\n\u3002"), st.characters(codec="utf-8")), max_size=120)


@given(texts)
def test_any_text_can_be_parsed(text: str) -> None:
    for sentence in parse(text):
        assert sentence.text.strip() == sentence.text
        assert len(set(sentence.cited)) == len(sentence.cited)


words = st.sampled_from(["tower", "river", "old", "stone", "built", "bridge", "wide", "tall"])
numbers = st.lists(st.integers(1, 12), max_size=4)
written = st.lists(st.tuples(st.lists(words, min_size=1, max_size=6), numbers), min_size=1, max_size=5)


@given(written, st.integers(0, 6), st.data())
def test_what_is_accepted_holds_and_is_written_back(
    drawn: list[tuple[list[str], list[int]]], passages: int, data: st.DataObject
) -> None:
    text = " ".join(
        f"{' '.join(body).capitalize()}{''.join(f' [{number}]' for number in cited)}." for body, cited in drawn
    )
    sentences = parse(text)
    assert [sentence.cited for sentence in sentences] == [tuple(dict.fromkeys(cited)) for _, cited in drawn]
    scores = st.lists(st.floats(0, 1, width=32), min_size=passages, max_size=passages)
    rows = np.array([data.draw(scores) for _ in sentences], dtype=np.float32).reshape(len(sentences), passages)
    found = decide(sentences, rows, 0.5, (True,) * passages)
    for row, one in zip(rows, found, strict=True):
        assert len(one.accepted) <= MAX_SOURCES
        assert all(1 <= number <= passages and row[number - 1] >= 0.5 for number in one.accepted)
        assert all(number > passages for number in one.unknown)
        assert set(one.accepted) <= set(one.sentence.cited) | set(one.added)
        assert one.accepted or not (row >= np.float32(0.5)).any()
        assert set(one.sentence.cited) <= {*one.accepted, *one.unknown, *one.unsupported}
    # What was written back says the same when it is read again.
    again = parse(rendered(found))
    assert [sentence.text for sentence in again] == [sentence.text for sentence in sentences]
    assert [set(sentence.cited) for sentence in again] == [set(one.accepted) for one in found]


def test_a_sentence_is_never_emptied() -> None:
    assert rendered([Cited(Sentence("...", ()), accepted=(1,))]) == "... [1]"
