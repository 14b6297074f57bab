"""Whom the lane lets in, and what is left of it when processes end, fork, or have no more files."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.server.lane_echo import (
    BEGIN,
    PATH,
    Echo,
    answer_of,
    call_of,
    docs,
    listens,
    named,
    received,
    received_until,
    searches,
    without_end,
)
from tests.waiting import wait_until
from vectordb.server.lane import Lane
from vectordb.server.transports import CallBounds
from vectordb_client import connect
from vectordb_client.transport.direct import DirectCalls, _connected
from vectordb_client.transport.http2 import Elsewhere

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no lane on this system")


@pytest.fixture(scope="module", autouse=True)
def transport() -> str:
    return "native"


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
        there.sendall(BEGIN + call_of(b"one"))
        assert received_until(there, answer_of(b"one"))
        listening = echo.lane._socket
        scarce = Scarce(listening, echo.lane)
        echo.lane._socket = scarce  # type: ignore[assignment]
        for turn in range(1, 20):
            with echo.connected() as connection:
                assert received(connection) == b""
            wait_until(lambda turn=turn: scarce.refused >= turn)  # type: ignore[misc]
        there.sendall(call_of(b"two", 3))
        assert received_until(there, answer_of(b"two", 3))
        echo.lane._socket = listening
    assert answer_of(b"on") in echo.sent(BEGIN + call_of(b"on"))


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
lane = Lane({{{PATH!r}: grpc.unary_unary_rpc_method_handler(handle)}}, CallBounds(4, 4), 1 << 20)
lane.key = b"key"
lane.start()
connected = socket.socket(socket.AF_UNIX)
connected.connect("\\0" + lane.address.removeprefix("unix-abstract:").partition("/")[0])
connected.sendall({BEGIN + call_of(b"call")!r})
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
    s.sendall({BEGIN + call_of(b"secret")!r})
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
lane = Lane({{{PATH!r}: grpc.unary_unary_rpc_method_handler(handle)}}, CallBounds(4, 4), 1 << 20)
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
            connection.sendall(BEGIN + call_of(b"late"))
            assert received_until(connection, answer_of(b"late"))
        assert process.wait(10) == 3
