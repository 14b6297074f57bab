"""One kind of value of one field, turned around: sorted distinct keys, and for each the rows that have it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.encoding import encode_metadata, utc
from vectordb.metadata import rowset
from vectordb.metadata.bytes_keys import BytesKeys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.metadata.rowset import RowSet

    Keys = NDArray[Any] | BytesKeys

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CACHED_ROWS = 1024
_CACHED_SHARE = 32
"""Keys that hold at least one row in so many (and _CACHED_ROWS) keep their row set once it was asked for."""
INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1


class Kind(StrEnum):
    """Kinds of values; those of one kind compare with each other. Ints and floats stand apart but compare too."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    DATETIME = "datetime"
    STRING = "string"
    LIST = "list"


KEY_DTYPES = {Kind.BOOL: "<u1", Kind.INT: "<i8", Kind.FLOAT: "<f8", Kind.DATETIME: "<i8"}
"""dtype of the keys (datetimes in microseconds since 1970 UTC); strings (UTF-8) and lists are :class:`BytesKeys`."""


class Column:
    """Keys, and the rows of key i as ``rows[ptr[i]:ptr[i + 1]]``, ascending. Immutable, thread-safe.

    Attributes:
        kind: What the keys are.
        keys: Distinct and ascending: an array of ``KEY_DTYPES[kind]``, or :class:`BytesKeys`.
        ptr: uint32[u + 1].
        rows: uint32[m].
        n: Rows of the whole part, of which these are some.
    """

    __slots__ = ("_cache", "keys", "kind", "n", "ptr", "rows")

    def __init__(self, kind: Kind, keys: Keys, ptr: NDArray[np.uint32], rows: NDArray[np.uint32], n: int) -> None:
        self.kind = kind
        self.keys = keys
        self.ptr = ptr
        self.rows = rows
        self.n = n
        self._cache: dict[int, RowSet] = {}

    @classmethod
    def of(cls, kind: Kind, keys: Keys, pairs: NDArray[np.uint64], n: int) -> Column:
        """From ``key index << 32 | row``, distinct and ascending: uint64[m]."""
        ptr = np.zeros(len(keys) + 1, dtype=np.uint32)
        np.cumsum(np.bincount((pairs >> np.uint64(32)).astype(np.int64), minlength=len(keys)), out=ptr[1:])
        return cls(kind, keys, ptr, pairs.astype(np.uint32), n)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.ptr.nbytes + self.rows.nbytes

    def count(self, low: int, high: int) -> int:
        """Pairs of key and row in the keys ``low`` to ``high - 1``; for fields without lists: rows."""
        return int(self.ptr[high]) - int(self.ptr[low]) if low < high else 0

    def counts(self, indexes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of rows of each of the keys: int64[k]."""
        return self.ptr[indexes + 1].astype(np.int64) - self.ptr[indexes]

    def range_rows(self, low: int, high: int) -> RowSet:
        """Rows of the keys ``low`` to ``high - 1``."""
        if low >= high:
            return rowset.from_rows(self.rows[:0])
        if high - low > 1 or self.count(low, high) < max(_CACHED_ROWS, self.n // _CACHED_SHARE):
            return rowset.from_rows(self.rows[self.ptr[low] : self.ptr[high]], self.n)
        found = self._cache.get(low)
        if found is None:
            found = self._cache[low] = rowset.from_rows(self.rows[self.ptr[low] : self.ptr[high]], self.n)
        return found.copy()

    def key_rows(self, indexes: NDArray[np.int64]) -> RowSet:
        """Rows of any of the keys at distinct indexes."""
        if len(indexes) == 1:
            return self.range_rows(int(indexes[0]), int(indexes[0]) + 1)
        counts = self.counts(indexes)
        shift = np.cumsum(counts) - counts
        places = np.repeat(self.ptr[indexes].astype(np.int64) - shift, counts) + np.arange(int(counts.sum()))
        return rowset.from_rows(self.rows[places], self.n)

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """The key index of each entry of ``rows``: int64[m], and ``rows``."""
        return np.repeat(np.arange(len(self.keys)), self.ptr[1:] - self.ptr[:-1]), self.rows

    def python_values(self, indexes: NDArray[np.int64]) -> list[Any]:
        """The keys at these indexes as Python values."""
        if isinstance(self.keys, BytesKeys):
            return [self.keys[i].decode() for i in indexes.tolist()]
        values = self.keys[indexes].tolist()
        if self.kind is Kind.DATETIME:
            return [_EPOCH + timedelta(microseconds=value) for value in values]
        return [bool(value) for value in values] if self.kind is Kind.BOOL else values


def sorted_pairs(pairs: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The distinct values, ascending. Sorts the argument in place."""
    # Not numpy.unique: some releases go through a hash table, at several times the cost.
    pairs.sort()
    return pairs[_fresh(pairs)]


def _fresh(ascending: NDArray[np.uint64]) -> NDArray[np.bool_]:
    fresh = np.ones(len(ascending), dtype=np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=fresh[1:])
    return fresh


def micros(value: datetime) -> int:
    """Microseconds since 1970 UTC, exact."""
    return (utc(value) - _EPOCH) // _MICROSECOND


def list_key(values: Sequence[Any]) -> bytes | None:
    """The same bytes for lists that are equal element by element, numbers by value; ``None`` if it equals no list.

    A list with a null (or anything else that compares with nothing) equals no list, itself included.
    """
    types = set(map(type, values))
    if not types <= {str, int, bool, float, datetime}:
        return None
    if float in types or datetime in types:
        values = [_canonical(value) for value in values]
    return encode_metadata({"": list(values)})


def _canonical(value: Any) -> Any:
    if type(value) is float and value.is_integer() and INT64_MIN <= value <= INT64_MAX:
        return int(value)
    return utc(value) if type(value) is datetime else value
