import numpy as np
import pytest

from vectordb.segments.chunks import ChunkedMatrix, GrowingColumn, OffsetRuns, rows_per_chunk


def test_chunks_hold_a_mebibyte_and_256_rows_at_least() -> None:
    assert rows_per_chunk(384) == (1 << 20) // (4 * 384)
    assert rows_per_chunk(4096) == 256


def test_chunks_are_never_moved() -> None:
    rng = np.random.default_rng(0)
    matrix, parts = ChunkedMatrix(2048), []
    matrix.append(np.ones((1, 2048), np.float32), 1)
    first = matrix.stretch(0, 1)
    for count in (3, 256, 255, 600):
        parts.append(rng.random((count, 2048)).astype(np.float32))
        matrix.append(parts[-1], count)
    matrix.append(None, 2)
    everything = np.concatenate([np.ones((1, 2048), np.float32), *parts, np.zeros((2, 2048), np.float32)])
    n = len(everything)
    assert np.shares_memory(first, matrix.stretch(0, 1))
    assert matrix.nbytes == 5 * 256 * 2048 * 4
    for rows in (np.arange(n), rng.permutation(n), rng.integers(0, n, 10), np.empty(0, np.int64)):
        assert np.array_equal(matrix.take(rows), everything[rows])
    assert np.array_equal(matrix.stretch(256, 512), everything[256:512])


def test_a_reader_keeps_the_column_it_took() -> None:
    column = GrowingColumn(np.uint64, capacity=2)
    column.append(np.array([1, 2], np.uint64))
    taken = column.array
    column.append(np.array([3, 4, 5], np.uint64))
    assert taken.tolist() == [1, 2]
    assert column.array[:5].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("gap", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_offsets_and_rows_are_inverse(gap: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs, offsets = OffsetRuns(), np.cumsum(rng.integers(1, gap + 1, 300)) + 70
    start = 0
    while start < 300:
        count = int(rng.integers(0, 40))
        runs.append(offsets[start : start + count].astype(np.uint64))
        start += count
    rows = rng.permutation(300)
    assert runs.of_rows(rows).tolist() == offsets[rows].tolist()
    asked = np.arange(0, 1200, dtype=np.uint64)
    where = {int(offset): row for row, offset in enumerate(offsets)}
    for length in (0, 150, 300):
        expected = [where.get(o, -1) if where.get(o, -1) < length else -1 for o in range(1200)]
        assert runs.to_rows(asked, length).tolist() == expected
