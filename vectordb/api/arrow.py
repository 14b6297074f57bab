"""Values of arrow's arrays and tables as Python's, also those that arrow alone has no form for."""

from __future__ import annotations

from collections.abc import Iterator
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
        except (ValueError, OverflowError, NotImplementedError, ImportError):
            fix = "; datetimes are of the years 1 to 9999" if isinstance(error, OverflowError) else ""
            raise InvalidArgument(f"{field} cannot be read from arrow: {error}{fix}", field=field) from None


def rows_of_column(column: Any) -> Iterator[Any] | None:
    """The values of an arrow column, some at a time, or the rows of a pandas frame of numbers; ``None`` of all else.

    What iterating these gives, arrow's scalars and the names of the frame's columns, are no vectors.
    """
    if hasattr(column, "to_pylist") and hasattr(column, "slice"):
        starts = range(0, len(column), _ROWS)
        return (value for start in starts for value in values_of(column.slice(start, _ROWS), "vectors"))
    if hasattr(column, "to_numpy") and hasattr(column, "columns"):
        return (row for row in column.to_numpy())
    return None


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
