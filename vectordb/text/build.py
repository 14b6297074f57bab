"""Texts into a :class:`~vectordb.text.index.TextIndex`: one pass for the words, then whole-array operations.

Words are numbered by a dictionary as they come, so that all that depends on the word itself (stem, place in the order)
is done once a distinct word. One sort of (word, occurrence) then puts postings and places in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectordb.metadata.bytes_keys import BytesKeys
from vectordb.text.fuzzy import letters_of
from vectordb.text.index import Arrays, TextIndex, narrowed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.text.analyzers import Analyzer

SLICE_TEXTS = 256
SLICE_BYTES = 1 << 18
"""Texts between two looks at whether to go on: about 4 ms, and at least one text."""

_LOW = (1 << 32) - 1


def no_poll() -> None:
    """For callers that never stop."""


def build(texts: Sequence[bytes | None], how: Analyzer, poll: Callable[[], None] = no_poll) -> TextIndex:
    """The index over rows 0..n-1.

    Args:
        texts: UTF-8, or None for a row without a text.
        poll: Called now and then; raises to stop.
    """
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    coded: list[NDArray[np.int64]] = []
    placed: list[NDArray[np.int64]] = []
    counts = np.zeros(len(texts), np.int64)
    lengths = np.zeros(len(texts), np.uint32)
    for first, last in slices(texts, 0, len(texts), (SLICE_TEXTS, SLICE_BYTES)):
        poll()
        words: list[str] = []
        odd: list[tuple[int, list[int]]] = []
        for row, text in enumerate(texts[first:last], first):
            if text is None:
                continue
            found = how.words(text.decode())
            if found.places is not None:
                odd.append((len(words), found.places))
            words += found.words
            counts[row] = len(found.words)
            lengths[row] = found.length
        coded.append(np.fromiter(map(numbers.__getitem__, words), np.int64, len(words)))
        here = counts[first:last]
        places = np.arange(len(words)) - np.repeat(np.cumsum(here) - here, here)
        for at, given in odd:
            places[at : at + len(given)] = given
        placed.append(places)
    if not numbers:
        return empty(len(texts), how.fingerprint)
    codes, places = np.concatenate(coded), np.concatenate(placed)
    keys, ranks = _ordered(how.stems(list(numbers)))
    order = (ranks[codes] << 32) | np.arange(len(codes))
    order.sort()
    codes = order >> 32
    order &= _LOW
    rows = np.repeat(np.arange(len(texts)), counts)[order]
    begins = np.flatnonzero(np.diff(codes, prepend=-1) | np.diff(rows, prepend=-1))
    places = places[order]
    sizes, letters = letters_of([keys[number].decode() for number in range(len(keys))])
    arrays = Arrays(
        blob=keys.blob,
        bounds=keys.offsets,
        starts=np.searchsorted(codes[begins], np.arange(len(keys) + 1)),
        rows=rows[begins].astype(np.uint32),
        frequencies=narrowed(np.diff(begins, append=len(rows))),
        place_starts=np.searchsorted(codes, np.arange(len(keys) + 1)),
        places=narrowed(places),
        lengths=lengths,
        sizes=sizes,
        letters=letters,
    )
    return TextIndex(arrays, how.fingerprint)


def slices(texts: Sequence[bytes | None], start: int, stop: int, most: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Ranges of ``start..stop-1`` of at most so many texts and (beyond the first of each) bytes: ``most``."""
    first, size = start, 0
    for row in range(start, stop):
        more = len(texts[row] or b"")
        if row > first and (row - first == most[0] or size + more > most[1]):
            yield first, row
            first, size = row, 0
        size += more
    if first < stop:
        yield first, stop


def empty(n: int, fingerprint: str) -> TextIndex:
    """The index of n rows without a word."""
    none = np.empty(0, np.uint8)
    zero = np.zeros(1, np.int64)
    rows = np.empty(0, np.uint32)
    lengths = np.zeros(n, np.uint32)
    arrays = Arrays(none, np.zeros(1, np.uint64), zero, rows, none, zero, none, lengths, none, np.empty(0, np.uint64))
    return TextIndex(arrays, fingerprint)


def _ordered(stems: Sequence[bytes]) -> tuple[BytesKeys, NDArray[np.int64]]:
    """The distinct stems in order, and the place of each given one among them."""
    distinct = sorted(set(stems))
    places = dict(zip(distinct, range(len(distinct)), strict=True))
    return BytesKeys.of(distinct), np.fromiter(map(places.__getitem__, stems), np.int64, len(stems))
