"""One connection of the lane: as much of HTTP/2 and gRPC as a call at a time with one message each way needs.

Sources: RFC 9113 (HTTP/2), RFC 7541 (its header blocks), and "gRPC over HTTP/2" of the gRPC project. The peer is told
by its settings what is not had here: no dynamic table, one stream at a time. What nobody has to send (padding,
priorities, header blocks in pieces, compressed messages) ends the connection, and so does an answer that the peer has
no room for: its client then makes the call at the main address.
"""

from __future__ import annotations

import base64
import logging
import re
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import grpc

from vectordb.server.arrivals import HERE, Arrivals
from vectordb.server.unary_call import Abortion, Metadata, UnaryCall, oversized
from vectordb.wire import http2
from vectordb.wire.errors import DETAILS_KEY, error_to_status
from vectordb.wire.hpack import BadHeaders, headers_of, literal
from vectordb.wire.http2 import ACK, DATA, END_HEADERS, END_STREAM, FRAME, HEADERS, MESSAGE

if TYPE_CHECKING:
    from vectordb.server.lane import Lane

log = logging.getLogger("vectordb.server")

Behaviour = Callable[[bytes, grpc.ServicerContext], bytes]

_SILENCE = 60
"""Seconds after which a silent connection is closed; its client opens another."""
_READ = 1 << 16
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


class LaneMethod(NamedTuple):
    """What answers the calls of one method, and who counts them, where they are counted."""

    behaviour: Behaviour
    arrivals: Arrivals | None


class _Request(NamedTuple):
    """What a header block says."""

    method: LaneMethod | None
    metadata: Metadata
    timeout: float | None


class LaneCall(UnaryCall):
    """The call of a connection."""

    def __init__(self, data: bytes, request: _Request, connection: LaneConnection) -> None:
        super().__init__(data, request.metadata, connection.peer, request.timeout)
        self._connection = connection

    def is_active(self) -> bool:
        # Nobody waits at the socket while the call runs: it is looked at when somebody asks.
        return self.active and self._connection.is_open()


