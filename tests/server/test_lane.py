"""The lane: what it answers, whom it lets in, and what a client does where it is not to be had."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.credentials import Authority, keys_file
from tests.waiting import wait_until
from vectordb.cli.process import ServerProcess
from vectordb.errors import (
    CollectionNotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from vectordb.requests import CreateRequest, SearchRequest
from vectordb.server import unary_server
from vectordb.server.arrivals import ArrivalPool, Arrivals
from vectordb.server.config import load
from vectordb.server.lane import Lane
from vectordb.server.lane_connection import LaneConnection
from vectordb.server.transports import CallBounds, has_lane
from vectordb.server.unary_call import UnaryCall
from vectordb.types import CollectionConfig
from vectordb.wire import http2
from vectordb.wire.hpack import literal
from vectordb.wire.search import search_to_parts
from vectordb_client import connect
from vectordb_client.transport.direct import DirectCalls, _connected
from vectordb_client.transport.http2 import Elsewhere
from vectordb_proto.v1 import service_pb2 as pb

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no lane on this system")

_PATH = "/test.Echo/Call"
_KEY = literal(http2.LANE_KEY, b"key")
_BARE = b"\x83\x86" + literal(":path", _PATH.encode()) + literal("content-type", b"application/grpc")
_HEAD = _BARE + _KEY


@pytest.fixture(scope="module", autouse=True)
def transport() -> str:
    return "native"


def searches(db: Any) -> DirectCalls:
    direct = db._backend._direct
    assert isinstance(direct, DirectCalls)
    return direct


def listens(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(named(address))
        except ConnectionRefusedError:
            return False
    return True


def named(address: str) -> str:
    """The name of the socket."""
    return "\0" + address.removeprefix("unix-abstract:").partition("/")[0]


def docs(served: Any) -> None:
    served.backend.create_collection(CreateRequest(CollectionConfig("docs", 3), exist_ok=True))


def test_a_client_is_told_of_it_and_goes_there(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    with connect(served.address) as db:
        found = db.collection("docs")
        assert searches(db)._lane == ""
        found.upsert(["a"], [[1, 2, 3]])
        lane = searches(db)._lane
        assert lane == served.server._lane.address
        assert re.fullmatch(rf"unix-abstract:vectordb-{os.getpid()}-[0-9a-f]{{16}}/[0-9a-f]{{32}}", lane)
        for _ in range(3):
            assert found.search([1, 2, 3]).ids == ["a"]
        assert [connection.lane for connection in searches(db)._open] == [lane]
        (connection,) = served.server._lane._connections.values()
        assert re.fullmatch(rf"unix:pid={os.getpid()},uid={os.geteuid()}", connection.peer)
        with pytest.raises(CollectionNotFound):
            db.collection("none").search([1, 2, 3])
        assert found.search([1, 2, 3]).ids == ["a"]
    wait_until(lambda: not served.server._lane._connections)


def test_who_does_not_ask_is_not_told(serve: Callable[..., Any]) -> None:
    served = serve()
    _, call = served.stub.ListCollections.with_call(pb.ListCollectionsRequest(), timeout=5)
    assert http2.LANE_KEY not in dict(call.trailing_metadata() or ())
    asking = ((http2.LANE_KEY, "1"),)
    _, call = served.stub.ListCollections.with_call(pb.ListCollectionsRequest(), timeout=5, metadata=asking)
    assert dict(call.trailing_metadata())[http2.LANE_KEY] == served.server._lane.address


def test_there_is_none_where_it_is_not_wanted_or_certificates_let_in(serve: Callable[..., Any], tmp_path: Path) -> None:
    served = serve(lane=False)
    docs(served)
    with connect(served.address) as db:
        db.collection("docs").search([1, 2, 3])
        assert (searches(db)._lane, served.server._lane) == ("", None)
        (connection,) = searches(db)._open
        assert connection.own == ()  # and it is not asked for again
    certificate, key = Authority(tmp_path).issue("server")
    assert has_lane(load(environment={}))
    assert not has_lane(load({"tls_cert": str(certificate), "tls_key": str(key)}, environment={}))


def test_long_calls_and_streams_are_not_answered_there(serve: Callable[..., Any]) -> None:
    paths = {path.rpartition(b"/")[2] for path in serve().server._lane.by_path}
    assert {b"Search", b"Write", b"Get", b"Count"} <= paths
    assert not paths & {b"BulkWrite", b"Optimize", b"Backup", b"Verify", b"Repair", b"Erase", b"Reindex"}


def test_keys_count_there_too(serve_engine: Callable[..., Any], tmp_path: Path) -> None:
    writes, reads = keys_file(
        tmp_path / "keys.toml",
        {"name": "writer", "role": "admin"},
        {"name": "reader", "role": "read", "collections": ["docs"]},
    )
    server = serve_engine(api_keys=str(tmp_path / "keys.toml"))
    with connect(server.address, api_key=writes) as db, connect(server.address, api_key=reads) as reader:
        db.create_collection("docs", 3).upsert(["a"], [[1, 2, 3]])
        for _ in range(2):
            assert reader.collection("docs").search([1, 2, 3]).ids == ["a"]
        assert searches(reader)._lane
        with pytest.raises(PermissionDenied):
            reader.collection("docs").upsert(["b"], [[1, 2, 3]])
        searches(reader)  # from now on with a key that nobody has
        reader._backend._metadata = (("authorization", "Bearer nobodys"),)
        with pytest.raises(Unauthenticated):
            reader.collection("docs").search([1, 2, 3])


def test_calls_over_the_caps_are_refused_with_a_time_to_come_again(serve: Callable[..., Any]) -> None:
    served = serve(max_workers=1, max_pending_calls=2)
    docs(served)
    with connect(served.address, retries=0) as db, ThreadPoolExecutor(8) as pool:
        found = db.collection("docs")
        found.search([1, 2, 3])
        served.backend.block = threading.Event()
        first = [pool.submit(found.search, [1, 2, 3]) for _ in range(6)]
        wait_until(lambda: sum(call.done() for call in first) >= 4)
        served.backend.block.set()
        outcomes = [call.exception(10) for call in first]
    refused = [error for error in outcomes if error is not None]
    assert len(refused) == 4
    assert all(isinstance(error, ResourceExhausted) and error.retry_after > 0 for error in refused)
    admission = served.server._admission
    wait_until(lambda: (admission.running, admission.waiting, admission.arrivals.crowd) == (0, 0, 0))


def test_a_client_that_gave_up_is_noticed(echo: Echo) -> None:
    active: list[bool] = []
    ended = threading.Event()

    def handle(data: bytes, context: Any) -> bytes:
        assert context.add_callback(ended.set)
        active.append(context.is_active())
        wait_until(lambda: not context.is_active())
        active.append(context.is_active())
        return data

    echo.handle = handle  # type: ignore[method-assign]
    with echo.connected() as connection:
        connection.sendall(_BEGIN + call_of(b"long"))
        wait_until(lambda: active == [True])
        time.sleep(0.05)
        assert active == [True]
    wait_until(lambda: active == [True, False])
    assert ended.wait(5)


def test_messages_that_are_too_long_are_refused_by_name(serve: Callable[..., Any]) -> None:
    served = serve(max_message_bytes=1 << 20)
    docs(served)
    with connect(served.address, retries=0) as db:
        found = db.collection("docs")
        found.search([1, 2, 3])
        for rows in (100_000, 3_000_000):  # of less than a frame, and of several
            with pytest.raises(ResourceExhausted, match="max_message_bytes = 1048576"):
                found.search_batch(np.ones((rows, 3), np.float32))
        assert found.search([1, 2, 3]).ids == []
        assert len(served.server._lane._connections) == 1


def test_a_server_that_stops_answers_what_runs_and_refuses_the_rest(serve: Callable[..., Any]) -> None:
    served = serve(drain_seconds=5.0)
    docs(served)
    with connect(served.address, retries=0) as db, ThreadPoolExecutor(2) as pool:
        found = db.collection("docs")
        found.upsert(["a"], [[1, 2, 3]])
        list(pool.map(lambda _: found.search([1, 2, 3]), range(20)))
        served.backend.block = threading.Event()
        running = pool.submit(found.search, [1, 2, 3])
        assert served.backend.entered.acquire(timeout=5)
        wait_until(lambda: served.server._admission.running == 1)
        lane, stopping = served.server._lane, pool.submit(served.server.stop)
        wait_until(lambda: lane.address == "")
        with pytest.raises(Unavailable):
            found.search([1, 2, 3])
        served.backend.block.set()
        assert running.result(10).ids == ["a"]
        stopping.result(10)
        assert not lane._connections


def test_a_server_that_is_killed_and_started_again_has_another(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, connect(server.address) as db:
        db.create_collection("docs", 3).upsert(["a"], [[1, 2, 3]])
        before = searches(db)._lane
        assert before
        server.kill()
        names = Path("/proc/net/unix").read_text()
        assert named(before)[1:] not in names
        with ServerProcess(tmp_path) as again:
            # As a client has it whose server came back to its port.
            searches(db)._address = again.address
            searches(db)._paused_until = 0.0
            calls = searches(db)
            search = search_to_parts("docs", SearchRequest(np.ones((1, 3), np.float32)))
            for _ in range(2):
                assert calls.call("/vectordb.v1.VectorDBService/Search", search, 5.0, ())
            assert calls._lane not in ("", before)


class Echo:
    """A lane whose handler gives messages back, without a server around it."""

    def __init__(self, most: int = 4) -> None:
        self.calls: list[UnaryCall] = []
        handler = grpc.unary_unary_rpc_method_handler(lambda data, context: self.handle(data, context))
        self.lane = Lane({_PATH: handler}, CallBounds(most, most), 1 << 20)
        self.lane.key = b"key"
        self.lane.start()

    def handle(self, data: bytes, context: Any) -> bytes:
        self.calls.append(context)
        return data

    def connected(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(10)
        connected.connect(named(self.lane.address))
        return connected

    def sent(self, data: bytes) -> bytes:
        """Everything that is answered to these bytes and the end of them."""
        with self.connected() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            found = b""
            while piece := _received(connection):
                found += piece
            return found


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except ConnectionResetError:
        return b""  # what was sent last was not read


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    assert made.lane.stop(5.0).wait(10)


def call_of(data: bytes, stream: int = 1, head: bytes = _HEAD) -> bytes:
    message = struct.pack(">BI", 0, len(data)) + data
    return http2.frame(http2.HEADERS, 4, stream, head) + http2.frame(http2.DATA, 1, stream, message)


def answer_of(data: bytes, stream: int = 1) -> bytes:
    message = struct.pack(">BI", 0, len(data)) + data
    return http2.frame(http2.DATA, 0, stream, message)


_BEGIN = http2.PREFACE + http2.settings()


def test_what_a_peer_may_send_besides(echo: Echo) -> None:
    ping, unknown = http2.frame(http2.PING, 0, 0, b"12345678"), http2.frame(77, 0, 0, b"?")
    window, acknowledged = http2.window(1000), http2.frame(http2.SETTINGS, 1, 0, b"")
    given_up = http2.frame(http2.HEADERS, 4, 1, _HEAD) + http2.frame(http2.RST_STREAM, 0, 1, bytes(4))
    split = b"\x00\x00\x00\x00\x02hi"
    parts = [http2.frame(http2.HEADERS, 4, 5, _HEAD), http2.frame(http2.DATA, 0, 5, split[:5]), ping]
    parts += [http2.frame(http2.DATA, 0, 5, split[5:6]), http2.frame(http2.DATA, 1, 5, split[6:])]
    found = echo.sent(_BEGIN + ping + unknown + window + acknowledged + given_up + call_of(b"one", 3) + b"".join(parts))
    assert answer_of(b"one", 3) in found
    assert answer_of(b"hi", 5) in found
    assert found.count(http2.frame(http2.PING, 1, 0, b"12345678")) == 2
    assert found.count(http2.frame(http2.SETTINGS, 1, 0, b"")) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        _BEGIN + http2.frame(http2.HEADERS, 0, 1, _HEAD) + http2.frame(9, 4, 1, b""),
        _BEGIN + http2.frame(http2.HEADERS, 4 | 8, 1, b"\x00" + _HEAD),
        _BEGIN + http2.frame(http2.HEADERS, 4 | 1, 1, _HEAD),
        _BEGIN + http2.frame(http2.HEADERS, 4, 2, _HEAD),
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, _HEAD) * 2,
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, b"\xbe"),
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, _HEAD + bytes(40_000)),
        _BEGIN + http2.frame(http2.DATA, 1, 1, b"\x00\x00\x00\x00\x00"),
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, _HEAD) + http2.frame(http2.DATA, 1, 3, b"\x00\x00\x00\x00\x00"),
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, _HEAD) + http2.frame(http2.DATA, 1, 1, b"\x01\x00\x00\x00\x00"),
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, _HEAD) + http2.frame(http2.DATA, 1, 1, b"\x00\x00\x00\x00\x05hi"),
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, _HEAD) + http2.frame(http2.DATA, 1, 1, b"\x00\x00\x00\x00\x01hi"),
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, _HEAD) + http2.frame(http2.DATA, 0, 1, b"\x00\x00\x00\x00\x02hi"),
        _BEGIN + http2.frame(http2.HEADERS, 4, 1, _HEAD) + http2.frame(http2.DATA, 1, 1, b""),
        _BEGIN + call_of(b"", head=_BARE),
        _BEGIN + call_of(b"", head=_BARE + literal(http2.LANE_KEY, b"another")),
        _BEGIN + call_of(b"", head=_HEAD + literal("grpc-encoding", b"gzip")),
        _BEGIN + call_of(b"", head=_HEAD + literal("grpc-timeout", b"soon")),
        _BEGIN + call_of(b"", head=_HEAD + literal("some-bin", b"\xff")),
        _BEGIN + b"\xff\xff\xff\x04\x00\x00\x00\x00\x00",
        _BEGIN + http2.frame(http2.SETTINGS, 0, 0, b"\x00"),
        _BEGIN + call_of(b"whole")[:-1],
    ],
)
def test_what_is_not_had_ends_the_connection_and_no_other(
    echo: Echo, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    echo.sent(sent)
    assert echo.calls == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert answer_of(b"on") in echo.sent(_BEGIN + call_of(b"on"))


def test_damaged_calls_end_somehow() -> None:
    echo = Echo()
    whole = _BEGIN + call_of(b"hello") + call_of(b"again", 3)

    @given(st.binary(max_size=40), st.integers(0, len(whole)), st.data())
    def damaged(noise: bytes, place: int, data: st.DataObject) -> None:
        sent = bytearray(whole)
        sent[place : place + data.draw(st.integers(0, len(noise)))] = noise
        echo.sent(bytes(sent))

    damaged()
    assert answer_of(b"on") in echo.sent(_BEGIN + call_of(b"on"))
    assert echo.lane.stop(5.0).wait(10)


def test_a_method_that_it_does_not_have(echo: Echo) -> None:
    head = b"\x83\x86" + literal(":path", b"/test.Echo/Other") + _KEY
    found = echo.sent(_BEGIN + call_of(b"", head=head) + call_of(b"on", 3))
    assert literal("grpc-status", b"12") in found
    assert answer_of(b"on", 3) in found


def test_an_answer_without_room_ends_the_connection(echo: Echo) -> None:
    little = http2.PREFACE + http2.settings((http2.FIRST_WINDOW_SIZE, 10))
    found = echo.sent(little + call_of(b"12345") + call_of(b"123456", 3) + call_of(b"1", 5))
    assert answer_of(b"12345") in found
    assert answer_of(b"123456", 3) not in found
    assert answer_of(b"1", 5) not in found


def test_half_a_call_keeps_nobody_waiting(echo: Echo) -> None:
    stalled = [echo.connected() for _ in range(3)]
    try:
        for connection in stalled:
            connection.sendall(_BEGIN + call_of(b"never")[:-2])
        assert answer_of(b"on") in echo.sent(_BEGIN + call_of(b"on"))
        # There is room for four.
        wait_until(lambda: len(echo.lane._connections) == 3)
        fourth, fifth = echo.connected(), echo.connected()
        with fourth, fifth:
            fourth.sendall(_BEGIN + call_of(b"on"))
            wait_until(lambda: len(echo.calls) == 2)
            while _received(fifth):
                raise AssertionError("the fifth was let in")
    finally:
        for connection in stalled:
            connection.close()


def test_half_calls_cost_nothing_until_more_of_them_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = LaneConnection.read, list[None]()

    def counted(connection: LaneConnection) -> Any:
        reads.append(None)
        return read(connection)

    monkeypatch.setattr(LaneConnection, "read", counted)
    echo = Echo(100)
    stalled = [echo.connected() for _ in range(50)]
    for connection in stalled:
        connection.sendall(_BEGIN + call_of(b"never")[:-2])
    wait_until(lambda: len(echo.lane._connections) == 50)
    began = time.monotonic()
    assert answer_of(b"on") in echo.sent(_BEGIN + call_of(b"on"))
    assert time.monotonic() - began < 0.4
    time.sleep(0.2)
    reads.clear()
    time.sleep(0.2)
    assert reads == []
    for connection in stalled:
        connection.sendall(call_of(b"never")[-2:])
    for connection in stalled:
        assert received_until(connection, answer_of(b"never"))
        connection.close()
    assert echo.lane.stop(5.0).wait(10)


def without_end(step: Callable[[], object]) -> None:
    while True:
        step()


def received_until(connection: socket.socket, wanted: bytes) -> bool:
    found = bytearray()
    while wanted not in found[-len(wanted) - (1 << 16) :]:
        piece = _received(connection)
        if not piece:
            return False
        found += piece
    return True


def test_a_call_that_comes_byte_by_byte_keeps_no_thread(echo: Echo) -> None:
    done = threading.Event()
    head = http2.frame(http2.HEADERS, 4, 1, _HEAD) + http2.FRAME.pack(60_000 << 8, 1, 1)

    def trickle(connection: socket.socket) -> None:
        connection.sendall(_BEGIN + head + struct.pack(">BI", 0, 59_995))
        while not done.wait(0.002):
            connection.sendall(b".")

    with ThreadPoolExecutor(2) as pool, echo.connected() as first, echo.connected() as second:
        trickling = [pool.submit(trickle, connection) for connection in (first, second)]
        wait_until(lambda: len(echo.lane._connections) == 2)
        time.sleep(0.05)
        try:
            for _ in range(5):
                assert answer_of(b"on") in echo.sent(_BEGIN + call_of(b"on"))
        finally:
            done.set()
        for one in trickling:
            one.result(10)


_WIDE = http2.settings((http2.FIRST_WINDOW_SIZE, http2.LARGEST_WINDOW)) + http2.window(
    http2.LARGEST_WINDOW - http2.FIRST_WINDOW
)


def test_who_does_not_read_the_answer_keeps_only_its_own_thread() -> None:
    echo, long = Echo(20), bytes(4_000_000)
    echo.handle = lambda data, _: long if data == b"long" else data  # type: ignore[method-assign]
    stopped = [echo.connected() for _ in range(6)]
    try:
        for connection in stopped:
            connection.sendall(http2.PREFACE + _WIDE + call_of(b"long"))
        wait_until(lambda: echo.lane._away == 6)
        for _ in range(5):
            assert answer_of(b"on") in echo.sent(_BEGIN + call_of(b"on"))
        # Those that read at last have all of it, and their next call.
        for connection in stopped[:3]:
            assert received_until(connection, http2.frame(http2.HEADERS, 5, 1, literal("grpc-status", b"0")))
            connection.sendall(call_of(b"again", 3))
            assert received_until(connection, answer_of(b"again", 3))
    finally:
        for connection in stopped:
            connection.close()
    wait_until(lambda: echo.lane._away == 0)
    assert echo.lane.stop(5.0).wait(10)


def test_who_reads_nothing_that_it_has_asked_for_is_let_go(echo: Echo) -> None:
    asked = http2.frame(http2.PING, 0, 0, b"12345678") * 1000
    deaf = [echo.connected() for _ in range(3)]
    try:
        for connection in deaf:
            connection.sendall(_BEGIN)
            connection.settimeout(0.5)
            with pytest.raises(OSError, match=r"Broken pipe|reset|timed out"):
                without_end(lambda connection=connection: connection.sendall(asked))  # type: ignore[misc]
        assert answer_of(b"on") in echo.sent(_BEGIN + call_of(b"on"))
        wait_until(lambda: not echo.lane._connections)
    finally:
        for connection in deaf:
            connection.close()


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
    handlers = {_PATH: search, "/test.Echo/Write": lambda data, _: (written.wait(20), data)[1]}
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
        connected.sendall(_BEGIN)
        return connected

    def sent(connected: socket.socket, data: bytes, path: str = _PATH) -> socket.socket:
        connected.sendall(call_of(data, head=b"\x83\x86" + literal(":path", path.encode()) + _KEY))
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


class Scarce:
    """A listening socket of a process that has no more files than it has."""

    def __init__(self, listening: socket.socket, lane: Lane) -> None:
        self._listening, self._lane = listening, lane
        self.refused = 0

    def accept(self) -> Any:
        spare = self._lane._spare
        if spare is not None and spare.fileno() >= 0:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listening.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listening, name)


def test_without_a_file_for_it_a_connection_is_ended_at_once(echo: Echo) -> None:
    """Else its client would wait for an answer until its time is over, and the lane's threads never rest."""
    assert echo.lane._socket is not None
    with echo.connected() as there:
        there.sendall(_BEGIN + call_of(b"one"))
        assert received_until(there, answer_of(b"one"))
        listening = echo.lane._socket
        scarce = Scarce(listening, echo.lane)
        echo.lane._socket = scarce  # type: ignore[assignment]
        for turn in range(1, 20):
            with echo.connected() as connection:
                assert _received(connection) == b""
            wait_until(lambda turn=turn: scarce.refused >= turn)  # type: ignore[misc]
        there.sendall(call_of(b"two", 3))
        assert received_until(there, answer_of(b"two", 3))
        echo.lane._socket = listening
    assert answer_of(b"on") in echo.sent(_BEGIN + call_of(b"on"))


