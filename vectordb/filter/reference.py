"""The reference evaluator: one record at a time, written to be obviously right. Every other evaluator must agree."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from vectordb.filter.tree import And, Condition, Filter, Not, Op, Or
from vectordb.filter.values import kind_of


class Missing(Enum):
    """The type of :data:`MISSING`."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
"""Stands for the value of a field that a record does not have."""


def matches(tree: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether a record with this metadata (as decoded: plain values, lists, nested dicts) meets the filter."""
    if isinstance(tree, And):
        return all(matches(child, metadata) for child in tree.children)
    if isinstance(tree, Or):
        return any(matches(child, metadata) for child in tree.children)
    if isinstance(tree, Not):
        return not matches(tree.child, metadata)
    assert isinstance(tree, Condition)
    return _holds(tree, lookup(metadata, tree.field))


def lookup(metadata: Mapping[str, Any], path: str) -> Any:
    """The value at a path, ``"a.b"`` reaching into nested dicts, or :data:`MISSING`."""
    if "." not in path:
        return metadata.get(path, MISSING)
    value: Any = metadata
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return MISSING
        value = value[step]
    return value


def _holds(condition: Condition, value: Any) -> bool:
    operand: Any = condition.value
    match condition.op:
        case Op.EQ:
            return _equal(value, operand)
        case Op.NE:
            return not _equal(value, operand)
        case Op.EXISTS:
            return value is not MISSING
        case Op.IS_NULL:
            return value is MISSING or value is None
        case Op.IN:
            return _any_in(value, condition)
        case Op.NOT_IN:
            return not _any_in(value, condition)
        case Op.CONTAINS:
            return isinstance(value, list | tuple) and any(_equal(element, operand) for element in value)
        case Op.BETWEEN:
            low, high = operand
            return _order(value, low) in (0, 1) and _order(value, high) in (-1, 0)
        case Op.STARTS_WITH:
            return isinstance(value, str) and value.startswith(operand)
        case Op.LT:
            return _order(value, operand) == -1
        case Op.LE:
            return _order(value, operand) in (-1, 0)
        case Op.GT:
            return _order(value, operand) == 1
        case Op.GE:
            return _order(value, operand) in (0, 1)


def _any_in(value: Any, condition: Condition) -> bool:
    elements = value if isinstance(value, list | tuple) else [value]
    # Within a kind Python's equality is the right one, and hashes follow it. What has no kind may not even have a hash.
    kinds = map(kind_of, elements)
    return any(
        kind is not None and (kind, _utc(element) if kind == "datetime" else element) in condition.members
        for kind, element in zip(kinds, elements, strict=True)
    )


def _equal(value: Any, operand: Any) -> bool:
    if isinstance(operand, tuple):
        return (
            isinstance(value, list | tuple)
            and len(value) == len(operand)
            and all(_order(a, b) == 0 for a, b in zip(value, operand, strict=True))
        )
    return _order(value, operand) == 0


def _order(a: Any, b: Any) -> int | None:
    """-1, 0 or 1 as ``a`` stands before, equals or follows ``b``; ``None`` where they do not compare."""
    kind = kind_of(a)
    if kind is None or kind != kind_of(b):
        return None
    if isinstance(a, datetime):
        a, b = _utc(a), _utc(b)
    # Python compares int with float exactly, and strings by code point.
    return int(a > b) - int(a < b)


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value
