"""How channels to a server are configured: addresses, message limits, keepalive, TLS, the API key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectordb.errors import InvalidArgument

if TYPE_CHECKING:
    import grpc

    from vectordb.filter import Filter

Metadata = tuple[tuple[str, str | bytes], ...]
Tls = bool | str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]
"""``True``: TLS with the system's authorities; a path: that CA; a mapping: ``ca``, and ``cert`` with ``key``."""

_TLS_KEYS = frozenset({"ca", "cert", "key"})

OPTIONS: tuple[tuple[str, int], ...] = (
    # The server's own limits and max_write_bytes bound messages; grpc's 4 MiB default would break large answers.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Retries are ours: grpc's know nothing of idempotency keys.
    ("grpc.enable_retries", 0),
    # A server that comes back is found again within a second or two, and a host that drops packets gives Unavailable
    # after five seconds rather than after the call's whole time.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Notices a peer that vanished under a long call. Servers refuse pings more often than every 5 minutes by default
    # when no call is running, so none are sent then.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # Each handle has its own connection; closing one never disturbs another.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True, repr=False)
class ServerOptions:
    """How to reach one server. ``repr`` is left plain so that the key is never printed.

    Attributes:
        address: ``host:port`` or ``unix:/path``.
        timeout: Default seconds of point calls, or ``None`` for no bound.
        retries: Repeats after a failed first attempt.
    """

    address: str
    api_key: str | None = None
    tls: Tls | None = None
    timeout: float | None = 30.0
    retries: int = 3

    def metadata(self) -> Metadata:
        """The request metadata that every call carries."""
        return () if self.api_key is None else (("authorization", f"Bearer {self.api_key}"),)


def within_policy(metadata: Metadata, policy: Filter) -> Metadata:
    """The request metadata of calls within a row policy, and within the one that the metadata holds already.

    Raises:
        InvalidArgument: The policy is longer than what request metadata can carry.
    """
    from vectordb.wire.filters import POLICY_KEY, policy_from_bytes, policy_to_bytes

    for name, value in metadata:
        if name == POLICY_KEY and isinstance(value, bytes):
            policy = policy_from_bytes(value) & policy
    return (*(item for item in metadata if item[0] != POLICY_KEY), (POLICY_KEY, policy_to_bytes(policy)))


def traced(metadata: Metadata) -> Metadata:
    """The request metadata with the current span of OpenTelemetry, where the application has one (W3C trace context).

    Costs a look into a dict where the application has not loaded OpenTelemetry; nothing is imported for it.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return metadata
    span = api.get_current_span().get_span_context()
    if not span.is_valid:
        return metadata
    parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    state = span.trace_state.to_header()
    return (*metadata, ("traceparent", parent), *([("tracestate", state)] if state else []))


def checked_api_key(api_key: str | None) -> str | None:
    """The key itself.

    Raises:
        InvalidArgument: It is empty or holds what an HTTP header cannot carry.
    """
    if api_key is None:
        return None
    if not isinstance(api_key, str) or re.fullmatch(r"[\x21-\x7e]+", api_key) is None:
        raise InvalidArgument("api_key must be printable ASCII without spaces and not empty")
    return api_key


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    """TLS credentials; files are read now.

    Raises:
        InvalidArgument: An unknown key, a certificate without its key, or a file that cannot be read.
    """
    import grpc

    if tls is True:
        return grpc.ssl_channel_credentials()
    parts: dict[str, Any] = dict(tls) if isinstance(tls, Mapping) else {"ca": tls}
    if unknown := sorted(set(parts) - _TLS_KEYS):
        raise InvalidArgument(f"tls has unknown keys {unknown}; known are 'ca', 'cert' and 'key'", keys=unknown)
    if ("cert" in parts) != ("key" in parts):
        raise InvalidArgument("tls needs 'cert' and 'key' together")
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(parts, "ca"),
        private_key=_pem(parts, "key"),
        certificate_chain=_pem(parts, "cert"),
    )


def _pem(parts: Mapping[str, Any], name: str) -> bytes | None:
    path = parts.get(name)
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise InvalidArgument(f"tls: '{name}' must be the path of a PEM file, got {type(path).__name__}")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(
            f"tls: cannot read '{name}' from {str(path)!r}: {error.strerror}", path=str(path)
        ) from error
