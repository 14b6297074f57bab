"""The rows in which a unit of a query occurs, and how often: slices of the postings, joined where they are several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.text.fuzzy import near
from vectordb.text.index import ranges_of
from vectordb.text.query import Fuzzy, Phrase, Prefix, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.text.index import Piece, TextIndex
    from vectordb.text.query import Unit

EDIT_WEIGHT = 0.5
"""What each edit leaves of an occurrence's weight. A power of two: sums of such weights are exact in any order."""


class Postings(NamedTuple):
    """Where a unit occurs.

    Attributes:
        rows: Integers [k], ascending.
        frequencies: Numbers [k], above 0: how often, near words by their weight.
    """

    rows: NDArray[Any]
    frequencies: NDArray[Any]


NOWHERE = Postings(np.empty(0, np.int64), np.empty(0, np.int64))


def postings(unit: Unit, piece: Piece) -> Postings:
    """Where a unit occurs in the rows of a piece that show, as rows of its index."""
    found = _postings(unit, piece.text)
    if piece.rows < piece.text.n:
        shown = int(np.searchsorted(found.rows, piece.rows))
        found = Postings(found.rows[:shown], found.frequencies[:shown])
    return found


def _postings(unit: Unit, index: TextIndex) -> Postings:
    if isinstance(unit, Term):
        return _of_words(index, [index.find(unit.word)])
    if isinstance(unit, Prefix):
        low, high = index.words.prefixed(unit.prefix)
        stem = index.find(unit.stem)
        parts = [_slice(index, low, high)]
        if stem >= 0 and not low <= stem < high:
            parts.append(_slice(index, stem, stem + 1))
        return _summed(parts, index.n, sorted_already=high - low == 1 and len(parts) == 1)
    if isinstance(unit, Fuzzy):
        words, edits = near(index, unit.word, unit.edits)
        parts = []
        for word, distance in zip(words.tolist(), edits.tolist(), strict=True):
            rows, frequencies = _slice(index, word, word + 1)
            parts.append(Postings(rows, frequencies * EDIT_WEIGHT**distance))
        return _summed(parts, index.n, sorted_already=len(parts) == 1)
    return _phrase(index, unit)


def _slice(index: TextIndex, low: int, high: int) -> Postings:
    """The postings of the words ``low`` to ``high - 1``, word after word."""
    begin, end = index.arrays.starts.item(low), index.arrays.starts.item(high)
    return Postings(index.arrays.rows[begin:end], index.arrays.frequencies[begin:end])


def _of_words(index: TextIndex, words: Sequence[int]) -> Postings:
    (word,) = words
    return NOWHERE if word < 0 else _slice(index, word, word + 1)


def _summed(parts: Sequence[Postings], n: int, *, sorted_already: bool) -> Postings:
    """Postings of several words as those of one that occurs wherever one of them does."""
    if sorted_already:
        return parts[0]
    total = sum(len(part.rows) for part in parts)
    if not total:
        return NOWHERE
    rows = np.concatenate([part.rows for part in parts])
    frequencies = np.concatenate([part.frequencies for part in parts], dtype=np.float64)
    if 4 * total >= n:
        sums = np.bincount(rows, frequencies, n)
        rows = np.flatnonzero(sums)
        return Postings(rows, sums[rows])
    rows, places = np.unique(rows, return_inverse=True)
    return Postings(rows, np.bincount(places, frequencies, len(rows)))


def _phrase(index: TextIndex, phrase: Phrase) -> Postings:
    """Rows that hold the words one after the other, by shifting their places onto each other."""
    numbers = [index.find(word) for word in phrase.words]
    if min(numbers) < 0:
        return NOWHERE
    slices = [_slice(index, word, word + 1).rows for word in numbers]
    rarest_first = sorted(range(len(numbers)), key=lambda i: len(slices[i]))
    rows = slices[rarest_first[0]]
    for i in rarest_first[1:]:
        rows = rows[_held(slices[i], rows)]
        if len(rows) == 0:
            return NOWHERE
    starts: NDArray[np.int64] | None = None
    for i in rarest_first:
        begins = _begins(index, numbers[i], rows, phrase.places[i])
        starts = begins if starts is None else starts[_held(begins, starts)]
        if len(starts) == 0:
            return NOWHERE
    assert starts is not None
    found, counts = np.unique(starts >> 33, return_counts=True)
    return Postings(found, counts)


def _begins(index: TextIndex, word: int, rows: NDArray[Any], place: int) -> NDArray[np.int64]:
    """Where the phrase would begin, if ``word`` stands ``place`` places after its begin: row << 33 | place + 2^32.

    Only in the given rows, all of which hold the word; ascending.
    """
    arrays = index.arrays
    own, frequencies = _slice(index, word, word + 1)
    counts = frequencies.astype(np.int64)
    firsts = np.cumsum(counts) - counts + arrays.place_starts.item(word)
    chosen = np.searchsorted(own, rows)
    counts = counts[chosen]
    places = arrays.places[ranges_of(firsts[chosen], counts)].astype(np.int64)
    return (np.repeat(rows.astype(np.int64), counts) << 33) + (places - place + (1 << 32))


def _held(ascending: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the values occur in a non-empty ascending array: bool[k]."""
    held: NDArray[np.bool_] = ascending.take(np.searchsorted(ascending, values), mode="clip") == values
    return held