def test_where_the_system_gives_no_such_socket_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under systemd's RestrictAddressFamilies, say."""

    def refused(*_: Any) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    lane = Lane({}, CallBounds(4, 4), 1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refused)
        lane.key = b"key"
        lane.start()
    assert lane.address == ""
    assert lane.stop(0).wait(10)


def test_who_is_let_in_while_it_closes_is_let_go() -> None:
    lane = Lane({}, CallBounds(4, 4), 1 << 20)
    lane._closed = True
    ours, theirs = socket.socketpair()
    with ours:
        lane._let_in(theirs)
        assert ours.recv(1 << 16) == b""
        assert not lane._connections


def test_a_connection_that_has_ended_ends_no_process() -> None:
    """SIGPIPE ends a process that has it as the system does by itself, as tools whose output is piped often have."""
    code = f"""
import signal, socket, sys, threading, time
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
sys.path[:0] = {sys.path!r}
import grpc
from vectordb.server.lane import Lane
from vectordb.server.transports import CallBounds
from vectordb_client.transport.http2 import Connection
gone, tried = threading.Event(), threading.Event()
def handle(data, context):
    gone.wait(10)
    context.add_callback(tried.set)
    return bytes(100)
lane = Lane({{{_PATH!r}: grpc.unary_unary_rpc_method_handler(handle)}}, CallBounds(4, 4), 1 << 20)
lane.key = b"key"
lane.start()
connected = socket.socket(socket.AF_UNIX)
connected.connect("\\0" + lane.address.removeprefix("unix-abstract:").partition("/")[0])
connected.sendall({_BEGIN + call_of(b"call")!r})
while not lane._calls:
    time.sleep(0.01)
connected.close()
gone.set()
while lane._calls or lane._connections:
    time.sleep(0.01)
ours, theirs = socket.socketpair()
connection = Connection(ours)
theirs.close()
try:
    connection.exchange(b"", (b"data",), None)
except BrokenPipeError:
    print("both live")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "both live"), done.stderr


def test_a_server_that_takes_no_connections_keeps_no_call_waiting_for_ever() -> None:
    """As one that was stopped: its queue of connections fills, and behind it a call of ``connect`` waits."""
    name = f"vectordb-{os.getpid()}-{'1' * 16}"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket() as main, ThreadPoolExecutor(1) as pool:
        listening.bind(f"\0{name}")
        listening.listen(0)
        main.bind(("127.0.0.1", 0))  # and nobody listens
        calls = DirectCalls(f"127.0.0.1:{main.getsockname()[1]}")
        lane = calls._lane = f"unix-abstract:{name}/{'0' * 32}"
        queued = list[socket.socket]()

        def queue_up() -> None:
            queued.append(socket.socket(socket.AF_UNIX))
            queued[-1].setblocking(False)
            queued[-1].connect(f"\0{name}")

        try:
            with pytest.raises(BlockingIOError):
                without_end(queue_up)
            with pytest.raises(Elsewhere):
                pool.submit(calls.call, "/test.Echo/Call", (b"",), 1.0, ()).result(10)
            assert calls._unreachable == lane
        finally:
            for connection in queued:
                connection.close()
            listening.close()  # whoever waits is told
            calls.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_name_that_another_user_has_taken_gets_nothing_though_its_process_has_the_number() -> None:
    address = f"unix-abstract:vectordb-{os.getpid()}-{'2' * 16}/{'0' * 32}"
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from vectordb_client.transport.direct import _connected
os.setuid(65534)
try:
    _connected({address!r})
except ConnectionRefusedError as error:
    print(error)
"""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(named(address))
        listening.listen()
        _connected(address).close()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().endswith("of user 0")


