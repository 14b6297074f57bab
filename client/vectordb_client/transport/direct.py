"""Unary calls over sockets of our own: one call at a time on a connection, made and answered by the calling thread.

grpcio makes a call by way of its own threads, completion queues and locks. Here a call is one ``send`` and one or two
``recv``. It is HTTP/2 and gRPC as any server speaks them, but only as much as these need: no TLS, no compression, no
multiplexing; as many connections as calls run at a time.

Whatever is not as expected (nobody listens, the connection broke, the server goes away, it sends what is not understood
here) raises :class:`Elsewhere`, and grpcio makes the call instead: it knows how to find, wait for and connect to a
server, and says why it cannot. So only calls that may be made twice go this way. Here end a call that succeeds, one
that ends with a status, and one whose time runs out.

A server on this machine is asked for its lane (``vectordb.server.lane``) with a connection's first call, and further
connections are made there: a Unix socket, behind which each connection has a thread. Where it cannot be reached, or is
that of another process than said so, the address that was given is used as before.

The protocol is in ``http2``, its headers in ``vectordb.wire.hpack``.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import socket
import struct
import sys
import threading
import time
from functools import lru_cache

import grpc

from vectordb.wire.columns import Parts
from vectordb.wire.hpack import BadHeaders, literal, metadata_block
from vectordb.wire.http2 import LANE_KEY
from vectordb_client.transport.channel import Metadata
from vectordb_client.transport.http2 import Connection, Elsewhere, Failed, OutOfTime

_UNIX, _ABSTRACT = "unix:", "unix-abstract:"
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
_IDLE_SECONDS = 1.0
"""A connection that was idle for longer is looked at before it is used."""
_MOST_IDLE = 64
_CONNECT_SECONDS = 2.0
_PAUSE_SECONDS = 2.0
"""So long after a failure all calls go by grpcio."""
_AVOID_SECONDS = 60.0
"""So long after a failure the lane is not tried."""

_TIMEOUT = literal("grpc-timeout", b"")[:-1]
_ASKING: Metadata = ((LANE_KEY, "1"),)
_LANE = re.compile(rf"{_ABSTRACT}(vectordb-([0-9]{{1,10}})-[0-9a-f]{{16}})/([0-9a-f]{{32}})")
"""A lane: its name, in it the number of the server's process, and the key that its calls have to show."""
_PEER = struct.Struct("3i")


class DirectCalls:
    """Connections to one server. Thread-safe.

    Args:
        address: As grpc has it; :meth:`reaches` says whether it can be used.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._near = _is_near(address)
        self._lane = address if _LANE.fullmatch(address) else ""
        self._unreachable = ""
        self._avoided_until = 0.0
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._open: set[Connection] = set()  # guarded by self._lock
        self._closed = False
        self._paused_until = 0.0

    @staticmethod
    def reaches(address: str) -> bool:
        """Whether a socket can be connected to an address: a Unix socket, or a host without a proxy before it."""
        if os.name != "posix":
            return False
        if address.startswith(_UNIX):
            return True
        host, colon, port = address.rpartition(":")
        proxied = any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES)
        return bool(host and colon and port.isdecimal() and "/" not in host) and not proxied

    def call(self, path: str, message: Parts, timeout: float | None, metadata: Metadata) -> bytes:
        """Makes a unary call and returns the answer's message.

        Args:
            path: The method's full name. message: Read again until this returns.
            timeout: Seconds, or ``None``.

        Raises:
            Failed: It ended with a status, or its time ran out.
            Elsewhere: It is not known how it ended, or it was not made.
        """
        now = time.monotonic()
        connection = self._taken(now)
        try:
            head = _head(path, self._address, metadata + connection.own)
            if timeout is not None:
                head += _time(timeout)
            connection.limit(timeout)
            answer = connection.exchange(head, message, None if timeout is None else now + timeout)
            connection.used = now
            if connection.own is _ASKING:
                connection.own = ()
                self._learn(connection.trailer(LANE_KEY))
        except Failed:
            connection.used = now
            self._give_back(connection)
            raise
        except OutOfTime:
            # Nobody waits for the answer any more: the end of its connection tells the server.
            self._drop(connection)
            raise Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
        except (OSError, BadHeaders, struct.error, UnicodeError, Elsewhere) as error:
            self._drop(connection)
            if connection.used == 0.0 and connection.lane:
                # It lets nobody in.
                self._avoid(connection.lane, now)
            raise Elsewhere from error
        except BaseException:
            self._drop(connection)
            raise
        self._give_back(connection)
        return answer

    def close(self) -> None:
        """Ends all connections; calls on their way go elsewhere. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._open.difference_update(idle)
            for connection in self._open:
                connection.shut()
        for connection in idle:
            connection.close()

    def __del__(self) -> None:
        for connection in self._open:
            connection.close()

    def _taken(self, now: float) -> Connection:
        if self._unreachable and now >= self._avoided_until:
            self._lane, self._unreachable = self._lane or self._unreachable, ""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            # A lane that lets no more in is still there for those that it has let in.
            wanted = connection.lane == self._lane or (connection.lane != "" and connection.lane == self._unreachable)
            # One that was in use a moment ago is there, as far as can be known.
            if wanted and (now - connection.used < _IDLE_SECONDS or connection.is_fit()):
                return connection
            self._drop(connection)
        if now < self._paused_until:
            raise Elsewhere
        connection = self._opened(now)
        with self._lock:
            if self._closed:
                connection.close()
                raise Elsewhere
            self._open.add(connection)
        return connection

    def _opened(self, now: float) -> Connection:
        if lane := self._lane:
            try:
                return _opened(lane, lane)
            except OSError:
                self._avoid(lane, now)
        try:
            connection = _opened(self._address, "")
            connection.own = _ASKING if self._near else ()
            return connection
        except OSError as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            raise Elsewhere from error

    def _learn(self, lane: str | None) -> None:
        """What the server says of its lane."""
        if lane is not None and lane != self._unreachable and _LANE.fullmatch(lane):
            self._lane = lane

    def _avoid(self, lane: str, now: float) -> None:
        """It cannot be used from here for now; a server that is started anew has another."""
        self._unreachable, self._avoided_until = lane, now + _AVOID_SECONDS
        if self._lane == lane:
            self._lane = ""

    def _give_back(self, connection: Connection) -> None:
        idle = self._idle
        if connection.last or len(idle) >= _MOST_IDLE:
            self._drop(connection)
            return
        idle.append(connection)
        if self._closed and connection in idle:
            # It was closed just now, and that may have passed this one by.
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.close()


