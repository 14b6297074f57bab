"""Searches over sockets of the client's own: against servers of gRPC, and against peers that do not keep to it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import wait_until
from vectordb.errors import Closed
from vectordb.server.entry import Entry
from vectordb.server.lane import Lane
from vectordb.server.transports import CallBounds
from vectordb.wire.hpack import literal
from vectordb_client import connect
from vectordb_client.transport.direct import DirectCalls
from vectordb_client.transport.http2 import Connection, Elsewhere, Failed

_SERVICE = "test.Echo"
_PATH = f"/{_SERVICE}/Call"
_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_BEGUN = b"\x88" + literal("content-type", b"application/grpc")
_OK = literal("grpc-status", b"0")
_PING = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
_PART = b"\x00\x00\x01\x00\x00\x00\x00\x00\x01a"


def _echo(data: bytes, context: grpc.ServicerContext) -> bytes:
    if data == b"wait":
        time.sleep(1.0)
    if data.startswith(b"fail"):
        context.set_trailing_metadata((("some-bin", bytes(range(50))), ("x-name", "value")))
        context.abort(grpc.StatusCode.NOT_FOUND, "nichts für 50 %\n")
    if data == b"told":
        left = context.time_remaining()
        told = [str(None if left is None or left > 1e6 else round(left)), context.peer().partition(":")[0]]
        return "\n".join([*told, *sorted(f"{k}={v!r}" for k, v in context.invocation_metadata())]).encode()
    return data


@pytest.fixture(params=["tcp", "unix", "lane"])
def echo(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    """The address of a server that gives messages back."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 8 << 20)])
    handler = grpc.unary_unary_rpc_method_handler(_echo)
    lane = Lane({_PATH: handler}, CallBounds(8, 8), 8 << 20) if request.param == "lane" else None
    if lane is not None:
        lane.start()
        handler = Entry(lane=partial(getattr, lane, "address")).wrap(_PATH, handler)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {"Call": handler})])
    if request.param == "unix":
        address = f"unix:{tmp_path}/echo"
        server.add_insecure_port(address)
    else:
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield address
    server.stop(0).wait()
    if lane is not None:
        assert lane.stop(5.0).wait(5.0)


@pytest.fixture
def direct(echo: str, request: pytest.FixtureRequest) -> Iterator[DirectCalls]:
    calls = DirectCalls(echo)
    if "lane" in request.node.callspec.id:
        assert calls.call(_PATH, (b"where?",), 20.0, ()) == b"where?"
        assert calls._lane
    yield calls
    calls.close()


def test_messages_of_all_sizes(direct: DirectCalls) -> None:
    # Around the sizes of frames and of windows, twice over each, and past what a connection may send at once.
    for size in (0, 1, 16_378, 16_379, 16_380, 65_529, 65_530, 65_531, 70_000, 4 << 20, 3):
        data = np.random.default_rng(size).bytes(size)
        for _ in range(2):
            assert direct.call(_PATH, (data,), 20.0, ()) == data
    assert len(direct._open) == 1, "one connection was enough"


def test_messages_in_pieces(direct: DirectCalls) -> None:
    for sizes in ((0,), (1, 0, 2), (16_000, 380, 70_000, 1), (3, 2 << 20), (2 << 20, 5, 1 << 20)):
        pieces = [np.random.default_rng(size).bytes(size) for size in sizes]
        message = tuple(memoryview(piece) if i % 2 else piece for i, piece in enumerate(pieces))
        assert direct.call(_PATH, message, 20.0, ()) == b"".join(pieces)


def test_statuses_come_with_their_details(direct: DirectCalls) -> None:
    for _ in range(2):
        with pytest.raises(Failed) as caught:
            direct.call(_PATH, (b"fail",), 5.0, ())
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert caught.value.details() == "nichts für 50 %\n"
        assert dict(caught.value.trailing_metadata()) == {"some-bin": bytes(range(50)), "x-name": "value"}
    with pytest.raises(Failed) as caught:
        direct.call("/test.Echo/Other", (b"",), 5.0, ())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(Failed) as caught:
        direct.call(_PATH, (bytes(9 << 20),), 20.0, ())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert direct.call(_PATH, (b"on",), 5.0, ()) == b"on"


def test_metadata_and_time_arrive(direct: DirectCalls) -> None:
    metadata = (("authorization", "Bearer key"), ("policy-bin", bytes(range(200))), ("x-long", "x" * 500))
    told = direct.call(_PATH, (b"told",), 30.5, metadata).decode().split("\n")
    assert told[0] in ("30", "31")
    for name, value in metadata:
        assert f"{name}={value!r}" in told
    assert direct.call(_PATH, (b"told",), None, ()).decode().split("\n")[0] == "None"
    assert direct.call(_PATH, (b"told",), 200_000.0, ()).decode().split("\n")[0] in ("199999", "200000")


