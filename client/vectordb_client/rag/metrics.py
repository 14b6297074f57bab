"""Measures of answers. Pure functions, each 0 to 1, higher is better.

Exact match and token F1 are SQuAD's (Rajpurkar et al. 2016), with its normalisation; ROUGE-L is the F-measure over the
longest common subsequence of words (Lin 2004). Each takes the best over the wordings that count as right.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARKERS = re.compile(r"\s*\[\d+\]")


def normalised(text: str) -> list[str]:
    """Words in lower case without articles and punctuation; citation markers are left out."""
    bare = _MARKERS.sub("", text).lower().translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split()


def exact_match(text: str, answers: Sequence[str]) -> float:
    """1 where the text is one of the answers, normalised."""
    words = normalised(text)
    return float(any(words == normalised(answer) for answer in answers))


def contains(text: str, answers: Sequence[str]) -> float:
    """1 where one of the answers stands in the text, normalised."""
    words = f" {' '.join(normalised(text))} "
    return float(any(f" {' '.join(normalised(answer))} " in words for answer in answers))


def token_f1(text: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over bags of words."""

    def shared(found: Sequence[str], wanted: Sequence[str]) -> int:
        return sum((Counter(found) & Counter(wanted)).values())

    return _best(text, answers, shared)


def rouge_l(text: str, answers: Sequence[str]) -> float:
    """As token F1, over the longest common subsequence: the order counts."""
    return _best(text, answers, _common)


def _best(text: str, answers: Sequence[str], shared: Callable[[Sequence[str], Sequence[str]], int]) -> float:
    found = normalised(text)
    best = 0.0
    for answer in answers:
        wanted = normalised(answer)
        if not found or not wanted:
            best = max(best, float(found == wanted))
        else:
            best = max(best, 2.0 * shared(found, wanted) / (len(found) + len(wanted)))
    return best


def _common(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Length of the longest common subsequence, one row of the table at a time."""
    row = np.zeros(len(wanted) + 1, dtype=np.int64)
    targets = np.array(wanted, dtype=object)
    for word in found:
        # A match extends the diagonal; the running maximum carries the best so far along the row.
        extended = np.where(targets == word, row[:-1] + 1, row[1:])
        row[1:] = np.maximum.accumulate(np.maximum(extended, row[1:]))
    return int(row[-1])
