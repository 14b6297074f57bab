"""Sorted dictionaries of byte strings in one blob, searched and merged without an object a string.

A dictionary is a blob (uint8[b]) and offsets (uint64[u + 1]); string i is ``blob[offsets[i]:offsets[i + 1]]``. Strings
are distinct and ascend bytewise, which for UTF-8 is the order of code points.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS = 16
"""Words of 8 bytes by which :func:`sort_strings` tells strings apart before it falls back to Python's sort."""
_MANY = 8
"""From so many strings on, a lookup narrows by the words of all keys at once."""


class BytesKeys:
    """An immutable sorted dictionary. Thread-safe."""

    __slots__ = ("_view", "_words", "blob", "offsets")

    def __init__(self, blob: NDArray[np.uint8], offsets: NDArray[np.uint64]) -> None:
        self.blob = blob
        self.offsets = offsets
        self._view = memoryview(blob)  # type: ignore[arg-type]
        self._words: NDArray[np.uint64] | None = None

    @classmethod
    def of(cls, keys: Sequence[bytes]) -> BytesKeys:
        """The dictionary of strings that are distinct and sorted already."""
        offsets = np.zeros(len(keys) + 1, dtype=np.uint64)
        np.cumsum(np.fromiter(map(len, keys), dtype=np.uint64, count=len(keys)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(keys), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        at = self.offsets.item
        return bytes(self._view[at(index) : at(index + 1)])

    @property
    def nbytes(self) -> int:
        return self.blob.nbytes + self.offsets.nbytes + (0 if self._words is None else self._words.nbytes)

    def left(self, value: bytes, low: int = 0, high: int | None = None) -> int:
        """How many keys are smaller than ``value``, known to be between ``low`` and ``high``."""
        high = len(self) if high is None else high
        while low < high:
            middle = (low + high) // 2
            if self[middle] < value:
                low = middle + 1
            else:
                high = middle
        return low

    def prefixed(self, prefix: bytes) -> tuple[int, int]:
        """The range of the keys that begin with a prefix of valid UTF-8."""
        if not prefix:
            return 0, len(self)
        # 0xff never occurs in UTF-8, so the last byte can always be raised by one.
        return self.left(prefix), self.left(prefix[:-1] + bytes([prefix[-1] + 1]))

    def find(self, values: Sequence[bytes]) -> NDArray[np.int64]:
        """Indexes of those of the distinct values that are keys: int64[<= len(values)]."""
        if len(values) < _MANY:
            found = [at for value in values if (at := self.left(value)) < len(self) and self[at] == value]
            return np.array(found, dtype=np.int64)
        if self._words is None:
            starts = self.offsets[:-1].astype(np.int64)
            self._words = _words(self.blob, starts, np.diff(self.offsets).astype(np.int64))
        asked = BytesKeys.of(values)
        words = _words(asked.blob, asked.offsets[:-1].astype(np.int64), np.diff(asked.offsets).astype(np.int64))
        lows = np.searchsorted(self._words, words, side="left")
        spans = np.searchsorted(self._words, words, side="right") - lows
        alone = np.flatnonzero(spans == 1)
        found = lows[alone][self._same(lows[alone], asked, alone)].tolist()
        for i in np.flatnonzero(spans > 1).tolist():
            low, high = int(lows[i]), int(lows[i] + spans[i])
            at = self.left(values[i], low, high)
            if at < high and self[at] == values[i]:
                found.append(at)
        return np.array(found, dtype=np.int64)

    def _same(self, own: NDArray[np.int64], other: BytesKeys, theirs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether keys at ``own`` equal those of ``other`` at ``theirs``, whose first 8 bytes are equal: bool[k]."""
        starts, other_starts = self.offsets[own].astype(np.int64), other.offsets[theirs].astype(np.int64)
        lengths = self.offsets[own + 1].astype(np.int64) - starts
        same: NDArray[np.bool_] = lengths == other.offsets[theirs + 1].astype(np.int64) - other_starts
        for depth in range(1, _ROUNDS):
            open_ = np.flatnonzero(same & (lengths > 8 * depth))
            if len(open_) == 0:
                return same
            left = lengths[open_] - 8 * depth
            mine = _words(self.blob, starts[open_] + 8 * depth, left)
            same[open_] = mine == _words(other.blob, other_starts[open_] + 8 * depth, left)
        for i in np.flatnonzero(same & (lengths > 8 * _ROUNDS)).tolist():
            same[i] = self[int(own[i])] == other[int(theirs[i])]
        return same


def merged(parts: Sequence[BytesKeys]) -> tuple[BytesKeys, NDArray[np.int64]]:
    """The union of dictionaries, and for each key of each part, one part after the other, its index in the union."""
    data = b"".join([memoryview(part.blob) for part in parts])  # type: ignore[arg-type]
    blob = np.frombuffer(data, dtype=np.uint8)
    ends = np.cumsum([0, *(len(part.blob) for part in parts)])
    starts = np.concatenate(
        [part.offsets[:-1].astype(np.int64) + at for part, at in zip(parts, ends[:-1], strict=True)]
    )
    lengths = np.concatenate([np.diff(part.offsets).astype(np.int64) for part in parts])
    order, distinct = sort_strings(blob, starts, lengths)
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.cumsum(distinct) - 1
    firsts = order[distinct]
    return _gathered(data, starts[firsts], lengths[firsts]), codes


def kept(keys: BytesKeys, indexes: NDArray[np.int64]) -> BytesKeys:
    """The dictionary of the keys at ascending indexes."""
    starts = keys.offsets[:-1].astype(np.int64)[indexes]
    return _gathered(keys.blob.tobytes(), starts, np.diff(keys.offsets).astype(np.int64)[indexes])


def sort_strings(
    blob: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Sorts strings that lie anywhere in one blob, 8 bytes at a time over all that are still tied.

    Returns:
        order: int64[n], indexes of the strings, ascending bytewise.
        distinct: bool[n], whether ``order[i]`` differs from ``order[i - 1]`` (true for the first).
    """
    n = len(starts)
    order = np.arange(n)
    distinct = np.zeros(n, dtype=np.bool_)
    if n == 0:
        return order, distinct
    distinct[0] = True
    slots = np.arange(n)  # places in `order` that are not settled yet, in runs of strings that are equal so far
    group = np.zeros(n, dtype=np.int64)
    for depth in range(_ROUNDS):
        members = order[slots]
        left = lengths[members] - 8 * depth
        words = _words(blob, starts[members] + 8 * depth, left)
        # Padding is zero: of equal words the shorter string is smaller, being a prefix of the longer.
        tail = np.minimum(left, 9)
        rank = np.lexsort((tail, words, group))
        members, words, tail, group = members[rank], words[rank], tail[rank], group[rank]
        order[slots] = members
        fresh = np.ones(len(slots), dtype=np.bool_)
        fresh[1:] = (group[1:] != group[:-1]) | (words[1:] != words[:-1]) | (tail[1:] != tail[:-1])
        distinct[slots] |= fresh
        runs = np.cumsum(fresh) - 1
        tied = (np.bincount(runs)[runs] > 1) & (tail == 9)
        if not tied.any():
            return order, distinct
        slots, group = slots[tied], runs[tied]
    _sort_rest(blob, starts, lengths, order, distinct, slots, group)
    return order, distinct


def _sort_rest(
    blob: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    order: NDArray[np.int64],
    distinct: NDArray[np.bool_],
    slots: NDArray[np.int64],
    group: NDArray[np.int64],
) -> None:
    """Settles runs of strings that share their first 128 bytes, in place."""
    view = memoryview(blob)  # type: ignore[arg-type]
    edges = np.flatnonzero(np.diff(group)) + 1
    for run in np.split(slots, edges):
        texts = [(bytes(view[starts[i] : starts[i] + lengths[i]]), int(i)) for i in order[run]]
        texts.sort()
        order[run] = [i for _, i in texts]
        distinct[run[1:]] = [a[0] != b[0] for a, b in pairwise(texts)]


def _words(blob: NDArray[np.uint8], starts: NDArray[np.int64], left: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The 8 bytes at each start as a big-endian number, those after the end of the string (``left`` bytes) zero."""
    words = np.zeros(len(starts), dtype=np.uint64)
    for i in range(8):
        words <<= np.uint64(8)
        there = left > i
        words[there] |= blob[starts[there] + i]
    return words


def _gathered(data: bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> BytesKeys:
    offsets = np.zeros(len(starts) + 1, dtype=np.uint64)
    np.cumsum(lengths, out=offsets[1:])
    out = np.empty(int(offsets[-1]), dtype=np.uint8)
    at = 0
    for first in range(0, len(starts), 4096):
        spans = zip(starts[first : first + 4096].tolist(), lengths[first : first + 4096].tolist(), strict=True)
        piece = b"".join([data[start : start + length] for start, length in spans])
        out[at : at + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        at += len(piece)
    return BytesKeys(out, offsets)
