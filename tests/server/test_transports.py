"""The transports: which is taken, and that handlers see and clients get the same from both."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.waiting import wait_until
from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb.server.transports import chosen
from vectordb.wire.errors import DETAILS_KEY


def settings(**flags: Any) -> Any:
    return load({"listen": "127.0.0.1:0", **flags}, environment={})


# Which is taken


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectordb.server.transports.PREFERRED", ("native", "grpcio"))


@pytest.mark.usefixtures("preferred")
@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"tls_cert": "a.pem", "tls_key": "b.pem"}, "tls_cert: it speaks no TLS"),
        ({"audit_log": "audit.jsonl"}, "audit_log: it does not tell from which address"),
    ],
)
def test_what_native_cannot_do(flags: dict[str, str], why: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vectordb.server"):
        assert chosen(settings(**flags)) == "grpcio"
    assert [why in record.getMessage() for record in caplog.records] == [True]
    with pytest.raises(InvalidArgument, match=why) as caught:
        Server(lambda: None, settings(transport="native", **flags))  # type: ignore[arg-type,return-value]
    assert caught.value.field == "transport"
    assert chosen(settings(transport="grpcio", **flags)) == "grpcio"


@pytest.mark.usefixtures("preferred")
@pytest.mark.parametrize(
    ("listen", "taken"),
    [
        ("127.0.0.1:0", "native"),
        ("localhost:0", "native"),
        ("[::1]:0", "native"),
        ("unix:/tmp/socket", "native"),
        ("0.0.0.0:0", "grpcio"),
        ("[::]:0", "grpcio"),
        ("db.example.org:7878", "grpcio"),
    ],
)
def test_native_is_taken_unasked_only_among_clients_of_this_machine(listen: str, taken: str) -> None:
    assert chosen(settings(listen=listen)) == taken
    assert chosen(settings(listen=listen, transport="native")) == "native"


@pytest.mark.usefixtures("preferred")
def test_native_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(settings()) == "native"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert chosen(settings()) == "grpcio"
    with pytest.raises(FailedPrecondition, match=r"pip install 'vectordb-engine\[native\]'"):
        chosen(settings(transport="native"))


# What handlers see, and clients get


def test_what_a_handler_sees(handlers: Callable[..., Any]) -> None:
    served, seen = handlers(), []

    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata())
        seen.append((metadata["key"], metadata["key-bin"], context.peer().rpartition(":")[0], context.is_active()))
        seen.append(context.time_remaining())
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last-bin", b"\x00\xff"),))
        return data[::-1]

    served.handle = handle
    answer, call = served.call.with_call(b"abc", timeout=30, metadata=(("key", "v"), ("key-bin", b"\x00\x01")))
    assert answer == b"cba"
    assert seen[0] == ("v", b"\x00\x01", "ipv4:127.0.0.1", True)
    assert 0 < seen[1] < 31
    assert ("first", "1") in [tuple(item) for item in call.initial_metadata()]
    assert ("last-bin", b"\x00\xff") in [tuple(item) for item in call.trailing_metadata()]
    assert served.call(b"abc", metadata=(("key", "v"), ("key-bin", b""))) == b"cba"
    assert seen[3] > 1e9, "a call without a deadline"


def test_how_calls_fail(handlers: Callable[..., Any]) -> None:
    served = handlers()

    def abort(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata(((DETAILS_KEY, b"\x00\xfe"),))
        context.abort(grpc.StatusCode.NOT_FOUND, "nöt here: 100 %\nno")
        raise AssertionError

    served.handle = abort
    error = served.failure()
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nöt here: 100 %\nno")
    assert dict(error.trailing_metadata())[DETAILS_KEY] == b"\x00\xfe"

    def coded(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_code(grpc.StatusCode.ABORTED)
        context.set_details("no")
        return b""

    served.handle = coded
    error = served.failure()
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "no")
    served.handle = lambda data, context: context.cancel() or b""
    assert served.failure().code() is grpc.StatusCode.CANCELLED
    assert served.channel.unary_unary("/test.Test/Other").future(b"").code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("how", ["cancelled", "deadline", "disconnected"])
def test_a_handler_learns_that_the_client_went_away(handlers: Callable[..., Any], how: str) -> None:
    served, begun, told = handlers(), threading.Event(), threading.Event()
    late: list[bool] = []

    def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
        assert context.add_callback(told.set)
        begun.set()
        assert told.wait(10)
        wait_until(lambda: not context.is_active())
        late.append(context.add_callback(lambda: None))
        return data

    served.handle = handle
    with grpc.insecure_channel(served.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary("/test.Test/Do").future(b"", timeout=0.3 if how == "deadline" else 20)
        assert begun.wait(5)
        if how == "cancelled":
            call.cancel()
        elif how == "deadline":
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: late == [False])
    served.handle = lambda data, _: data
    assert served.call(b"still here", timeout=5) == b"still here"


def test_as_many_calls_at_once_as_there_are_workers(handlers: Callable[..., Any]) -> None:
    served = handlers(max_workers=6)
    together = threading.Barrier(6)
    served.handle = lambda data, _: (together.wait(10), data)[1]
    for _ in range(20):
        calls = [served.call.future(bytes([i]), timeout=10) for i in range(6)]
        assert [call.result() for call in calls] == [bytes([i]) for i in range(6)]


def test_more_calls_than_workers_wait(handlers: Callable[..., Any]) -> None:
    served = handlers(max_workers=2)
    pairs, lock, running, most = threading.Barrier(2), threading.Lock(), 0, 0

    def handle(data: bytes, _: grpc.ServicerContext) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        pairs.wait(10)
        with lock:
            running -= 1
        return data

    served.handle = handle
    calls = [served.call.future(str(i).encode(), timeout=20) for i in range(200)]
    assert [call.result() for call in calls] == [str(i).encode() for i in range(200)]
    assert most == 2


def test_large_messages(handlers: Callable[..., Any], transport: str) -> None:
    served = handlers()
    if transport == "native":
        assert served.call(b"x" * (40 << 20), timeout=60) == b"x" * (40 << 20)
    served.handle = lambda data, _: data * (30 << 20)
    assert len(served.call(b"y", timeout=60)) == 30 << 20
    # Compressed requests are read; clients may choose to.
    served.handle = lambda data, _: data
    assert served.call(b"z" * 100_000, compression=grpc.Compression.Gzip, timeout=10) == b"z" * 100_000
