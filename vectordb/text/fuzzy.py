"""Words within one or two edits of a given one, over a whole dictionary at once.

An edit inserts, removes or replaces a character, or swaps two neighbours (optimal string alignment, as in Lucene). Two
cheap facts leave few words to compare: the lengths differ by at most the edits, and so do the sets of characters on
either side, which are kept as 64-bit masks.

Source: E. Ukkonen, "Algorithms for approximate string matching", 1985 (the band is not used: words are short).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.text.index import TextIndex

MOST_EDITS = 2


def default_edits(word: str) -> int:
    """How far ``word~`` looks: not at all up to 2 characters, one edit up to 5, else two (as in Elasticsearch)."""
    return 0 if len(word) <= 2 else 1 if len(word) <= 5 else 2


def letters_of(words: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """The number of characters of words (at most 255), uint8[u], and the sets of them as masks, uint64[u].

    A character is the bit of its code point modulo 64: different ones may share a bit, so that sets may look alike
    that are not, never the other way round.
    """
    sizes = np.fromiter(map(len, words), np.int64, len(words))
    codes = np.frombuffer("".join(words).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    bits = np.uint64(1) << (codes & np.uint64(63))
    masks = np.zeros(len(words), np.uint64)
    there = np.flatnonzero(sizes)
    if len(there):
        masks[there] = np.bitwise_or.reduceat(bits, (np.cumsum(sizes) - sizes)[there])
    return np.minimum(sizes, 255).astype(np.uint8), masks


def near(index: TextIndex, word: str, edits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the index's words within so many edits, int64[k] ascending, and their distances int64[k]."""
    sizes, letters = index.arrays.sizes, index.arrays.letters
    size, mask = len(word), letters_of([word])[1][0]
    likely = np.flatnonzero((sizes >= max(0, size - edits)) & (sizes <= min(255, size + edits)))
    theirs = letters[likely]
    likely = likely[np.maximum(np.bitwise_count(theirs & ~mask), np.bitwise_count(mask & ~theirs)) <= edits]
    if len(likely) == 0:
        return likely, likely
    words = index.words
    found = distances(word, [words[at].decode() for at in likely.tolist()])
    close = found <= edits
    return likely[close], found[close]


def distances(word: str, others: Sequence[str]) -> NDArray[np.int64]:
    """Edits between a word and each of the others: int64[k]."""
    lengths = np.fromiter(map(len, others), np.int64, len(others))
    width = int(lengths.max(initial=0))
    # Shorter ones are padded; the answer is read at each one's own length.
    letters = np.array(others, f"<U{max(1, width)}").view("<u4").reshape(len(others), -1)
    codes = [ord(letter) for letter in word]
    before = np.zeros((0, 0), np.int64)
    row = np.tile(np.arange(width + 1), (len(others), 1))
    for i, code in enumerate(codes):
        here = np.empty_like(row)
        here[:, 0] = i + 1
        changed = row[:, :-1] + (letters[:, :width] != code)
        for j in range(width):
            best = np.minimum(changed[:, j], np.minimum(row[:, j + 1], here[:, j]) + 1)
            if i and j:
                swapped = (letters[:, j - 1] == code) & (letters[:, j] == codes[i - 1])
                best = np.where(swapped, np.minimum(best, before[:, j - 1] + 1), best)
            here[:, j + 1] = best
        before, row = row, here
    return row[np.arange(len(others)), lengths]
