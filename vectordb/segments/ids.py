"""A column of ids: byte strings that are UTF-8, decoded many at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from vectordb.segments.blobs import BlobColumn, bounds_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW = 32
_WHOLE = 64
"""From so many rows on, decoding one contiguous stretch at once is cheaper than id by id."""


def encode_ids(ids: Sequence[str]) -> tuple[NDArray[np.int64], bytes]:
    """The byte lengths int64[n] of the ids and their concatenated UTF-8."""
    text = "".join(ids)
    if text.isascii():
        return np.fromiter(map(len, ids), np.int64, len(ids)), text.encode("ascii")
    encoded = [i.encode() for i in ids]
    return np.fromiter(map(len, encoded), np.int64, len(ids)), b"".join(encoded)


class IdColumn(BlobColumn):
    """Immutable ids of ``n`` rows, each as its UTF-8. Thread-safe."""

    __slots__ = ()

    @classmethod
    def build(cls, ids: Sequence[str]) -> IdColumn:
        """A column in memory."""
        lengths, blob = encode_ids(ids)
        return cls(bounds_of(lengths), blob)

    def take(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of the given rows, in their order."""
        n = len(rows)
        if n < _FEW:
            blob, few = self._blob, self._few
            return [blob[few[row] : few[row + 1]].decode() for row in rows.tolist()]
        if n >= _WHOLE and int(rows[-1]) - int(rows[0]) == n - 1 and bool((np.diff(rows) == 1).all()):
            return self.slice(int(rows[0]), int(rows[-1]) + 1)
        starts = self._starts.take(rows)
        lengths = self._ends.take(rows) - starts
        length = int(lengths[0])
        if length and (lengths == length).all():
            # As of numbers with zeros before them, or UUIDs: each is copied whole, from wherever it begins.
            items = np.ndarray((len(self._blob) - length + 1,), f"V{length}", self._blob, 0, (1,))
            return [id_.decode() for id_ in items[starts].tolist()]
        cuts = np.zeros(n + 1, np.int64)
        np.cumsum(lengths, out=cuts[1:])
        # The place in the blob of every byte of every id, so that all are copied at once.
        places = np.repeat(starts.astype(np.int64) - cuts[:-1], lengths)
        places += np.arange(len(places))
        return _cut(np.frombuffer(self._blob, np.uint8).take(places).tobytes(), cuts)

    def slice(self, start: int, stop: int) -> list[str]:
        """The ids of the rows ``start..stop-1``."""
        if stop <= start:
            return []
        first = int(self._starts[start])
        bounds = np.append(self._starts[start:stop], self._ends[stop - 1]).astype(np.int64) - first
        return _cut(self._blob[first : first + int(bounds[-1])], bounds)


def _cut(data: bytes, bounds: NDArray[np.int64]) -> list[str]:
    """The ids between the given bounds [n + 1]."""
    cuts = bounds.tolist()
    if data.isascii():
        text = data.decode("ascii")
        return [text[a:b] for a, b in pairwise(cuts)]
    return [data[a:b].decode() for a, b in pairwise(cuts)]
