"""The growing log: runs double, views stay what they were, readers and the appender do not disturb each other."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from vectordb.encoding import decode_metadata, encode_metadata
from vectordb.filter import MISSING, col, matches
from vectordb.metadata.overlay import OverlayLog
from vectordb.metadata.postings import Postings
from vectordb.metadata.runs import MetadataRuns

TREE = (col("a") == 3) | (col("b") > 0.9)


def encoded(i: int) -> bytes:
    return encode_metadata({"a": i % 7, "b": (i * 37 % 100) / 100})


def truth(n: int) -> set[int]:
    return {i for i in range(n) if matches(TREE, decode_metadata(encoded(i)))}


def test_each_row_is_merged_a_logarithmic_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    merge = Postings.merge
    monkeypatch.setattr(
        Postings, "merge", staticmethod(lambda parts: (moved.append(sum(len(k) for _, k in parts)), merge(parts))[1])
    )
    log = MetadataRuns()
    for i in range(3000):
        log.append([encoded(i)])
        view = log.view(i + 1)
        if i % 100 == 0 or i > 2990:
            assert set(view.matching(TREE)) == truth(i + 1)
        else:
            view.matching(TREE)
    sizes = [run.n for run in log.runs(3000)]
    assert len(sizes) <= 7
    assert all(a > 2 * b for a, b in pairwise(sizes))
    assert sum(moved) < 3000 * 12


def test_a_view_never_sees_later_rows() -> None:
    log = MetadataRuns()
    log.append([encoded(i) for i in range(100)])
    early = log.view(30)
    log.append([encoded(i) for i in range(100, 1000)])
    assert set(log.view(1000).matching(TREE)) == truth(1000)
    assert set(early.matching(TREE)) == truth(30)
    assert early.estimate(TREE).high <= 30
    assert early.postings().n == 30
    assert early.values("a", np.array([0, 29, 3])) == [0, 1, 3]
    assert early.sort_keys("nope", np.array([1])) == [None]
    for wrong in (-1, 1001):
        with pytest.raises(IndexError):
            log.view(wrong)


def test_readers_beside_the_appender_see_exact_prefixes() -> None:
    log = MetadataRuns()
    overlay = OverlayLog()
    total = 4000
    expected = truth(total)
    failures: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set() and not failures:
            n = len(log)
            found = set(log.view(n).matching(TREE))
            if found != {i for i in expected if i < n}:
                failures.append((n, found))
            view = overlay.at(n)
            if view is not None:
                rows = np.arange(10)
                # Entry i changes row i % 10 at version i + 1: the newest entry of a row is known.
                wanted = [max(range(r, view.length, 10), default=-1) for r in range(10)]
                if view.entries(rows).tolist() != wanted or view.values("a", rows, [MISSING] * 10) != [
                    MISSING if e < 0 else e % 7 for e in wanted
                ]:
                    failures.append((view.length, view.entries(rows)))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for start in range(0, total, 5):
        for i in range(start, start + 5):
            overlay.append([i % 10], i + 1, [encoded(i)])
        log.append([encoded(i) for i in range(start, start + 5)])
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert set(log.view(total).matching(TREE)) == expected


def test_an_empty_overlay_costs_and_changes_nothing() -> None:
    log = OverlayLog()
    assert log.at(10**9) is None
    assert log.nbytes == 0


def test_overlay_postings_stand_in_the_order_of_their_rows() -> None:
    log = OverlayLog()
    log.append([5, 2, 5], 1, [encoded(0), encoded(1), encoded(2)])
    log.append(np.array([9]), 4, [encoded(3)])
    late = log.at(4)
    early = log.at(3)
    assert late is not None
    assert early is not None
    rows, postings = late.postings()
    assert rows.tolist() == [2, 5, 9]
    assert postings.values("a", np.arange(3)) == [1, 2, 3]
    assert early.postings()[0].tolist() == [2, 5]
    assert early.correct_encoded(np.array([5, 9]), [b"a", b"b"]) == [encoded(2), b"b"]
    changed, metadata = late.changed_among(np.array([2, 4, 9]))
    assert (changed.tolist(), metadata) == ([True, False, True], [encoded(1), encoded(3)])
    assert log.at(0) is None
    assert late.versions(np.array([2, 3, 9]), np.array([7, 7, 7], np.uint64)).tolist() == [1, 7, 4]
