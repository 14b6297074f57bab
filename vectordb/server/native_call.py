"""One call of the native transport: what its handler sees of it, in grpcio's terms."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from pygrpc_native import NativeGrpcFront

from vectordb.server.arrivals import Arrival

log = logging.getLogger("vectordb.server")

Metadata = Sequence[tuple[str, str | bytes]]

_FOREVER = 3e9
"""What grpc says of a call without a deadline: more seconds than anybody waits."""


_ends = threading.Lock()
"""Held for the moment in which a call is told what to do at its end, or is about to do it."""


class Abortion(Exception):
    """Unwinds a handler that ended its call with a status."""


class Call(grpc.ServicerContext):  # type: ignore[misc,unused-ignore]
    """One call, and what its handler sees of it."""

    # What few calls change stays with the class until then.
    active = True
    status: grpc.StatusCode | None = None
    text = ""
    arrival: Arrival | None = None
    initial: Metadata | None = None
    trailing: Metadata = ()
    _callbacks: tuple[Callable[[], None], ...] = ()

    def __init__(self, number: int, data: bytes, details: Any, front: NativeGrpcFront) -> None:
        self.number = number
        self.data = data
        self._metadata, self._peer, left = details
        self._deadline = None if left is None else time.monotonic() + left
        self._front = front

    def is_active(self) -> bool:
        return self.active

    def time_remaining(self) -> float:
        return _FOREVER if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def cancel(self) -> None:
        self._front.fail(self.number, grpc.StatusCode.CANCELLED.value[0], "cancelled by the server")
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
        return self._metadata  # type: ignore[no-any-return]

    def peer(self) -> str:
        return self._peer  # type: ignore[no-any-return]

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
