"""The words of many rows turned around, from words to rows: immutable, in arrays that can be mapped from a file."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.metadata.bytes_keys import BytesKeys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


_KEPT_WORDS = 1024


class Arrays(NamedTuple):
    """The columns of a :class:`TextIndex`, as they stand in its file. u words, p postings, n rows.

    Attributes:
        blob: uint8, the words' UTF-8, sorted bytewise, one after the other. bounds: uint64[u + 1], theirs in it.
        starts: int64[u + 1], the postings of word i are ``starts[i]`` to ``starts[i + 1] - 1``.
        rows: uint32[p], ascending within a word.
        frequencies: uint8, 16 or 32 [p], how often the word is in the row.
        place_starts: int64[u + 1], the same for ``places``: of each word the places of all its postings in order.
        places: uint8, 16 or 32, where in its row a word stands, counted in words; ascending within a posting.
        lengths: uint32[n], places that a row has; 0 where it has no text, or none with a word.
        sizes: uint8[u], characters of a word.
        letters: uint64[u], a set of its characters (:func:`vectordb.text.fuzzy.letters_of`).
    """

    blob: NDArray[np.uint8]
    bounds: NDArray[np.uint64]
    starts: NDArray[np.int64]
    rows: NDArray[np.uint32]
    frequencies: NDArray[Any]
    place_starts: NDArray[np.int64]
    places: NDArray[Any]
    lengths: NDArray[np.uint32]
    sizes: NDArray[np.uint8]
    letters: NDArray[np.uint64]


class TextIndex:
    """The texts of rows 0..n-1. Thread-safe.

    Attributes:
        fingerprint: Of the analyzer that made the words.
        documents: Rows that have a word.
        total: Their lengths together.
    """

    def __init__(self, arrays: Arrays, fingerprint: str) -> None:
        self.arrays = arrays
        self.fingerprint = fingerprint
        self.words = BytesKeys(arrays.blob, arrays.bounds)
        self._numbers: dict[bytes, int] = {}

    @property
    def n(self) -> int:
        """Rows, those without a text included."""
        return len(self.arrays.lengths)

    @cached_property
    def documents(self) -> int:
        return int(np.count_nonzero(self.arrays.lengths))

    @cached_property
    def total(self) -> int:
        return int(self.arrays.lengths.sum(dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Size of all arrays in bytes, mapped or not."""
        return sum(array.nbytes for array in self.arrays)

    def find(self, word: bytes) -> int:
        """The number of a word, or -1. Those asked for lately are kept: queries share most of their words."""
        number = self._numbers.get(word)
        if number is None:
            at = self.words.left(word)
            number = at if at < len(self.words) and self.words[at] == word else -1
            if len(self._numbers) >= _KEPT_WORDS:
                self._numbers = {}
            self._numbers[word] = number
        return number


class Piece(NamedTuple):
    """A stretch of a part's rows with an index over their texts: its row r is row ``start + r`` of the part.

    Attributes:
        rows: Rows of the index that show; it may hold later ones.
    """

    text: TextIndex
    start: int
    rows: int


def narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """Non-negative integers in the smallest unsigned type that holds them (up to 32 bits)."""
    top = int(values.max(initial=0))
    return values.astype(np.uint8 if top < 1 << 8 else np.uint16 if top < 1 << 16 else np.uint32)


def bounds_of(counts: Iterable[int] | NDArray[Any]) -> NDArray[np.int64]:
    """int64[n + 1]: where each of n groups of these sizes begins, and the end of the last."""
    sizes = np.asarray(counts, np.int64)
    bounds = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    return bounds


def ranges_of(firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers ``firsts[i] .. firsts[i] + counts[i] - 1`` of all i, one range after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers: NDArray[np.int64] = np.arange(total, dtype=np.int64)
    numbers += np.repeat(firsts - (ends - counts), counts)
    return numbers
