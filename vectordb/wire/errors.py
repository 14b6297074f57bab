"""Errors as ``google.rpc.Status`` and back: a client raises the class, message and fields that the engine raised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from vectordb.errors import (
    BY_NAME,
    AlreadyExists,
    Corruption,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    VectorDBError,
)

DOMAIN = "vectordb"
DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata key that carries the serialized Status."""
REQUEST_ID_KEY = "x-request-id"
"""Request and trailing metadata key of what a call is called in the server's log."""

# Trailing metadata over 8 KiB is refused by many clients, and binary values grow by a third on the wire.
_MAX_MESSAGE = 1500
_MAX_FIELDS = 2500
_MAX_PLAIN = 300

_BY_STATUS: Mapping[str, type[VectorDBError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "OUT_OF_RANGE": InvalidArgument,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "FAILED_PRECONDITION": FailedPrecondition,
    "UNIMPLEMENTED": FailedPrecondition,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Unavailable,
    "ABORTED": Unavailable,
    "DATA_LOSS": Corruption,
}


def error_to_status(error: VectorDBError, request_id: str | None = None) -> tuple[str, str, bytes]:
    """An error as (name of the gRPC status code, its plain message, serialized ``google.rpc.Status``).

    The plain message may be cut, the Status has it in full up to 1,500 bytes. Fields beyond 2.5 kB are shortened, the
    longest lists first, so that the whole fits into trailing metadata.
    """
    message = _shortened(error.message, _MAX_MESSAGE)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.status), message=message)
    info = error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN)
    info.metadata.update(_encoded_fields(error.fields))
    status.details.add().Pack(info)
    if isinstance(error, InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=str(error.fields.get("field", "")), description=_shortened(message, _MAX_PLAIN)
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    retry_after = error.fields.get("retry_after")
    if isinstance(retry_after, (int, float)) and 0 <= retry_after < 1e9:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_after * 1e9))
        status.details.add().Pack(retry)
    if request_id is not None:
        status.details.add().Pack(error_details_pb2.RequestInfo(request_id=request_id))
    return error.status, _shortened(message, _MAX_PLAIN), status.SerializeToString()


def error_from_status(code: str, message: str | None, details: bytes | None = None) -> VectorDBError:
    """The error behind a failed call.

    Args:
        code: Name of the gRPC status code, such as ``NOT_FOUND``.
        message: The status's plain message.
        details: The value of the trailing metadata ``grpc-status-details-bin``, or ``None``.

    Returns:
        What the engine raised, or, where a server or proxy said something without our details, the class of that
        status with its message.
    """
    if details:
        try:
            status = status_pb2.Status.FromString(details)
        except DecodeError:
            status = status_pb2.Status()
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if _is(detail, info) and info.domain == DOMAIN and info.reason in BY_NAME:
                error = BY_NAME[info.reason](status.message, **_decoded_fields(info.metadata))
                error.request_id = _request_id(status)
                return error
    kind = _BY_STATUS.get(code, Internal)
    return kind(message or f"the server answered {code}")


def _request_id(status: status_pb2.Status) -> str | None:
    for detail in status.details:
        info = error_details_pb2.RequestInfo()
        if _is(detail, info):
            return str(info.request_id)
    return None


def _is(detail: Any, message: Any) -> bool:
    """Whether a detail is a message of this type; then the message holds it. Damaged ones are not."""
    try:
        return bool(detail.Is(message.DESCRIPTOR) and detail.Unpack(message))
    except DecodeError:
        return False


def _encoded_fields(fields: Mapping[str, Any]) -> dict[str, str]:
    encoded = {name: _json(value) for name, value in fields.items()}
    while sum(map(len, encoded.values())) > _MAX_FIELDS:
        name = max(encoded, key=lambda key: len(encoded[key]))
        value = json.loads(encoded[name])
        if isinstance(value, list) and len(value) > 1:
            encoded[name] = _json(value[: len(value) // 2])
        elif isinstance(value, str) and len(value) > 100:
            encoded[name] = _json(_shortened(value, 100))
        else:
            del encoded[name]
    return encoded


def _json(value: Any) -> str:
    return json.dumps(value, default=str)


def _decoded_fields(metadata: Mapping[str, str]) -> dict[str, Any]:
    fields = {}
    for name, value in metadata.items():
        try:
            fields[name] = json.loads(value)
        except ValueError:
            # Another implementation's plain string.
            fields[name] = value
    # `message` is the first parameter of every error's constructor.
    fields.pop("message", None)
    fields.pop("self", None)
    return fields


def _shortened(text: str, limit: int) -> str:
    """At most ``limit`` bytes of UTF-8; what is cut ends in an ellipsis."""
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    return data[: limit - 3].decode(errors="ignore") + "…"
