"""HTTP/2 by hand: connections that do nothing, and calls of which half a message comes: no gRPC client makes them."""

from __future__ import annotations

import contextlib
import gzip
import socket
import struct
from types import TracebackType

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _ACK = 0, 1, 4, 6, 7, 1
_END_HEADERS, _END_STREAM = 4, 1


class Halfway:
    """One connection; a context manager that closes it."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))

    def __enter__(self) -> Halfway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, rpc: str, message: bytes, *, sent: int | None = None, encoding: str | None = None) -> None:
        """Begins stream 1: a call of which ``sent`` bytes of the message are sent (all, and its end, by default)."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"/vectordb.v1.VectorDBService/{rpc}",
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        if encoding is not None:
            headers["grpc-encoding"] = encoding
        block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers.items())
        framed = struct.pack(">BI", encoding is not None, len(message)) + message
        whole = sent is None
        self.socket.sendall(_frame(_HEADERS, _END_HEADERS, 1, block))
        data = framed if whole else framed[:sent]
        for start in range(0, len(data), 16_384):
            self.socket.sendall(_frame(_DATA, 0, 1, data[start : start + 16_384]))
        if whole:
            self.socket.sendall(_frame(_DATA, _END_STREAM, 1, b""))

    def answered(self) -> bytes:
        """Everything that comes until the call's stream, or the connection, ends: the frames' payloads, joined."""
        found = b""
        while True:
            head = self._read(9)
            if len(head) < 9:
                return found
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            payload = self._read(length)
            if kind == _SETTINGS and not flags & _ACK:
                self.socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self.socket.sendall(_frame(_PING, _ACK, 0, payload))
            elif kind in (_DATA, _HEADERS, _GOAWAY):
                found += payload
                if flags & _END_STREAM and kind != _GOAWAY:
                    return found

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                return data
            data += piece
        return data

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


def bomb(size: int) -> bytes:
    """So many zeros, compressed a thousandfold."""
    return gzip.compress(bytes(size))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(value: str) -> bytes:
    assert len(value) < 127, "a longer length has more bytes"
    return bytes([len(value)]) + value.encode()
