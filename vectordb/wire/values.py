"""Enums and parameters, checked where a message cannot hold what Python can."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from vectordb.arguments import whole
from vectordb.errors import InvalidArgument
from vectordb.metric import Metric
from vectordb.requests import WriteMode
from vectordb.types import Durability, FieldType, FilterMode
from vectordb_proto.v1 import types_pb2

E = TypeVar("E", bound=StrEnum)

_PREFIXES: dict[type[StrEnum], str] = {
    Metric: "METRIC_",
    FilterMode: "FILTER_MODE_",
    FieldType: "FIELD_TYPE_",
    Durability: "DURABILITY_",
    WriteMode: "WRITE_MODE_",
}
_NUMBERS: dict[type[StrEnum], dict[StrEnum, int]] = {
    enum: {member: getattr(types_pb2, prefix + member.name) for member in enum} for enum, prefix in _PREFIXES.items()
}
_MEMBERS = {enum: {number: member for member, number in numbers.items()} for enum, numbers in _NUMBERS.items()}


def enum_to_number(member: StrEnum) -> int:
    """The wire's number of an enum's member."""
    return _NUMBERS[type(member)][member]


def enum_from_number(enum: type[E], number: int, field: str, default: E | None = None) -> E:
    """The member with this number; 0 (unspecified) is ``default``.

    Raises:
        InvalidArgument: The number is unknown, or 0 where there is no default.
    """
    member = _MEMBERS[enum].get(number)
    if member is not None:
        return member  # type: ignore[return-value]
    if number == 0 and default is not None:
        return default
    known = ", ".join(f"{n} ({m.value})" for n, m in sorted(_MEMBERS[enum].items()))
    raise InvalidArgument(f"{field} has the unknown number {number}; known are {known}", field=field)


def params_to_message(params: Mapping[str, Any] | None, target: Any, field: str) -> None:
    """Writes parameters into a ``map<string, ParamValue>``.

    Raises:
        InvalidArgument: A name is no string, or a value neither number, bool nor string.
    """
    for name, value in (params or {}).items():
        if not isinstance(name, str):
            raise InvalidArgument(f"{field}[{name!r}]: a parameter's name is a string", field=field)
        entry = target[name]
        # The usual case first: every plan has such parameters.
        if type(value) is int and -(1 << 63) <= value < 1 << 63:
            entry.int_value = value
        elif isinstance(value, bool):
            entry.bool_value = value
        elif isinstance(value, str):
            entry.string_value = value
        elif hasattr(value, "__index__"):
            entry.int_value = whole(value, f"{field}[{name!r}]")
        elif isinstance(value, float) or hasattr(value, "__float__"):
            entry.double_value = float(value)
        else:
            raise InvalidArgument(f"{field}[{name!r}] is a number, bool or string, got {value!r}", field=field)


def params_from_message(source: Mapping[str, types_pb2.ParamValue], field: str) -> dict[str, Any]:
    """The parameters of a ``map<string, ParamValue>``.

    Raises:
        InvalidArgument: A parameter has no value.
    """
    params = {}
    for name, value in source.items():
        kind = value.WhichOneof("kind")
        if kind is None:
            raise InvalidArgument(f"{field}[{name!r}] has no value", field=field)
        params[name] = getattr(value, kind)
    return params


def optional(message: Any, field: str) -> Any:
    """A field that may be missing, ``None`` where it is."""
    return getattr(message, field) if message.HasField(field) else None
