"""Postings of several parts as one, by whole-array operations: sealing, merging, folding overlays in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectordb.metadata import bytes_keys
from vectordb.metadata.bytes_keys import BytesKeys
from vectordb.metadata.columns import Column, Kind
from vectordb.metadata.postings import Columns, FieldPostings, Postings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.metadata.columns import Keys

    Renumbered = tuple[Postings, NDArray[np.int64]]
    """A part, and for each of its rows the new number or -1."""


def concatenated(parts: Sequence[tuple[Postings, NDArray[np.int64]]]) -> Postings:
    """See :meth:`Postings.merge`."""
    renumbered = []
    n = 0
    for part, kept in parts:
        renumbered.append((part, renumbering(part.n, kept, np.arange(n, n + len(kept)))))
        n += len(kept)
    return combined(renumbered, n)


def renumbering(n: int, old: NDArray[np.int64], new: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[n] with ``new[i]`` at ``old[i]`` and -1 elsewhere."""
    numbers = np.full(n, -1, dtype=np.int64)
    numbers[old] = new
    return numbers


def combined(parts: Sequence[Renumbered], n: int) -> Postings:
    """Postings over n rows, each new row taken from at most one row of one part; the others have no metadata."""
    unindexed = frozenset[str]().union(*(part.unindexed for part, _ in parts))
    paths = sorted({path for part, _ in parts for path in part.paths()} - unindexed)
    fields = {}
    for path in paths:
        there = [(field, numbers) for part, numbers in parts if (field := part.field(path)) is not None]
        merged = _merged_field(there, n)
        if merged is not None:
            fields[path] = merged
    return Postings(n, fields, unindexed)


def _merged_field(parts: list[tuple[FieldPostings, NDArray[np.int64]]], n: int) -> FieldPostings | None:
    exists = _moved([(field.exists, numbers) for field, numbers in parts])
    if len(exists) == 0:
        return None
    out = FieldPostings(None if len(exists) == n else exists, _moved([(f.nulls, numbers) for f, numbers in parts]))
    out.scalars = _merged_columns([(field.scalars, numbers) for field, numbers in parts], n)
    out.elements = _merged_columns([(field.elements, numbers) for field, numbers in parts], n)
    lists = [(field.lists, numbers) for field, numbers in parts if field.lists is not None]
    if lists:
        out.lists = _merged_column(lists, n)
    return out


def _moved(parts: list[tuple[NDArray[np.uint32] | None, NDArray[np.int64]]]) -> NDArray[np.uint32]:
    moved = np.concatenate([numbers if rows is None else numbers[rows] for rows, numbers in parts])
    return np.sort(moved[moved >= 0]).astype(np.uint32)


def _merged_columns(parts: list[tuple[Columns, NDArray[np.int64]]], n: int) -> Columns:
    out: Columns = {}
    for kind in Kind:
        there = [(columns[kind], numbers) for columns, numbers in parts if kind in columns]
        merged = _merged_column(there, n) if there else None
        if merged is not None:
            out[kind] = merged
    return out


def _merged_column(parts: list[tuple[Column, NDArray[np.int64]]], n: int) -> Column | None:
    keys, codes = _union([column.keys for column, _ in parts])
    pairs = []
    start = 0
    for column, numbers in parts:
        own_codes, rows = column.pairs()
        moved = numbers[rows]
        new_codes = codes[start : start + len(column.keys)][own_codes]
        pairs.append(((new_codes << 32) | moved)[moved >= 0])
        start += len(column.keys)
    joined = np.concatenate(pairs).astype(np.uint64)
    if len(joined) == 0:
        return None
    joined.sort()
    used = np.flatnonzero(np.bincount((joined >> np.uint64(32)).astype(np.int64), minlength=len(keys)))
    if len(used) < len(keys):
        renumbered = renumbering(len(keys), used, np.arange(len(used))).astype(np.uint64)
        joined = (renumbered[(joined >> np.uint64(32)).astype(np.int64)] << np.uint64(32)) | (
            joined & np.uint64(0xFFFF_FFFF)
        )
        keys = bytes_keys.kept(keys, used) if isinstance(keys, BytesKeys) else keys[used]
    return Column.of(parts[0][0].kind, keys, joined, n)


def _union(parts: list[Keys]) -> tuple[Keys, NDArray[np.int64]]:
    """The union of sorted keys, and the index in it of each key of each part, one part after the other."""
    strings = [keys for keys in parts if isinstance(keys, BytesKeys)]
    if strings:
        return bytes_keys.merged(strings)
    union, codes = np.unique(
        np.concatenate([keys for keys in parts if not isinstance(keys, BytesKeys)]), return_inverse=True
    )
    return union, codes.astype(np.int64)
