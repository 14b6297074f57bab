"""What the native transport does by itself, where grpcio has its own ways."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.waiting import wait_until
from vectordb.errors import ResourceExhausted
from vectordb.server.native import Call
from vectordb.wire.errors import DETAILS_KEY, error_from_status


@pytest.fixture(scope="module", autouse=True)
def transport() -> str:
    return "native"


def refusal(error: Any) -> Any:
    return error_from_status(error.code().name, error.details(), dict(error.trailing_metadata())[DETAILS_KEY])


def test_a_handlers_defect_tells_nothing(handlers: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    served = handlers()

    def handle(_: bytes, __: grpc.ServicerContext) -> bytes:
        raise ValueError("secret")

    served.handle = handle
    error = served.failure()
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "secret" not in error.details()
    assert "secret" in caplog.text
    served.handle = lambda data, _: "no bytes"  # type: ignore[assignment,return-value]
    assert served.failure().code() is grpc.StatusCode.UNKNOWN


def test_a_handler_that_wants_to_end_its_thread_does_not(handlers: Callable[..., Any]) -> None:
    served = handlers(max_workers=1)

    def handle(data: bytes, _: grpc.ServicerContext) -> bytes:
        if data == b"exit":
            sys.exit(1)
        return data

    served.handle = handle
    for _ in range(3):
        assert served.failure(b"exit").code() is grpc.StatusCode.UNKNOWN
    assert served.call(b"on", timeout=5) == b"on"
    server = served.server
    wait_until(lambda: (server._calls, server._running, server._coming) == ({}, 0, 0))


def test_a_call_that_was_given_up_while_it_waited_is_not_run(handlers: Callable[..., Any]) -> None:
    served, go, ran = handlers(max_workers=1), threading.Event(), []

    def handle(data: bytes, _: grpc.ServicerContext) -> bytes:
        ran.append(data)
        go.wait(10)
        return data

    served.handle = handle
    first = served.call.future(b"first", timeout=20)
    wait_until(lambda: ran == [b"first"])
    second, third = served.call.future(b"second", timeout=20), served.call.future(b"third", timeout=20)
    server = served.server
    wait_until(lambda: len(server._waiting) == 2)
    second.cancel()
    # In whichever order they came: streams of one connection may overtake each other.
    wait_until(lambda: {call.data: call.active for _, call in server._waiting} == {b"second": False, b"third": True})
    go.set()
    assert (first.result(), third.result()) == (b"first", b"third")
    assert ran == [b"first", b"third"]


def test_calls_and_bytes_over_the_caps_are_refused_by_name(handlers: Callable[..., Any]) -> None:
    served, go = handlers(max_workers=1, max_pending_calls=3, max_message_bytes=1 << 20), threading.Event()
    refused = refusal(served.failure(b"x" * ((1 << 20) + 1)))
    assert type(refused) is ResourceExhausted
    assert (refused.limit, refused.got) == (1 << 20, (1 << 20) + 1)
    served.handle = lambda data, _: (go.wait(10), data)[1]
    calls = [served.call.future(b"", timeout=20) for _ in range(3)]
    wait_until(lambda: len(served.server._calls) == 3)
    refused = refusal(served.failure())
    assert type(refused) is ResourceExhausted
    assert refused.limit == 3
    go.set()
    assert [call.result() for call in calls] == [b""] * 3
    assert served.call(b"free again", timeout=5) == b"free again"
    wait_until(lambda: not served.server._calls and served.server._running == 0)


def test_its_threads_end_with_it(handlers: Callable[..., Any]) -> None:
    before = set(threading.enumerate())
    served = handlers()
    together = threading.Barrier(8)
    served.handle = lambda data, _: (together.wait(10), data)[1]
    assert [call.result() for call in [served.call.future(b"", timeout=10) for _ in range(8)]] == [b""] * 8
    mine = [thread.name for thread in threading.enumerate() if thread not in before]
    assert len([name for name in mine if name.startswith("vectordb-rpc")]) == 9
    served.close()
    wait_until(lambda: not [t for t in threading.enumerate() if t not in before and t.name in (*mine, "vectordb-crew")])


class SlowlyBack:
    """A front whose answers are out well before the thread that gave them is back."""

    def __init__(self, front: Any) -> None:
        self._front = front

    def respond(self, *given: Any) -> None:
        self._front.respond(*given)
        time.sleep(0.02)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)


def test_a_thread_that_has_answered_is_not_replaced(handlers: Callable[..., Any]) -> None:
    """Whoever is answered calls again at once: that the thread is not back yet is no reason for another."""
    before = set(threading.enumerate())
    served = handlers()
    served.server._front = SlowlyBack(served.server._front)
    for _ in range(20):
        assert served.call(b"again", timeout=10) == b"again"
    mine = [t for t in threading.enumerate() if t not in before and t.name.startswith("vectordb-rpc")]
    assert len(mine) == 2


class Refusals:
    """A front that notes which calls it ended with a status."""

    def __init__(self, front: Any) -> None:
        self._front = front
        self.numbers: list[int] = []

    def fail(self, number: int, *_: Any) -> None:
        self.numbers.append(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)


def test_a_call_that_comes_while_the_server_stops_is_run_or_refused_and_never_dropped(
    handlers: Callable[..., Any],
) -> None:
    server = handlers().server
    front = server._front = Refusals(server._front)

    class Stopping(bytes):
        """A message at whose first look the server is stopped."""

        def __len__(self) -> int:
            server.stop(20)
            return 0

    taken = server._take(server._methods[0], Call(7, Stopping(), ((), "", None), front))
    # Not noted any more once it was found that there is nothing to wait for.
    assert (taken, front.numbers, server._calls, server.drained.is_set()) == (None, [7], {}, True)


def test_a_call_that_cannot_be_begun_is_not_waited_for(
    handlers: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, ended = handlers().server, list[bool]()
    front = server._front = Refusals(server._front)

    class Shut:
        """A pool that takes nothing more, since the server stops."""

        def submit(self, run: Any, method: Any, call: Call) -> None:
            call.add_callback(lambda: ended.append(True))
            server.stop(20)
            assert not server.drained.is_set()
            raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(server._methods[0], "pool", Shut())
    assert server._handle((None, 7, 0, b"", None, ((), "", None))) is None
    assert (front.numbers, ended, server._calls, server.drained.is_set()) == ([7], [True], {}, True)


def test_a_process_that_ends_without_stopping_it_ends() -> None:
    code = """
import grpc
from concurrent.futures import ThreadPoolExecutor
from vectordb.server.config import load
from vectordb.server.transports import CallBounds, native
server = native({}, grpc.server(ThreadPoolExecutor(1)), CallBounds(1, 1), load({}, environment={}))
server.add_insecure_port("127.0.0.1:0")
server.start()
print("started", flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
