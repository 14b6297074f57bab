"""Who runs, who waits, who is refused: the admission's rules on a clock that the tests set."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from vectordb.errors import DeadlineExceeded, ResourceExhausted, Unavailable, VectorDBError
from vectordb.server.admission import CALM, HEAVY, QUICK, STANDING, Admission, Bounds, Ticket
from vectordb.server.cost import Ask, Work, reader_of
from vectordb.wire.search import search_from_bytes
from vectordb_proto.v1 import service_pb2 as pb

CALL = Ask(("call",), 0.1, Work.BUSY)
WRITE = Ask(("write",), 0.1, Work.WAITING)
LIGHT = Ask(("light",), 0.1, Work.LIGHT)
LONG = Ask(("long",), 4 * HEAVY, Work.BUSY)


class Context:
    def __init__(self, left: float | None = None) -> None:
        self.left = left
        self.active = True

    def time_remaining(self) -> float | None:
        return self.left

    def is_active(self) -> bool:
        return self.active


class House:
    """An admission, its clock, and calls in threads of their own."""

    def __init__(self, **bounds: Any) -> None:
        self.now = 100.0
        self.admission = Admission(Bounds(**bounds), lambda: self.now, lambda: self.now)
        self.order: list[str] = []

    def enter(self, ask: Ask = CALL, left: float | None = None, size: int = 1) -> Ticket:
        return self.admission.enter(ask, size, Context(left))

    def waits(self, name: str, ask: Ask = CALL, context: Context | None = None, size: int = 1) -> Waiting:
        before = self.admission.waiting
        waiting = Waiting(lambda: self.admission.enter(ask, size, context or Context()), self.order, name)
        while self.admission.waiting == before and waiting.thread.is_alive():
            waiting.thread.join(0.001)
        return waiting

    def refused(self, ask: Ask = CALL, left: float | None = None, size: int = 1) -> VectorDBError:
        with pytest.raises(ResourceExhausted) as caught:
            self.enter(ask, left, size)
        assert caught.value.admitted is False
        return caught.value


class Waiting:
    def __init__(self, enter: Callable[[], Ticket], order: list[str], name: str) -> None:
        self.ticket: Ticket | None = None
        self.error: VectorDBError | None = None

        def run() -> None:
            try:
                self.ticket = enter()
                order.append(name)
            except VectorDBError as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def done(self) -> Ticket:
        self.thread.join(5)
        assert self.ticket is not None
        return self.ticket


def test_places_are_given_in_the_order_of_arrival() -> None:
    house = House(max_workers=1)
    first = house.enter()
    waiting = [house.waits(name) for name in "abc"]
    ticket = first
    for name, call in zip("abc", waiting, strict=True):
        house.admission.leave(ticket)
        ticket = call.done()
        assert house.order[-1] == name
    house.admission.leave(ticket)
    assert (house.admission.running, house.admission.waiting) == (0, 0)


def test_light_calls_have_places_of_their_own() -> None:
    house = House(max_workers=1)
    house.enter()
    house.waits("a")
    assert house.enter(LIGHT) is not None
    assert house.enter(LIGHT) is not None
    house.waits("light", LIGHT)
    assert house.admission.waiting == 2


def test_searches_and_writes_do_not_keep_each_other_waiting() -> None:
    house = House(max_workers=4, max_searches=1)
    house.enter()
    house.waits("a")
    writes = [house.enter(WRITE) for _ in range(4)]
    assert len(writes) == 4
    house.waits("write", WRITE)
    assert (house.admission.running, house.admission.waiting) == (5, 2)
    assert house.admission.waiting_seconds > 0


def test_quick_searches_have_more_places_than_those_that_compute() -> None:
    house = House(max_workers=4, max_searches=1)
    house.enter()
    house.waits("a")
    quick = [house.enter(Ask(("quick",), QUICK / 2, Work.BUSY)) for _ in range(4)]
    assert len(quick) == 4
    house.waits("b", Ask(("quick",), QUICK / 2, Work.BUSY))
    for ticket in quick[:3]:
        house.now += 1.0
        house.admission.leave(ticket)
    # It turned out that they are not quick.
    house.waits("c", Ask(("quick",), QUICK / 2, Work.BUSY))


def test_a_first_call_on_cold_caches_does_not_keep_its_kind_from_being_quick() -> None:
    house = House(max_workers=4, max_searches=1)
    search = Ask(("search",), QUICK / 2, Work.BUSY)
    for took in (20 * QUICK, QUICK / 4):
        ticket = house.enter(search)
        house.now += took
        house.admission.leave(ticket)
    # Not to wait for a place for ever, where it did.
    assert len([house.enter(search, left=5.0) for _ in range(4)]) == 4


def test_heavy_calls_leave_a_place_to_others() -> None:
    house = House(max_workers=4)
    held = [house.enter(LONG) for _ in range(3)]
    waiting = house.waits("heavy", LONG)
    assert house.enter() is not None  # passes the heavy one, for which there is no place
    house.admission.leave(held[0])
    assert waiting.done().heavy


def test_what_calls_of_a_kind_took_decides_whether_the_next_is_heavy() -> None:
    house = House(max_workers=4)
    for _ in range(30):
        ticket = house.enter()
        house.now += 10 * HEAVY
        house.admission.leave(ticket)
    assert house.enter().cost > HEAVY


def test_calls_beyond_the_most_are_refused() -> None:
    house = House(max_workers=1, max_pending_calls=2)
    house.enter()
    house.waits("a")
    error = house.refused()
    assert "max_pending_calls = 2" in error.message
    assert error.reason == "calls"
    assert house.admission.shed == {"calls": 1}


def test_a_queue_that_takes_too_long_is_closed() -> None:
    house = House(max_workers=1, max_queue_seconds=0.25)
    house.enter()
    for name in "abc":
        house.waits(name)
    assert "max_queue_seconds = 0.25" in house.refused().message


def test_a_call_whose_time_would_run_out_in_the_queue_is_refused_at_once() -> None:
    house = House(max_workers=1)
    house.enter()
    house.waits("a")
    house.waits("b")
    assert house.refused(left=0.1).reason == "deadline"
    assert house.waits("c", context=Context(10)).thread.is_alive()


def test_bytes_that_wait_are_bounded_but_one_call_always_may() -> None:
    house = House(max_workers=1, max_queued_bytes=100)
    house.enter(size=1000)
    house.waits("a", size=1000)
    assert house.refused().reason == "bytes"


def test_a_burst_is_absorbed_and_a_standing_queue_is_not() -> None:
    house = House(max_workers=1)
    house.enter()
    for i in range(5):
        house.waits(str(i))
    house.now += 2 * STANDING
    assert house.refused().reason == "standing"


def test_overload_is_remembered_while_its_refusals_go_on() -> None:
    house = House(max_workers=3)
    running = [house.enter() for _ in range(3)]
    waiting = [house.waits(str(i)) for i in range(4)]
    house.now += 2 * STANDING
    assert house.refused().reason == "standing"
    for call in waiting:
        house.admission.leave(running.pop(0), measured=False)
        running.append(call.done())
    # Empty for a moment: what is refused comes back, and must not make a long queue again.
    for _ in range(3):
        house.now += 0.9 * CALM
        waiting = [house.waits("again")]
        assert house.refused().reason == "standing"
        for call in waiting:
            house.admission.leave(running.pop(0), measured=False)
            running.append(call.done())
    house.now += 1.1 * CALM
    assert len([house.waits(str(i)) for i in range(10)]) == house.admission.waiting == 10


def test_a_queue_that_was_empty_is_not_a_standing_one() -> None:
    house = House(max_workers=1)
    ticket = house.enter()
    for i in range(3):
        waiting = house.waits(str(i))
        house.now += 2 * STANDING
        house.admission.leave(ticket)
        ticket = waiting.done()
    for name in "abc":
        house.waits(name)
    assert not house.admission.shed


def test_the_refused_are_called_back_one_by_one() -> None:
    house = House(max_workers=2, max_pending_calls=4)
    for _ in range(2):
        house.enter()
    for name in "ab":
        house.waits(name)
    delays = [house.refused().retry_after for _ in range(20)]
    steps = [b - a for a, b in itertools.pairwise(delays)]
    # 0.1 s of a place each, two places: what is worked off until then, and one more for each that comes before.
    assert delays[0] == pytest.approx(0.1)
    assert steps == pytest.approx([0.05] * 19)
    for _ in range(200):
        house.refused()
    assert 2.5 <= house.refused().retry_after <= 5.0


def test_the_delay_follows_from_what_is_worked_off() -> None:
    house = House(max_workers=2)
    running = [house.enter() for _ in range(2)]
    waiting = [house.waits(str(i)) for i in range(6)]
    before = house.admission.waiting_seconds
    for call in waiting[:3]:  # each takes far longer than thought
        house.now += 1.0
        house.admission.leave(running.pop(0), measured=False)
        running.append(call.done())
    assert house.admission.waiting_seconds > before
    assert house.refused(left=0.001).retry_after > before


def test_time_that_runs_out_in_the_queue() -> None:
    house = House(max_workers=1)
    ticket = house.enter()
    # So that it may wait at all: nothing else does.
    with pytest.raises(DeadlineExceeded, match="for its turn"):
        house.enter(left=0.01)
    assert house.admission.shed == {"expired": 1}
    house.admission.leave(ticket)
    assert (house.admission.running, house.admission.waiting) == (0, 0)


def test_a_call_that_was_broken_off_gives_its_place_on() -> None:
    house = House(max_workers=1)
    ticket = house.enter()
    gone = Context()
    broken, next_one = house.waits("a", context=gone), house.waits("b")
    gone.active = False
    house.admission.leave(ticket)
    next_one.done()
    broken.thread.join(5)
    assert isinstance(broken.error, Unavailable)
    assert house.order == ["b"]


def test_closing_ends_what_waits() -> None:
    house = House(max_workers=1)
    house.enter()
    waiting = house.waits("a")
    house.admission.close()
    waiting.thread.join(5)
    assert isinstance(waiting.error, Unavailable)
    with pytest.raises(Unavailable):
        house.enter()


def test_once_closed_nothing_is_let_in_though_places_are_free() -> None:
    house = House(max_workers=2)
    house.admission.close()
    for ask in (CALL, WRITE, LIGHT):
        with pytest.raises(Unavailable, match="stopping") as caught:
            house.enter(ask)
        assert caught.value.retry_after == 1.0
    assert house.admission.running == 0


def test_what_messages_ask_for() -> None:
    def asked(rpc: str, message: Any) -> Ask:
        read = search_from_bytes if rpc == "Search" else type(message).FromString
        data = message.SerializeToString()
        return reader_of(rpc)(read(data), len(data))

    one = pb.SearchRequest(collection="docs", dim=2, vectors=bytes(8), limit=10)
    many = pb.SearchRequest(collection="docs", dim=2, vectors=bytes(8000), limit=10)
    wide = pb.SearchRequest(collection="docs", dim=2, vectors=bytes(8), limit=10)
    wide.params["ef"].int_value = 10_000
    exact = pb.SearchRequest(collection="docs", dim=2, vectors=bytes(8), limit=10, exact=True)
    searches = [asked("Search", message) for message in (one, many, wide, exact)]
    assert len({ask.kind for ask in searches}) == 4
    assert all(ask.guess > searches[0].guess for ask in searches[1:])
    assert asked("Search", pb.SearchRequest(collection="docs", texts=["a", "b"])).guess > 0
    assert asked("Explain", pb.ExplainRequest(search=many)).guess == searches[1].guess
    assert asked("Get", pb.GetRequest(ids=["a"])).work is Work.LIGHT
    assert asked("Get", pb.GetRequest(ids=["a"] * 1000)).work is not Work.LIGHT
    assert asked("GetInfo", pb.GetInfoRequest()).work is Work.LIGHT
    assert asked("CreateCollection", pb.CreateCollectionRequest()).work is not Work.LIGHT
    large = pb.WriteRequest(collection="docs", idempotency_key="x" * 100_000)
    assert asked("Write", large).guess > asked("Write", pb.WriteRequest(collection="docs")).guess
    for rpc, message in (
        ("Count", pb.CountRequest()),
        ("Scan", pb.ScanRequest()),
        ("Delete", pb.DeleteRequest()),
        ("UpdateMetadata", pb.UpdateMetadataRequest()),
    ):
        assert asked(rpc, message).work is not Work.LIGHT
