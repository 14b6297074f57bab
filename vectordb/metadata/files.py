"""Postings in one file that is mapped, not read.

Layout, all numbers little-endian::

    0   8 bytes   magic "VDBPOST1"
    8   uint64    length h of the directory in bytes
    16  h bytes   directory, JSON
    ..            arrays, each at a multiple of 64 bytes after the directory's end (itself rounded up)

The directory: ``{"n", "unindexed", "size", "fields": {path: {"exists", "nulls", "scalars": {kind: column},
"elements": {kind: column}, "lists": column or null}}}``; a column is
``{"keys" or "blob" and "offsets", "ptr", "rows"}``; an array is ``[dtype, offset after the directory, count]``;
``exists`` is null where all rows have the field.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import Corruption
from vectordb.metadata.bytes_keys import BytesKeys
from vectordb.metadata.columns import KEY_DTYPES, Column, Kind
from vectordb.metadata.postings import FieldPostings, Postings

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"VDBPOST1"
_ALIGN = 64
_MAX_ROWS = 1 << 32


def save_postings(postings: Postings, path: Path) -> None:
    """See :meth:`Postings.save`."""
    writer = _Writer()
    fields = {name: writer.field(field) for name, field in postings.fields()}
    header = {"n": postings.n, "unindexed": sorted(postings.unindexed), "size": writer.size, "fields": fields}
    directory = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(MAGIC + len(directory).to_bytes(8, "little") + directory)
        file.write(bytes(_padding(16 + len(directory))))
        for array in writer.arrays:
            file.write(array.tobytes())
            file.write(bytes(_padding(array.nbytes)))


def open_postings(path: Path) -> Postings:
    """See :meth:`Postings.open`."""
    try:
        return _open(path)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise Corruption(f"postings file {path} is damaged: {type(error).__name__}: {error}", path=str(path)) from None


def _open(path: Path) -> Postings:
    data = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    if len(data) < 16 or bytes(data[:8]) != MAGIC:
        raise ValueError("not a postings file")
    length = int.from_bytes(bytes(data[8:16]), "little")
    if length > len(data) - 16:
        raise ValueError("truncated")
    header = json.loads(bytes(data[16 : 16 + length]))
    start = 16 + length + _padding(16 + length)
    if type(header["n"]) is not int or not 0 <= header["n"] < _MAX_ROWS:
        raise ValueError("row count out of range")
    if len(data) - start != header["size"]:
        raise ValueError(f"{len(data) - start} bytes of arrays, {header['size']} expected")
    reader = _Reader(data[start:], header["n"])
    fields = {str(name): reader.field(entry) for name, entry in header["fields"].items()}
    return Postings(header["n"], fields, frozenset(map(str, header["unindexed"])), path)


class _Writer:
    """Gives arrays their places."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []
        self.size = 0

    def field(self, field: FieldPostings) -> dict[str, Any]:
        return {
            "exists": None if field.exists is None else self._array(field.exists, "<u4"),
            "nulls": self._array(field.nulls, "<u4"),
            "scalars": {str(kind): self._column(column) for kind, column in field.scalars.items()},
            "elements": {str(kind): self._column(column) for kind, column in field.elements.items()},
            "lists": None if field.lists is None else self._column(field.lists),
        }

    def _column(self, column: Column) -> dict[str, Any]:
        out = {"ptr": self._array(column.ptr, "<u4"), "rows": self._array(column.rows, "<u4")}
        if isinstance(column.keys, BytesKeys):
            out["blob"] = self._array(column.keys.blob, "<u1")
            out["offsets"] = self._array(column.keys.offsets, "<u8")
        else:
            out["keys"] = self._array(column.keys, KEY_DTYPES[column.kind])
        return out

    def _array(self, array: NDArray[Any], dtype: str) -> list[Any]:
        stored = np.ascontiguousarray(array, dtype=dtype)
        place = [dtype, self.size, len(stored)]
        self.arrays.append(stored)
        self.size += stored.nbytes + _padding(stored.nbytes)
        return place


class _Reader:
    """Takes arrays from their places, refusing any that is not within the file."""

    def __init__(self, data: NDArray[np.uint8], n: int) -> None:
        self._data = data
        self._n = n

    def field(self, entry: dict[str, Any]) -> FieldPostings:
        exists = None if entry["exists"] is None else self._array(entry["exists"], "<u4")
        field = FieldPostings(exists, self._array(entry["nulls"], "<u4"))
        field.scalars = {Kind(kind): self._column(Kind(kind), column) for kind, column in entry["scalars"].items()}
        field.elements = {Kind(kind): self._column(Kind(kind), column) for kind, column in entry["elements"].items()}
        if entry["lists"] is not None:
            field.lists = self._column(Kind.LIST, entry["lists"])
        field.verified = False
        return field

    def _column(self, kind: Kind, entry: dict[str, Any]) -> Column:
        keys: NDArray[Any] | BytesKeys
        if kind in KEY_DTYPES:
            keys = self._array(entry["keys"], KEY_DTYPES[kind])
        else:
            keys = BytesKeys(self._array(entry["blob"], "<u1"), self._array(entry["offsets"], "<u8"))
        ptr = self._array(entry["ptr"], "<u4")
        if len(ptr) != len(keys) + 1:
            raise ValueError("keys and offsets differ in number")
        return Column(kind, keys, ptr, self._array(entry["rows"], "<u4"), self._n)

    def _array(self, place: list[Any], dtype: str) -> NDArray[Any]:
        stored, offset, count = place
        if stored != dtype or type(offset) is not int or type(count) is not int:
            raise ValueError(f"array of {stored!r}, {dtype} expected")
        width = np.dtype(dtype).itemsize
        if offset % _ALIGN or offset < 0 or count < 0 or offset + count * width > len(self._data):
            raise ValueError("array outside the file")
        return self._data[offset : offset + count * width].view(dtype)


def _padding(size: int) -> int:
    return -size % _ALIGN
