"""Where units occur, against plain Python over the same words; and scores that do not depend on how they are made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.edits import edits
from vectordb.text import bm25, match
from vectordb.text.analyzers import analyzer
from vectordb.text.bm25 import Totals, Weighted
from vectordb.text.build import build
from vectordb.text.fuzzy import distances, letters_of, near
from vectordb.text.index import Piece
from vectordb.text.match import Postings, postings
from vectordb.text.query import Fuzzy, Phrase, Prefix, Term

STANDARD = analyzer("standard")
WORDS = ["a", "ab", "abc", "abd", "acb", "b", "ba", "cab", "zé", "zè"]
WORD = st.sampled_from(WORDS)
TEXTS = st.lists(st.lists(WORD, max_size=8), min_size=1, max_size=12)


def found(unit: Any, texts: list[list[str]], shown: int | None = None) -> dict[int, float]:
    index = build([" ".join(words).encode() for words in texts], STANDARD)
    rows, frequencies = postings(unit, Piece(index, 0, index.n if shown is None else shown))
    assert (np.diff(rows) > 0).all()
    return dict(zip(rows.tolist(), frequencies.tolist(), strict=True))


def expected(texts: list[list[str]], count: Any) -> dict[int, float]:
    return {row: n for row, words in enumerate(texts) if (n := count(words))}


@settings(deadline=None)
@given(TEXTS, WORD, st.integers(0, 12))
def test_terms_in_the_rows_that_show(texts: list[list[str]], word: str, shown: int) -> None:
    shown = min(shown, len(texts))
    assert found(Term(word.encode()), texts, shown) == expected(texts[:shown], lambda words: words.count(word))


@settings(deadline=None)
@given(TEXTS, st.sampled_from(["a", "ab", "abc", "z", "zé", "q"]), st.sampled_from(["b", "ab", "q"]))
def test_prefixes(texts: list[list[str]], prefix: str, stem: str) -> None:
    count = lambda words: sum(w.startswith(prefix) or w == stem for w in words)  # noqa: E731
    assert found(Prefix(prefix.encode(), stem.encode()), texts) == expected(texts, count)


@settings(deadline=None)
@given(TEXTS, st.sampled_from([*WORDS, "abcd", "bac", "q"]), st.integers(1, 2))
def test_fuzzy_words_count_by_nearness(texts: list[list[str]], word: str, most: int) -> None:
    count = lambda words: sum(0.5 ** edits(word, w) for w in words if edits(word, w) <= most)  # noqa: E731
    assert found(Fuzzy(word, most), texts) == expected(texts, count)


@settings(deadline=None)
@given(TEXTS, st.lists(WORD, min_size=2, max_size=4))
def test_phrases(texts: list[list[str]], phrase: list[str]) -> None:
    size = len(phrase)
    count = lambda words: sum(words[i : i + size] == phrase for i in range(len(words)))  # noqa: E731
    unit = Phrase(tuple(word.encode() for word in phrase), tuple(range(size)))
    assert found(unit, texts) == expected(texts, count)


def test_a_phrase_that_begins_before_its_row() -> None:
    assert found(Phrase((b"a", b"b"), (0, 5)), [["b"], ["x", "a", "y", "y", "y", "y", "b"]]) == {1: 1}


@settings(deadline=None)
@given(st.text(max_size=8), st.lists(st.text(max_size=9), min_size=1, max_size=8))
def test_distances_and_their_shortcuts(word: str, others: list[str]) -> None:
    others = [other.replace("\0", "x") for other in others]
    real = [edits(word, other) for other in others]
    assert distances(word, others).tolist() == real
    sizes, letters = letters_of(others)
    assert sizes.tolist() == [len(other) for other in others]
    mask = letters_of([word])[1][0]
    for letter, distance in zip(letters, real, strict=True):
        assert max(int(letter & ~mask).bit_count(), int(mask & ~letter).bit_count()) <= distance


def test_near_words_of_a_long_list() -> None:
    words = sorted({f"{a}{b}{c}d" for a in "abcdefgh" for b in "mnop" for c in "uvwxyz"})
    index = build([" ".join(words).encode()], STANDARD)
    for asked in ("amud", "aumd", "mud", "zzzz"):
        numbers, far = near(index, asked, 2)
        assert {index.words[i].decode(): d for i, d in zip(numbers.tolist(), far.tolist(), strict=True)} == {
            word: edits(asked, word) for word in words if edits(asked, word) <= 2
        }


@settings(deadline=None)
@given(st.data())
def test_a_score_does_not_depend_on_how_sums_are_made(data: Any) -> None:
    n = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    lengths = rng.integers(1, 50, n).astype(np.uint32)
    units = []
    for _ in range(data.draw(st.integers(1, 5))):
        rows = np.flatnonzero(rng.random(n) < rng.random())
        units.append(Weighted(Postings(rows, rng.integers(1, 9, len(rows))), float(rng.random() * 9 + 0.1)))
    average = float(rng.random() * 30 + 1)
    answers = []
    for dense in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bm25, "DENSE", dense)
            answers.append(bm25.scored(units, lengths, average))
    for left, right in zip(*answers, strict=True):
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()
    by_hand: dict[int, float] = {}
    for (rows, frequencies), weight in units:
        for row, f in zip(rows.tolist(), frequencies.tolist(), strict=True):
            below = int(lengths[row]) * (1.2 * 0.75 / average) + 1.2 * (1.0 - 0.75) + f
            by_hand[row] = by_hand.get(row, 0.0) + f / below * weight
    assert dict(zip(answers[0][0].tolist(), answers[0][1].tolist(), strict=True)) == {
        row: float(np.float32(score)) for row, score in by_hand.items()
    }


def test_weights() -> None:
    weight = bm25.weight(Totals(10, 100), 3, 2)
    assert weight == pytest.approx(2 * 2.2 * math.log(1 + 7.5 / 3.5))
    assert bm25.weight(Totals(10, 100), 10, 1) > 0
    assert match.EDIT_WEIGHT == 0.5
