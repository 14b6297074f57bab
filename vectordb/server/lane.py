"""The lane: searches and writes of clients on this machine, each answered by the thread that reads it.

A call over grpcio or pygrpc-native is handed between threads on its way in and on its way out; for a search of a tenth
of a millisecond that is most of its time. The lane is a second door for calls with one message each way: a Unix socket
whose connections have one call at a time, so that a lone client's call is read and answered by one thread, which
wakes no other. Two clients, or two threads of one, have two connections.

It speaks gRPC over HTTP/2 (``lane_connection.py``), to the same handlers with the same statuses. A client asks for it
by request metadata with its first call and is told the address; whoever does not ask never meets it, and whatever the
lane does not do (streams, more connections than ``most``) a client does at the main address instead.

Who may come: the socket has a name and no file (``unix(7)``, abstract), so nothing is left behind by a crash, and the
system tells whose process has connected. Only those of the server's own user, and root's, are let in. Names can be
listed; so each call has to show a key that is told only with the address, by the door that the caller could open.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import select
import socket
import struct
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from vectordb.server.arrivals import ArrivalPool
from vectordb.server.lane_connection import Broken, LaneConnection
from vectordb.server.transports import CallBounds
from vectordb.server.unary_call import UnaryCall
from vectordb.server.unary_server import Method, UnaryServer
from vectordb.wire.hpack import BadHeaders

log = logging.getLogger("vectordb.server")

_BACKLOG = 128
_PAUSE = 0.01
"""Seconds until it is tried again to take a connection for which there was no file."""
_EXIT_SECONDS = 3.0
"""How long a process that ends without having closed its lane waits for the calls that run."""
_PEER = struct.Struct("3i")
_READ = select.EPOLLIN | select.EPOLLONESHOT if sys.platform == "linux" else 0
"""Told once of each thing that comes: whoever is told reads it, and nobody else meanwhile."""
_AGAIN = _READ | (select.EPOLLOUT if sys.platform == "linux" else 0)
"""Told at once: something that was read is yet to be looked at."""


class Lane(UnaryServer):
    """The listening socket and its connections. Thread-safe.

    Args:
        handlers: By path; from bytes to bytes. Those with streams, or with threads of their own, are not answered here.
        bounds: Of the calls, and so of the connections; more are closed at once.
        most_bytes: Longer messages are refused, and not kept while they come.

    Attributes:
        address: Its name as grpc has it, and the key; empty while it does not listen.
        key: What calls have to show.
    """

    _name = "vectordb-lane"
    _outlives_main = True  # as grpcio beside it does, for whoever shares a folder

    def __init__(self, handlers: Mapping[str, grpc.RpcMethodHandler], bounds: CallBounds, most_bytes: int) -> None:
        super().__init__({path: one for path, one in handlers.items() if _is_short(one)}, bounds, most_bytes)
        self.by_path = {path.encode(): method for path, method in zip(self._paths, self._methods, strict=True)}
        self.most_bytes = most_bytes
        self.key = secrets.token_hex(16).encode()
        self.address = ""
        self._socket: socket.socket | None = None
        self._spare: socket.socket | None = None  # a file kept for when there are no more
        self._poll = select.epoll()
        # By their sockets. Each is changed only by the thread that was told of something there.
        self._connections: dict[int, LaneConnection] = {}
        _LANES.add(self)

    def start(self) -> None:
        """Listens. Where the system gives no socket or no thread there is no lane, and it is told."""
        name = f"vectordb-{os.getpid()}-{secrets.token_hex(8)}"
        listening = None
        try:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            listening.bind(f"\0{name}")
            listening.listen(_BACKLOG)
            spare = socket.socket(socket.AF_UNIX)
        except OSError as error:
            if listening is not None:
                listening.close()
            log.info("no lane for clients of this machine: %s", error)
            return
        self._begin()
        if not self._threads:
            listening.close()
            spare.close()
            log.info("no lane for clients of this machine: the system gives no thread")
            return
        self._socket, self._spare = listening, spare
        self._poll.register(listening, _READ)
        self.address = f"unix-abstract:{name}/{self.key.decode()}"

    def _receive(self, most: int, wait_ms: int) -> Sequence[Any] | None:
        return self._poll.poll(wait_ms * 1e-3, most)

    def _handle(self, event: Any) -> tuple[Method, UnaryCall] | None:
        connection = self._connections.get(event[0])
        if connection is None:
            self._accept()
            return None
        try:
            call = connection.read()
            if call is not None:
                return self._take(call.method, call)
            # Not at once, whatever of a call there is: nothing can be done before more of it comes.
            self._arm(connection.socket, _READ)
        except (EOFError, Broken, BadHeaders, OSError, struct.error) as error:
            log.debug("a connection of the lane ended: %s", error)
            self.drop(connection)
        except Exception:
            log.exception("a connection of the lane failed")
            self.drop(connection)
        return None

    def _accept(self) -> None:
        listening = self._socket
        if listening is None:
            return
        try:
            while True:
                self._let_in(listening.accept()[0])
        except BlockingIOError:
            pass  # that were all
        except OSError as error:
            # Mostly there are no more files to be had; those who have connections go on.
            log.debug("the lane takes no connection: %s", error)
            self._turn_away(listening)
        finally:
            self._arm(listening, _READ)

    def _turn_away(self, listening: socket.socket) -> None:
        """Ends a connection for which there is no file. Else its client would wait for an answer, and the system would
        tell of it without end."""
        if self._spare is not None:
            self._spare.close()
        try:
            self._spare = listening.accept()[0]
            self._spare.shutdown(socket.SHUT_RDWR)
        except OSError:
            # Somebody else has taken that one too.
            time.sleep(_PAUSE)

    def _arm(self, opened: socket.socket, events: int) -> None:
        # One that was closed meanwhile has no number.
        with contextlib.suppress(ValueError, OSError):
            self._poll.modify(opened, events)

    def _let_in(self, connected: socket.socket) -> None:
        pid, user, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if self._stopping or len(self._connections) >= self._most_calls or user not in (0, os.geteuid()):
            connected.close()
            return
        connection = LaneConnection(self, connected, f"unix:pid={pid},uid={user}")
        self._connections[connection.number] = connection
        with contextlib.suppress(OSError, ValueError):
            self._poll.register(connected, _READ)
            if not self._closed:
                return
        # Nobody would be told of it, or nobody is there any more.
        self.drop(connection)

    def wait_for(self, connection: LaneConnection) -> None:
        """What comes next on a connection is for whoever waits."""
        self._arm(connection.socket, _AGAIN if connection.has_more else _READ)

    def drop(self, connection: LaneConnection) -> None:
        """Ends a connection."""
        self._connections.pop(connection.number, None)
        connection.socket.close()

    def _close(self, seconds: float) -> None:
        self._closed = True
        for connection in list(self._connections.values()):
            # Whoever is told reads its end.
            connection.shut()
            self.drop(connection)

    def stop(self, grace: float | None) -> Any:
        """As of ``grpc.Server``."""
        self.address = ""
        done = super().stop(grace)
        if self._socket is not None:
            self._socket.close()
        if self._spare is not None:
            self._spare.close()
        return done

    def leave_to_parent(self) -> None:
        """In a forked child: its copies of the sockets would keep clients waiting once the parent is gone."""
        if self._socket is not None:
            self._socket.close()
        for connection in list(self._connections.values()):
            connection.socket.close()


def _is_short(handler: grpc.RpcMethodHandler) -> bool:
    pool = getattr(handler.unary_unary, "experimental_thread_pool", None)
    return handler.unary_unary is not None and (pool is None or isinstance(pool, ArrivalPool))


_LANES: weakref.WeakSet[Lane] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for lane in list(_LANES):
        lane.leave_to_parent()
    _LANES.clear()


def _end_calls() -> None:
    """The interpreter ends its daemon threads where they ask for its lock; in the middle of native code, as a search
    often is, that aborts the process."""
    lanes, end = list(_LANES), time.monotonic() + _EXIT_SECONDS
    for lane in lanes:
        lane.refuse()
    for lane in lanes:
        lane.drained.wait(max(0.0, end - time.monotonic()))


os.register_at_fork(after_in_child=_leave_to_parent)
atexit.register(_end_calls)
