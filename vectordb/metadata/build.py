"""From encoded metadata to postings: the only place that walks rows in Python."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.encoding import decode_metadata
from vectordb.errors import Corruption
from vectordb.metadata.bytes_keys import BytesKeys
from vectordb.metadata.columns import INT64_MAX, INT64_MIN, KEY_DTYPES, Column, Kind, list_key, micros, sorted_pairs
from vectordb.metadata.postings import Columns, FieldPostings, Postings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.types import FieldSpec

_CHUNK = 4096
"""Rows built at once: bounds how long one sort of Python objects keeps other threads from running."""
_YIELD = 256
_KINDS: dict[type, Kind] = {
    bool: Kind.BOOL,
    int: Kind.INT,
    float: Kind.FLOAT,
    datetime: Kind.DATETIME,
    str: Kind.STRING,
}

_Cells = tuple[list[int], list[Any]]
"""Rows and their values, in step."""


def build(metadata: Sequence[bytes], fields: Mapping[str, FieldSpec] | None) -> Postings:
    """See :meth:`Postings.build`."""
    unindexed = frozenset(path for path, spec in (fields or {}).items() if not spec.indexed)
    chunks = [
        _build_chunk(metadata[start : start + _CHUNK], start, unindexed) for start in range(0, len(metadata), _CHUNK)
    ]
    if len(chunks) == 1:
        return chunks[0]
    if not chunks:
        return Postings(0, {}, unindexed)
    return Postings.merge([(chunk, np.arange(chunk.n)) for chunk in chunks])


def _build_chunk(metadata: Sequence[bytes], start: int, unindexed: frozenset[str]) -> Postings:
    rows: list[int] = []
    maps: list[dict[str, Any]] = []
    for row, data in enumerate(metadata):
        if not row % _YIELD:
            time.sleep(0)
        if data:
            try:
                maps.append(decode_metadata(data))
            except ValueError as error:
                raise Corruption(f"metadata of row {start + row} cannot be read: {error}", row=start + row) from None
            rows.append(row)
    n = len(metadata)
    fields: dict[str, FieldPostings] = {}
    levels = [("", (rows, maps))]
    while levels:
        prefix, level = levels.pop()
        for key, cells in _by_key(*level).items():
            by_type = _by_type(*cells)
            if dict in by_type:
                levels.append((f"{prefix}{key}.", by_type[dict]))
            if prefix + key not in unindexed:
                fields[prefix + key] = _field(cells[0], by_type, n)
    return Postings(n, fields, unindexed)


def _by_key(rows: list[int], maps: list[dict[str, Any]]) -> dict[str, _Cells]:
    """Maps turned into columns, all maps with the same keys at once."""
    shapes: dict[tuple[str, ...], tuple[list[int], list[Any]]] = {}
    for i, row in enumerate(rows):
        if not i % _YIELD:
            time.sleep(0)
        keys = tuple(maps[i])
        shape = shapes.get(keys)
        if shape is None:
            shape = shapes[keys] = ([], [])
        shape[0].append(row)
        shape[1].append(maps[i].values())
    out: dict[str, _Cells] = {}
    for keys, (owners, values) in shapes.items():
        for key, column in zip(keys, zip(*values, strict=True), strict=True):
            cells = out.setdefault(key, ([], []))
            cells[0].extend(owners)
            cells[1].extend(column)
    return out


def _field(rows: list[int], by_type: dict[type, _Cells], n: int) -> FieldPostings:
    exists = None if len(rows) == n else np.sort(np.array(rows, dtype=np.uint32))
    field = FieldPostings(exists, np.sort(np.array(by_type.get(type(None), ([], []))[0], dtype=np.uint32)))
    field.scalars = _columns(by_type, n)
    if list in by_type:
        lists = by_type[list]
        flat = list(chain.from_iterable(lists[1]))
        owners = np.repeat(lists[0], [len(value) for value in lists[1]]).tolist()
        field.elements = _columns(_by_type(owners, flat), n)
        keys = [(row, key) for row, value in zip(*lists, strict=True) if (key := list_key(value)) is not None]
        if keys:
            field.lists = _bytes_column(Kind.LIST, [row for row, _ in keys], [key for _, key in keys], n)
    return field


def _by_type(rows: list[int], values: list[Any]) -> dict[type, _Cells]:
    types = list(map(type, values))
    distinct = set(types)
    if len(distinct) == 1:
        return {distinct.pop(): (rows, values)}
    out: dict[type, _Cells] = {kind: ([], []) for kind in distinct}
    for row, value, kind in zip(rows, values, types, strict=True):
        cell = out[kind]
        cell[0].append(row)
        cell[1].append(value)
    return out


def _columns(by_type: dict[type, _Cells], n: int) -> Columns:
    """Columns of scalar values. What has no kind (a dict, bytes) compares with nothing and is left out."""
    out: Columns = {}
    for kind_type, (rows, values) in by_type.items():
        kind = _KINDS.get(kind_type)
        if kind is Kind.STRING:
            out[kind] = _string_column(rows, values, n)
        elif kind is not None:
            column = _number_column(kind, rows, values, n)
            if len(column.rows):
                out[kind] = column
    return out


def _string_column(rows: list[int], values: list[str], n: int) -> Column:
    # Python orders strings by code point, which is the bytewise order of their UTF-8.
    keys = sorted(set(values))
    codes = np.fromiter(map({key: i for i, key in enumerate(keys)}.__getitem__, values), np.uint64, len(values))
    return Column.of(Kind.STRING, BytesKeys.of([key.encode() for key in keys]), _pairs(codes, rows), n)


def _bytes_column(kind: Kind, rows: list[int], values: list[bytes], n: int) -> Column:
    keys = sorted(set(values))
    codes = np.fromiter(map({key: i for i, key in enumerate(keys)}.__getitem__, values), np.uint64, len(values))
    return Column.of(kind, BytesKeys.of(keys), _pairs(codes, rows), n)


def _number_column(kind: Kind, rows: list[int], values: list[Any], n: int) -> Column:
    # Validation lets neither NaN nor larger integers in; such values would compare with nothing.
    if kind is Kind.DATETIME:
        values = [micros(value) for value in values]
    elif kind is Kind.INT and (min(values) < INT64_MIN or max(values) > INT64_MAX):
        rows = [row for row, value in zip(rows, values, strict=True) if INT64_MIN <= value <= INT64_MAX]
        values = [value for value in values if INT64_MIN <= value <= INT64_MAX]
    elif kind is Kind.FLOAT and any(map(math.isnan, values)):
        rows = [row for row, value in zip(rows, values, strict=True) if not math.isnan(value)]
        values = [value for value in values if not math.isnan(value)]
    keys, codes = np.unique(np.array(values, dtype=KEY_DTYPES[kind]), return_inverse=True)
    return Column.of(kind, keys, _pairs(codes.astype(np.uint64), rows), n)


def _pairs(codes: NDArray[np.uint64], rows: list[int]) -> NDArray[np.uint64]:
    # Distinct: a list may hold the same element twice.
    return sorted_pairs((codes << np.uint64(32)) | np.array(rows, dtype=np.uint64))