class LaneConnection:
    """One connection, with a thread of its own.

    Args:
        peer: Whose it is, for logs.
    """

    def __init__(self, lane: Lane, connected: socket.socket, peer: str) -> None:
        self._lane = lane
        self._socket = connected
        self.peer = peer
        self._buffer = b""
        self._blocks: dict[bytes, _Request] = {}
        self._busy = False
        # What the peer takes, by the protocol's defaults until it says otherwise.
        self._window = self._initial = http2.FIRST_WINDOW
        self._largest = http2.LEAST_FRAME
        self._received = 0

    # By its own thread

    def run(self) -> None:
        """Answers calls until either end closes it."""
        try:
            bound = struct.pack("ll", _SILENCE, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
            self._socket.sendall(_GREETING)
            if self._take(len(http2.PREFACE)) != http2.PREFACE:
                raise Broken("it does not begin as HTTP/2 does")
            while True:
                stream, request, data = self._call()
                # Whoever stops the lane does it the other way round, and so one of the two sees the other.
                self._busy = True
                if self._lane.ends():
                    break
                self._answer(stream, request, data)
                self._busy = False
                if self._lane.ends():
                    break
        except (EOFError, BlockingIOError):
            pass  # the peer has gone, or is silent
        except (Broken, BadHeaders, OSError, struct.error) as error:
            log.debug("a connection of the lane ended: %s", error)
        except Exception:
            log.exception("a connection of the lane failed")
        finally:
            self._lane.forget(self)
            self.close()

    def _call(self) -> tuple[int, _Request, bytes | int]:
        """The next call: its stream, what it is, and its message, or the length of one that is too long to be kept."""
        opened, request, pieces, missing = 0, None, list[bytes | memoryview](), -1
        excess = 0
        while True:
            buffer = self._buffer
            if len(buffer) < FRAME.size:
                self._more()
                continue
            what, flags, stream = FRAME.unpack_from(buffer)
            size, kind = what >> 8, what & 255
            if kind != DATA:
                if size > _MOST_HEADERS:
                    raise Broken("a frame is too long")
                data = self._take(FRAME.size + size)[FRAME.size :]
                if kind != HEADERS:
                    self._control(kind, flags, stream, data)
                    if kind == http2.RST_STREAM and stream == opened:
                        opened, request, pieces, missing = 0, None, [], -1
                    continue
                if flags & http2.ODD or not flags & END_HEADERS or flags & END_STREAM or opened or not stream & 1:
                    raise Broken("a call does not begin as one does")
                opened, request = stream, self._request(data)
                continue
            if request is None or stream != opened or flags & http2.ODD:
                raise Broken("a message belongs to no call")
            if missing < 0:
                if size < MESSAGE.size:
                    raise Broken("a message begins with too little")
                while len(self._buffer) < FRAME.size + MESSAGE.size:
                    self._more()
                compressed, length = MESSAGE.unpack_from(self._buffer, FRAME.size)
                if compressed:
                    raise Broken("a message is compressed")
                excess = length if length > self._lane.most_bytes else 0
                missing = length + MESSAGE.size
                piece = self._taken(FRAME.size + size)[FRAME.size + MESSAGE.size :]
            else:
                piece = self._taken(FRAME.size + size)[FRAME.size :]
            self._received += size
            missing -= size
            if missing < 0 or (missing > 0) == bool(flags & END_STREAM):
                raise Broken("a message is not as long as it says")
            if not excess:
                pieces.append(piece)
            if self._received >= _GRANT:
                self._socket.sendall(http2.window(self._received))
                self._received = 0
            if not missing:
                if excess:
                    return stream, request, excess
                only = pieces[0]
                return stream, request, only if len(pieces) == 1 and type(only) is bytes else b"".join(pieces)

    def _more(self) -> None:
        data = self._socket.recv(_READ)
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
        """So many bytes, of however many."""
        have = len(self._buffer)
        if size <= have or size <= _READ:
            return self._take(size)
        data = memoryview(bytearray(size))
        data[:have] = self._buffer
        self._buffer = b""
        while have < size:
            got = self._socket.recv_into(data[have:])
            if not got:
                raise EOFError
            have += got
        return data

    def _control(self, kind: int, flags: int, stream: int, data: bytes) -> None:
        if kind == http2.SETTINGS:
            if not flags & ACK:
                for name, value in struct.iter_unpack(">HI", data):
                    if name == http2.FIRST_WINDOW_SIZE:
                        self._initial = value
                    elif name == http2.FRAME_SIZE:
                        self._largest = min(max(value, http2.LEAST_FRAME), http2.LARGEST_FRAME)
                self._socket.sendall(http2.frame(http2.SETTINGS, ACK, 0, b""))
        elif kind == http2.WINDOW:
            (more,) = struct.unpack(">I", data)
            if stream == 0:
                self._window += more
        elif kind == http2.PING:
            if not flags & ACK:
                self._socket.sendall(http2.frame(http2.PING, ACK, 0, data))
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
        for name, value in headers_of(block):
            if name == ":path":
                method = self._lane.methods.get(value)
            elif name == "grpc-timeout":
                matched = _TIMEOUT.fullmatch(value)
                if matched is None:
                    raise Broken("grpc-timeout is none")
                timeout = int(matched[1]) * _UNITS[matched[2].decode()]
            elif name == "grpc-encoding" and value != b"identity":
                raise Broken("messages are compressed")
            elif name.endswith("-bin"):
                try:
                    metadata.append((name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)))
                except ValueError:
                    raise Broken(f"{name} is no base64") from None
            elif not name.startswith(":") and name not in _OF_HTTP:
                metadata.append((name, value.decode("ascii", "replace")))
        return _Request(method, tuple(metadata), timeout)

    def _answer(self, stream: int, request: _Request, data: bytes | int) -> None:
        """Carries out a call and sends its answer."""
        if isinstance(data, int):
            code, message, details = error_to_status(oversized(data, self._lane.most_bytes))
            self._send_status(stream, grpc.StatusCode[code], message, ((DETAILS_KEY, details),))
            return
        if request.method is None:
            self._send_status(stream, grpc.StatusCode.UNIMPLEMENTED, "the lane has no such method", ())
            return
        behaviour, arrivals = request.method
        call = LaneCall(data, request, self)
        if arrivals is not None:
            HERE.arrival = arrivals.come()
        try:
            response = self._carried_out(behaviour, call)
            if response is None:
                status = call.status or grpc.StatusCode.UNKNOWN
                self._send_status(stream, status, call.text, call.trailing)
            else:
                self._send_answer(stream, response, call)
        finally:
            if arrivals is not None and (arrival := HERE.arrival) is not None:
                HERE.arrival = None
                arrivals.end(arrival)
            call.end()

    def _carried_out(self, behaviour: Behaviour, call: LaneCall) -> bytes | None:
        """The answer's message; None where the call has a status instead."""
        try:
            response = behaviour(call.data, call)
            if call.status in (None, grpc.StatusCode.OK):
                return response
        except Abortion:
            pass
        except Exception:
            log.exception("a handler failed")
            call.set_code(grpc.StatusCode.UNKNOWN)
            call.set_details("the call failed in the server")
        return None

    def _send_answer(self, stream: int, data: bytes, call: LaneCall) -> None:
        size = len(data) + MESSAGE.size
        if size > self._window or size > self._initial:
            raise Broken("the peer has no room for an answer")
        self._window -= size
        begin = _BEGINNING + _block(call.initial) if call.initial else _BEGINNING
        end = _OK + _block(call.trailing) if call.trailing else _OK
        parts: list[bytes | memoryview] = [FRAME.pack(len(begin) << 8 | HEADERS, END_HEADERS, stream), begin]
        if size <= self._largest:
            parts += (FRAME.pack(size << 8 | DATA, 0, stream), MESSAGE.pack(0, len(data)), data)
        else:
            whole, largest = memoryview(MESSAGE.pack(0, len(data)) + data), self._largest
            for start in range(0, size, largest):
                piece = whole[start : start + largest]
                parts += (FRAME.pack(len(piece) << 8 | DATA, 0, stream), piece)
        parts += (FRAME.pack(len(end) << 8 | HEADERS, END_HEADERS | END_STREAM, stream), end)
        self._socket.sendall(b"".join(parts))

    def _send_status(self, stream: int, status: grpc.StatusCode, text: str, trailing: Metadata) -> None:
        block = b"".join(
            (
                _BEGINNING,
                literal("grpc-status", str(status.value[0]).encode()),
                literal("grpc-message", quote(text, safe=_PLAIN).encode()),
                _block(trailing),
            )
        )
        self._socket.sendall(http2.frame(HEADERS, END_HEADERS | END_STREAM, stream, block))

    # By any thread

    def is_open(self) -> bool:
        """Whether the peer is still there, as far as can be seen from here."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def stop(self) -> None:
        """Ends it where no call runs; else its thread does, when it has answered."""
        if not self._busy:
            self.shut()

    def shut(self) -> None:
        """Wakes its thread, which ends."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("a connection of the lane was shut already")

    def close(self) -> None:
        self._socket.close()


_PLAIN = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""What a status message may hold as it is."""


def _block(metadata: Metadata) -> bytes:
    parts = []
    for name, value in metadata:
        data = base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode()
        parts.append(literal(name, data))
    return b"".join(parts)
