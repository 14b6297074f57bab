"""One call with one message each way, where grpcio does not answer it: what its handler sees, in grpcio's terms."""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import grpc

from vectordb.errors import ResourceExhausted
from vectordb.server.arrivals import Arrival

log = logging.getLogger("vectordb.server")

Metadata = Sequence[tuple[str, str | bytes]]

_FOREVER = 3e9
"""What grpc says of a call without a deadline: more seconds than anybody waits."""


_ends = threading.Lock()
"""Held for the moment in which a call is told what to do at its end, or is about to do it."""


class Abortion(Exception):
    """Unwinds a handler that ended its call with a status."""


class UnaryCall(grpc.ServicerContext):  # type: ignore[misc,unused-ignore]
    """One call, and what its handler sees of it.

    Args:
        number: No other call of its server has it.
        data: The message.
        peer: Whose it is, as grpcio names peers.
        left: Seconds that it may take; None for as long as it likes.
    """

    # What few calls change stays with the class until then.
    active = True
    status: grpc.StatusCode | None = None
    text = ""
    arrival: Arrival | None = None
    initial: Metadata | None = None
    trailing: Metadata = ()
    _callbacks: tuple[Callable[[], None], ...] = ()

    def __init__(self, number: int, data: bytes, metadata: Metadata, peer: str, left: float | None) -> None:
        self.number = number
        self.data = data
        self._metadata, self._peer = metadata, peer
        self._deadline = None if left is None else time.monotonic() + left

    def is_active(self) -> bool:
        return self.active

    def time_remaining(self) -> float:
        return _FOREVER if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    @abstractmethod
    def respond(self, data: bytes, initial: Metadata | None, trailing: Metadata) -> None:
        """Sends the answer's message, and that all is well."""

    @abstractmethod
    def fail(self, status: grpc.StatusCode, text: str, trailing: Metadata = ()) -> None:
        """Sends how it ended instead."""

    def cancel(self) -> None:
        self.fail(grpc.StatusCode.CANCELLED, "cancelled by the server")
        self.end()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with _ends:
            if not self.active:
                return False
            self._callbacks = (*self._callbacks, callback)
        if not self.is_active():
            # It ended just now, and may not have seen this one.
            self.end()
        return True

    def end(self) -> None:
        """The client has its answer, or will not have one."""
        self.active = False
        if not self._callbacks:
            return
        with _ends:
            callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("what was to be done at the end of a call failed")

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def peer(self) -> str:
        return self._peer

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {}

    def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """They go out with the answer."""
        self.initial = initial_metadata

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self.trailing = trailing_metadata

    def trailing_metadata(self) -> Metadata:
        return self.trailing

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        self.status, self.text = (grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code), details
        raise Abortion

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self.trailing = status.trailing_metadata or ()
        self.abort(status.code, status.details)

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status = code

    def code(self) -> grpc.StatusCode | None:
        return self.status

    def set_details(self, details: str) -> None:
        self.text = details

    def details(self) -> str:
        return self.text


def oversized(size: int, limit: int) -> ResourceExhausted:
    """The refusal of a message that is longer than ``max_message_bytes``."""
    return ResourceExhausted(
        f"the message has {size} bytes, more than the server's max_message_bytes = {limit}; split the call, "
        "use bulk_upsert, or raise it",
        limit=limit,
        got=size,
    )
