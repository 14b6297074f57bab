"""Who is a crowd and what is done about it: the rules on a clock that the tests set."""

from __future__ import annotations

import itertools

import pytest

from vectordb.server.arrivals import CALM, HERE, PATIENCE, STANDING, Arrival, ArrivalPool, Arrivals


class Door:
    """Arrivals of which four are no crowd and two are let in while one stands."""

    def __init__(self) -> None:
        self.now, self.apart = 100.0, 0
        self.arrivals = Arrivals(4, 2, lambda: self.apart, lambda: self.now)

    def let_in(self, count: int) -> list[Arrival]:
        found = [self.arrivals.come() for _ in range(count)]
        assert all(each.delay is None for each in found)
        for each in found:
            self.arrivals.begin(each)
        return found

    def answer_a_hundred_a_second(self) -> None:
        for _ in range(100):
            arrival = self.let_in(1)[0]
            self.now += 0.01
            self.arrivals.end(arrival)

    def crowded(self) -> list[Arrival]:
        """Ten that are a standing crowd, and stay."""
        found = self.let_in(10)
        self.now += 0.1
        self.arrivals.end(self.let_in(1)[0])
        self.now += 1.5 * STANDING
        assert self.arrivals.come().delay is not None
        return found


def test_a_burst_is_let_in_and_a_standing_crowd_is_not() -> None:
    door = Door()
    door.let_in(50)
    door.now += 0.1
    door.let_in(50)
    door.now += 0.9 * STANDING
    door.let_in(50)
    door.now += 0.2 * STANDING
    assert door.arrivals.come().delay is not None
    assert door.arrivals.crowd == 150


def test_few_at_a_time_are_let_in_while_it_stands() -> None:
    door = Door()
    for arrival in door.crowded():
        door.arrivals.end(arrival)
    door.let_in(2)
    assert door.arrivals.come().delay is not None
    assert door.arrivals.crowd == 2  # who is refused is none of them


def test_it_ends_when_no_more_come_than_are_no_crowd() -> None:
    door = Door()
    door.answer_a_hundred_a_second()
    inside = door.crowded()
    for arrival in inside[2:]:
        door.arrivals.end(arrival)
    door.now += 0.9 * CALM
    for _ in range(3):  # with those two, more than four: it goes on
        assert door.arrivals.come().delay is not None
    door.now += 0.9 * CALM
    assert door.arrivals.come().delay is not None  # the others have come; this one makes three
    door.now += 0.2 * CALM
    door.let_in(10)


def test_those_apart_are_no_crowd() -> None:
    door = Door()
    door.let_in(10)
    door.apart = 10
    for _ in range(20):
        door.now += STANDING / 2
        door.arrivals.end(door.let_in(1)[0])


def test_a_stalled_client_is_none_until_its_message_is_there() -> None:
    door = Door()
    stalled = [door.arrivals.come() for _ in range(50)]
    assert door.arrivals.crowd == 50
    door.now += 0.5 * PATIENCE
    door.arrivals.end(door.let_in(1)[0])
    assert door.arrivals.crowd == 50
    door.now += 0.6 * PATIENCE
    inside = door.let_in(3)
    assert door.arrivals.crowd == 3
    for _ in range(20):
        door.now += STANDING / 10
        door.arrivals.end(door.let_in(1)[0])
    for arrival in inside:
        door.arrivals.end(arrival)
    for _ in range(20):
        door.now += STANDING / 2
        door.arrivals.end(door.let_in(1)[0])
    door.arrivals.begin(stalled[0])
    assert door.arrivals.crowd == 1
    for arrival in stalled:
        door.arrivals.end(arrival)
    assert door.arrivals.crowd == 0


def test_the_refused_are_called_back_one_by_one_at_half_the_pace() -> None:
    door = Door()
    door.answer_a_hundred_a_second()
    door.let_in(10)
    door.now += 0.1
    door.let_in(1)
    door.now += 1.5 * STANDING
    delays = [door.arrivals.come().delay or 0.0 for _ in range(20)]
    steps = [b - a for a, b in itertools.pairwise(delays)]
    assert delays[0] == pytest.approx(0.02, rel=0.1)
    assert steps == pytest.approx([0.02] * 19, rel=0.1)
    for _ in range(1000):
        door.arrivals.come()
    last = door.arrivals.come().delay
    assert last is not None
    assert last <= 5.0


def test_a_pool_tells_of_what_it_is_given() -> None:
    door = Door()
    pool = ArrivalPool(door.arrivals, 1, "test")

    def look() -> tuple[int, bool]:
        return door.arrivals.crowd, HERE.arrival is not None

    assert pool.submit(look).result(5) == (1, True)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(5)
    pool.shutdown(wait=True)
    assert door.arrivals.crowd == 0
    assert HERE.arrival is None
