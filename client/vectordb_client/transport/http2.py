"""One connection of HTTP/2 as a gRPC client of unary calls needs it: one call at a time, no more of the protocol.

Sources: RFC 9113 (HTTP/2), and "gRPC over HTTP/2" of the gRPC project.
"""

from __future__ import annotations

import base64
import binascii
import math
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NoReturn
from urllib.parse import unquote

import grpc

from vectordb.wire import http2
from vectordb.wire.columns import Parts
from vectordb.wire.hpack import Headers, headers_of
from vectordb.wire.http2 import ACK, DATA, END_HEADERS, END_STREAM, FRAME, HEADERS, LARGEST_WINDOW, MESSAGE

_RECEIVED = 1 << 30
_MOST_PIECES = 64
"""Of a long message so many are joined and sent at once: half a megabyte of the smallest frames."""
_QUIETLY = getattr(socket, "MSG_NOSIGNAL", 0)
"""A connection that has ended is an error, and no SIGPIPE, which may end the process."""
_LAST_STREAM = (1 << 31) - 1
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_OK: Headers = (("grpc-status", b"0"),)


class Elsewhere(Exception):
    """grpcio is to make the call."""


class Failed(grpc.RpcError):  # type: ignore[misc,unused-ignore]
    """A call that ended with a status, as grpcio has it."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: tuple[tuple[str, str | bytes], ...] = ()) -> None:
        super().__init__(details)
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._trailing


class OutOfTime(Exception):
    """The call's time ran out."""


