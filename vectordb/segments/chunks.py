"""Append-only columns: what one writer appends, readers of earlier rows never see.

A reader is bound to a number of rows and looks at no row beyond; the writer only fills rows beyond. So neither waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_BYTES = 1 << 20
CHUNK_LEAST = 256

_FEW = 32


def rows_per_chunk(dim: int) -> int:
    """Rows of one chunk: 1 MiB of vectors, at least 256 rows."""
    return max(CHUNK_LEAST, CHUNK_BYTES // (4 * dim))


class ChunkedMatrix:
    """float32[*, dim] that grows at its end. One appender, any number of readers of rows already appended."""

    __slots__ = ("_chunks", "_dim", "_filled", "step")

    def __init__(self, dim: int) -> None:
        self.step = rows_per_chunk(dim)
        self._dim = dim
        self._filled = 0
        self._chunks: list[NDArray[np.float32]] = []

    def append(self, rows: NDArray[np.float32] | None, count: int) -> None:
        """Appends float32[count, dim], or ``count`` rows of zeros (which take no memory until written) for None."""
        done = 0
        while done < count:
            slot = self._filled % self.step
            if slot == 0:
                self._chunks.append(np.zeros((self.step, self._dim), np.float32))
            n = min(count - done, self.step - slot)
            if rows is not None:
                self._chunks[-1][slot : slot + n] = rows[done : done + n]
            self._filled += n
            done += n

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of the given rows: float32[k, dim]."""
        chunks, step = self._chunks, self.step
        if len(rows) == 0:
            return np.empty((0, self._dim), np.float32)
        if len(rows) <= _FEW:
            few = np.empty((len(rows), self._dim), np.float32)
            for i, row in enumerate(rows.tolist()):
                few[i] = chunks[row // step][row % step]
            return few
        taken = np.empty((len(rows), self._dim), np.float32)
        owner = rows // step
        for chunk in np.unique(owner).tolist():
            mine = owner == chunk
            taken[mine] = chunks[chunk][rows[mine] - chunk * step]
        return taken

    def stretch(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows ``start..stop-1``, which stand in one chunk: a view."""
        chunk = start // self.step
        return self._chunks[chunk][start - chunk * self.step : stop - chunk * self.step]

    @property
    def nbytes(self) -> int:
        """Memory of the chunks in bytes."""
        return sum(chunk.nbytes for chunk in self._chunks)


class GrowingColumn:
    """One number a row, growing at its end by doubling; old readers keep the array they took.

    Readers take :attr:`array` once and look only at rows appended before.
    """

    __slots__ = ("_filled", "array")

    def __init__(self, dtype: type[np.generic], capacity: int = 1024) -> None:
        self.array: NDArray[np.generic] = np.zeros(capacity, dtype)
        self._filled = 0

    def append(self, values: NDArray[np.generic]) -> None:
        """Appends the values."""
        end = self._filled + len(values)
        if end > len(self.array):
            grown = np.zeros(max(end, 2 * len(self.array)), self.array.dtype)
            grown[: self._filled] = self.array[: self._filled]
            grown[self._filled : end] = values
            self.array = grown
        else:
            self.array[self._filled : end] = values
        self._filled = end


class OffsetRuns:
    """Offsets of appended rows as runs of consecutive numbers: almost always one. One appender, many readers.

    Readers are bound to a number of rows like those of the other columns.
    """

    __slots__ = ("_next_offset", "_runs", "rows")

    def __init__(self) -> None:
        # (first row, first offset) of each run, as two int64 arrays that are replaced together.
        self._runs = (np.empty(0, np.int64), np.empty(0, np.int64))
        self._next_offset = -1
        self.rows = 0

    def append(self, offsets: NDArray[np.uint64]) -> None:
        """Appends strictly ascending offsets, all above the earlier ones."""
        if len(offsets) == 0:
            return
        signed = offsets.astype(np.int64)
        starts = np.flatnonzero(np.diff(signed, prepend=signed[0] - 2) != 1)
        if signed[0] == self._next_offset:
            starts = starts[1:]
        if len(starts):
            rows, firsts = self._runs
            self._runs = (np.append(rows, starts + self.rows), np.append(firsts, signed[starts]))
        self._next_offset = int(signed[-1]) + 1
        self.rows += len(offsets)

    def of_rows(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The offsets of rows: uint64[k]."""
        run_rows, run_offsets = self._runs
        if len(run_rows) == 1:
            offsets: NDArray[np.int64] = rows + run_offsets[0]
            return offsets.view(np.uint64)
        run = np.searchsorted(run_rows, rows, side="right") - 1
        found: NDArray[np.int64] = rows - run_rows[run] + run_offsets[run]
        return found.view(np.uint64)

    def to_rows(self, offsets: NDArray[np.uint64], length: int) -> NDArray[np.int64]:
        """The rows of offsets among the first ``length``, -1 for those that are not there: int64[k]."""
        run_rows, run_offsets = self._runs
        if len(run_rows) == 0 or len(offsets) == 0:
            return np.full(len(offsets), -1, np.int64)
        signed = offsets.astype(np.int64)
        run = np.searchsorted(run_offsets, signed, side="right") - 1
        rows = signed - run_offsets[run] + run_rows[run]
        ends = np.append(run_rows[1:], np.iinfo(np.int64).max)
        outside = (run < 0) | (rows >= ends[run]) | (rows >= length)
        rows[outside] = -1
        return rows
