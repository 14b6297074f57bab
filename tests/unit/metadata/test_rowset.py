"""Row sets made by every path equal the plain set, at container borders and densities on both sides of each switch."""

from __future__ import annotations

import numpy as np
import pytest

from vectordb.metadata import rowset
from vectordb.metadata.rowset import RowSet

C = 65_536


def cases() -> list[tuple[int, np.ndarray]]:
    rng = np.random.default_rng(7)
    out = [(n, np.arange(n)) for n in (0, 1, 7, 8, 9, 600, C - 1, C, C + 1, 3 * C)]
    for n in (1_000, 20_000, C, C + 5, 200_000):
        out += [
            (n, np.sort(rng.choice(n, size=n // share, replace=False))) for share in (1, 2, 15, 16, 17, 40, 60, 900)
        ]
    out += [(3 * C, np.array([0, C - 1, C, 2 * C - 1, 3 * C - 1])), (3 * C, np.arange(C, 2 * C))]
    # Exactly at the border between the two kinds of container.
    out += [(C, np.arange(4095)), (C, np.arange(4096)), (C, np.arange(4097)), (2 * C, np.arange(C, C + 4097))]
    return out


@pytest.mark.parametrize(("n", "rows"), cases())
def test_every_conversion_there_and_back(n: int, rows: np.ndarray) -> None:
    expected = RowSet(rows.tolist())
    mask = np.zeros(n, dtype=np.bool_)
    mask[rows] = True
    shuffled = np.random.default_rng(1).permutation(rows)
    for made in (
        rowset.from_rows(shuffled.astype(np.int64), n),
        rowset.from_rows(shuffled.astype(np.uint32)),
        rowset.from_rows(np.concatenate([rows, rows])),
        rowset.from_mask(mask),
    ):
        assert made == expected
        assert rowset.to_rows(made).tolist() == rows.tolist()
        assert rowset.to_rows(made).dtype == np.int64
        assert (rowset.to_mask(made, n) == mask).all()
        assert (rowset.to_bits(made, n) == np.packbits(mask, bitorder="little")).all()
    other = rowset.complement(expected, n)
    assert rowset.to_rows(other).tolist() == np.flatnonzero(~mask).tolist()
    assert (rowset.to_bits(other, n) == np.packbits(~mask, bitorder="little")).all()


def test_full_bits_end_clean() -> None:
    for n in (0, 1, 8, 13, C, C + 3):
        rows = rowset.full(n)
        assert len(rows) == n
        assert np.unpackbits(rowset.to_bits(rows, n), bitorder="little").sum() == n


def test_rows_out_of_range_are_refused_not_wrapped() -> None:
    with pytest.raises(IndexError):
        rowset.from_rows(np.array([5]), 5)
    with pytest.raises(ValueError, match="negative"):
        rowset.from_rows(np.array([-1, 3]))
    with pytest.raises(IndexError):
        rowset.to_bits(RowSet([10]), 10)


def test_shift_and_truncate() -> None:
    rows = RowSet([0, 5, C])
    assert set(rowset.shifted(rows, C)) == {C, C + 5, 2 * C}
    assert rowset.shifted(rows, 0) is rows
    assert set(rowset.below(rows, C)) == {0, 5}
    assert rowset.below(rows, C + 1) is rows
    assert set(rows) == {0, 5, C}
