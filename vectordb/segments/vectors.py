"""A segment's vector matrix, in memory or mapped from its file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FAULT = 64 << 10
"""Linux maps this much around a touched page that is cached, whatever MADV_RANDOM says (measured on 6.18)."""
_LEAST = 4 << 20
_CAN_TRIM = hasattr(mmap, "MADV_DONTNEED")


class VectorMatrix:
    """Prepared vectors float32[m, d], immutable. Thread-safe.

    Rescoring ten rows a query soon touches every 64 KB of a mapped file, and all of it counts as resident beside the
    index that made reading it unnecessary. With :meth:`set_sparse`, the map is dropped each time a quarter of the file
    may have been touched; the pages stay in the system's cache, so touching one again costs a minor fault (10 rows:
    10 µs just after dropping, 4 µs otherwise, measured).
    """

    __slots__ = ("_budget", "_map", "_touched", "array")

    def __init__(self, array: NDArray[np.float32], mapped: mmap.mmap | None = None) -> None:
        self.array = array
        self._map = mapped
        self._budget = 0
        self._touched = 0

    @classmethod
    def open(cls, path: Path, count: int, dim: int) -> VectorMatrix:
        """Maps float32[count, dim] of a file of exactly that size."""
        array, mapped = map_array(path, np.dtype("<f4"), count * dim)
        return cls(array.reshape(count, dim), mapped)

    def set_sparse(self) -> None:
        """Says that from now on most reads are of single rows: an index does the searching."""
        if self._map is not None and _CAN_TRIM:
            self._budget = max(_LEAST, self.array.nbytes // 4) // _FAULT
            self._map.madvise(mmap.MADV_DONTNEED)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of the given rows: float32[k, d]."""
        taken = self.array.take(positions, axis=0)
        if self._budget:
            # Unlocked: a lost count only delays a trim.
            self._touched += len(positions)
            if self._touched > self._budget and self._map is not None:
                self._touched = 0
                self._map.madvise(mmap.MADV_DONTNEED)
        return taken

    def stretches(self, max_bytes: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The whole matrix in order: pairs of first position and a view of at most ``max_bytes`` (one row at least)."""
        step = max(1, max_bytes // max(1, 4 * self.array.shape[1]))
        for start in range(0, len(self.array), step):
            yield start, self.array[start : start + step]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.array.nbytes

    @property
    def is_mapped(self) -> bool:
        """Whether the rows stand in a file rather than in this process' own memory."""
        return self._map is not None


def map_array(path: Path, dtype: np.dtype[Any], count: int) -> tuple[NDArray[Any], mmap.mmap | None]:
    """A file as a read-only array [count], mapped; the map is None where the file is empty.

    Raises:
        ValueError: The file is shorter than ``count`` items.
    """
    if count == 0:
        return np.empty(0, dtype), None
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype, count), mapped
