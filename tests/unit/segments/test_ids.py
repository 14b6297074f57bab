import numpy as np
import pytest

from vectordb.segments.blobs import bounds_of
from vectordb.segments.ids import IdColumn, encode_ids

ASCII = [f"row-{i}" for i in range(500)]
ALIKE = [f"{i:03}é" for i in range(500)]
MIXED = ["", "é", "日本語", "😀", "plain", "x" * 512] * 60


@pytest.mark.parametrize("ids", [ASCII, ALIKE, MIXED, [], ["only"]])
def test_rows_and_slices_come_back(ids: list[str]) -> None:
    column = IdColumn.build(ids)
    n = len(ids)
    assert len(column) == n
    assert column.slice(0, n) == ids
    assert column.take(np.arange(n)) == ids
    rng = np.random.default_rng(0)
    for size in (1, 10, 200):
        rows = rng.integers(0, n, size) if n else np.empty(0, np.int64)
        assert column.take(rows) == [ids[row] for row in rows]
    # A stretch with the right ends that is not consecutive.
    if n > 200:
        rows = np.arange(100)
        rows[[40, 41]] = rows[[41, 40]]
        assert column.take(rows) == [ids[row] for row in rows]
        assert column.slice(100, 200) == ids[100:200]


def test_bounds_are_as_small_as_they_can_be() -> None:
    assert bounds_of(np.array([3, 0, 4])).tolist() == [0, 3, 3, 7]
    assert bounds_of(np.array([3])).dtype == np.uint32
    assert bounds_of(np.array([1 << 32, 1])).tolist() == [0, 1 << 32, (1 << 32) + 1]
    assert bounds_of(np.array([1 << 32])).dtype == np.uint64


def test_lengths_are_in_bytes() -> None:
    lengths, blob = encode_ids(["é", "ab"])
    assert (lengths.tolist(), blob) == ([2, 2], "éab".encode())
