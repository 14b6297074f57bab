"""A segment's vector matrix, in memory or mapped from its file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WINDOW = 1 << 17
"""Touching one page maps up to this much around it: Linux maps 64 KB of cached pages at a time whatever MADV_RANDOM
says, and whole folios, which are as large as the writes (``files.py``) or the read-ahead (128 KB) that made them."""
_WHOLE_SHARE, _HALF_SHARE, _SMALL = 0.99, 0.5, 256 << 20
COMPRESSED_SHARE = 0.1
"""Share of a matrix that stays mapped where resident memory is to be the codes alone, at the price of faults: rescoring
84 of 100,000 rows of 384 takes 220 us where it takes 20 with 85 % mapped."""
_LEAST = 8 << 20
_PIECES = 16
_CAN_DROP = hasattr(mmap, "MADV_DONTNEED")


def usual_share(nbytes: int) -> float:
    """Share of a matrix of so many bytes that stays mapped beside an index that has its own rows: nearly all of a small
    one, half of a large one. A fault costs 6 us, and rescoring 14 rows with a tenth unmapped 10 us more than with none.
    """
    return max(_HALF_SHARE, min(_WHOLE_SHARE, _SMALL / max(1, nbytes)))


class VectorMatrix:
    """Prepared vectors float32[m, d], immutable. Thread-safe.

    Rescoring ten rows a query soon touches every window of a mapped file, and all of it counts as resident beside the
    index that made reading it unnecessary. After :meth:`set_sparse`, a sixteenth of the file at a time is unmapped, in
    turn, as often as keeps a given share of it mapped under random reads: each read maps a new window with the chance
    that it is among the rest. Its pages remain in the system's cache, so that touching one again costs a minor
    fault and no reading. (Measured, 10 rows of 384 out of 176 MB: all mapped 6 µs, 85 % mapped 22 µs; unmapping all of
    it now and then 40 µs; ten ``pread`` calls 21 µs, but each of those gives up the GIL.) Where that share is small,
    scans leave nothing mapped behind them either.

    Attributes:
        array: The matrix.
        path: The file that it is mapped from; None in memory.
    """

    __slots__ = ("_budget", "_hand", "_lock", "_map", "_share", "_touched", "array", "path")

    def __init__(self, array: NDArray[np.float32], mapped: mmap.mmap | None = None, path: Path | None = None) -> None:
        self.array = array
        self.path = path
        self._map = mapped
        self._share = 1.0
        self._budget = 0.0  # rows read between two drops, once the matrix is sparse
        self._touched = 0
        self._hand = 0
        self._lock = Lock()

    @classmethod
    def open(cls, path: Path, count: int, dim: int) -> VectorMatrix:
        """Maps float32[count, dim] of a file of exactly that size.

        Raises:
            ValueError: The file is shorter.
        """
        array, mapped = map_array(path, np.dtype("<f4"), count * dim)
        return cls(array.reshape(count, dim), mapped, path)

    def set_sparse(self, share: float) -> None:
        """Says that from now on most reads are of single rows, since an index does the searching; unmaps all.

        Args:
            share: How much of the matrix may stay mapped, between 0 and 1; the last call's holds.
        """
        if self._map is not None and _CAN_DROP and self.array.nbytes > _LEAST:
            windows = self.array.nbytes / _WINDOW
            self._share = share
            self._budget = max(0.5, windows / _PIECES * share / (1.0 - share))
            self._map.madvise(mmap.MADV_DONTNEED)

    def set_dense(self) -> None:
        """Takes :meth:`set_sparse` back: most reads are of all rows."""
        self._share, self._budget = 1.0, 0.0

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of the given rows: float32[k, d]."""
        taken = self.array.take(positions, axis=0)
        self._note(len(positions))
        return taken

    def whole(self, wanted: int) -> NDArray[np.float32]:
        """The matrix, for reading ``wanted`` of its rows in place; do not write."""
        self._note(wanted)
        return self.array

    def _note(self, count: int) -> None:
        """Counts rows read, and drops the next piece when it is time."""
        if self._budget:
            # Unlocked: a lost count only delays the next drop. A long list of rows is an exact scan of what matches a
            # filter: likely to be wanted again, and faults would cost more than the reading.
            self._touched += count if self._is_lean else min(count, _PIECES)
            if self._touched >= self._budget:
                pieces = min(_PIECES, int(self._touched / self._budget)) if self._is_lean else 1
                self._touched = 0
                self._drop(pieces)

    @property
    def _is_lean(self) -> bool:
        return self._share < 0.5

    def _drop(self, pieces: int) -> None:
        """Unmaps the next pieces, in turn."""
        assert self._map is not None
        if pieces == _PIECES:
            self._map.madvise(mmap.MADV_DONTNEED)
            return
        piece = -(-len(self._map) // _PIECES // _WINDOW) * _WINDOW
        for _ in range(pieces):
            with self._lock:
                start = self._hand
                self._hand = start + piece if start + piece < len(self._map) else 0
            self._map.madvise(mmap.MADV_DONTNEED, start, min(piece, len(self._map) - start))

    def stretches(self, max_bytes: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The whole matrix in order: pairs of first position and a view of at most ``max_bytes`` (one row at least)."""
        row = 4 * self.array.shape[1]
        step = max(1, max_bytes // max(1, row))
        for start in range(0, len(self.array), step):
            yield start, self.array[start : start + step]
            if self._is_lean and self._map is not None:
                # Whole pages; the one that the next stretch shares is dropped with it.
                first = start * row // mmap.PAGESIZE * mmap.PAGESIZE
                last = min(len(self._map), (start + step) * row)
                self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.array.nbytes

    @property
    def resident_bytes(self) -> int:
        """Bytes that may be resident: all, but for the part of a sparse matrix that is not mapped."""
        return int(self._share * self.nbytes)


def map_array(path: Path, dtype: np.dtype[Any], count: int) -> tuple[NDArray[Any], mmap.mmap | None]:
    """A file as a read-only array [count], mapped; the map is None where the file is empty.

    Raises:
        ValueError: The file is shorter than ``count`` items.
    """
    if count == 0:
        return np.empty(0, dtype), None
    mapped = map_bytes(path)
    array = np.frombuffer(mapped, dtype, count)
    return array, mapped if isinstance(mapped, mmap.mmap) else None


def map_bytes(path: Path) -> mmap.mmap | bytes:
    """A whole file, mapped; no bytes where it is empty."""
    if path.stat().st_size == 0:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
