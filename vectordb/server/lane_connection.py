"""One connection of the lane: as much of HTTP/2 and gRPC as a call at a time with one message each way needs.

Sources: RFC 9113 (HTTP/2), RFC 7541 (its header blocks), and "gRPC over HTTP/2" of the gRPC project. The peer is told
by its settings what is not had here: no dynamic table, one stream at a time. What nobody has to send (padding,
priorities, header blocks in pieces, compressed messages) ends the connection, and so does an answer that the peer has
no room for: its client then makes the call at the main address.
"""

from __future__ import annotations

import base64
import itertools
import logging
import re
import socket
import struct
from hmac import compare_digest
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import grpc

from vectordb.server.unary_call import Metadata, UnaryCall, oversized
from vectordb.wire import http2
from vectordb.wire.errors import DETAILS_KEY, error_to_status
from vectordb.wire.hpack import headers_of, literal, metadata_block
from vectordb.wire.http2 import ACK, DATA, END_HEADERS, END_STREAM, FRAME, HEADERS, MESSAGE

if TYPE_CHECKING:
    from vectordb.server.lane import Lane
    from vectordb.server.unary_server import Method

log = logging.getLogger("vectordb.server")

_SENDING = struct.pack("ll", 20, 0)
"""Seconds and microseconds that a thread waits for a peer to take what is sent."""
_AT_ONCE = socket.MSG_DONTWAIT
_TO_PEER = getattr(socket, "MSG_NOSIGNAL", 0)
"""In a process of somebody else's, behind a door, SIGPIPE may end it."""
_READ = 1 << 16
_READS = 64
"""Pieces of a long message that are read before others have their turn."""
_MOST_BLOCKS = 32
"""Header blocks that are known again: they repeat, but for the time of calls that have little."""
_MOST_HEADERS = 32_768
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GREETING = http2.settings(
    (http2.HEADER_TABLE, 0),
    (http2.MOST_STREAMS, 1),
    (http2.FIRST_WINDOW_SIZE, http2.LARGEST_WINDOW),
    (http2.FRAME_SIZE, http2.LARGEST_FRAME),
) + http2.window(http2.LARGEST_WINDOW - http2.FIRST_WINDOW)
_GRANT = 1 << 30
"""Bytes after which the peer is let send as many again."""
_BEGINNING = b"\x88" + literal("content-type", b"application/grpc")
_OK = literal("grpc-status", b"0")
_OF_HTTP = frozenset(("te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"))


class Broken(Exception):
    """The connection ends: its peer sends what is not had here, or has no room for an answer."""


class _Request(NamedTuple):
    """What a header block says."""

    method: Method | None
    metadata: Metadata
    timeout: float | None


class LaneCall(UnaryCall):
    """The call of a connection."""

    _answered = False

    def __init__(self, data: bytes, stream: int, request: _Request, method: Method, connection: LaneConnection) -> None:
        super().__init__(next(_NUMBERS), data, request.metadata, connection.peer, request.timeout)
        self.method = method
        self._stream = stream
        self._connection = connection

    def is_active(self) -> bool:
        # Nobody waits at the socket while the call runs: it is looked at when somebody asks.
        return self.active and self._connection.is_open()

    def respond(self, data: bytes, initial: Metadata | None, trailing: Metadata) -> None:
        if not self._answered:
            self._answered = True
            self._connection.answer(self._stream, data, initial, trailing)

    def fail(self, status: grpc.StatusCode, text: str, trailing: Metadata = ()) -> None:
        if not self._answered:
            self._answered = True
            self._connection.end(self._stream, status, text, trailing)


_NUMBERS = itertools.count(1)


class _Coming:
    """The call that is on its way: its stream, what it is, what has come of its message, and what is missing."""

    __slots__ = ("excess", "missing", "pieces", "request", "stream")

    def __init__(self, stream: int, request: _Request) -> None:
        self.stream, self.request = stream, request
        self.pieces: list[bytes | memoryview] = []
        self.missing = -1
        self.excess = 0  # the length of a message that is too long to be kept


