from __future__ import annotations

import time

import pytest

from vectordb.errors import Closed, FailedPrecondition, InvalidArgument, ResourceExhausted
from vectordb.server.scans import Scans
from vectordb.types import Record


class Pages:
    """Pages of given sizes; knows whether it was closed."""

    def __init__(self, *sizes, error=None):
        self.closed = False
        self.asked = 0
        self._sizes = list(sizes)
        self._error = error

    def __iter__(self):
        return self

    def __next__(self):
        self.asked += 1
        if self._sizes:
            return [Record(f"{self.asked}-{i}") for i in range(self._sizes.pop(0))]
        if self._error is not None:
            raise self._error
        raise StopIteration

    def close(self):
        self.closed = True


def read(scans, pages, size):
    page, cursor = scans.start(lambda: pages, size)
    got = [len(page)]
    while cursor:
        page, cursor = scans.resume(cursor)
        got.append(len(page))
    return got


def test_a_short_page_is_known_to_be_the_last():
    scans, pages = Scans(1, 60), Pages(2, 2, 1)
    assert read(scans, pages, 2) == [2, 2, 1]
    assert pages.closed
    assert len(scans) == 0


def test_a_short_page_in_the_middle_loses_nothing():
    assert read(Scans(1, 60), Pages(2, 1, 0, 2, 1), 2) == [2, 1, 0, 2, 1]


def test_a_full_last_page_is_followed_by_an_empty_one():
    assert read(Scans(1, 60), Pages(2, 2), 2) == [2, 2, 0]
    assert read(Scans(1, 60), Pages(), 2) == [0]


def test_a_page_can_be_asked_for_twice_the_last_one_too():
    scans = Scans(1, 60)
    _, one = scans.start(lambda: Pages(2, 2, 1), 2)
    second = scans.resume(one)
    assert scans.resume(one) == second
    last = scans.resume(second[1])
    assert last[1] == ""
    assert scans.resume(second[1]) == last
    with pytest.raises(InvalidArgument):
        scans.resume(one)


def test_the_cap_counts_open_scans_and_begins_none_beyond_it():
    scans, begun = Scans(1, 60), []
    _, cursor = scans.start(lambda: Pages(2, 2), 2)
    with pytest.raises(ResourceExhausted):
        scans.start(lambda: begun.append(1), 2)
    assert not begun
    scans.close(cursor)
    scans.close(cursor)
    assert read(scans, Pages(1), 2) == [1]


def test_an_error_ends_the_scan_and_frees_its_place():
    scans, pages = Scans(1, 60), Pages(2, error=Closed("gone"))
    _, cursor = scans.start(lambda: pages, 2)
    with pytest.raises(Closed):
        scans.resume(cursor)
    assert pages.closed
    with pytest.raises(FailedPrecondition):
        scans.resume(cursor)

    def refuse():
        raise Closed("never began")

    with pytest.raises(Closed):
        scans.start(refuse, 2)
    assert len(scans) == 0


def test_idle_scans_are_released_others_not():
    scans, idle, busy = Scans(2, 0.1), Pages(2, 2), Pages(2, 2, 2)
    _, old = scans.start(lambda: idle, 2)
    _, young = scans.start(lambda: busy, 2)
    time.sleep(0.07)
    _, young = scans.resume(young)
    time.sleep(0.07)
    scans.expire()
    assert idle.closed
    assert not busy.closed
    with pytest.raises(FailedPrecondition, match="idle"):
        scans.resume(old)
    assert len(scans.resume(young)[0]) == 2
    scans.close_all()
    assert busy.closed


def test_last_pages_are_kept_for_repeats_only_up_to_so_many_bytes():
    scans, cursors = Scans(1, 60), []
    for _ in range(4):
        _, cursor = scans.start(lambda: iter([[Record("a"), Record("b")], [Record("c", text="x" * (30 << 20))]]), 2)
        assert scans.resume(cursor)[1] == ""
        cursors.append(cursor)
    for old in cursors[:2]:
        with pytest.raises(FailedPrecondition):
            scans.resume(old)
    for young in cursors[2:]:
        assert scans.resume(young)[0][0].id == "c"
    _, cursor = scans.start(lambda: iter([[Record("a"), Record("b")], [Record("d", text="x" * (70 << 20))]]), 2)
    assert [scans.resume(cursor)[0][0].id for _ in range(2)] == ["d", "d"]
