"""Sets of row numbers as compressed bitmaps. The only file that imports pyroaring.

pyroaring builds a bitmap from a sorted array at about 8 ns a row and gives its rows back at as much again. Dense sets
take a shorter way here: rows are scattered into bits, and the bits wrapped as (or read from) the portable serialized
form, one container of 65,536 rows at a time.

Source of that form: github.com/RoaringBitmap/RoaringFormatSpec; Lemire et al. 2018, "Roaring Bitmaps: Implementation of
an Optimized Software Library".
"""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any

import numpy as np
import pyroaring

if TYPE_CHECKING:
    from numpy.typing import NDArray

    class RowSet:
        """The part of ``pyroaring.BitMap`` that this library uses: a set of uint32, ascending."""

        def __init__(self, values: Any = ...) -> None: ...
        def __len__(self) -> int: ...
        def __bool__(self) -> bool: ...
        def __contains__(self, row: int) -> bool: ...
        def __iter__(self) -> Any: ...
        def __and__(self, other: RowSet) -> RowSet: ...
        def __or__(self, other: RowSet) -> RowSet: ...
        def __sub__(self, other: RowSet) -> RowSet: ...
        def __iand__(self, other: RowSet) -> RowSet: ...
        def __ior__(self, other: RowSet) -> RowSet: ...
        def __isub__(self, other: RowSet) -> RowSet: ...
        def copy(self) -> RowSet: ...
        def flip(self, start: int, end: int) -> RowSet: ...
        def shift(self, offset: int) -> RowSet: ...
        def add_range(self, start: int, end: int) -> None: ...
        def remove_range(self, start: int, end: int) -> None: ...
        def intersection_cardinality(self, other: RowSet) -> int: ...
        def serialize(self) -> bytes: ...
        def to_array(self) -> Any: ...
        def max(self) -> int: ...
        @classmethod
        def deserialize(cls, data: bytes) -> RowSet: ...
else:
    RowSet = pyroaring.BitMap
    """A set of uint32 row numbers: ``pyroaring.BitMap``."""

_CONTAINER = 1 << 16
_ARRAY_LIMIT = 4096
"""Containers of at most so many rows hold 16-bit numbers, larger ones 65,536 bits."""
_NO_RUNS = 12346
_DENSE = 48
"""From one row in so many on, scattering into bits is faster than sorting ..."""
_SMALL = 512
"""... unless there are fewer rows than this altogether."""


def full(n: int) -> RowSet:
    """Rows 0..n-1."""
    rows = RowSet()
    rows.add_range(0, n)
    return rows


def from_rows(rows: NDArray[Any], n: int | None = None) -> RowSet:
    """The set of the rows of an integer array, in any order, repeats allowed.

    Args:
        rows: Integers, 0 <= row < n.
        n: An upper bound that is already known, or None.

    Raises:
        IndexError: A row is n or more.
        ValueError: A row is negative.
    """
    if len(rows) == 0:
        return RowSet()
    top = int(rows.max()) + 1
    if int(rows.min()) < 0:
        raise ValueError("row numbers are not negative")
    if n is not None and top > n:
        raise IndexError(f"row {top - 1} of {n}")
    if len(rows) >= _SMALL and len(rows) * _DENSE >= top:
        mask = np.zeros(top, dtype=np.bool_)
        mask[rows] = True
        return from_mask(mask)
    values = array.array("I")
    values.frombytes(np.sort(rows.astype(np.uint32, copy=False)).tobytes())
    return RowSet(values)


