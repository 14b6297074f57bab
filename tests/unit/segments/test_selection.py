"""What a filter selects is kept within bounds, and its vectors are copied where that is of use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectordb.filter import Filter, col
from vectordb.index.copied_bytes import ByteCopy, ByteRows
from vectordb.index.copied_halves import HalfCopy, HalfRows
from vectordb.metadata.estimate import Estimate
from vectordb.metadata.rowset import from_rows
from vectordb.metric import Metric
from vectordb.segments import selection as module
from vectordb.segments.selection import Changed, Selections

ROWS, DIM = 4_000, 24
COPIED = ByteCopy.row_bytes(DIM)
EVERY = (col("every") == 2, col("every") == 3, col("every") == 5)


@pytest.fixture(autouse=True)
def _bytes_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_LEAST", 100)


class Rows:
    """A part whose filters ``every == k`` match each k-th row; ``gone`` are dead."""

    def __init__(self, gone: Any = ()) -> None:
        self.rows = self.vector_count = ROWS
        self.gone = np.asarray(gone, np.int64)
        self.dead = len(self.gone)
        self.matrix = np.random.default_rng(0).standard_normal((ROWS, DIM), dtype=np.float32)
        self.evaluated = 0

    def estimate(self, where: Filter) -> Estimate:
        return Estimate.exact(ROWS // where.value)  # type: ignore[attr-defined]

    def matching(self, where: Filter) -> Any:
        self.evaluated += 1
        return from_rows(np.arange(0, ROWS, where.value))  # type: ignore[attr-defined]

    def dead_rows(self) -> Any:
        return from_rows(self.gone)

    def alive(self, rows: Any) -> Any:
        return ~np.isin(rows, self.gone)

    def vectors_at(self, rows: Any) -> Any:
        return self.matrix[rows]


def selections(**bounds: Any) -> Selections:
    return Selections(ROWS, DIM, **bounds)


def copy(kept: Selections, part: Any, where: Filter, changed: Changed) -> Any:
    found = kept.get(part, where, changed)
    for _ in range(-(-ROWS // module.PIECE)):
        kept.copy_on(found, part, Metric.L2)
    return found


def test_a_filter_is_evaluated_once_a_state() -> None:
    part: Any = Rows()
    kept = selections()
    first = kept.get(part, EVERY[0], Changed())
    assert kept.get(part, col("every") == 2, Changed()) is first
    assert part.evaluated == 1
    changed = kept.get(part, EVERY[0], Changed(payloads=1))
    assert changed is not first
    # A view from before the change gets what holds for it, and takes nothing away from the newer ones.
    assert kept.get(part, EVERY[0], Changed()) is not changed
    assert kept.get(part, EVERY[0], Changed(payloads=1)) is changed


def test_the_bound_holds_and_the_oldest_goes_first() -> None:
    part: Any = Rows()
    kept = selections(bound=35_000)
    found = [kept.get(part, where, Changed()) for where in EVERY]
    assert kept.nbytes <= 35_000
    assert kept.get(part, EVERY[2], Changed()) is found[2]
    assert kept.get(part, EVERY[0], Changed()) is not found[0]
    assert not found[0].copyable
    kept.limit(1_000)
    assert kept.nbytes == 0


def test_the_filter_counts_as_well() -> None:
    part: Any = Rows()
    kept = selections()
    kept.get(part, EVERY[0], Changed())
    before = kept.nbytes
    part.estimate = lambda where: Estimate.exact(0)
    kept.get(part, col("every").isin(range(1_000)), Changed())
    assert kept.nbytes - before > 100_000


def test_a_copy_is_made_in_pieces_and_counted() -> None:
    part: Any = Rows()
    kept = selections(copy_bytes=1 << 20)
    found = kept.get(part, EVERY[0], Changed())
    before = kept.nbytes
    kept.copy_on(found, part, Metric.L2)
    assert found.copied is None
    assert kept.nbytes - before == len(found) * COPIED
    kept.copy_on(found, part, Metric.L2)
    assert isinstance(found.copied.vectors, ByteRows)
    # Counted are all rows; those that leave the range of bytes are not stored.
    assert 0 <= kept.nbytes - before - found.copied.vectors.nbytes <= 10 * COPIED


def test_few_rows_are_copied_at_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES_LEAST", ROWS)
    part: Any = Rows()
    kept = selections(copy_bytes=1 << 20)
    found = copy(kept, part, EVERY[0], Changed())
    assert isinstance(found.copied.vectors, HalfRows)
    assert found.copied.vectors.nbytes == len(found) * HalfCopy.row_bytes(DIM)


def test_copies_give_way_to_newer_ones() -> None:
    part: Any = Rows()
    size = (ROWS // 2) * COPIED
    kept = selections(copy_bytes=size + 1_000)
    first, second = (copy(kept, part, where, Changed()) for where in EVERY[:2])
    assert (first.copied, first.uses) == (None, 0)
    assert second.copied is not None
    assert kept.nbytes <= size + 1_000 + module.SELECTION_BYTES
    kept.limit_copies(100)
    assert second.copied is None
    assert not second.copyable


@pytest.mark.parametrize("bytes_", [0, 1_000])
def test_what_has_no_room_is_not_copied(bytes_: int) -> None:
    part: Any = Rows()
    found = copy(selections(copy_bytes=bytes_), part, EVERY[0], Changed())
    assert (found.copyable, found.copied) == (False, None)


def test_a_copy_outlives_some_deletions_and_no_change_of_payloads() -> None:
    kept = selections(copy_bytes=1 << 20)
    first = copy(kept, Rows(), EVERY[0], Changed())
    few = kept.get(Rows([0, 1, 2, 8]), EVERY[0], Changed(dead=4))  # type: ignore[arg-type]
    assert few.copied is not None
    assert few.copied.vectors is first.copied.vectors
    assert few.copied.dead.tolist() == [0, 1, 4]
    assert len(few) == ROWS // 2 - 3
    size = kept.nbytes
    many = kept.get(Rows(range(200)), EVERY[0], Changed(dead=200))  # type: ignore[arg-type]
    assert many.copied is None
    assert kept.nbytes < size
    copy(kept, Rows(range(200)), EVERY[0], Changed(dead=200))
    assert many.copied is not None
    assert kept.get(Rows(range(200)), EVERY[0], Changed(200, 1)).copied is None  # type: ignore[arg-type]
    assert kept.nbytes <= module._ENTRY + ROWS // 4 + 8 * ROWS


def test_rows_that_bytes_do_not_tell_apart_are_copied_at_half_precision() -> None:
    plain = Rows()
    plain.matrix[1_000:3_000:20] *= 1e4
    kept = selections(copy_bytes=1 << 20)
    found = kept.get(plain, EVERY[0], Changed())  # type: ignore[arg-type]
    while not found.halves:
        kept.copy_on(found, plain, Metric.L2)  # type: ignore[arg-type]
    assert (found.copied, found.copyable) == (None, True)
    copy(kept, plain, EVERY[0], Changed())
    assert isinstance(found.copied.vectors, HalfRows)
    before = kept.nbytes - found.copied.vectors.nbytes
    assert 0 < before < 1 << 16
    # The next state of the same filter does not try bytes again.
    assert kept.get(Rows(range(200)), EVERY[0], Changed(dead=200)).halves  # type: ignore[arg-type]


def test_what_has_room_as_bytes_only_gets_no_other_copy() -> None:
    plain = Rows()
    plain.matrix[1_000:3_000:20] *= 1e4
    found = copy(selections(copy_bytes=(ROWS // 2) * COPIED), plain, EVERY[0], Changed())
    assert (found.copied, found.copyable) == (None, False)


def test_values_that_half_precision_does_not_hold_are_given_up() -> None:
    plain = Rows()
    plain.matrix[::20] = 1e9
    kept = selections(copy_bytes=1 << 20)
    copy(kept, plain, EVERY[0], Changed())
    found = copy(kept, plain, EVERY[0], Changed())
    assert (found.copied, found.copyable) == (None, False)
    assert kept.nbytes < 1 << 16
