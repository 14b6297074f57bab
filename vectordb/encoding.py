"""Metadata as bytes: MessagePack, the form in RocksDB and on the wire, and JSON for people.

Integers keep their 64 bits. Datetimes are extension type 1: microseconds since 1970-01-01T00:00:00Z as a big-endian
int64, naive ones taken as UTC; MessagePack's own timestamp (type -1), as other clients may write it, is read too.
numpy scalars become numbers, its ``datetime64`` datetimes and its arrays lists; tuples become lists, UUIDs and dates
their text.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import ormsgpack

from vectordb.types import Metadata

# Not ormsgpack's timestamps: up to 1.13.1 it drops the fraction, and bits of the second, above 0.536 s of a second.
# Nor its way with numpy, which makes text of datetime64.
_PACK = ormsgpack.OPT_PASSTHROUGH_DATETIME
_UNPACK = ormsgpack.OPT_DATETIME_AS_TIMESTAMP_EXT
_DATETIME = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_INSTANT = "NaT is no instant; use None (in a filter .is_null())"


def utc(value: datetime) -> datetime:
    """The same instant in UTC; a naive datetime is taken as UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def from_numpy(value: Any) -> object:
    """A numpy scalar as Python's, its ``datetime64`` as a datetime in UTC (microseconds), and an array as a list.

    Raises:
        TypeError: It has no such form; the text says why.
    """
    kind = value.dtype.kind
    if kind == "m":  # item() would make a number of it, and of which unit is lost
        raise TypeError(f"{type(value).__name__} is no metadata value; give a number")
    if kind != "M":
        plain = value.item() if value.shape == () else value.tolist()
        if type(plain) is type(value):
            raise TypeError(f"{type(value).__name__} is no metadata value; give a float")
        return plain
    if value.shape != ():
        return list(value)
    year = value.astype("datetime64[Y]").item()
    if year is None:
        raise TypeError(_NO_INSTANT)
    # Before it is made finer: far from the years that there are it would overflow, and item() gives a number.
    instant = year if isinstance(year, int) else value.astype("datetime64[us]").item()
    if not isinstance(instant, datetime):
        raise TypeError(f"datetime64 {value} is outside the years 1 to 9999")
    return instant.replace(tzinfo=UTC)


def encode_metadata(metadata: Metadata) -> bytes:
    """One metadata map as MessagePack; the empty map as no bytes at all.

    Raises:
        TypeError: A key is not a string, or a value has no MessagePack form; the text says which.
    """
    return ormsgpack.packb(metadata, _pack, option=_PACK) if metadata else b""


def decode_metadata(data: bytes) -> dict[str, Any]:
    """The map that :func:`encode_metadata` encoded; empty bytes are an empty map.

    Raises:
        ValueError: The bytes are not MessagePack.
    """
    return ormsgpack.unpackb(data, ext_hook=_unpack, option=_UNPACK) if data else {}


def _pack(value: object) -> object:
    if isinstance(value, datetime):
        if value != value:  # pandas' NaT is a datetime
            raise TypeError(_NO_INSTANT)
        return ormsgpack.Ext(_DATETIME, ((utc(value) - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True))
    if isinstance(value, date | time):
        return value.isoformat()
    if type(value).__module__ == "numpy":
        return from_numpy(value)
    raise TypeError(f"{type(value).__name__} is no metadata value")


def refusal(value: object, depth: int = 3) -> str | None:
    """Why a value, or one in a list or array, has no stored form; ``None`` where there is no more to say than its type.

    ormsgpack does not pass on what :func:`_pack` said.
    """
    try:
        if isinstance(value, datetime) or type(value).__module__ == "numpy":
            value = _pack(value)
    except TypeError as error:
        return str(error)
    if not isinstance(value, list | tuple) or not depth:
        return None
    return next((told for item in value if (told := refusal(item, depth - 1)) is not None), None)


def _unpack(kind: int, data: bytes) -> datetime:
    if kind == _DATETIME and len(data) == 8:
        try:
            return _EPOCH + timedelta(microseconds=int.from_bytes(data, "big", signed=True))
        except OverflowError:
            raise ValueError("a datetime is outside the years 1 to 9999") from None
    raise ValueError(f"extension type {kind} of {len(data)} bytes is no metadata value")


def metadata_to_json(metadata: Metadata) -> str:
    """Metadata as JSON text, datetimes as ``{"$datetime": "2026-01-31T12:00:00Z"}``."""

    def datetimes(value: object) -> object:
        if isinstance(value, datetime):
            return {"$datetime": utc(value).isoformat().replace("+00:00", "Z")}
        raise TypeError(type(value).__name__)

    return json.dumps(metadata, default=datetimes, ensure_ascii=False)
