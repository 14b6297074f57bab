"""Columns of byte strings: one by one, many at once, in pieces, and with some of them replaced."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from vectordb.segments.blobs import BlobColumn, Strings, bounds_of, joined, replaced
from vectordb.segments.vectors import map_bytes

UNEVEN = [bytes([i % 251]) * (i * 7 % 23) for i in range(400)]
COLUMNS = {
    "uneven": UNEVEN,
    "empty strings": [b""] * 50,
    "one": [b"only"],
    "none": [],
    "a large one": [b"a", b"", b"x" * 5_000, b"", b"b"],
    "empty at both ends": [b"", b"", b"middle", b"", b""],
}


def column(strings: list[bytes]) -> BlobColumn:
    lengths, data = joined(strings)
    return BlobColumn(bounds_of(lengths), data.tobytes())


def cut(strings: Strings) -> list[bytes]:
    bounds = np.append(0, np.cumsum(strings.lengths)).tolist()
    assert bounds[-1] == len(strings.data)
    data = strings.data.tobytes()
    return [data[a:b] for a, b in pairwise(bounds)]


@pytest.mark.parametrize("strings", COLUMNS.values(), ids=COLUMNS)
def test_strings_come_back_in_any_order(strings: list[bytes]) -> None:
    made, n = column(strings), len(strings)
    assert len(made) == n
    assert made.nbytes == sum(map(len, strings)) + 4 * (n + 1)
    assert made.strings(np.arange(n)) == strings
    rng = np.random.default_rng(0)
    for size in (1, 10, 200):
        rows = rng.integers(0, n, size) if n else np.empty(0, np.int64)
        assert made.strings(rows) == [strings[row] for row in rows.tolist()]


@pytest.mark.parametrize("share", [1.0, 0.9, 0.3, 0.02])
@pytest.mark.parametrize("most", [1, 40, 700, 1 << 20])
@pytest.mark.parametrize("strings", COLUMNS.values(), ids=COLUMNS)
def test_pieces_are_the_chosen_rows_within_bounds(strings: list[bytes], most: int, share: float) -> None:
    made = column(strings)
    rows = np.flatnonzero(np.random.default_rng(1).random(len(strings)) < share)
    seen: list[int] = []
    for of, piece in made.pieces(rows, most):
        assert len(of) == len(piece.lengths) > 0
        assert cut(piece) == [strings[row] for row in of.tolist()]
        assert len(of) == 1 or sum(map(len, strings[int(of[0]) : int(of[-1]) + 1])) <= most
        seen += of.tolist()
    assert seen == rows.tolist()


def test_whole_stretches_are_not_copied(tmp_path: Path) -> None:
    lengths, data = joined(UNEVEN)
    (tmp_path / "blob").write_bytes(data)
    mapped = map_bytes(tmp_path / "blob")
    made = BlobColumn(bounds_of(lengths), mapped)
    ((_, piece),) = made.pieces(np.arange(100, 300))
    assert np.shares_memory(piece.data, np.frombuffer(mapped, np.uint8))
    assert cut(piece) == UNEVEN[100:300]


def test_bounds_of_more_than_four_gigabytes() -> None:
    """Bounds alone: what they point at is never touched."""
    wide = bounds_of(np.array([3, 1 << 32, 2]))
    assert wide.dtype == np.uint64
    made = BlobColumn(wide, b"abc")
    assert made.strings(np.array([0])) == [b"abc"]
    ((of, piece),) = made.pieces(np.array([0]))
    assert (of.tolist(), cut(piece)) == ([0], [b"abc"])


@pytest.mark.parametrize("which", [[], [0], [2, 3, 399], list(range(400))])
def test_replacing_some(which: list[int]) -> None:
    mask = np.zeros(400, np.bool_)
    mask[which] = True
    new = [b"new" * (i % 4) for i in range(len(which))]
    expected = list(UNEVEN)
    for row, string in zip(which, new, strict=True):
        expected[row] = string
    assert cut(replaced(joined(UNEVEN), mask, new)) == expected
