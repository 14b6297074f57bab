"""A column of byte strings as two mappable arrays: one blob, and the bounds of each string in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW = 32
"""Bounds of so many rows are looked up one by one, of more by array operations."""
_PIECE_BYTES = 4 << 20


class Strings(NamedTuple):
    """Some byte strings, one after the other.

    Attributes:
        lengths: int64[k], the bytes of each.
        data: uint8[sum of the lengths], read-only or not; C-contiguous.
    """

    lengths: NDArray[np.int64]
    data: NDArray[np.uint8]


def joined(strings: Sequence[bytes]) -> Strings:
    """Byte strings as one blob and their lengths."""
    return Strings(np.fromiter(map(len, strings), np.int64, len(strings)), np.frombuffer(b"".join(strings), np.uint8))


def replaced(base: Strings, which: NDArray[np.bool_], new: Sequence[bytes]) -> Strings:
    """The same strings but for those of ``which`` bool[k], copied by array operations. May return ``base``.

    Args:
        new: One for each that is replaced, in order.
    """
    if not new:
        return base
    others = joined(new)
    lengths = base.lengths.copy()
    lengths[which] = others.lengths
    data = np.empty(int(lengths.sum()), np.uint8)
    of_new = np.repeat(which, lengths)
    data[of_new] = others.data
    data[~of_new] = base.data[np.repeat(~which, base.lengths)]
    return Strings(lengths, data)


class BlobColumn:
    """Immutable byte strings of ``n`` rows. Thread-safe.

    Args:
        bounds: uint32 or uint64 [n + 1], start of each string in ``blob`` and the end of the last.
        blob: The strings one after the other; a map gives its slices as bytes, as ``bytes`` does.
    """

    __slots__ = ("_blob", "_bounds", "_ends", "_few", "_starts")

    def __init__(self, bounds: NDArray[np.uint32] | NDArray[np.uint64], blob: bytes | mmap) -> None:
        self._bounds = bounds
        self._starts = bounds[:-1]
        self._ends = bounds[1:]
        # The bounds again, for a few rows: an item of it costs less than one of an array.
        self._few: memoryview[int] = memoryview(bounds)  # type: ignore[arg-type,unused-ignore]
        self._blob = blob

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def nbytes(self) -> int:
        """Size of both arrays in bytes."""
        return len(self._blob) + self._bounds.nbytes

    def strings(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The strings of the given rows, in their order (copies)."""
        blob = self._blob
        if len(rows) < _FEW:
            few = self._few
            return [blob[few[row] : few[row + 1]] for row in rows.tolist()]
        starts, ends = self._starts.take(rows).tolist(), self._ends.take(rows).tolist()
        return [blob[start:end] for start, end in zip(starts, ends, strict=True)]

    def pieces(self, rows: NDArray[np.int64], most: int = _PIECE_BYTES) -> Iterator[tuple[NDArray[np.int64], Strings]]:
        """The strings of strictly ascending rows, some at a time, copied by array operations.

        Args:
            most: Bytes of the blob that one piece may span; at least one row each.

        Yields:
            The rows of the piece, and their strings: in place where no row between them is left out.
        """
        done, total = 0, int(self._bounds[-1])
        while done < len(rows):
            first = int(rows[done])
            # As an item of the array's own type: another type would convert all of the array.
            end = self._bounds.dtype.type(min(total, int(self._bounds[first]) + most))
            stop = max(first + 1, int(self._bounds.searchsorted(end, side="right")) - 1)
            upto = int(rows.searchsorted(stop))
            yield rows[done:upto], self._stretch(rows[done:upto])
            done = upto

    def _stretch(self, rows: NDArray[np.int64]) -> Strings:
        """The strings of strictly ascending rows, at least one."""
        first, last = int(rows[0]), int(rows[-1])
        bounds = self._bounds[first : last + 2].astype(np.int64)
        lengths = np.diff(bounds)
        start, end = bounds[[0, -1]].tolist()
        data = np.frombuffer(self._blob, np.uint8, end - start, start) if end > start else np.empty(0, np.uint8)
        if len(rows) == len(lengths):
            return Strings(lengths, data)
        kept = np.zeros(len(lengths), np.bool_)
        kept[rows - first] = True
        return Strings(lengths[kept], data[np.repeat(kept, lengths)])


def bounds_of(lengths: NDArray[np.int64]) -> NDArray[np.uint32] | NDArray[np.uint64]:
    """Bounds [n + 1] of strings of the given byte lengths: uint32 where they fit, else uint64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    bounds = np.zeros(len(lengths) + 1, np.int64)
    bounds[1:] = ends
    return bounds.astype(np.uint32) if total < 1 << 32 else bounds.astype(np.uint64)
