"""From one condition to the keys that meet it: the part that evaluation and estimation share.

Every condition but ``!=``, ``not_in``, ``exists`` and ``is_null`` selects, in a few columns, either one contiguous
range of keys or a set of keys; their rows are then slices of one array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.filter import Condition, Op, Scalar, kind_of
from vectordb.metadata.bytes_keys import BytesKeys
from vectordb.metadata.columns import INT64_MAX, INT64_MIN, KEY_DTYPES, Column, Kind, list_key, micros

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.metadata.postings import FieldPostings


class KeyRange(NamedTuple):
    """Keys ``low`` to ``high - 1`` of a column."""

    column: Column
    low: int
    high: int


class KeySet(NamedTuple):
    """Keys at distinct indexes int64[k] of a column."""

    column: Column
    indexes: NDArray[np.int64]


_KINDS = {
    "bool": (Kind.BOOL,),
    "number": (Kind.INT, Kind.FLOAT),
    "string": (Kind.STRING,),
    "datetime": (Kind.DATETIME,),
}


def select(field: FieldPostings, condition: Condition) -> list[KeyRange | KeySet]:
    """The keys whose rows meet the condition; for ``!=`` and ``not_in`` those of ``==`` and ``in``. None is empty.

    The rows of one range or set are distinct unless its column holds elements of lists; those of different columns
    are distinct unless both do.
    """
    value: Any = condition.value
    picked: list[KeyRange | KeySet] = []
    if condition.op in (Op.IN, Op.NOT_IN):
        operands = _operands(condition)
        for columns in (field.scalars, field.elements):
            picked += [
                KeySet(columns[kind], _find(columns[kind], operands[kind])) for kind in operands if kind in columns
            ]
        return [keys for keys in picked if isinstance(keys, KeySet) and len(keys.indexes)]
    if isinstance(value, tuple) and condition.op is not Op.BETWEEN:
        key = list_key(value)
        if field.lists is None or key is None:
            return []
        picked = [KeySet(field.lists, _find(field.lists, [key]))]
        return [keys for keys in picked if isinstance(keys, KeySet) and len(keys.indexes)]
    columns = field.elements if condition.op is Op.CONTAINS else field.scalars
    kinds = _KINDS[str(kind_of(value[0] if condition.op is Op.BETWEEN else value))]
    ranges = [KeyRange(columns[kind], *_range(columns[kind], condition.op, value)) for kind in kinds if kind in columns]
    return [keys for keys in ranges if keys.low < keys.high]


def _range(column: Column, op: Op, value: Any) -> tuple[int, int]:
    end = len(column.keys)
    match op:
        case Op.LT:
            return 0, _below(column, value, "left")
        case Op.LE:
            return 0, _below(column, value, "right")
        case Op.GT:
            return _below(column, value, "right"), end
        case Op.GE:
            return _below(column, value, "left"), end
        case Op.BETWEEN:
            return _below(column, value[0], "left"), _below(column, value[1], "right")
        case Op.STARTS_WITH:
            assert isinstance(column.keys, BytesKeys)
            return column.keys.prefixed(value.encode())
    low = _below(column, value, "left")
    if isinstance(column.keys, BytesKeys):
        return low, low + (low < end and column.keys[low] == value.encode())
    return low, _below(column, value, "right")


def _below(column: Column, value: Scalar, side: str) -> int:
    """How many keys are < value (side ``left``) or <= value (``right``), int against float exactly."""
    keys = column.keys
    if isinstance(keys, BytesKeys):
        data = str(value).encode()
        at = keys.left(data)
        return at + (side == "right" and at < len(keys) and keys[at] == data)
    if column.kind is Kind.INT and isinstance(value, float):
        whole = math.ceil(value) if side == "left" else math.floor(value)
        if not INT64_MIN <= whole <= INT64_MAX:
            return 0 if whole < 0 else len(keys)
        value = whole
    elif column.kind is Kind.FLOAT and isinstance(value, int):
        near = float(value)
        if near != value:
            # The nearest float is beside the integer and none lies between: the side that it is on decides.
            side = "left" if near > value else "right"
        value = near
    number = micros(value) if isinstance(value, datetime) else value
    return int(np.searchsorted(keys, np.array(number, dtype=keys.dtype), side="left" if side == "left" else "right"))


def _find(column: Column, operands: NDArray[Any] | Sequence[bytes]) -> NDArray[np.int64]:
    keys = column.keys
    if isinstance(keys, BytesKeys):
        return keys.find(operands)  # type: ignore[arg-type]
    at = np.searchsorted(keys, operands)
    inside = at < len(keys)
    at = at[inside]
    found: NDArray[np.int64] = at[keys[at] == np.asarray(operands)[inside]]
    return found


@lru_cache(maxsize=16)
def _operands(condition: Condition) -> dict[Kind, NDArray[Any] | list[bytes]]:
    """The set of an ``in`` as distinct sorted keys, for each kind of column that may hold one of them."""
    by_kind: dict[Kind, list[Any]] = {}
    assert isinstance(condition.value, tuple)
    for value in condition.value:
        if isinstance(value, bool):
            by_kind.setdefault(Kind.BOOL, []).append(value)
        elif isinstance(value, str):
            by_kind.setdefault(Kind.STRING, []).append(value.encode())
        elif isinstance(value, datetime):
            by_kind.setdefault(Kind.DATETIME, []).append(micros(value))
        else:
            if int(value) == value and INT64_MIN <= value <= INT64_MAX:
                by_kind.setdefault(Kind.INT, []).append(int(value))
            if float(value) == value:
                by_kind.setdefault(Kind.FLOAT, []).append(float(value))
    return {
        kind: sorted(set(values)) if kind is Kind.STRING else np.unique(np.array(values, dtype=KEY_DTYPES[kind]))
        for kind, values in by_kind.items()
    }