class Connection:
    """One connection, with one call at a time. Used by one thread at a time; ``shut`` by any.

    Args:
        lane: The address of the lane that it leads to; empty for the server's own.

    Attributes:
        last: It is not to be used again. used: When a call was last answered, as of ``time.monotonic``; 0 for never.
        own: Metadata that its calls have for its sake.
    """

    __slots__ = (
        "_again", "_buffer", "_chunks", "_initial", "_largest", "_received", "_socket", "_stream", "_timeout",
        "_trailers", "_window", "_window_of_stream", "lane", "last", "own", "used",
    )  # fmt: skip

    def __init__(self, connected: socket.socket, lane: str = "") -> None:
        self._socket = connected
        self.lane = lane
        self.own: tuple[tuple[str, str | bytes], ...] = ()
        self._buffer = b""
        self._chunks: list[bytes] = []
        self._trailers: Headers | None = None
        self._stream = -1
        # What the peer takes, by the protocol's defaults until it says otherwise.
        self._window = self._initial = http2.FIRST_WINDOW
        self._window_of_stream = 0
        self._largest = http2.LEAST_FRAME
        self._received = 0
        self._timeout = 0.0
        self._again = False
        self.used = 0.0
        self.last = False
        # No dynamic table, no pushes, windows that are never in the way.
        settings = http2.settings(
            (http2.HEADER_TABLE, 0), (http2.ENABLE_PUSH, 0), (http2.FIRST_WINDOW_SIZE, LARGEST_WINDOW)
        )
        connected.sendall(http2.PREFACE + settings + http2.window(LARGEST_WINDOW - http2.FIRST_WINDOW), _QUIETLY)

    def trailer(self, name: str) -> str | None:
        """What the last answer says of itself by a name."""
        found = next((value for key, value in self._trailers or () if key == name), None)
        return None if found is None else found.decode("ascii", "replace")

    def is_fit(self) -> bool:
        """Whether the peer is still there, as far as can be seen from here."""
        try:
            # What it sent meanwhile, such as a ping, is for the next call to read; its end may stand behind that.
            while data := self._socket.recv(65_536, socket.MSG_DONTWAIT):
                self._buffer += data
            return False
        except BlockingIOError:
            return True
        except OSError:
            return False

    def exchange(self, head: bytes, message: Parts, end: float | None) -> bytes:
        """Sends a message and returns the answer's.

        Args:
            head: The header block. end: As of ``time.monotonic``.

        Raises:
            Failed: The answer is a status. Elsewhere, OSError, BadHeaders: Anything else. OutOfTime: At the end.
        """
        self._stream = stream = self._stream + 2
        self._chunks, self._trailers, self._again = [], None, False
        length = sum(map(len, message))
        size = length + MESSAGE.size
        first = FRAME.pack(len(head) << 8 | HEADERS, END_HEADERS, stream)
        prefix = MESSAGE.pack(0, length)
        try:
            if size <= self._window and size <= self._initial and size <= self._largest:
                self._window -= size
                self._window_of_stream = self._initial - size
                second = FRAME.pack(size << 8 | DATA, END_STREAM, stream)
                self._socket.sendall(b"".join((first, head, second, prefix, *message)), _QUIETLY)
                answered = False
            else:
                self._window_of_stream = self._initial
                answered = self._send(first + head, _Pieces((prefix, *message)), end)
        except BlockingIOError:
            raise OutOfTime from None
        while not answered:
            answered = self._step(end)
        if self._received >= _RECEIVED:
            self._socket.sendall(http2.window(self._received), _QUIETLY)
            self._received = 0
        if stream >= _LAST_STREAM - 2:
            self.last = True
        return self._answer()

    def shut(self) -> None:
        """Wakes whoever waits for the peer; for any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.last = True  # it was gone already

    def close(self) -> None:
        self._socket.close()

    def limit(self, seconds: float | None) -> None:
        """Bounds each wait for the socket. The system does it, which saves a call of ``poll`` each time."""
        if seconds is None:
            seconds = 0.0
        elif seconds > 2.0:
            # One setting for all calls of one timeout: who is woken too early goes on waiting.
            seconds = math.ceil(seconds * 4.0) / 4.0
        elif seconds < 1e-6:
            # None at all would be no bound.
            seconds = 1e-6
        if seconds == self._timeout:
            return
        self._timeout = seconds
        whole = int(seconds)
        value = struct.pack("ll", whole, int((seconds - whole) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)

    def _send(self, head: bytes, message: _Pieces, end: float | None) -> bool:
        """Sends a long message as the peer takes it; whether it has answered before the end of it.

        As many frames as the peer has room for go out at once: each call of the system would wake it.

        Args:
            head: What goes before the first frame.
        """
        waiting: list[bytes | memoryview] = [head]
        while message.size:
            size = min(message.size, self._largest, self._window, self._window_of_stream)
            if size <= 0 or len(waiting) > _MOST_PIECES:
                self._send_all(waiting, end)
                waiting = []
            if size <= 0:
                if self._step(end):
                    self.last = True
                    return True
                continue
            self._window -= size
            self._window_of_stream -= size
            flags = END_STREAM if size == message.size else 0
            waiting += (FRAME.pack(size << 8 | DATA, flags, self._stream), *message.take(size))
        self._send_all(waiting, end)
        return False

    def _send_all(self, data: Sequence[bytes | memoryview], end: float | None) -> None:
        """Sends what lies in many places as if it lay in one."""
        pieces = _Pieces(data)
        while pieces.size:
            pieces.take(self._socket.sendmsg(pieces, (), _QUIETLY))
            if pieces.size and end is not None and time.monotonic() >= end:
                raise OutOfTime

    def _step(self, end: float | None) -> bool:
        """Reads what has come, frame by frame, and does what it says; whether the call is answered."""
        buffer, at = self._buffer, 0
        try:
            while True:
                size = len(buffer) - at
                stop = FRAME.size
                if size >= stop:
                    what, flags, stream = FRAME.unpack_from(buffer, at)
                    if what >> 8 > http2.LEAST_FRAME:
                        # Nobody may send more than was offered; most likely it is not HTTP/2 at all.
                        raise Elsewhere
                    stop += what >> 8
                if size < stop:
                    if at:
                        return False
                    buffer += self._bytes(end)
                    continue
                data, kind = buffer[at + FRAME.size : at + stop], what & 255
                at += stop
                if stream != self._stream or (kind != DATA and kind != HEADERS):
                    if kind == DATA:
                        self._received += len(data)
                    else:
                        self._control(kind, flags, stream, data)
                elif flags & http2.ODD:
                    raise Elsewhere
                elif kind == DATA:
                    self._received += len(data)
                    self._chunks.append(data)
                    if flags & END_STREAM:
                        # An answer of gRPC ends with its status.
                        raise Elsewhere
                elif not flags & END_HEADERS:
                    raise Elsewhere
                else:
                    headers = _good_headers(data)
                    if flags & END_STREAM:
                        self._trailers = headers
                        return True
        finally:
            self._buffer = buffer[at:]

    def _control(self, kind: int, flags: int, stream: int, data: bytes) -> None:
        if kind == http2.WINDOW:
            (more,) = struct.unpack(">I", data)
            if stream == 0:
                self._window += more
            elif stream == self._stream:
                self._window_of_stream += more
        elif kind == http2.SETTINGS:
            if not flags & ACK:
                for name, value in struct.iter_unpack(">HI", data):
                    if name == http2.FIRST_WINDOW_SIZE:
                        self._window_of_stream += value - self._initial
                        self._initial = value
                    elif name == http2.FRAME_SIZE:
                        self._largest = value
                self._socket.sendall(http2.frame(http2.SETTINGS, ACK, 0, b""), _QUIETLY)
        elif kind == http2.PING:
            if not flags & ACK:
                self._socket.sendall(http2.frame(http2.PING, ACK, 0, data), _QUIETLY)
        elif kind == http2.GOAWAY:
            self.last = True
            (known,) = struct.unpack_from(">I", data)
            if known < self._stream:
                raise Elsewhere
        elif (kind == http2.RST_STREAM and stream == self._stream) or kind == http2.PUSH:
            raise Elsewhere
        # Frames of earlier calls, and of kinds that are not known, are passed over.

    def _bytes(self, end: float | None) -> bytes:
        if self._again and end is not None:
            # The system bounds each wait and knows nothing of those before: a peer that sends something again and
            # again (pings, an answer byte by byte) would else have as long as it likes.
            left = end - time.monotonic()
            if left <= 0.0:
                raise OutOfTime
            if left < 0.9 * self._timeout:
                self.limit(left)
        self._again = True
        while True:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                left = 0.0 if end is None else end - time.monotonic()
                if left <= 0.0:
                    raise OutOfTime from None
                self.limit(left)
                continue
            if not data:
                raise Elsewhere
            return data

    def _answer(self) -> bytes:
        chunks, trailers = self._chunks, self._trailers or ()
        if trailers != _OK:
            status = _status(trailers)
            if status != b"0":
                _fail(trailers, status)
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        compressed, size = MESSAGE.unpack_from(data)
        if compressed or size != len(data) - MESSAGE.size:
            raise Elsewhere
        return data[MESSAGE.size :]


class _Pieces:
    """Bytes that lie in several places, taken from the front without a copy of them."""

    __slots__ = ("_pieces", "size")

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces = deque(memoryview(piece) for piece in pieces if piece)
        self.size = sum(map(len, self._pieces))

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._pieces)

    def take(self, size: int) -> list[memoryview]:
        """The first so many bytes."""
        self.size -= size
        taken, pieces = [], self._pieces
        while size:
            piece = pieces.popleft()
            if len(piece) > size:
                pieces.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
        return taken


@lru_cache(maxsize=256)
def _good_headers(block: bytes) -> Headers:
    headers = headers_of(block)
    if any(name == ":status" and value != b"200" for name, value in headers):
        raise Elsewhere
    return headers


def _status(headers: Headers) -> bytes | None:
    return next((value for name, value in headers if name == "grpc-status"), None)


def _fail(headers: Headers, status: bytes | None) -> NoReturn:
    """Raises the status that a call ended with."""
    text, trailing = "", list[tuple[str, str | bytes]]()
    for name, value in headers:
        if name == "grpc-message":
            text = unquote(value.decode("ascii"))
        elif name.endswith("-bin"):
            try:
                trailing.append((name, base64.b64decode(value + b"=" * (-len(value) % 4))))
            except binascii.Error:
                raise Elsewhere from None
        elif name != "content-type" and not name.startswith((":", "grpc-")):
            trailing.append((name, value.decode("ascii", "replace")))
    code = _CODES.get(int(status)) if status is not None and status.isdigit() else None
    if code is None or code is grpc.StatusCode.OK:
        raise Elsewhere
    raise Failed(code, text, tuple(trailing))
