"""Values that a condition may hold: which are allowed, and the one form in which a tree keeps them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from vectordb.encoding import from_numpy
from vectordb.errors import InvalidFilter

MAX_STRING = 65_536
"""Characters of one string in a filter."""
MAX_VALUES = 100_000
"""Values of one filter, those of its sets and lists included."""

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1

Scalar = str | int | float | bool | datetime
Value = Scalar | tuple[Scalar, ...] | None
"""What a condition holds: a scalar, a tuple (``in``, ``between``, a whole list), or ``None`` for none."""


def kind_of(value: object) -> str | None:
    """``bool``, ``number``, ``string`` or ``datetime``; ``None`` for what compares with nothing (null, list, dict)."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, datetime):
        return "datetime"
    return None


def scalar(value: object, path: str = "value") -> Scalar:
    """The value as a plain ``str``, ``int``, ``float``, ``bool`` or UTC ``datetime``.

    numpy scalars become Python's (``datetime64`` datetimes), dates and UUIDs their text (as in stored metadata),
    naive datetimes UTC.

    Raises:
        InvalidFilter: It is none of these, or out of range; ``path`` says where in the tree.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _string(value, path)
    if isinstance(value, int):
        if not INT64_MIN <= value <= INT64_MAX:
            raise InvalidFilter(f"integer {_shown(value)} does not fit in 64 bits; use a float or a string", path=path)
        return int(value)
    if isinstance(value, float):
        if math.isnan(value):
            raise InvalidFilter("NaN equals and orders with nothing; use .is_null() to find absent values", path=path)
        if math.isinf(value):
            raise InvalidFilter("infinity is no stored value; leave that bound out (use < or > alone)", path=path)
        return float(value)
    if isinstance(value, datetime):
        return _instant(value, path)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return scalar(_plain(value, path), path)
    raise InvalidFilter(_refusal(value), path=path)


def scalars(values: object, path: str = "value") -> tuple[Scalar, ...]:
    """Each of the values by :func:`scalar`.

    Raises:
        InvalidFilter: Not a list-like of scalars, or too many.
    """
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        raise InvalidFilter(f"expected a list of values, got {type(values).__name__}; write [x, y]", path=path)
    items = list(values)
    if len(items) > MAX_VALUES:
        raise InvalidFilter(f"{len(items)} values, at most {MAX_VALUES} are allowed; split the filter", path=path)
    return tuple(scalar(item, f"{path}[{i}]") for i, item in enumerate(items))


def comparable(value: object, path: str = "value") -> Scalar | tuple[Scalar, ...]:
    """The operand of ``==`` and ``!=``: a scalar, or a whole list as a tuple."""
    if isinstance(value, list | tuple) or (getattr(value, "ndim", 0) == 1 and hasattr(value, "tolist")):
        return scalars(value, path)
    if isinstance(value, Set):
        raise InvalidFilter("a set has no order to compare with a list; use .isin(...) or a list", path=path)
    return scalar(value, path)


def value_key(value: Value) -> tuple[Any, ...]:
    """A hashable stand-in that keeps ``1``, ``1.0`` and ``True`` apart, which Python's equality does not."""
    if isinstance(value, tuple):
        return (tuple(map(type, value)), value)
    return (type(value), value)


def _string(value: str, path: str) -> str:
    if len(value) > MAX_STRING:
        raise InvalidFilter(f"string of {len(value)} characters, at most {MAX_STRING} are allowed", path=path)
    # Members of string enums too: their own text, not their name.
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidFilter(
                "string holds a lone surrogate, which is not Unicode text; remove it", path=path
            ) from None
    return text


def _plain(value: object, path: str) -> object:
    try:
        return from_numpy(value)
    except TypeError as error:
        raise InvalidFilter(f"{error}", path=path) from None


def _instant(value: datetime, path: str) -> datetime:
    try:
        plain = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        # Built anew: subclasses (pandas.Timestamp) carry nanoseconds and compare by them.
        return datetime(
            plain.year, plain.month, plain.day, plain.hour, plain.minute, plain.second, plain.microsecond, tzinfo=UTC
        )
    except (ValueError, TypeError, OverflowError):
        raise InvalidFilter(f"datetime {value} is outside the years 1 to 9999 of UTC", path=path) from None


def _refusal(value: object) -> str:
    if value is None:
        return "a comparison with null is never true; use .is_null() or .exists()"
    if isinstance(value, Mapping):
        return "a dict compares with nothing; address its keys by path, such as col('a.b')"
    if isinstance(value, bytes | bytearray):
        return "metadata holds no bytes; compare with a string"
    return f"{type(value).__name__} is no metadata value; use str, int, float, bool or datetime"


def _shown(value: int) -> str:
    return str(value) if value.bit_length() < 128 else f"of {value.bit_length()} bits"
