"""A lane that gives messages back, calls by hand for it, and what tests of lanes look at."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import grpc

from vectordb.requests import CreateRequest
from vectordb.server.lane import Lane
from vectordb.server.transports import CallBounds
from vectordb.server.unary_call import UnaryCall
from vectordb.types import CollectionConfig
from vectordb.wire import http2
from vectordb.wire.hpack import literal
from vectordb_client.transport.direct import DirectCalls

PATH = "/test.Echo/Call"


KEY = literal(http2.LANE_KEY, b"key")


BARE = b"\x83\x86" + literal(":path", PATH.encode()) + literal("content-type", b"application/grpc")


HEAD = BARE + KEY


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


class Echo:
    """A lane whose handler gives messages back, without a server around it."""

    def __init__(self, most: int = 4) -> None:
        self.calls: list[UnaryCall] = []
        handler = grpc.unary_unary_rpc_method_handler(lambda data, context: self.handle(data, context))
        self.lane = Lane({PATH: handler}, CallBounds(most, most), 1 << 20)
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
            while piece := received(connection):
                found += piece
            return found


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except ConnectionResetError:
        return b""  # what was sent last was not read


def call_of(data: bytes, stream: int = 1, head: bytes = HEAD) -> bytes:
    message = struct.pack(">BI", 0, len(data)) + data
    return http2.frame(http2.HEADERS, 4, stream, head) + http2.frame(http2.DATA, 1, stream, message)


def answer_of(data: bytes, stream: int = 1) -> bytes:
    message = struct.pack(">BI", 0, len(data)) + data
    return http2.frame(http2.DATA, 0, stream, message)


BEGIN = http2.PREFACE + http2.settings()


def without_end(step: Callable[[], object]) -> None:
    while True:
        step()


def received_until(connection: socket.socket, wanted: bytes) -> bool:
    found = bytearray()
    while wanted not in found[-len(wanted) - (1 << 16) :]:
        piece = received(connection)
        if not piece:
            return False
        found += piece
    return True


WIDE = http2.settings((http2.FIRST_WINDOW_SIZE, http2.LARGEST_WINDOW)) + http2.window(
    http2.LARGEST_WINDOW - http2.FIRST_WINDOW
)
