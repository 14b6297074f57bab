from collections.abc import Callable

import numpy as np
import pytest

from vectordb.metadata.rowset import to_rows
from vectordb.segments import tombstones
from vectordb.segments.tombstones import ALL_ALIVE, Tombstones


def dead_at(stones: Tombstones, version: int, rows: int) -> list[int]:
    view = stones.at(version)
    dead = to_rows(view.rows()).tolist()
    assert view.count == len(dead)
    assert np.flatnonzero(~view.alive(np.arange(rows))).tolist() == dead
    return dead


def test_nothing_is_allocated_before_the_first_deletion() -> None:
    stones = Tombstones()
    assert stones.at(5) is ALL_ALIVE
    assert stones.nbytes == 0
    assert stones.mark(np.empty(0, np.int64), 1, 10) == 0
    assert stones.nbytes == 0


@pytest.mark.parametrize("log", [4, 4096])
@pytest.mark.parametrize("seed", range(4))
def test_every_version_is_answered(log: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstones, "_LOG", log)
    rng = np.random.default_rng(seed)
    stones, model, capacity = Tombstones(), {}, 40
    for version in range(1, 30):
        capacity += int(rng.integers(0, 10))
        rows = rng.choice(capacity, int(rng.integers(1, 4)), replace=False)
        fresh = [row for row in rows.tolist() if row not in model]
        assert stones.mark(rows, version, capacity) == len(fresh)
        model |= dict.fromkeys(fresh, version)
        for asked in {version, int(rng.integers(0, version + 1))}:
            expected = sorted(row for row, v in model.items() if v <= asked)
            assert dead_at(stones, asked, capacity + 5) == expected
    for since in range(30):
        found = [(v, rows.tolist()) for v, rows in stones.since(since)]
        later = sorted({v for v in model.values() if v > since})
        assert found == [(v, sorted(r for r, w in model.items() if w == v)) for v in later]


def test_a_row_keeps_its_first_deletion() -> None:
    stones = Tombstones()
    stones.mark(np.array([3]), 2, 5)
    assert stones.mark(np.array([3, 4]), 7, 5) == 1
    assert dead_at(stones, 2, 5) == [3]
    assert dead_at(stones, 7, 5) == [3, 4]


@pytest.mark.parametrize("then", [lambda s: None, lambda s: s.mark(np.array([0]), 9, 8)])
def test_restoring_in_any_order(then: Callable[[Tombstones], object]) -> None:
    stones = Tombstones()
    stones.mark(np.array([7]), 1, 8)
    assert stones.restore(np.array([5, 2, 7, 6]), np.array([8, 3, 5, 3], np.uint64), 8) == 3
    assert stones.restore(np.array([5]), np.array([8], np.uint64), 8) == 0
    then(stones)
    assert [dead_at(stones, v, 8) for v in (0, 1, 2, 3, 8)] == [[], [7], [7], [2, 6, 7], [2, 5, 6, 7]]


def test_an_earlier_version_after_a_later_one() -> None:
    stones = Tombstones()
    stones.mark(np.array([1]), 9, 8)
    stones.mark(np.array([2]), 4, 8)
    assert [dead_at(stones, v, 8) for v in (3, 4, 8, 9)] == [[], [2], [2], [1, 2]]


def test_views_do_not_change_when_the_array_grows() -> None:
    stones = Tombstones()
    stones.mark(np.array([1]), 1, 4)
    early = stones.at(1)
    stones.mark(np.array([2, 900]), 2, 1000)
    assert to_rows(early.rows()).tolist() == [1]
    assert early.alive(np.array([0, 1, 2, 900])).tolist() == [True, False, True, True]
    assert dead_at(stones, 2, 1000) == [1, 2, 900]
