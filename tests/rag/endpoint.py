"""A local HTTP server that speaks the OpenAI chat protocol and does what a test tells it to; loaded by ``conftest.py``.

It stands for endpoints that fail in ways that real ones cannot be made to, and counts what reaches it on the wire.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Reply:
    """How one request is answered.

    Attributes:
        text: Streamed word by word.
        status, body: Instead of a stream, an error.
        delay: Seconds before the first byte.
        drip: Seconds between two pieces.
        break_after: The connection is cut after so many pieces.
        end_after: The stream ends in good order after so many pieces, without a reason for finishing.
    """

    text: str = ""
    status: int = 200
    body: dict[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    break_after: int | None = None
    end_after: int | None = None
    finish_reason: str = "stop"


class Endpoint:
    """The server. A context manager.

    Attributes:
        requests: The bodies of all requests so far, in order.
        replies: What is answered, one a request, the last one for all that follow; or a function of the body.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.replies: list[Reply] | Callable[[dict[str, Any]], Reply] = [Reply("Yes.")]
        self._lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    endpoint._answer(self, body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client left, as some tests make it do

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def prompt(self, number: int = -1) -> str:
        """All messages of a request as one text."""
        return "\n".join(message["content"] for message in self.requests[number]["messages"])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.requests.append(body)
            number = len(self.requests) - 1
        reply = self.replies(body) if callable(self.replies) else self.replies[min(number, len(self.replies) - 1)]
        time.sleep(reply.delay)
        if reply.status != 200:
            self._refuse(handler, reply)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        words = reply.text.split(" ")
        pieces = [word + (" " if place + 1 < len(words) else "") for place, word in enumerate(words)]
        for place, piece in enumerate(pieces):
            if reply.end_after == place:
                self._send(handler, "[DONE]")
                return
            if reply.break_after == place:
                # Without the closing handshake of a stream that is over: half a chunk, then a reset.
                handler.wfile.write(b'data: {"id": "c", "choi')
                handler.wfile.flush()
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                handler.connection.close()
                return
            self._send(handler, _chunk({"content": piece}, None))
            time.sleep(reply.drip)
        self._send(handler, _chunk({}, reply.finish_reason))
        if body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 100, "completion_tokens": len(pieces), "total_tokens": 100 + len(pieces)}
            self._send(handler, json.dumps({**_BASE, "choices": [], "usage": usage}))
        self._send(handler, "[DONE]")

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, data: str) -> None:
        handler.wfile.write(f"data: {data}\n\n".encode())
        handler.wfile.flush()

    @staticmethod
    def _refuse(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        body = json.dumps({"error": reply.body or {"message": "no"}}).encode()
        handler.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Type": "application/json"}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


_BASE = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}


def _chunk(delta: dict[str, str], reason: str | None) -> str:
    return json.dumps({**_BASE, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
