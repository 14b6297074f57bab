"""The threads of the lane: as many as compute at a time, and more while their calls last."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.server.lane_echo import (
    BEGIN,
    KEY,
    PATH,
    answer_of,
    call_of,
    docs,
    named,
    received_until,
    searches,
)
from tests.waiting import wait_until
from vectordb.server import unary_server
from vectordb.server.arrivals import ArrivalPool, Arrivals
from vectordb.server.lane import Lane
from vectordb.server.lane_connection import LaneConnection
from vectordb.server.transports import CallBounds
from vectordb.wire.hpack import literal
from vectordb_client import connect

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no lane on this system")


@pytest.fixture(scope="module", autouse=True)
def transport() -> str:
    return "native"


def test_a_thread_that_comes_too_late_for_the_crew_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the crew takes a call that lasts, and counts on one who answers a write to receive: that one finds
    the crew complete."""
    written, answering, go_on, release = (threading.Event() for _ in range(4))
    held = list[bytes]()
    answer = LaneConnection.answer

    def slowly(connection: LaneConnection, stream: int, data: bytes, *rest: Any) -> None:
        if data == b"write":
            answering.set()
            go_on.wait(20)
        answer(connection, stream, data, *rest)

    def search(data: bytes, _: Any) -> bytes:
        if data == b"long":
            held.append(data)
            release.wait(20)
        return data

    search.experimental_thread_pool = ArrivalPool(Arrivals(100, 100, lambda: 0), 1, "none")  # type: ignore[attr-defined]
    monkeypatch.setattr(LaneConnection, "answer", slowly)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(unary_server, "_WAIT_MS", 2000)  # the one who receives does so until a call comes
    handlers = {PATH: search, "/test.Echo/Write": lambda data, _: (written.wait(20), data)[1]}
    lane = Lane(
        {path: grpc.unary_unary_rpc_method_handler(behaviour) for path, behaviour in handlers.items()},
        CallBounds(20, 20),
        1 << 20,
    )
    lane.key = b"key"
    lane.start()
    opened = list[socket.socket]()

    def there() -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(5)
        opened.append(connected)
        connected.connect(named(lane.address))
        connected.sendall(BEGIN)
        return connected

    def sent(connected: socket.socket, data: bytes, path: str = PATH) -> socket.socket:
        connected.sendall(call_of(data, head=b"\x83\x86" + literal(":path", path.encode()) + KEY))
        return connected

    try:
        for number in range(2):
            sent(there(), b"long")
            wait_until(lambda number=number: len(held) == number + 1)  # type: ignore[misc]
        write, last, quick = sent(there(), b"write", "/test.Echo/Write"), there(), there()
        wait_until(lambda: lane._away == 1)
        wait_until(lambda: not lane._watched)
        written.set()
        assert answering.wait(5)
        sent(last, b"long")
        wait_until(lambda: len(held) == 3)
        go_on.set()
        assert received_until(write, answer_of(b"write"))
        assert received_until(sent(quick, b"quick"), answer_of(b"quick"))
    finally:
        for event in (written, go_on, release):
            event.set()
        assert lane.stop(5.0).wait(10)
        for connected in opened:
            connected.close()


def test_without_threads_there_is_none(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        if thread.name.startswith("vectordb-lane"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    served = serve()
    docs(served)
    assert served.server._lane.address == ""
    with connect(served.address) as db:
        assert db.collection("docs").search([1, 2, 3]).ids == []
        assert searches(db)._lane == ""


def test_a_call_waits_for_a_thread_where_there_are_no_more(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    docs(served)
    monkeypatch.setattr(served.server._lane, "_add_thread", lambda: None)
    with connect(served.address) as db, ThreadPoolExecutor(8) as pool:
        found = db.collection("docs")
        found.search([1, 2, 3])
        served.backend.block = threading.Event()
        calls = [pool.submit(found.search, [1, 2, 3]) for _ in range(8)]
        wait_until(lambda: served.server._admission.running == 2)
        served.backend.block.set()
        assert [call.result(10).ids for call in calls] == [[]] * 8


def test_the_crew_grows_while_its_calls_last_and_shrinks_again(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    lane = served.server._lane
    with connect(served.address) as db, ThreadPoolExecutor(10) as pool:
        found = db.collection("docs")
        for _ in range(20):
            found.search([1, 2, 3])
        assert (lane._threads, lane._crew) == (2, lane._usual)
        served.backend.block = threading.Event()
        held = [pool.submit(found.search, [1, 2, 3]) for _ in range(lane._usual + 4)]
        wait_until(lambda: served.server._admission.running >= lane._usual + 2)
        assert lane._crew > lane._usual
        # Others are heard meanwhile, although more calls run than there are usually threads.
        assert found.upsert(["a"], [[1, 2, 3]], timeout=10).count == 1
        served.backend.block.set()
        assert all(call.result(10) is not None for call in held)
        wait_until(lambda: lane._crew == lane._usual and not lane._watched)
        assert found.search([1, 2, 3]).ids == ["a"]


def test_writes_wait_for_the_disk_and_not_for_each_others_threads(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    together = threading.Barrier(8)
    inner = served.backend.write

    def write(collection: str, request: Any) -> Any:
        together.wait(20)
        return inner(collection, request)

    with connect(served.address) as db, ThreadPoolExecutor(8) as pool:
        found = db.collection("docs")
        found.search([1, 2, 3])
        served.backend.write = write
        writes = [pool.submit(found.upsert, [str(i)], [[1, 2, 3]]) for i in range(8)]
        assert [written.result(30).count for written in writes] == [1] * 8
        assert served.server._lane._away == 0
