"""Several text indexes as one, by whole-array operations: for sealing a tail and for merging segments.

Postings are taken a few words at a time, so that the room needed beside the result stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.metadata import bytes_keys
from vectordb.metadata.merge import renumbering
from vectordb.text.build import empty, no_poll
from vectordb.text.index import Arrays, TextIndex, bounds_of, narrowed, ranges_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLICE = 1 << 19
"""Postings moved between two looks at whether to go on: about 50 ms."""


class Moved(NamedTuple):
    """An index and which of its rows are taken: ``old`` int64[k], ascending, becoming ``new`` int64[k], ascending.

    The ranges of ``new`` of the parts of one merge ascend too.
    """

    text: TextIndex
    old: NDArray[np.int64]
    new: NDArray[np.int64]


def merged(parts: Sequence[Moved], n: int, poll: Callable[[], None] = no_poll) -> TextIndex:
    """The index over n rows, those that no part gives without a text. All parts have one fingerprint.

    Args:
        poll: Called now and then; raises to stop.
    """
    fingerprint = parts[0].text.fingerprint if parts else ""
    parts = [part for part in parts if len(part.text.words)]
    if not parts:
        return empty(n, fingerprint)
    if len(parts) == 1 and parts[0].text.n == n == len(parts[0].old):
        return parts[0].text
    lengths = np.zeros(n, np.uint32)
    for part in parts:
        lengths[part.new] = part.text.arrays.lengths[part.old]
    keys, codes = bytes_keys.merged([part.text.words for part in parts])
    ends = np.cumsum([len(part.text.words) for part in parts])
    sources = [_Source(part, own) for part, own in zip(parts, np.split(codes, ends[:-1]), strict=True)]
    work = np.zeros(len(keys), np.int64)
    for source in sources:
        work[source.codes] += np.diff(source.starts)
    slices: list[_Postings] = []
    for low, high in _cuts(work):
        poll()
        slices.append(_joined([source.postings(low, high) for source in sources]))
    codes = np.concatenate([s.codes for s in slices])
    frequencies = np.concatenate([s.frequencies for s in slices])
    counts = np.bincount(codes, minlength=len(keys))
    in_places = np.bincount(codes, frequencies, len(keys)).astype(np.int64)
    sizes, letters = np.empty(len(keys), np.uint8), np.empty(len(keys), np.uint64)
    for source in sources:
        sizes[source.codes] = source.part.text.arrays.sizes
        letters[source.codes] = source.part.text.arrays.letters
    used = np.flatnonzero(counts)
    if len(used) < len(keys):
        keys = bytes_keys.kept(keys, used)
        counts, in_places, sizes, letters = counts[used], in_places[used], sizes[used], letters[used]
    arrays = Arrays(
        blob=keys.blob,
        bounds=keys.offsets,
        starts=bounds_of(counts),
        rows=np.concatenate([s.rows for s in slices]).astype(np.uint32),
        frequencies=narrowed(frequencies),
        place_starts=bounds_of(in_places),
        places=narrowed(np.concatenate([s.places for s in slices])),
        lengths=lengths,
        sizes=sizes,
        letters=letters,
    )
    return TextIndex(arrays, fingerprint)


class _Postings(NamedTuple):
    """Postings in order of (word, row): int64[p] each, and the places of all of them."""

    codes: NDArray[np.int64]
    rows: NDArray[np.int64]
    frequencies: NDArray[np.int64]
    places: NDArray[Any]


class _Source:
    """One part of a merge, with the new number of each of its words (ascending)."""

    def __init__(self, part: Moved, codes: NDArray[np.int64]) -> None:
        self.part = part
        self.codes = codes
        self.starts = part.text.arrays.starts
        self._numbers = renumbering(part.text.n, part.old, part.new)

    def postings(self, low: int, high: int) -> _Postings:
        """What is taken of the postings of the words ``low`` to ``high - 1``."""
        arrays = self.part.text.arrays
        first, last = np.searchsorted(self.codes, (low, high)).tolist()
        begin, end = int(self.starts[first]), int(self.starts[last])
        codes = np.repeat(self.codes[first:last], np.diff(self.starts[first : last + 1]))
        rows = self._numbers[arrays.rows[begin:end]]
        frequencies = arrays.frequencies[begin:end].astype(np.int64)
        places = arrays.places[int(arrays.place_starts[first]) : int(arrays.place_starts[last])]
        taken = rows >= 0
        if not taken.all():
            places = places[np.repeat(taken, frequencies)]
            codes, rows, frequencies = codes[taken], rows[taken], frequencies[taken]
        return _Postings(codes, rows, frequencies, places)


def _joined(parts: Sequence[_Postings]) -> _Postings:
    """Postings of several parts in one order: sorted runs, which a stable sort merges."""
    if len(parts) == 1:
        return parts[0]
    codes = np.concatenate([p.codes for p in parts])
    rows = np.concatenate([p.rows for p in parts])
    frequencies = np.concatenate([p.frequencies for p in parts])
    order = np.argsort((codes << 32) | rows, kind="stable")
    firsts = np.cumsum(frequencies) - frequencies
    frequencies = frequencies[order]
    places = np.concatenate([p.places for p in parts])[ranges_of(firsts[order], frequencies)]
    return _Postings(codes[order], rows[order], frequencies, places)


def _cuts(work: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of words that have about ``SLICE`` postings each, one word at least."""
    ends = np.cumsum(work)
    cuts = [0]
    while cuts[-1] < len(work):
        done = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, done + SLICE, side="right"))))
    return list(pairwise(cuts))
