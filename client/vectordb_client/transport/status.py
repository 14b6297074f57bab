"""grpc's failures as errors of this library: what the server raised, or else what the channel itself reports.

status without details of ours          becomes
UNAVAILABLE                             Unavailable (address; sent=False where nothing left this process)
CANCELLED, UNKNOWN, INTERNAL of a
broken stream                           Unavailable (address)
DEADLINE_EXCEEDED                       DeadlineExceeded (timeout)
RESOURCE_EXHAUSTED                      ResourceExhausted; for a message's size (got, limit) it names the fix
UNIMPLEMENTED                           FailedPrecondition: an older server, or another service
any other                               the class of that status
"""

from __future__ import annotations

import re
from typing import Any

from vectordb.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    Unavailable,
    VectorDBError,
)
from vectordb.wire.errors import DETAILS_KEY, error_from_status

# Texts of grpc's core about calls that never left this process.
_NEVER_SENT = re.compile(
    r"failed to connect to|DNS resolution failed|Domain name not found|Connection refused|empty address list"
    r"|handshake|No route to host|Network is unreachable|Timeout occurred: FD Shutdown|connection attempt timed out",
    re.IGNORECASE,
)
_TLS_TROUBLE = tuple(
    (re.compile(text, re.IGNORECASE), told)
    for text, told in (
        (
            "WRONG_VERSION_NUMBER",
            "the server speaks no TLS; connect without tls, or start it with tls_cert and tls_key",
        ),
        ("certificate has expired", "the server's certificate has expired; renew it"),
        ("certificate is not yet valid", "the server's certificate is not valid yet; are both clocks right?"),
        ("CERTIFICATE_VERIFY_FAILED", "no authority known here signed the server's certificate; name its CA: tls=PATH"),
        (
            "Hostname Verification|is not in peer certificate",
            "the server's certificate is for another host name; connect to a name that it is for",
        ),
        (
            r"Socket closed|connection reset|Broken pipe|certificate.required",
            "the server ended it at once: it speaks TLS (then give tls=), or lets in only clients with certificates of "
            "certain authorities (then give tls={'ca': ..., 'cert': ..., 'key': ...})",
        ),
    )
)
_BROKEN_STREAM = re.compile(r"Stream removed|RST_STREAM|GOAWAY|Connection reset|Socket closed", re.IGNORECASE)
_TOO_LARGE = re.compile(r"message larger than max(?: \((\d+) vs\.? (\d+)\))?", re.IGNORECASE)
_TOO_MANY = re.compile(r"Concurrent RPC limit exceeded", re.IGNORECASE)
_SHOWN = 300


def to_error(error: BaseException, address: str, timeout: float | None) -> VectorDBError:
    """The error to raise for a failed call.

    Args:
        error: A ``grpc.RpcError`` with ``code``, ``details`` and ``trailing_metadata``.
        address: Whom the call was for.
        timeout: The seconds that the call was given, for the message.
    """
    code = getattr(error, "code", None)
    if code is None:
        return Internal(f"the call to {address} failed inside grpc: {error!r:.300}", address=address)
    name: str = code().name
    text: str = error.details() or ""  # type: ignore[attr-defined]
    details = _trailing(error, DETAILS_KEY)
    if details is not None:
        return error_from_status(name, text, details)
    return _from_channel(name, text, address, timeout)


def _trailing(error: Any, key: str) -> bytes | None:
    for name, value in error.trailing_metadata() or ():
        if name == key:
            return value if isinstance(value, bytes) else value.encode()
    return None


def _from_channel(name: str, text: str, address: str, timeout: float | None) -> VectorDBError:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    if name == "UNAVAILABLE":
        if _NEVER_SENT.search(text):
            for trouble, told in _TLS_TROUBLE:
                if trouble.search(text):
                    message = f"no secure connection to {address}: {told} ({shown})"
                    return Unavailable(message, address=address, sent=False)
            message = f"no server answers at {address}; is it running, and the address right? ({shown})"
            return Unavailable(message, address=address, sent=False)
        return Unavailable(f"the connection to {address} was lost; try again ({shown})", address=address)
    if name == "CANCELLED" or (name in ("UNKNOWN", "INTERNAL") and _BROKEN_STREAM.search(text)):
        return Unavailable(f"the server at {address} broke the call off; try again ({shown})", address=address)
    if name == "DEADLINE_EXCEEDED":
        within = "in time" if timeout is None else f"within {timeout:g} s"
        return DeadlineExceeded(f"no answer from {address} {within}; raise timeout", timeout=timeout, address=address)
    if name == "RESOURCE_EXHAUSTED":
        return _exhausted(text, shown, address)
    if name == "UNIMPLEMENTED":
        return FailedPrecondition(
            f"the server at {address} does not know this call; is it a vectordb server of this release? ({shown})",
            address=address,
        )
    return error_from_status(name, shown)


def _exhausted(text: str, shown: str, address: str) -> ResourceExhausted:
    found = _TOO_LARGE.search(text)
    if _TOO_MANY.search(text):
        # Of grpc itself, which has no details; nothing was begun.
        return ResourceExhausted(
            f"the server at {address} has all the calls that it takes", admitted=False, retry_after=1.0
        )
    if found is None:
        return ResourceExhausted(shown or f"the server at {address} has reached a limit", address=address)
    sizes = {} if found[1] is None else {"got": int(found[1]), "limit": int(found[2])}
    told = f" of {sizes['got']} bytes, more than its limit of {sizes['limit']}" if sizes else " larger than its limit"
    return ResourceExhausted(
        f"the server at {address} refused a message{told}; split the call, use bulk_upsert, ask for fewer rows, or "
        "raise the server's message limit",
        address=address,
        **sizes,
    )