def test_the_least_time_that_is_left_is_a_bound() -> None:
    """The system takes no microseconds at all for: no bound."""
    here, there = socket.socketpair()
    connection = Connection(here)
    try:
        for seconds in (1e-6, 4e-7, 0.0):
            connection.limit(None)
            assert here.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) == struct.pack("ll", 0, 0)
            connection.limit(seconds)
            assert here.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16) != struct.pack("ll", 0, 0)
    finally:
        connection.close()
        there.close()


def test_time_runs_out(direct: DirectCalls) -> None:
    started = time.monotonic()
    with pytest.raises(Failed) as caught:
        direct.call(_PATH, (b"wait",), 0.1, ())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.09 < time.monotonic() - started < 0.9
    assert direct.call(_PATH, (b"next",), 5.0, ()) == b"next"
    assert direct.call(_PATH, (b"wait",), None, ()) == b"wait"


@pytest.mark.parametrize("sent", [_PING, _PART], ids=["pings", "an answer byte by byte"])
def test_a_peer_that_sends_something_again_and_again_has_no_more_than_the_calls_time(sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        calls = DirectCalls(f"127.0.0.1:{listening.getsockname()[1]}")

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(_SETTINGS)
                end = time.monotonic() + 5.0
                while time.monotonic() < end:
                    connection.sendall(sent)
                    time.sleep(0.05)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(serve)
            started = time.monotonic()
            with pytest.raises(Failed) as caught:
                calls.call(_PATH, (b"",), 0.5, ())
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0.45 < time.monotonic() - started < 3.0
        calls.close()


def test_a_peer_that_takes_nothing_has_the_calls_time() -> None:
    windows = struct.pack(">HI", 4, (1 << 31) - 1) + struct.pack(">HI", 5, (1 << 24) - 1)
    roomy = _frame(4, 0, 0, windows) + _frame(8, 0, 0, struct.pack(">I", 1 << 30))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        calls = DirectCalls(f"127.0.0.1:{listening.getsockname()[1]}")

        def serve() -> socket.socket:
            connection, _ = listening.accept()
            connection.sendall(roomy)
            return connection

        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(serve)
            started = time.monotonic()
            with pytest.raises(Failed) as caught:
                calls.call(_PATH, (bytes(64 << 20),), 0.5, ())
            served.result(5).close()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 5.0
        calls.close()


def test_calls_of_many_threads(direct: DirectCalls) -> None:
    def ask(number: int) -> None:
        for turn in range(20):
            data = f"{number} {turn}".encode() * (1 + 5000 * (turn % 2))
            assert direct.call(_PATH, (data,), 20.0, ()) == data

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(12)))
    assert 1 <= len(direct._open) <= 6


def test_closing_wakes_who_waits(direct: DirectCalls) -> None:
    def ask() -> None:
        with pytest.raises(Elsewhere):
            direct.call(_PATH, (b"wait",), 20.0, ())

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        while not direct._open:
            time.sleep(0.01)
        time.sleep(0.1)
        started = time.monotonic()
        direct.close()
        asked.result(5)
    assert time.monotonic() - started < 0.8
    with pytest.raises(Elsewhere):
        direct.call(_PATH, (b"",), 1.0, ())


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    calls = DirectCalls(f"127.0.0.1:{port}")
    for _ in range(2):
        with pytest.raises(Elsewhere):
            calls.call(_PATH, (b"",), 1.0, ())


