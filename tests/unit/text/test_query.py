"""Queries: what is typed becomes units, and nothing that can be typed is an error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectordb.text.analyzers import analyzer
from vectordb.text.query import Fuzzy, Phrase, Prefix, Term, parse

STANDARD = analyzer("standard")
ENGLISH = analyzer("english")


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("", []),
        ('?! ... *** ~ ~2 ""', [Term(b"2")]),
        ("Fish and CHIPS", [Term(b"fish"), Term(b"and"), Term(b"chips")]),
        ("fly*", [Prefix(b"fly", b"fly")]),
        ("well-know*", [Term(b"well"), Prefix(b"know", b"know")]),
        ("5*3 a ** b", [Term(b"5"), Term(b"3"), Term(b"a"), Term(b"b")]),
        (
            "it~ fish~ fishes~ fishes~1 fish~2 fish~9 fish~0",
            [Term(b"it"), Fuzzy("fish", 1), Fuzzy("fishes", 2), Fuzzy("fishes", 1), Fuzzy("fish", 2), Term(b"fish")],
        ),
        ('"two words" "one" "no end', [Phrase((b"two", b"words"), (0, 1)), Term(b"one"), Term(b"no"), Term(b"end")]),
        ('say"so it"is', [Term(b"say"), Phrase((b"so", b"it"), (0, 1)), Term(b"is")]),
        ("東京都*", [Term("東京".encode()), Prefix("京都".encode(), "京都".encode())]),
        ('"東京都 x"', [Phrase(("東京".encode(), "京都".encode(), b"x"), (0, 1, 3))]),
        ("हिन्दी*", [Prefix("हिन्दी".encode(), "हिन्दी".encode())]),
    ],
)
def test_units(text: str, units: list[object]) -> None:
    assert list(parse(text, STANDARD).units) == units


def test_repeated_words_count() -> None:
    query = parse("a b A", STANDARD)
    assert query.units == (Term(b"a"), Term(b"b"))
    assert query.counts == (2, 1)


def test_stems() -> None:
    assert parse("flying", ENGLISH).units == (Term(b"fli"),)
    assert parse('"flying machines"', ENGLISH).units == (Phrase((b"fli", b"machin"), (0, 1)),)
    assert parse("running*", ENGLISH).units == (Prefix(b"running", b"run"),)
    assert parse("machinse~", ENGLISH).units == (Fuzzy("machins", 2),)


@settings(deadline=None)
@given(st.text())
def test_anything_can_be_asked(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    query = parse(text, STANDARD)
    assert len(query.units) == len(query.counts)
    assert all(count > 0 for count in query.counts)