def from_mask(mask: NDArray[np.bool_]) -> RowSet:
    """The set of the rows where bool[n] is true."""
    # The serialized form without run containers: cookie, count, (key, cardinality - 1) each, offsets, containers.
    entries: list[tuple[int, int]] = []
    bodies: list[bytes] = []
    for key, start in enumerate(range(0, len(mask), _CONTAINER)):
        part = mask[start : start + _CONTAINER]
        count = int(np.count_nonzero(part))
        if count > _ARRAY_LIMIT:
            bodies.append(np.packbits(part, bitorder="little").tobytes().ljust(_CONTAINER // 8, b"\0"))
        elif count:
            bodies.append(np.flatnonzero(part).astype("<u2").tobytes())
        if count:
            entries.append((key, count - 1))
    if not entries:
        return RowSet()
    head = np.array([_NO_RUNS, len(entries)], dtype="<u4").tobytes() + np.array(entries, dtype="<u2").tobytes()
    offsets = (np.cumsum([0, *map(len, bodies[:-1])]) + 8 + 8 * len(entries)).astype("<u4")
    return RowSet.deserialize(b"".join([head, offsets.tobytes(), *bodies]))


def to_rows(rows: RowSet) -> NDArray[np.int64]:
    """The rows ascending: int64[k]."""
    return np.frombuffer(rows.to_array(), dtype=np.uint32).astype(np.int64) if rows else np.empty(0, dtype=np.int64)


def to_mask(rows: RowSet, n: int) -> NDArray[np.bool_]:
    """bool[n], true at the rows of the set.

    Raises:
        IndexError: A row is n or more.
    """
    return np.unpackbits(to_bits(rows, n), count=n, bitorder="little").view(np.bool_)


def to_bits(rows: RowSet, n: int) -> NDArray[np.uint8]:
    """Packed little-endian bits uint8[ceil(n / 8)], bit i set for row i.

    Raises:
        IndexError: A row is n or more.
    """
    if not rows:
        return np.zeros(-(-n // 8), dtype=np.uint8)
    if rows.max() >= n:
        raise IndexError(f"row {rows.max()} of {n}")
    if len(rows) == n:
        bits = np.full(-(-n // 8), 0xFF, dtype=np.uint8)
        if n % 8:
            bits[-1] = (1 << n % 8) - 1
        return bits
    bits = np.zeros(-(-n // _CONTAINER) * _CONTAINER // 8, dtype=np.uint8)
    data = rows.serialize()
    if int.from_bytes(data[:4], "little") == _NO_RUNS:
        _read_containers(data, bits)
    else:
        # Run containers appear only in sets made by add_range or flip.
        mask = np.zeros(len(bits) * 8, dtype=np.bool_)
        mask[np.frombuffer(rows.to_array(), dtype=np.uint32)] = True
        bits = np.packbits(mask, bitorder="little")
    return bits[: -(-n // 8)]


def shifted(rows: RowSet, offset: int) -> RowSet:
    """Every row plus ``offset`` (not negative)."""
    return rows.shift(offset) if offset else rows


def below(rows: RowSet, n: int) -> RowSet:
    """The rows smaller than n. May return its argument."""
    if not rows or rows.max() < n:
        return rows
    kept = rows.copy()
    kept.remove_range(n, 1 << 32)
    return kept


def complement(rows: RowSet, n: int) -> RowSet:
    """The rows of 0..n-1 that are not in the set (whose rows are all below n)."""
    return rows.flip(0, n)


def _read_containers(data: bytes, bits: NDArray[np.uint8]) -> None:
    count = int.from_bytes(data[4:8], "little")
    keys = np.frombuffer(data, dtype="<u2", count=2 * count, offset=8).reshape(-1, 2)
    offsets = np.frombuffer(data, dtype="<u4", count=count, offset=8 + 4 * count)
    size = _CONTAINER // 8
    for (key, last), offset in zip(keys.tolist(), offsets.tolist(), strict=True):
        if last + 1 > _ARRAY_LIMIT:
            body = np.frombuffer(data, dtype=np.uint8, count=size, offset=offset)
        else:
            mask = np.zeros(_CONTAINER, dtype=np.bool_)
            mask[np.frombuffer(data, dtype="<u2", count=last + 1, offset=offset)] = True
            body = np.packbits(mask, bitorder="little")
        bits[key * size : (key + 1) * size] = body
