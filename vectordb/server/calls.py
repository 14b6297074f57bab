"""One call of a client as the server knows it: its request id, and what its request metadata asks for.

A request id comes with the call (``x-request-id``) or is made here. It stands in every line of the log about the call,
in the details of an error (``google.rpc.RequestInfo``), and in the trailing metadata: of an error always, of an answer
where the id came with the call or answers are logged or traced (ten microseconds a call otherwise spent for nothing).
"""

from __future__ import annotations

import base64
import itertools
import re
import secrets
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from vectordb.row_policy import joined
from vectordb.wire.errors import REQUEST_ID_KEY
from vectordb.wire.filters import POLICY_KEY, policy_from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vectordb.filter import Filter

_FIT = re.compile(r"[\x21-\x7e]{1,128}")
_PREFIX = secrets.token_hex(4)
_COUNT = itertools.count(1)
_READ = frozenset({REQUEST_ID_KEY, POLICY_KEY, "traceparent", "tracestate"})


class Call:
    """One call. ``started`` is as of ``time.perf_counter``; ``named`` where its id came with it."""

    __slots__ = ("_policies", "named", "request_id", "rpc", "started", "trace")

    def __init__(self, rpc: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self.started = time.perf_counter()
        self.rpc = rpc
        self.request_id = ""
        self.trace: dict[str, str] | None = None
        self._policies: tuple[bytes, ...] = ()
        for name, value in metadata:
            if name not in _READ:
                continue
            if name == POLICY_KEY:
                # On the wire it is base64, which some transports leave to their users. All count that are sent: one
                # that a proxy adds cannot be taken back by the client's.
                self._policies += (value if isinstance(value, bytes) else _decoded(value),)
            elif isinstance(value, bytes):
                continue
            elif name == REQUEST_ID_KEY:
                # Anything else could forge lines of the log.
                self.request_id = value if _FIT.fullmatch(value) else ""
            else:
                self.trace = {**(self.trace or {}), name: value}
        self.named = self.request_id != ""
        if not self.named:
            self.request_id = f"{_PREFIX}-{next(_COUNT):x}"

    @property
    def policy(self) -> Filter | None:
        """The row policy that the caller binds itself to.

        Raises:
            InvalidFilter: It cannot be read.
        """
        policy: Filter | None = None
        for data in self._policies:
            policy = joined(policy, policy_from_bytes(data))
        return policy

    @property
    def policies(self) -> tuple[bytes, ...]:
        """What it was read from: equal for equal callers."""
        return self._policies


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except ValueError:
        return b"\xff"  # no message: it is refused when it is read


CALL: ContextVar[Call | None] = ContextVar("vectordb_call", default=None)
"""The call that the running code answers; None outside of one."""
