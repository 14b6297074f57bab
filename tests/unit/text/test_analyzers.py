"""Words: where they begin and end in many scripts, what is folded together, and stems."""

from __future__ import annotations

import pytest

from vectordb import errors
from vectordb.text.analyzers import LONGEST, analyzer, names

STANDARD = analyzer("standard")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" ...!? \n", []),
        ("The quick-brown fox, 2 foxes.", ["the", "quick", "brown", "fox", "2", "foxes"]),
        ("Newton's end.Next a_b", ["newton", "s", "end", "next", "a_b"]),
        ("pi is 3.14159, not 3,000 or 1.5.2.", ["pi", "is", "3.14159", "not", "3,000", "or", "1.5.2"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("\uff26\uff55\uff4c\uff4c \u212bngstr\u00f6m", ["full", "ångström"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("ΟΔΟΣ οδός", ["οδοσ", "οδόσ"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("\u0301 x\u00ady \u0645\u06cc\u200c\u062e\u0648", ["xy", "\u0645\u06cc\u062e\u0648"]),
        ("1\u20190 it\u2019s", ["1\u20190", "it", "s"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    found = STANDARD.words(text)
    assert found.words == words
    assert found.places is None
    assert found.length == len(words)
    assert STANDARD.asked(text).words == words


def test_scripts_without_blanks_give_characters_and_pairs() -> None:
    found = STANDARD.words("在东京 tower东")
    assert found.words == ["在", "在东", "东", "东京", "京", "tower", "东"]
    assert found.places == [0, 0, 1, 1, 2, 3, 4]
    assert found.length == 5
    assert STANDARD.asked("在东京 tower东").words == ["在东", "东京", "tower", "东"]


def test_marks_stay_with_their_base() -> None:
    assert STANDARD.asked("ที่นี่").words == ["ที่นี่"]
    assert STANDARD.words("ที่นี่").words == ["ที่", "ที่นี่", "นี่"]
    assert STANDARD.words("서울은").words == ["서", "서울", "울", "울은", "은"]


def test_languages_stem() -> None:
    english = analyzer("english")
    assert english.words("Running runners").words == ["running", "runners"]
    assert english.stems(["running", "runs", "the"]) == [b"run", b"run", b"the"]
    assert STANDARD.stems(["running"]) == [b"running"]
    assert {"standard", "english", "german", "russian", "turkish"} <= set(names())
    assert english.fingerprint != STANDARD.fingerprint


def test_words_have_an_end() -> None:
    assert STANDARD.stems(["é" * 1000]) == [("é" * LONGEST).encode()]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(errors.InvalidArgument, match="'klingon' is unknown; one of 'standard', 'arabic'") as caught:
        analyzer("klingon")
    assert caught.value.field == "analyzer"