class LaneConnection:
    """One connection. Used by one thread at a time: that which was told of something there, then its call's.

    Args:
        peer: Whose it is, for logs.
    """

    def __init__(self, lane: Lane, connected: socket.socket, peer: str) -> None:
        self._lane = lane
        self.socket = connected
        self.number = connected.fileno()
        self.peer = peer
        self._buffer = b""
        self._frame: memoryview | None = None  # a long one, of which `_got` bytes have come
        self._got = 0
        self._greeted = False
        self._coming: _Coming | None = None
        self._blocks: dict[bytes, _Request] = {}
        # What the peer takes, by the protocol's defaults until it says otherwise.
        self._window = self._initial = http2.FIRST_WINDOW
        self._largest = http2.LEAST_FRAME
        self._received = 0
        # What comes is not waited for here; what is sent may have to be.
        connected.setblocking(True)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SENDING)

    @property
    def has_more(self) -> bool:
        """Whether something was read that is yet to be looked at, after an answer."""
        return self._buffer != b""

    def read(self) -> LaneCall | None:
        """The next call, if all of it is there; else all that is there has been looked at.

        Raises:
            EOFError, Broken, BadHeaders, OSError, struct.error: The connection is at its end.
        """
        try:
            if not self._greeted:
                if self._take(len(http2.PREFACE)) != http2.PREFACE:
                    raise Broken("it does not begin as HTTP/2 does")
                self._greeted = True
                self._tell(_GREETING)
            while True:
                call = self._step()
                if call is not None:
                    return call
        except BlockingIOError:
            return None

    def _tell(self, data: bytes) -> None:
        """Sends what is short. Who has no room for that reads nothing; no thread that receives waits for it."""
        try:
            self.socket.sendall(data, _AT_ONCE | _TO_PEER)
        except BlockingIOError:
            raise Broken("the peer does not read") from None

    def _step(self) -> LaneCall | None:
        """Reads a frame and does what it says; the call that is complete with it."""
        while len(self._buffer) < FRAME.size and self._frame is None:
            self._more()
        what, flags, stream = FRAME.unpack_from(self._buffer if self._frame is None else self._frame)
        size, kind = what >> 8, what & 255
        coming = self._coming
        if kind == DATA:
            if coming is None or stream != coming.stream or flags & http2.ODD:
                raise Broken("a message belongs to no call")
            return self._part(coming, size, bool(flags & END_STREAM))
        if size > _MOST_HEADERS:
            raise Broken("a frame is too long")
        data = self._take(FRAME.size + size)[FRAME.size :]
        if kind == HEADERS:
            if flags & http2.ODD or not flags & END_HEADERS or flags & END_STREAM or coming or not stream & 1:
                raise Broken("a call does not begin as one does")
            self._coming = _Coming(stream, self._request(data))
        else:
            self._control(kind, flags, stream, data)
            if kind == http2.RST_STREAM and coming is not None and stream == coming.stream:
                self._coming = None
        return None

    def _part(self, coming: _Coming, size: int, last: bool) -> LaneCall | None:
        """Reads a frame of a message; the call, if it is the last."""
        skip = FRAME.size
        if coming.missing < 0:
            skip += MESSAGE.size
            if size < MESSAGE.size:
                raise Broken("a message begins with too little")
            while len(self._buffer) < skip and self._frame is None:
                self._more()
            compressed, length = MESSAGE.unpack_from(self._frame or self._buffer, FRAME.size)
            if compressed:
                raise Broken("a message is compressed")
            missing = length + MESSAGE.size - size
        else:
            missing = coming.missing - size
        if missing < 0 or (missing > 0) == last:
            raise Broken("a message is not as long as it says")
        piece = self._taken(FRAME.size + size)[skip:]
        if coming.missing < 0:
            coming.excess = length if length > self._lane.most_bytes else 0
        coming.missing = missing
        if not coming.excess:
            coming.pieces.append(piece)
        self._received += size
        if self._received >= _GRANT:
            self._tell(http2.window(self._received))
            self._received = 0
        return None if missing else self._call(coming)

    def _call(self, coming: _Coming) -> LaneCall | None:
        self._coming = None
        if coming.excess:
            code, text, details = error_to_status(oversized(coming.excess, self._lane.most_bytes))
            self._send_status(coming.stream, grpc.StatusCode[code], text, ((DETAILS_KEY, details),))
            return None
        if coming.request.method is None:
            self._send_status(coming.stream, grpc.StatusCode.UNIMPLEMENTED, "the lane has no such method", ())
            return None
        pieces = coming.pieces
        data = pieces[0] if len(pieces) == 1 and isinstance(pieces[0], bytes) else b"".join(pieces)
        return LaneCall(data, coming.stream, coming.request, coming.request.method, self)

    def _more(self) -> None:
        data = self.socket.recv(_READ, _AT_ONCE)
        if not data:
            raise EOFError
        self._buffer = self._buffer + data if self._buffer else data

    def _take(self, size: int) -> bytes:
        """So many bytes, of a few."""
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _taken(self, size: int) -> bytes | memoryview:
        """So many bytes, of however many; those of a long frame that have come stay in place until the others have."""
        if self._frame is None:
            if size <= len(self._buffer) or size <= _READ:
                return self._take(size)
            self._frame, self._got = memoryview(bytearray(size)), len(self._buffer)
            self._frame[: self._got] = self._buffer
            self._buffer = b""
        for _ in range(_READS):
            got = self.socket.recv_into(self._frame[self._got :], 0, _AT_ONCE)
            if not got:
                raise EOFError
            self._got += got
            if self._got == size:
                break
        else:
            raise BlockingIOError
        data, self._frame = self._frame, None
        return data

    def _control(self, kind: int, flags: int, stream: int, data: bytes) -> None:
        if kind == http2.SETTINGS:
            if not flags & ACK:
                for name, value in struct.iter_unpack(">HI", data):
                    if name == http2.FIRST_WINDOW_SIZE:
                        self._initial = value
                    elif name == http2.FRAME_SIZE:
                        self._largest = min(max(value, http2.LEAST_FRAME), http2.LARGEST_FRAME)
                self._tell(http2.frame(http2.SETTINGS, ACK, 0, b""))
        elif kind == http2.WINDOW:
            (more,) = struct.unpack(">I", data)
            if stream == 0:
                self._window += more
        elif kind == http2.PING:
            if not flags & ACK:
                self._tell(http2.frame(http2.PING, ACK, 0, data))
        elif kind in (http2.PUSH, http2.CONTINUATION):
            raise Broken(f"a frame of kind {kind} was not asked for")
        # Frames of kinds that are not known are passed over.

    def _request(self, block: bytes) -> _Request:
        request = self._blocks.get(block)
        if request is None:
            if len(self._blocks) >= _MOST_BLOCKS:
                self._blocks.clear()
            request = self._blocks[block] = self._read(block)
        return request

    def _read(self, block: bytes) -> _Request:
        method, timeout, metadata = None, None, list[tuple[str, str | bytes]]()
        known = False
        for name, value in headers_of(block):
            if name == ":path":
                method = self._lane.by_path.get(value)
            elif name == "grpc-timeout":
                matched = _TIMEOUT.fullmatch(value)
                if matched is None:
                    raise Broken("grpc-timeout is none")
                timeout = int(matched[1]) * _UNITS[matched[2].decode()]
            elif name == "grpc-encoding" and value != b"identity":
                raise Broken("messages are compressed")
            elif name == http2.LANE_KEY:
                known = compare_digest(value, self._lane.key)
            elif name.endswith("-bin"):
                try:
                    metadata.append((name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)))
                except ValueError:
                    raise Broken(f"{name} is no base64") from None
            elif not name.startswith(":") and name not in _OF_HTTP:
                metadata.append((name, value.decode("ascii", "replace")))
        if not known:
            raise Broken("the caller does not know the lane's key")
        return _Request(method, tuple(metadata), timeout)

    def answer(self, stream: int, data: bytes, initial: Metadata | None, trailing: Metadata) -> None:
        """Sends a call's answer; what comes next is for whoever waits."""
        try:
            self._send_answer(stream, data, initial, trailing)
            self._lane.wait_for(self)
        except (OSError, Broken) as error:
            self._lost(error)

    def end(self, stream: int, status: grpc.StatusCode, text: str, trailing: Metadata) -> None:
        """Sends how a call ended instead."""
        try:
            self._send_status(stream, status, text, trailing)
            self._lane.wait_for(self)
        except (OSError, Broken) as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        log.debug("an answer of the lane did not arrive: %s", error)
        self._lane.drop(self)

    def _send_answer(self, stream: int, data: bytes, initial: Metadata | None, trailing: Metadata) -> None:
        size = len(data) + MESSAGE.size
        if size > self._window or size > self._initial:
            raise Broken("the peer has no room for an answer")
        self._window -= size
        begin = _BEGINNING + metadata_block(initial) if initial else _BEGINNING
        end = _OK + metadata_block(trailing) if trailing else _OK
        parts: list[bytes | memoryview] = [FRAME.pack(len(begin) << 8 | HEADERS, END_HEADERS, stream), begin]
        if size <= self._largest:
            parts += (FRAME.pack(size << 8 | DATA, 0, stream), MESSAGE.pack(0, len(data)), data)
        else:
            message, largest = memoryview(MESSAGE.pack(0, len(data)) + data), self._largest
            for start in range(0, size, largest):
                piece = message[start : start + largest]
                parts += (FRAME.pack(len(piece) << 8 | DATA, 0, stream), piece)
        parts += (FRAME.pack(len(end) << 8 | HEADERS, END_HEADERS | END_STREAM, stream), end)
        whole = memoryview(b"".join(parts))
        try:
            sent = self.socket.send(whole, _AT_ONCE | _TO_PEER)
        except BlockingIOError:
            sent = 0
        if sent < len(whole):
            self._lane.patiently(lambda: self.socket.sendall(whole[sent:], _TO_PEER))

    def _send_status(self, stream: int, status: grpc.StatusCode, text: str, trailing: Metadata) -> None:
        block = b"".join(
            (
                _BEGINNING,
                literal("grpc-status", str(status.value[0]).encode()),
                literal("grpc-message", quote(text, safe=_PLAIN).encode()),
                metadata_block(trailing),
            )
        )
        self._tell(http2.frame(HEADERS, END_HEADERS | END_STREAM, stream, block))

    def is_open(self) -> bool:
        """Whether the peer is still there, as far as can be seen from here. For any thread."""
        try:
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def shut(self) -> None:
        """Wakes whoever waits for the peer. For any thread."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("a connection of the lane was shut already")


_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""What a status message may hold as it is."""
