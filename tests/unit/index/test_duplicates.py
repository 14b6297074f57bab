"""Equal rows found, grouped, spread again, and regrouped when a matrix grows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectordb.index import duplicates
from vectordb.index.base import BuildCancelled
from vectordb.index.duplicates import Groups, Rows, first_equal, grouped, regrouped


def never() -> bool:
    return False


def of(values: list[int], dim: int = 5) -> np.ndarray:
    """Rows that are equal where the values are."""
    table = np.random.default_rng(0).standard_normal((1 + max(values, default=0), dim)).astype(np.float32)
    return table[np.array(values, np.int64)]


def test_first_equal_rows() -> None:
    np.testing.assert_array_equal(first_equal(of([3, 1, 3, 0, 1, 3]), never), [0, 1, 0, 3, 1, 0])
    assert len(first_equal(of([]), never)) == 0


def test_equal_hashes_are_not_equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_hashes", lambda rows, cancelled: np.zeros(rows.count, np.uint64))
    rows = np.array([0, 0, 2, 0, 4])
    np.testing.assert_array_equal(first_equal(of([7, 7, 1, 7, 2]), never), rows)


def test_few_copies_are_left_alone() -> None:
    assert grouped(of([0, 1, 1, 1, 2]), never) is None
    assert grouped(of([]), never) is None
    groups = grouped(of([0, 1, 1, 1, 2, 1]), never)
    assert groups is not None
    assert groups.distinct == 3
    np.testing.assert_array_equal(groups.labels(), [0, 1, 1, 1, 2, 1])


def test_finding_them_can_be_cancelled() -> None:
    with pytest.raises(BuildCancelled):
        grouped(of([1] * 10), lambda: True)


def test_rows_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK_BYTES", 3 * 5 * 4)
    vectors = of(list(range(10)))
    for rows in (Rows(vectors), Rows(vectors, np.array([9, 2, 2, 5]))):
        blocks = list(rows.blocks(never))
        assert [start for start, _ in blocks] == list(range(0, rows.count, 3))
        whole = vectors if rows.picked is None else vectors[rows.picked]
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), whole)
        np.testing.assert_array_equal(rows.take(np.array([3, 0])), whole[[3, 0]])


labels = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(values=labels, seed=st.integers(0, 99), limit=st.integers(1, 50), filtered=st.booleans())
def test_spread_gives_every_allowed_copy_in_its_place(values: list[int], seed: int, limit: int, filtered: bool) -> None:
    plain = np.unique(values, return_inverse=True)[1]
    groups = Groups.of(plain)
    rng = np.random.default_rng(seed)
    mask = rng.random(len(plain)) < 0.5 if filtered else np.ones(len(plain), bool)
    bits = np.packbits(mask, bitorder="little")
    found = np.stack([rng.permutation(groups.distinct) for _ in range(3)])
    found[2, groups.distinct // 2 :] = -1
    far = np.sort(rng.random(found.shape).astype(np.float32), axis=1)
    rows, spread = groups.spread(found, far, limit, bits if filtered else None)
    for i in range(3):
        wanted = [
            (int(row), float(far[i, j]))
            for j, label in enumerate(found[i])
            for row in np.flatnonzero((plain == label) & mask)
        ][:limit]
        assert [(int(r), float(d)) for r, d in zip(rows[i], spread[i], strict=True) if r >= 0] == wanted
        assert (rows[i, len(wanted) :] == -1).all()
        assert np.isposinf(spread[i, len(wanted) :]).all()
    allowed = np.unpackbits(groups.allowed(bits), count=groups.distinct, bitorder="little")
    np.testing.assert_array_equal(allowed, [mask[plain == label].any() for label in range(groups.distinct)])


@settings(max_examples=100, deadline=None)
@given(base=labels, more=labels)
def test_regrouping_keeps_numbers_and_adds_new_ones(base: list[int], more: list[int]) -> None:
    vectors = of(base + more + [6])[:-1]
    groups = grouped(vectors[: len(base)], never)
    known = np.arange(len(base)) if groups is None else groups.labels()
    after, fresh = regrouped(vectors, len(base), groups, never)
    if after is None:
        assert groups is None
        assert fresh is None
        assert np.bincount(base + more).max() <= duplicates.HARMLESS
        return
    assert fresh is not None
    found = after.labels()
    np.testing.assert_array_equal(found[: len(base)], known)
    # New rows: those unlike any before them, numbered on in order.
    wanted = [i for i in range(len(base), len(vectors)) if (base + more)[i] not in (base + more)[:i]]
    np.testing.assert_array_equal(fresh, wanted)
    np.testing.assert_array_equal(found[fresh], known.max() + 1 + np.arange(len(fresh)))
    for i, value in enumerate(more):
        same = (base + more).index(value)
        assert found[len(base) + i] == found[same]
