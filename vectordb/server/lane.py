"""The lane: searches and writes of clients on this machine, each answered by the thread that reads it.

A call over grpcio or pygrpc-native is handed between threads on its way in and on its way out; for a search of a tenth
of a millisecond that is most of its time. The lane is a second door for calls with one message each way: a Unix socket
with a thread for each connection and one call at a time on it, so that a call is one ``recv`` and one ``send``. Two
clients, or two threads of one, have two connections.

It speaks gRPC over HTTP/2 (``lane_connection.py``), to the same handlers with the same statuses. A client asks for it
by request metadata with its first call and is told the address; whoever does not ask never meets it, and whatever the
lane does not do (streams, more calls than ``most``, a server that drains) a client does at the main address instead.

Who may come: the socket has a name and no file (``unix(7)``, abstract), so nothing is left behind by a crash, and the
system tells whose process has connected. Only those of the server's own user, and root's, are let in.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import struct
import sys
import threading
import time
import weakref
from collections.abc import Mapping

import grpc

from vectordb.server.arrivals import ArrivalPool
from vectordb.server.lane_connection import LaneConnection, LaneMethod
from vectordb.server.pools import tell_of_no_threads

log = logging.getLogger("vectordb.server")

AVAILABLE = sys.platform == "linux"
"""Abstract names, and telling whose process has connected as it is done here, are Linux's."""
_BACKLOG = 128
_PEER = struct.Struct("3i")
_LINGER = 0.05


class Lane:
    """The listening socket and its connections. Thread-safe.

    Args:
        most: Connections at a time; more are closed at once.
        most_bytes: Longer messages are refused, and not kept while they come.

    Attributes:
        address: As grpc has it; empty while it does not listen.
        methods: What is answered, by path.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.methods: dict[bytes, LaneMethod] = {}
        self.most_bytes = most_bytes
        self._most = most
        self.address = ""
        self._stopping = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._connections: set[LaneConnection] = set()  # guarded by self._lock
        self._empty = threading.Condition(self._lock)
        _LANES.add(self)

    def answer(self, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Adds what is to be answered, before the start.

        Args:
            handlers: By path; from bytes to bytes. Those with streams, or with threads of their own, are left out.
        """
        for path, handler in handlers.items():
            pool = getattr(handler.unary_unary, "experimental_thread_pool", None)
            arrivals = pool.arrivals if isinstance(pool, ArrivalPool) else None
            if handler.unary_unary is not None and (pool is None or arrivals is not None):
                self.methods[path.encode()] = LaneMethod(handler.unary_unary, arrivals)

    def start(self) -> None:
        """Listens. Where the system gives no socket or no thread there is no lane, and it is told."""
        name = f"vectordb-{os.getpid()}-{secrets.token_hex(16)}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(f"\0{name}")
            listening.listen(_BACKLOG)
            self._socket = listening
            threading.Thread(target=self._accept, name="vectordb-lane", daemon=True).start()
        except (OSError, RuntimeError) as error:
            listening.close()
            self._socket = None
            log.info("no lane for clients of this machine: %s", error)
            return
        self.address = f"unix-abstract:{name}"

    def _accept(self) -> None:
        listening = self._socket
        assert listening is not None
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                if self._stopping:
                    return
                # No more files, mostly: those who have connections go on.
                time.sleep(_LINGER)
                continue
            self._take(connected)

    def _take(self, connected: socket.socket) -> None:
        pid, user, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        connection = LaneConnection(self, connected, f"unix:pid={pid},uid={user}")
        with self._lock:
            welcome = not self._stopping and len(self._connections) < self._most and user in (0, os.geteuid())
            if welcome:
                self._connections.add(connection)
        if not welcome:
            connected.close()
            return
        try:
            threading.Thread(target=connection.run, name="vectordb-lane-call", daemon=True).start()
        except RuntimeError:
            tell_of_no_threads()
            self.forget(connection)
            connected.close()

    def ends(self) -> bool:
        """Whether it takes no more calls."""
        return self._stopping

    def forget(self, connection: LaneConnection) -> None:
        """It has ended."""
        with self._lock:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.notify_all()

    def stop(self, grace: float | None) -> threading.Event:
        """Takes no more calls; those that run have ``grace`` seconds. The event is set when all has ended."""
        done = threading.Event()
        self.address = ""
        with self._lock:
            self._stopping = True
            connections = list(self._connections)
        if self._socket is not None:
            # Closing alone does not wake the thread that accepts.
            _shut(self._socket)
            self._socket.close()
        for connection in connections:
            connection.stop()

        def finish() -> None:
            with self._lock:
                self._empty.wait_for(lambda: not self._connections, grace or 0.0)
                left = list(self._connections)
            for connection in left:
                connection.shut()
            done.set()

        threading.Thread(target=finish, name="vectordb-lane-drain", daemon=True).start()
        return done

    def leave_to_parent(self) -> None:
        """In a forked child: its copies of the sockets would keep clients waiting once the parent is gone."""
        if self._socket is not None:
            self._socket.close()
        for connection in list(self._connections):
            connection.close()


def _shut(opened: socket.socket) -> None:
    try:
        opened.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("a socket of the lane was shut already")


_LANES: weakref.WeakSet[Lane] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for lane in list(_LANES):
        lane.leave_to_parent()
    _LANES.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
