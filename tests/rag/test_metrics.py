"""Measures of answers, against values worked out by hand and against slow definitions."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectordb_client.rag.metrics import contains, exact_match, normalised, rouge_l, token_f1


def test_normalisation_is_squads() -> None:
    assert normalised("The  Eiffel-Tower, a 330 m tower! [1][2]") == ["eiffeltower", "330", "m", "tower"]


@pytest.mark.parametrize(
    ("text", "answers", "match", "f1", "rouge", "held"),
    [
        ("The Tower", ["tower"], 1.0, 1.0, 1.0, 1.0),
        ("in 1889 [1].", ["1889"], 0.0, 2 / 3, 2 / 3, 1.0),
        ("b a c d", ["c b"], 0.0, 4 / 5, 2 / 5, 0.0),
        ("nothing", ["tower", "nothing at all"], 0.0, 1 / 2, 1 / 2, 0.0),
        ("", ["tower"], 0.0, 0.0, 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0, 1.0, 1.0),
    ],
)
def test_by_hand(text: str, answers: list[str], match: float, f1: float, rouge: float, held: float) -> None:
    assert exact_match(text, answers) == match
    assert token_f1(text, answers) == pytest.approx(f1)
    assert rouge_l(text, answers) == pytest.approx(rouge)
    assert contains(text, answers) == held


words = st.lists(st.sampled_from(["w", "x", "y", "z"]), min_size=1, max_size=9)


@given(words, words)
def test_the_longest_common_subsequence(found: list[str], wanted: list[str]) -> None:
    @cache
    def common(i: int, j: int) -> int:
        if i == len(found) or j == len(wanted):
            return 0
        if found[i] == wanted[j]:
            return 1 + common(i + 1, j + 1)
        return max(common(i + 1, j), common(i, j + 1))

    expected = 2 * common(0, 0) / (len(found) + len(wanted))
    assert rouge_l(" ".join(found), [" ".join(wanted)]) == pytest.approx(expected)
    assert rouge_l(" ".join(found), [" ".join(wanted)]) <= token_f1(" ".join(found), [" ".join(wanted)]) + 1e-9