@contextlib.contextmanager
def peer(*answers: bytes) -> Iterator[DirectCalls]:
    """A client of a peer that sends the bytes of a connection, whatever it is sent, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        calls = DirectCalls(f"127.0.0.1:{listening.getsockname()[1]}")
        try:
            yield calls
        finally:
            calls.close()


def _frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    return struct.pack(">I", len(data))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + data


def _answer(data: bytes = b"\x00\x00\x00\x00\x02hi", trailers: bytes = _OK) -> bytes:
    return _SETTINGS + _frame(1, 4, 1, _BEGUN) + _frame(0, 0, 1, data) + _frame(1, 5, 1, trailers)


def test_what_a_peer_may_send_besides() -> None:
    ping, window = _frame(6, 0, 0, b"12345678"), _frame(8, 0, 0, b"\x00\x00\xff\xff")
    unknown, old = _frame(77, 0, 0, b"?"), _frame(3, 0, 99, b"\x00\x00\x00\x08")
    split = _frame(1, 4, 1, _BEGUN) + _frame(0, 0, 1, b"\x00\x00\x00") + ping + _frame(0, 0, 1, b"\x00\x02hi")
    with peer(ping + window + unknown + _SETTINGS + old + split + _frame(1, 5, 1, _OK)) as calls:
        assert calls.call(_PATH, (b"",), 5.0, ()) == b"hi"


def test_a_server_that_goes_away_answers_what_it_knows_of() -> None:
    away = _frame(7, 0, 0, struct.pack(">II", 1, 0))
    with peer(away + _answer(), _answer()) as calls:
        assert [calls.call(_PATH, (b"",), 5.0, ()) for _ in range(2)] == [b"hi", b"hi"]


def test_a_connection_that_ended_behind_a_ping_is_replaced() -> None:
    """Servers ping idle connections, and end those that do not answer."""
    with peer(_answer() + _PING, _answer()) as calls:
        assert calls.call(_PATH, (b"",), 5.0, ()) == b"hi"
        (connection,) = calls._idle
        wait_until(lambda: not connection.is_fit())
        connection.used -= 2.0
        assert calls.call(_PATH, (b"",), 5.0, ()) == b"hi"
        assert calls._idle != [connection]


def test_a_ping_that_came_meanwhile_is_answered_by_the_next_call() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        calls = DirectCalls(f"127.0.0.1:{listening.getsockname()[1]}")

        def serve() -> bytes:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(_answer() + _PING)
                read = connection.recv(65_536)
                connection.sendall(
                    _frame(1, 4, 3, _BEGUN) + _frame(0, 0, 3, b"\x00\x00\x00\x00\x01x") + _frame(1, 5, 3, _OK)
                )
                end = _frame(6, 1, 0, b"12345678")
                while end not in read:
                    read += connection.recv(65_536)
                return read

        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(serve)
            assert calls.call(_PATH, (b"",), 5.0, ()) == b"hi"
            (connection,) = calls._idle
            assert connection.is_fit()
            assert calls.call(_PATH, (b"",), 5.0, ()) == b"x"
            served.result(5)
        calls.close()


def test_a_peer_that_speaks_something_else_and_waits_goes_elsewhere_at_once() -> None:
    """What would be the length of its first frame must not be waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        calls = DirectCalls(f"127.0.0.1:{listening.getsockname()[1]}")

        def serve() -> socket.socket:
            connection, _ = listening.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return connection

        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(serve)
            with pytest.raises(Elsewhere):
                calls.call(_PATH, (b"",), 5.0, ())
            served.result(5).close()
        calls.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        _SETTINGS,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        _frame(7, 0, 0, struct.pack(">II", 0, 0)) + _answer(),
        _SETTINGS + _frame(3, 0, 1, b"\x00\x00\x00\x08"),
        _SETTINGS + _frame(1, 5, 1, literal(":status", b"502")),
        _SETTINGS + _frame(1, 5, 1, b"\x88"),
        _SETTINGS + _frame(1, 0, 1, _BEGUN),
        _SETTINGS + _frame(1, 4, 1, b"\xbe"),
        _SETTINGS + _frame(1, 4, 1, _BEGUN) + _frame(0, 1, 1, b"\x00\x00\x00\x00\x00"),
        _answer(b"\x01\x00\x00\x00\x02hi"),
        _answer(b"\x00\x00\x00\x00\x09hi"),
        _answer(b""),
        _answer(trailers=literal("grpc-status", b"999")),
        _answer(trailers=literal("grpc-status", b"high")),
    ],
)
def test_what_is_not_understood_goes_elsewhere(answer: bytes) -> None:
    with peer(answer) as calls, pytest.raises(Elsewhere):
        calls.call(_PATH, (b"",), 5.0, ())
    assert not calls._open


@given(st.binary(max_size=40), st.integers(0, 60), st.data())
def test_damaged_answers_end_somehow(noise: bytes, place: int, data: st.DataObject) -> None:
    whole = bytearray(_answer())
    whole[place : place + data.draw(st.integers(0, len(noise)))] = noise
    with peer(bytes(whole)) as calls, contextlib.suppress(Elsewhere, Failed):
        assert isinstance(calls.call(_PATH, (b"",), 1.0, ()), bytes)


@pytest.mark.parametrize(
    ("address", "reached"),
    [("localhost:1", True), ("[::1]:5", True), ("unix:/a", True), ("dns:///a:1", False), ("name", False)],
)
def test_addresses(address: str, reached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert DirectCalls.reaches(address) is reached
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    assert DirectCalls.reaches(address) is (reached and address.startswith("unix:"))


def test_searches_and_writes_go_directly_and_survive_a_restart(server: Any) -> None:
    def agents() -> set[str]:
        told = zip(server.servicer.calls, server.servicer.metadata, strict=True)
        return {metadata["user-agent"].partition("/")[0] for (rpc, _), metadata in told if rpc in ("Search", "Write")}

    with connect(server.address) as db:
        docs = db.create_collection("docs", 2, exist_ok=True)
        docs.upsert(["a"], [[1.0, 2.0]])
        assert docs.search([1.0, 2.0]).ids == ["a"]
        assert agents() == {"vectordb-client"}
        server.stop()
        server.start()
        docs.upsert(["b"], [[-1.0, 2.0]])
        assert docs.search([1.0, 2.0]).ids == ["a", "b"]
        assert docs.search([1.0, 2.0]).plan == docs.search([1.0, 2.0]).plan
    with pytest.raises(Closed):
        docs.search([1.0, 2.0])


def test_a_connection_that_ends_as_it_begins_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    monkeypatch.setattr("vectordb_client.transport.direct._connected", lambda address: ours)
    calls = DirectCalls("127.0.0.1:1")
    with pytest.raises(Elsewhere):
        calls.call("/service/Method", (b"",), 5.0, ())
    assert ours.fileno() == -1
    calls.close()
