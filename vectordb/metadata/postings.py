"""The metadata of a part turned around, from values to rows: immutable, in arrays that can be mapped from a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import Corruption, InvalidFilter
from vectordb.filter import MISSING, kind_of
from vectordb.metadata.bytes_keys import BytesKeys
from vectordb.metadata.columns import KEY_DTYPES, Column, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.types import FieldSpec

Columns = dict[Kind, Column]


class FieldPostings:
    """All that is known of one field path.

    Attributes:
        exists: uint32[k], rows that have the key, ascending; ``None`` where all rows do.
        nulls: uint32[k], rows whose value is null, ascending.
        scalars: Columns of the scalar values, by kind.
        elements: Columns of the elements of lists, by kind; a row once for each of its distinct elements.
        lists: Whole lists by :func:`~vectordb.metadata.columns.list_key`, or ``None`` where there are none.
    """

    __slots__ = ("elements", "exists", "lists", "nulls", "scalars", "verified")

    def __init__(self, exists: NDArray[np.uint32] | None, nulls: NDArray[np.uint32]) -> None:
        self.exists = exists
        self.nulls = nulls
        self.scalars: Columns = {}
        self.elements: Columns = {}
        self.lists: Column | None = None
        self.verified = True

    def columns(self) -> Iterator[Column]:
        """All columns."""
        yield from self.scalars.values()
        yield from self.elements.values()
        if self.lists is not None:
            yield self.lists

    @property
    def nbytes(self) -> int:
        arrays = self.nulls.nbytes + (0 if self.exists is None else self.exists.nbytes)
        return arrays + sum(column.nbytes for column in self.columns())


class Postings:
    """The postings of rows 0..n-1. Immutable, thread-safe.

    Made by :meth:`build`, :meth:`merge` or :meth:`open`; read by ``evaluate.py`` and ``estimate.py``.
    """

    __slots__ = ("_fields", "n", "path", "unindexed")

    def __init__(
        self, n: int, fields: dict[str, FieldPostings], unindexed: frozenset[str], path: Path | None = None
    ) -> None:
        self.n = n
        self.unindexed = unindexed
        self.path = path
        self._fields = fields

    @staticmethod
    def build(metadata: Sequence[bytes], fields: Mapping[str, FieldSpec] | None = None) -> Postings:
        """From encoded maps, one a row (empty bytes for no metadata). Leaves out fields with ``indexed=False``.

        Lets other threads run every 256 rows.

        Raises:
            Corruption: A map cannot be decoded; ``row`` says which.
        """
        from vectordb.metadata.build import build

        return build(metadata, fields)

    @staticmethod
    def merge(parts: Sequence[tuple[Postings, NDArray[np.int64]]]) -> Postings:
        """The kept rows of each part (distinct, in any order), renumbered one part after the other. No row loops."""
        from vectordb.metadata.merge import concatenated

        return concatenated(parts)

    @staticmethod
    def combine(parts: Sequence[tuple[Postings, NDArray[np.int64]]], n: int) -> Postings:
        """Postings over n rows in any order: for each part, the new number of each of its rows, or -1 to leave it out.

        Args:
            parts: Parts with int64[part.n]; no new number twice.
            n: Rows of the result; those that no part gives have no metadata.
        """
        from vectordb.metadata.merge import combined

        return combined(parts, n)

    @staticmethod
    def open(path: Path) -> Postings:
        """Maps a saved file. The caller has verified its checksum; its structure is checked here all the same.

        Raises:
            Corruption: Not a postings file, truncated, or inconsistent.
        """
        from vectordb.metadata.files import open_postings

        return open_postings(path)

    def save(self, path: Path) -> None:
        """Writes one file; the caller syncs and checksums it.

        Raises:
            OSError: The disk refused.
        """
        from vectordb.metadata.files import save_postings

        save_postings(self, path)

    @property
    def memory_bytes(self) -> int:
        """Bytes of all arrays, mapped ones included."""
        return sum(field.nbytes for field in self._fields.values())

    def paths(self) -> list[str]:
        """All field paths that some row has, sorted."""
        return sorted(self._fields)

    def fields(self) -> Iterator[tuple[str, FieldPostings]]:
        """All fields, verified."""
        for path in self._fields:
            field = self.field(path)
            assert field is not None
            yield path, field

    def field(self, path: str) -> FieldPostings | None:
        """What is known of a field; ``None`` where no row has it.

        Raises:
            InvalidFilter: The field is declared with ``indexed: false``.
            Corruption: The mapped arrays are inconsistent.
        """
        if self.unindexed:
            check_indexed(path, self.unindexed)
        field = self._fields.get(path)
        if field is not None and not field.verified:
            try:
                _verify(field, self.n)
            except (ValueError, IndexError) as error:
                raise Corruption(
                    f"postings of field {path!r} in {self.path} are damaged: {error}", path=str(self.path)
                ) from None
            field.verified = True
        return field

    def values(self, path: str, rows: NDArray[np.int64]) -> list[Any]:
        """The scalar values of a field at rows int64[k], as Python values; ``MISSING`` for none, null, list or dict.

        Raises:
            InvalidFilter: The field is declared with ``indexed: false``.
        """
        field = self.field(path)
        out = np.full(len(rows), MISSING, dtype=object)
        if field is None or len(rows) == 0:
            return out.tolist()
        for column in field.scalars.values():
            code_of_row = np.full(self.n, -1, dtype=np.int64)
            codes, owners = column.pairs()
            code_of_row[owners] = codes
            asked = code_of_row[rows]
            hits = np.flatnonzero(asked >= 0)
            used, inverse = np.unique(asked[hits], return_inverse=True)
            values = np.empty(len(used), dtype=object)
            values[:] = column.python_values(used)
            out[hits] = values[inverse]
        return out.tolist()

    def sort_keys(self, path: str, rows: NDArray[np.int64]) -> list[tuple[int, object] | None]:
        """:func:`sort_key` of the field at each of the rows int64[k].

        Raises:
            InvalidFilter: The field is declared with ``indexed: false``.
        """
        return list(map(sort_key, self.values(path, rows)))


def orderable(value: Any) -> Any:
    """The value where it is a scalar, by which records can be ordered, else ``MISSING``."""
    return MISSING if kind_of(value) is None else value


_RANKS = {"bool": 0, "number": 1, "datetime": 2, "string": 3}


def sort_key(value: Any) -> tuple[int, object] | None:
    """What ``order_by`` sorts a value by: the rank of its kind (bool, number, datetime, string) and the value.

    ``None`` where records cannot be ordered by it: missing, null, a list or a dict.
    """
    kind = kind_of(value)
    return None if kind is None else (_RANKS[kind], value)


def check_indexed(path: str, unindexed: frozenset[str]) -> None:
    """Refuses a path that is, or lies in, a field declared with ``indexed: false``.

    Raises:
        InvalidFilter: It is.
    """
    steps = path.split(".")
    for end in range(1, len(steps) + 1):
        field = ".".join(steps[:end])
        if field in unindexed:
            raise InvalidFilter(
                f"field {field!r} is declared with indexed: false, so no filter or order can use it; "
                "create the collection with indexed: true",
                field=path,
                path="field",
            )


def _verify(field: FieldPostings, n: int) -> None:
    """Checks mapped arrays, so that no row or key lies out of bounds.

    Raises:
        ValueError: Inconsistent.
    """
    for rows in (field.nulls, field.exists):
        if rows is not None and len(rows) and (int(rows[-1]) >= n or not (rows[1:] > rows[:-1]).all()):
            raise ValueError("rows out of order or out of range")
    for column in field.columns():
        keys = column.keys
        if isinstance(keys, BytesKeys):
            _verify_steps(keys.offsets, len(keys.blob))
        elif keys.dtype != np.dtype(KEY_DTYPES[column.kind]) or not (keys[1:] > keys[:-1]).all():
            raise ValueError("keys out of order")
        _verify_steps(column.ptr, len(column.rows))
        if len(column.rows) and int(column.rows.max()) >= n:
            raise ValueError("row out of range")


def _verify_steps(steps: NDArray[Any], end: int) -> None:
    if int(steps[0]) != 0 or int(steps[-1]) != end or not (steps[1:] >= steps[:-1]).all():
        raise ValueError("offsets out of order")