def test_where_it_has_no_room_a_client_uses_the_address_that_it_was_given(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    served.server._lane._most_calls = 0
    with connect(served.address) as db:
        found = db.collection("docs")
        for _ in range(4):
            assert found.search([1, 2, 3]).ids == []
        calls = searches(db)
        assert (calls._lane, calls._unreachable) == ("", served.server._lane.address)
        assert [connection.lane for connection in calls._open] == [""]


def test_what_could_not_be_used_is_tried_again_after_a_while(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    most, served.server._lane._most_calls = served.server._lane._most_calls, 0
    with connect(served.address) as db:
        found, calls = db.collection("docs"), searches(db)
        for _ in range(3):
            found.search([1, 2, 3])
        assert calls._unreachable == served.server._lane.address
        served.server._lane._most_calls = most
        calls._avoided_until = time.monotonic()
        for _ in range(2):
            found.search([1, 2, 3])
        assert [connection.lane for connection in calls._open] == [served.server._lane.address]


def test_where_it_has_no_more_room_a_client_keeps_the_connections_that_it_has(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    served.server._lane._most_calls = 2
    with connect(served.address) as db, ThreadPoolExecutor(3) as pool:
        found = db.collection("docs")
        found.search([1, 2, 3])
        lane = searches(db)._lane
        for _ in range(2):
            served.backend.block = threading.Event()
            calls = list[Any]()
            for number in range(3):
                calls.append(pool.submit(found.search, [1, 2, 3]))
                wait_until(lambda number=number: served.server._admission.running == number + 1)  # type: ignore[misc]
            served.backend.block.set()
            assert [call.result(10).ids for call in calls] == [[]] * 3
            wait_until(lambda: served.server._admission.running == 0)
        lanes = [connection.lane for connection in searches(db)._open]
        assert lanes.count(lane) == 2


def test_a_name_that_another_process_has_taken_gets_nothing(serve: Callable[..., Any]) -> None:
    """A server's name is free once it has gone, and whoever takes it would be sent keys."""
    served = serve()
    docs(served)
    name = f"vectordb-{os.getpid()}-{'0' * 16}"
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0{name}'); s.listen(); print(); s.accept()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with connect(served.address) as db:
            lane = searches(db)._lane = f"unix-abstract:{name}/{'0' * 32}"
            assert db.collection("docs").search([1, 2, 3]).ids == []
            assert searches(db)._unreachable == lane
        other.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_processes_of_other_users_are_not_let_in(echo: Echo) -> None:
    code = f"""
import os, socket
os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect({named(echo.lane.address)!r})
try:
    s.sendall({_BEGIN + call_of(b"secret")!r})
    print(s.recv(65536))
except (BrokenPipeError, ConnectionResetError):
    print(b"")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "b''"
    assert echo.calls == []


def test_a_forked_child_keeps_nobody_waiting() -> None:
    """A copy of the socket in a child that lives longer than its parent would take up connections for nobody."""
    code = f"""
import os, sys, time
sys.path[:0] = {sys.path!r}
from vectordb.server.lane import Lane
from vectordb.server.transports import CallBounds
lane = Lane({{}}, CallBounds(4, 4), 1 << 20)
lane.key = b"key"
lane.start()
if (child := os.fork()) == 0:
    os.close(1)
    time.sleep(60)
    os._exit(0)
print(lane.address, child, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        address, child = parent.stdout.readline().split()
        parent.kill()
        parent.wait()
        try:
            wait_until(lambda: not listens(address))  # the child may not have had its turn yet
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_process_that_ends_answers_what_runs() -> None:
    """Else its threads are ended in the middle of searches, which aborts it."""
    code = f"""
import sys, time
sys.path[:0] = {sys.path!r}
import grpc
from vectordb.server.lane import Lane
from vectordb.server.transports import CallBounds
def handle(data, context):
    time.sleep(0.5)
    return data
lane = Lane({{{_PATH!r}: grpc.unary_unary_rpc_method_handler(handle)}}, CallBounds(4, 4), 1 << 20)
lane.key = b"key"
lane.start()
print(lane.address, flush=True)
while not lane._calls:
    time.sleep(0.01)
sys.exit(3)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            connection.connect(named(process.stdout.readline().strip()))
            connection.sendall(_BEGIN + call_of(b"late"))
            assert received_until(connection, answer_of(b"late"))
        assert process.wait(10) == 3


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


def test_a_call_is_answered_once(echo: Echo) -> None:
    def cancelled(data: bytes, context: Any) -> bytes:
        context.cancel()
        return data

    usual, echo.handle = echo.handle, cancelled  # type: ignore[method-assign]
    with echo.connected() as connection:
        connection.sendall(_BEGIN + call_of(b"first"))
        found = b""
        while literal("grpc-status", b"1") not in found:
            found += connection.recv(1 << 16)
        echo.handle = usual  # type: ignore[method-assign]
        connection.sendall(call_of(b"second", 3))
        while answer_of(b"second", 3) not in found:
            found += connection.recv(1 << 16)
    assert answer_of(b"first") not in found
