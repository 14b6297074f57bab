"""What the lane makes of the bytes that come: whole calls, halves, damage, and peers that do not read."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.lane_echo import (
    BARE,
    BEGIN,
    HEAD,
    KEY,
    WIDE,
    Echo,
    answer_of,
    call_of,
    received,
    received_until,
    without_end,
)
from tests.waiting import wait_until
from vectordb.server.lane_connection import LaneConnection
from vectordb.wire import http2
from vectordb.wire.hpack import literal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no lane on this system")


@pytest.fixture(scope="module", autouse=True)
def transport() -> str:
    return "native"


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
        connection.sendall(BEGIN + call_of(b"long"))
        wait_until(lambda: active == [True])
        time.sleep(0.05)
        assert active == [True]
    wait_until(lambda: active == [True, False])
    assert ended.wait(5)


def test_what_a_peer_may_send_besides(echo: Echo) -> None:
    ping, unknown = http2.frame(http2.PING, 0, 0, b"12345678"), http2.frame(77, 0, 0, b"?")
    window, acknowledged = http2.window(1000), http2.frame(http2.SETTINGS, 1, 0, b"")
    given_up = http2.frame(http2.HEADERS, 4, 1, HEAD) + http2.frame(http2.RST_STREAM, 0, 1, bytes(4))
    split = b"\x00\x00\x00\x00\x02hi"
    parts = [http2.frame(http2.HEADERS, 4, 5, HEAD), http2.frame(http2.DATA, 0, 5, split[:5]), ping]
    parts += [http2.frame(http2.DATA, 0, 5, split[5:6]), http2.frame(http2.DATA, 1, 5, split[6:])]
    found = echo.sent(BEGIN + ping + unknown + window + acknowledged + given_up + call_of(b"one", 3) + b"".join(parts))
    assert answer_of(b"one", 3) in found
    assert answer_of(b"hi", 5) in found
    assert found.count(http2.frame(http2.PING, 1, 0, b"12345678")) == 2
    assert found.count(http2.frame(http2.SETTINGS, 1, 0, b"")) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        BEGIN + http2.frame(http2.HEADERS, 0, 1, HEAD) + http2.frame(9, 4, 1, b""),
        BEGIN + http2.frame(http2.HEADERS, 4 | 8, 1, b"\x00" + HEAD),
        BEGIN + http2.frame(http2.HEADERS, 4 | 1, 1, HEAD),
        BEGIN + http2.frame(http2.HEADERS, 4, 2, HEAD),
        BEGIN + http2.frame(http2.HEADERS, 4, 1, HEAD) * 2,
        BEGIN + http2.frame(http2.HEADERS, 4, 1, b"\xbe"),
        BEGIN + http2.frame(http2.HEADERS, 4, 1, HEAD + bytes(40_000)),
        BEGIN + http2.frame(http2.DATA, 1, 1, b"\x00\x00\x00\x00\x00"),
        BEGIN + http2.frame(http2.HEADERS, 4, 1, HEAD) + http2.frame(http2.DATA, 1, 3, b"\x00\x00\x00\x00\x00"),
        BEGIN + http2.frame(http2.HEADERS, 4, 1, HEAD) + http2.frame(http2.DATA, 1, 1, b"\x01\x00\x00\x00\x00"),
        BEGIN + http2.frame(http2.HEADERS, 4, 1, HEAD) + http2.frame(http2.DATA, 1, 1, b"\x00\x00\x00\x00\x05hi"),
        BEGIN + http2.frame(http2.HEADERS, 4, 1, HEAD) + http2.frame(http2.DATA, 1, 1, b"\x00\x00\x00\x00\x01hi"),
        BEGIN + http2.frame(http2.HEADERS, 4, 1, HEAD) + http2.frame(http2.DATA, 0, 1, b"\x00\x00\x00\x00\x02hi"),
        BEGIN + http2.frame(http2.HEADERS, 4, 1, HEAD) + http2.frame(http2.DATA, 1, 1, b""),
        BEGIN + call_of(b"", head=BARE),
        BEGIN + call_of(b"", head=BARE + literal(http2.LANE_KEY, b"another")),
        BEGIN + call_of(b"", head=HEAD + literal("grpc-encoding", b"gzip")),
        BEGIN + call_of(b"", head=HEAD + literal("grpc-timeout", b"soon")),
        BEGIN + call_of(b"", head=HEAD + literal("some-bin", b"\xff")),
        BEGIN + b"\xff\xff\xff\x04\x00\x00\x00\x00\x00",
        BEGIN + http2.frame(http2.SETTINGS, 0, 0, b"\x00"),
        BEGIN + call_of(b"whole")[:-1],
    ],
)
def test_what_is_not_had_ends_the_connection_and_no_other(
    echo: Echo, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    echo.sent(sent)
    assert echo.calls == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert answer_of(b"on") in echo.sent(BEGIN + call_of(b"on"))


def test_damaged_calls_end_somehow() -> None:
    echo = Echo()
    whole = BEGIN + call_of(b"hello") + call_of(b"again", 3)

    @given(st.binary(max_size=40), st.integers(0, len(whole)), st.data())
    def damaged(noise: bytes, place: int, data: st.DataObject) -> None:
        sent = bytearray(whole)
        sent[place : place + data.draw(st.integers(0, len(noise)))] = noise
        echo.sent(bytes(sent))

    damaged()
    assert answer_of(b"on") in echo.sent(BEGIN + call_of(b"on"))
    assert echo.lane.stop(5.0).wait(10)


def test_a_method_that_it_does_not_have(echo: Echo) -> None:
    head = b"\x83\x86" + literal(":path", b"/test.Echo/Other") + KEY
    found = echo.sent(BEGIN + call_of(b"", head=head) + call_of(b"on", 3))
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
            connection.sendall(BEGIN + call_of(b"never")[:-2])
        assert answer_of(b"on") in echo.sent(BEGIN + call_of(b"on"))
        # There is room for four.
        wait_until(lambda: len(echo.lane._connections) == 3)
        fourth, fifth = echo.connected(), echo.connected()
        with fourth, fifth:
            fourth.sendall(BEGIN + call_of(b"on"))
            wait_until(lambda: len(echo.calls) == 2)
            while received(fifth):
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
        connection.sendall(BEGIN + call_of(b"never")[:-2])
    wait_until(lambda: len(echo.lane._connections) == 50)
    began = time.monotonic()
    assert answer_of(b"on") in echo.sent(BEGIN + call_of(b"on"))
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


def test_a_call_that_comes_byte_by_byte_keeps_no_thread(echo: Echo) -> None:
    done = threading.Event()
    head = http2.frame(http2.HEADERS, 4, 1, HEAD) + http2.FRAME.pack(60_000 << 8, 1, 1)

    def trickle(connection: socket.socket) -> None:
        connection.sendall(BEGIN + head + struct.pack(">BI", 0, 59_995))
        while not done.wait(0.002):
            connection.sendall(b".")

    with ThreadPoolExecutor(2) as pool, echo.connected() as first, echo.connected() as second:
        trickling = [pool.submit(trickle, connection) for connection in (first, second)]
        wait_until(lambda: len(echo.lane._connections) == 2)
        time.sleep(0.05)
        try:
            for _ in range(5):
                assert answer_of(b"on") in echo.sent(BEGIN + call_of(b"on"))
        finally:
            done.set()
        for one in trickling:
            one.result(10)


def test_who_does_not_read_the_answer_keeps_only_its_own_thread() -> None:
    echo, long = Echo(20), bytes(4_000_000)
    echo.handle = lambda data, _: long if data == b"long" else data  # type: ignore[method-assign]
    stopped = [echo.connected() for _ in range(6)]
    try:
        for connection in stopped:
            connection.sendall(http2.PREFACE + WIDE + call_of(b"long"))
        wait_until(lambda: echo.lane._away == 6)
        for _ in range(5):
            assert answer_of(b"on") in echo.sent(BEGIN + call_of(b"on"))
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
            connection.sendall(BEGIN)
            connection.settimeout(0.5)
            with pytest.raises(OSError, match=r"Broken pipe|reset|timed out"):
                without_end(lambda connection=connection: connection.sendall(asked))  # type: ignore[misc]
        assert answer_of(b"on") in echo.sent(BEGIN + call_of(b"on"))
        wait_until(lambda: not echo.lane._connections)
    finally:
        for connection in deaf:
            connection.close()


def test_a_call_is_answered_once(echo: Echo) -> None:
    def cancelled(data: bytes, context: Any) -> bytes:
        context.cancel()
        return data

    usual, echo.handle = echo.handle, cancelled  # type: ignore[method-assign]
    with echo.connected() as connection:
        connection.sendall(BEGIN + call_of(b"first"))
        found = b""
        while literal("grpc-status", b"1") not in found:
            found += connection.recv(1 << 16)
        echo.handle = usual  # type: ignore[method-assign]
        connection.sendall(call_of(b"second", 3))
        while answer_of(b"second", 3) not in found:
            found += connection.recv(1 << 16)
    assert answer_of(b"first") not in found