def _opened(address: str, lane: str) -> Connection:
    connected = _connected(address)
    try:
        connection = Connection(connected, lane)
        if matched := _LANE.fullmatch(lane):
            connection.own = ((LANE_KEY, matched[3]),)
        return connection
    except BaseException:
        connected.close()
        raise


def _connected(address: str) -> socket.socket:
    if address.startswith(_UNIX):
        return _of_unix(address.removeprefix(_UNIX).removeprefix("//"))
    if matched := _LANE.fullmatch(address):
        connected = _of_unix(f"\0{matched[1]}")
        peer, user, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if peer != int(matched[2]) or os.geteuid() not in (0, user):
            # The name is free once its owner has gone, its number too, and keys are sent with calls.
            connected.close()
            raise ConnectionRefusedError(f"{matched[1]} is of process {peer} of user {user}")
        return connected
    host, _, port = address.rpartition(":")
    connected = socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS)
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that vanished ends a call without a deadline too, as grpcio's pings do.
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 2)):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connected


def _of_unix(name: str) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A server that takes no connections, stopped for instance, has a queue of them, and behind it one waits.
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", math.ceil(_CONNECT_SECONDS), 0))
        connected.connect(name)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
    except OSError:
        connected.close()
        raise
    return connected


def _is_near(address: str) -> bool:
    """Whether a server there is on this machine, as far as its address tells, and could have a lane."""
    if sys.platform != "linux" or address.startswith(_UNIX):
        return sys.platform == "linux"
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache(maxsize=128)
def _head(path: str, address: str, metadata: Metadata) -> bytes:
    """The header block of a call, but for its time."""
    authority = "localhost" if address.startswith(_UNIX) else address
    # By the static table: POST, http.
    parts = [b"\x83\x86", literal(":path", path.encode()), literal(":authority", authority.encode())]
    parts += [literal("te", b"trailers"), literal("content-type", b"application/grpc")]
    parts += [literal("user-agent", b"vectordb-client")]
    head = b"".join((*parts, metadata_block(metadata)))
    if len(head) > 16_000:
        raise Elsewhere
    return head


def _time(seconds: float) -> bytes:
    """``grpc-timeout``; long ones by hundredths, so that calls of one timeout have the same."""
    return _hundredths(math.ceil(seconds * 100.0)) if seconds > 2.0 else _timeout(math.ceil(seconds * 1e6), "u")


@lru_cache(maxsize=64)
def _hundredths(number: int) -> bytes:
    return _timeout(10 * number, "m") if number < 10_000_000 else _timeout(number // 100, "S")


def _timeout(number: int, unit: str) -> bytes:
    """At most eight digits."""
    value = f"{min(max(number, 1), 99_999_999)}{unit}".encode()
    return _TIMEOUT + bytes((len(value),)) + value
