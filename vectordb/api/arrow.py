"""Values of arrow's and pandas' columns and tables as Python's, also those that arrow alone has no form for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from vectordb.errors import InvalidArgument

_ROWS = 1_000


def values_of(column: Any, field: str) -> list[Any]:
    """As ``column.to_pylist()``; instants finer than microseconds are cut to these, as numpy's are.

    Raises:
        InvalidArgument: A value has no form in Python, such as an instant outside the years 1 to 9999.
    """
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError) as error:  # arrow's own errors are ValueErrors
        try:
            return _coarser(column).to_pylist()  # type: ignore[no-any-return]
        # What arrow cannot cast; and pyarrow need not be there, since other libraries have such columns too.
        except (ValueError, OverflowError, NotImplementedError, ImportError):
            fix = "; datetimes are of the years 1 to 9999" if isinstance(error, OverflowError) else ""
            raise InvalidArgument(f"{field} cannot be read from arrow: {error}{fix}", field=field) from None


def rows_of_column(vectors: Any) -> Iterator[Any] | None:
    """The vectors of an arrow or pandas column or frame, some at a time; ``None`` where it is neither.

    What iterating these gives, arrow's scalars and the names of a frame's columns, are no vectors.
    """
    if hasattr(vectors, "combine_chunks") and hasattr(vectors, "chunks"):  # arrow ChunkedArray
        return chain.from_iterable(map(_rows_of_array, vectors.chunks))
    if hasattr(vectors, "to_pylist") and hasattr(vectors, "null_count"):  # arrow array
        return _rows_of_array(vectors)
    if hasattr(vectors, "to_numpy"):  # pandas Series of arrays, or DataFrame of numbers
        rows: Iterator[Any] = iter(vectors.to_numpy())
        return rows
    return None


def _rows_of_array(array: Any) -> Iterator[Any]:
    for start in range(0, len(array), _ROWS):
        yield from array.slice(start, _ROWS).to_numpy(zero_copy_only=False)


def _coarser(column: Any) -> Any:
    """The column, or table, with microseconds for nanoseconds: without pandas arrow has no Python value for these."""
    import pyarrow

    def coarser(kind: Any) -> Any:
        types = pyarrow.types
        if types.is_timestamp(kind) and kind.unit == "ns":
            return pyarrow.timestamp("us", kind.tz)
        if types.is_time64(kind) and kind.unit == "ns":
            return pyarrow.time64("us")
        if types.is_large_list(kind):
            return pyarrow.large_list(coarser(kind.value_type))
        if types.is_list(kind):
            return pyarrow.list_(coarser(kind.value_type))
        if types.is_struct(kind):
            return pyarrow.struct([inner.with_type(coarser(inner.type)) for inner in kind])
        return kind

    if hasattr(column, "schema"):
        columns = [_coarser(part) for part in column.columns]
        return pyarrow.Table.from_arrays(columns, names=column.schema.names)
    return column.cast(coarser(column.type), safe=False)
