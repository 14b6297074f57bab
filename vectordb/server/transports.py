"""What speaks HTTP/2 for the server: grpcio, or pygrpc-native (extra ``native``), whose own part of a call costs half.

Both answer the same handlers with the same statuses. ``auto`` takes the native one where :data:`PREFERRED` names it,
it is installed, no setting forbids it and only this machine can connect; else grpcio.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import grpc

from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb.server.config import Config

log = logging.getLogger("vectordb.server")

GRPCIO, NATIVE = "grpcio", "native"
UNIX = "unix:"
PREFERRED: tuple[str, ...] = (NATIVE, GRPCIO)
_INSTALL = "pip install 'vectordb-engine[native]'"


class CallBounds(NamedTuple):
    """Calls that have a thread at a time, and all calls, those in pools of their own included."""

    workers: int
    most_calls: int


class Transport(Protocol):
    """The part of ``grpc.Server`` that is used here."""

    def add_insecure_port(self, listen: str) -> int: ...

    def add_secure_port(self, listen: str, credentials: grpc.ServerCredentials) -> int: ...

    def start(self) -> None: ...

    def stop(self, grace: float | None) -> Any: ...


def chosen(config: Config) -> str:
    """The transport for these settings.

    Raises:
        FailedPrecondition: The native transport is asked for and not installed.
        InvalidArgument: It is asked for beside a setting that it cannot keep.
    """
    if config.transport == GRPCIO:
        return GRPCIO
    missing = importlib.util.find_spec("pygrpc_native") is None
    reason = _forbids(config)
    if config.transport == NATIVE:
        if missing:
            raise FailedPrecondition(f"the native transport needs pygrpc-native: {_INSTALL}")
        if reason is not None:
            setting, why = reason
            raise InvalidArgument(
                f"transport native cannot be had with {setting}: {why}; leave out one of the two",
                field="transport",
                other=setting,
            )
        return NATIVE
    if NATIVE not in PREFERRED or missing:
        return GRPCIO
    if reason is not None:
        log.info("transport grpcio because of %s: %s", *reason)
        return GRPCIO
    if not is_local(config.listen):
        log.info(
            "transport grpcio because other machines can connect to %s, and the native one knows the size of a message "
            "only when it has read it, and inflated it; among clients that are trusted choose it by name",
            config.listen,
        )
        return GRPCIO
    return NATIVE


def has_lane(config: Config) -> bool:
    """Whether clients of this machine are offered the lane: not where calls are let in by certificate."""
    return bool(config.lane) and sys.platform == "linux" and not config.tls_cert


def is_local(listen: str) -> bool:
    """Whether only this machine can reach an address."""
    if listen.startswith(UNIX):
        return True
    host = listen.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _forbids(config: Config) -> tuple[str, str] | None:
    """The setting that the native transport cannot keep, and why."""
    for setting in ("tls_cert", "tls_key", "tls_client_ca"):
        if config.values[setting]:
            return setting, "it speaks no TLS"
    if config.audit_log:
        return "audit_log", "it does not tell from which address a bulk write comes"
    return None


def native(
    handlers: Mapping[str, grpc.RpcMethodHandler], behind: Transport, bounds: CallBounds, config: Config
) -> Transport:
    """A server that answers unary calls natively, by their paths, and leaves all else to the one behind it."""
    # Imported here: the package that it needs is an extra.
    from vectordb.server.native import NativeServer

    return NativeServer(handlers, behind, bounds, config)
