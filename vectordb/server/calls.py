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
from vectordb.wire.http2 import LANE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vectordb.filter import Filter

_FIT = re.compile(r"[\x21-\x7e]{1,128}")
_PREFIX = secrets.token_hex(4)
_COUNT = itertools.count(1)
_READ = frozenset({REQUEST_ID_KEY, POLICY_KEY, LANE_KEY, "traceparent", "tracestate"})


class Call:
    """One call.

    Attributes:
        started: As of ``time.perf_counter``.
        named: Whether its id came with it.
        asks_for_lane: Whether its client wants to be told of the lane.
        policies: The row policies that the caller binds itself to, serialized: equal for equal callers.
    """

    __slots__ = ("_request_id", "asks_for_lane", "named", "policies", "rpc", "started", "trace")

    def __init__(self, rpc: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self.started = time.perf_counter()
        self.rpc = rpc
        self._request_id = ""
        self.trace: dict[str, str] | None = None
        self.policies: tuple[bytes, ...] = ()
        self.asks_for_lane = False
        for name, value in metadata:
            if name not in _READ:
                continue
            if name == POLICY_KEY:
                # On the wire it is base64, which some transports leave to their users. All count that are sent: one
                # that a proxy adds cannot be taken back by the client's.
                self.policies += (value if isinstance(value, bytes) else _decoded(value),)
            elif name == LANE_KEY:
                self.asks_for_lane = True
            elif isinstance(value, bytes):
                continue
            elif name == REQUEST_ID_KEY:
                # Anything else could forge lines of the log.
                self._request_id = value if _FIT.fullmatch(value) else ""
            else:
                self.trace = {**(self.trace or {}), name: value}
        self.named = self._request_id != ""

    @property
    def request_id(self) -> str:
        """What it is called in the log. Made when it is first asked for, by the thread that answers the call."""
        if not self._request_id:
            self._request_id = f"{_PREFIX}-{next(_COUNT):x}"
        return self._request_id

    @property
    def policy(self) -> Filter | None:
        """What meets all of ``policies``.

        Raises:
            InvalidFilter: It cannot be read.
        """
        policy: Filter | None = None
        for data in self.policies:
            policy = joined(policy, policy_from_bytes(data))
        return policy


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except ValueError:
        return b"\xff"  # no message: it is refused when it is read


CALL: ContextVar[Call | None] = ContextVar("vectordb_call", default=None)
"""The call that the running code answers; None outside of one."""
