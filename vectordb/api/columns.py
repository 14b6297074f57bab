"""From what users pass (lists, numpy, pandas, arrow, records) to :class:`vectordb.requests.Rows`.

Conversion only: ranges and contents are checked by the engine, where they are checked for every target.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.api.arrow import values_of
from vectordb.encoding import encode_metadata, refusal
from vectordb.errors import DimensionMismatch, InvalidArgument
from vectordb.ids import as_id, as_ids, generated_ids
from vectordb.requests import Rows
from vectordb.types import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.types import CollectionConfig

_ROWS = 1_000
_COLUMNS = (
    "one dict is one record with id, vector, metadata and text, and these are columns: give them as arguments, "
    "upsert(ids, vectors, metadata, texts), or one dict a record"
)
_RECORD_KEYS = frozenset({"id", "vector", "metadata", "text", "version"})


def rows_from(ids: Any, vectors: Any, metadata: Any, texts: Any, config: CollectionConfig) -> Rows:
    """The rows of one write call, from columns or from records.

    Args:
        ids: A column of ids, one id, ``None`` (ids are generated), or an iterable of ``Record``s or dicts (then the
            other arguments must be ``None``).
        vectors: Anything ``numpy.asarray`` turns into float32[n, dim], or arrow and pandas columns; ``None``, or
            ``None`` in a place, for rows without a vector.
        metadata: One map (or ``None``) a row; a pandas or arrow table gives one field a column.
        texts: One string (or ``None``) a row.

    Raises:
        InvalidArgument: A column has another length, or a value another type; field and row are named.
        DimensionMismatch: A vector has another length than the collection's dimension.
    """
    if vectors is None and metadata is None and texts is None:
        records = _as_records(ids)
        if records is not None:
            return rows_from_records(records, config)
        _refuse_vectors(ids)
    one = isinstance(ids, str) or (ids is not None and not hasattr(ids, "__iter__"))
    id_column = None if ids is None else [as_id(ids)] if one else as_ids(ids)
    if one:
        # A matrix is told how many rows it has, not that it is no vector.
        vectors = vectors if vectors is None or _is_matrix(vectors) else [vectors]
        metadata = [metadata] if isinstance(metadata, Mapping) else metadata
        texts = [texts] if isinstance(texts, str) else texts
    matrix, present = (None, None) if vectors is None else _matrix(vectors, config)
    encoded = None if metadata is None else _encoded(_as_maps(metadata))
    text_column = None if texts is None else _texts(texts)
    lengths = {
        "ids": None if id_column is None else len(id_column),
        "vectors": None if matrix is None else len(matrix),
        "metadata": None if encoded is None else len(encoded),
        "texts": None if text_column is None else len(text_column),
    }
    given = {name: n for name, n in lengths.items() if n is not None}
    if len(set(given.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in given.items())
        if one:
            told += f" ({ids!r:.40} is one id; several are a list)"
        raise InvalidArgument(f"columns of one write need the same length: {told}", field="vectors", **given)
    if id_column is None:
        if not given:
            raise InvalidArgument("nothing to write: give ids, vectors, metadata, texts or records", field="ids")
        id_column = generated_ids(next(iter(given.values())))
    return Rows(id_column, matrix, present, encoded, text_column)


def _refuse_vectors(ids: Any) -> None:
    """Vectors where ids should be: an easy slip, since both are the first thing that one thinks of."""
    first = ids[0] if isinstance(ids, list | tuple | np.ndarray) and getattr(ids, "ndim", True) and len(ids) else None
    if isinstance(first, list | tuple | np.ndarray | float | np.floating):
        raise InvalidArgument(
            "the first argument are ids, and these are vectors, which are the second: upsert(ids, vectors), or "
            "upsert(vectors=...) to have ids generated",
            field="ids",
        )


def rows_of_table(table: Any) -> Iterator[Any] | None:
    """The rows of a pandas or arrow table as dicts, some at a time; ``None`` where it is no table."""
    if hasattr(table, "to_pylist") and hasattr(table, "schema"):
        starts = range(0, len(table), _ROWS)
        return (row for start in starts for row in values_of(table.slice(start, _ROWS), "records"))
    if hasattr(table, "to_dict") and hasattr(table, "iloc") and hasattr(table, "columns"):
        starts = range(0, len(table), _ROWS)
        return (row for start in starts for row in table.iloc[start : start + _ROWS].to_dict("records"))
    return None


def _is_matrix(vectors: Any) -> bool:
    if hasattr(vectors, "ndim"):
        return bool(vectors.ndim == 2)
    return isinstance(vectors, list | tuple) and len(vectors) > 0 and isinstance(vectors[0], list | tuple | np.ndarray)


def _as_records(ids: Any) -> list[Record | Mapping[str, Any]] | None:
    """The argument as a list of records, or None where it is a column of ids."""
    if ids is None or isinstance(ids, str):
        return None
    if isinstance(ids, Mapping) and not {"ids", "vectors"}.isdisjoint(ids):
        raise InvalidArgument(_COLUMNS, field="ids")
    if isinstance(ids, (Record, Mapping)):
        return [ids]
    table = rows_of_table(ids)
    if table is not None:
        return list(table)
    # An arrow array is a column of ids.
    if not isinstance(ids, Iterable) or isinstance(ids, np.ndarray) or hasattr(ids, "to_pylist"):
        return None
    items = ids if isinstance(ids, Sequence) else list(ids)
    if len(items) and isinstance(items[0], (Record, Mapping)):
        return list(items)
    return None


def rows_from_records(records: Sequence[Any], config: CollectionConfig) -> Rows:
    """The rows of one write call, from records alone.

    Raises:
        InvalidArgument: One is neither a ``Record`` nor a dict, or has other keys or values; field and row are named.
        DimensionMismatch: A vector has another length than the collection's dimension.
    """
    ids: list[Any] = []
    columns: dict[str, list[Any]] = {"vector": [], "metadata": [], "text": []}
    for row, record in enumerate(records):
        if isinstance(record, Record):
            record = {"id": record.id, "vector": record.vector, "metadata": record.metadata, "text": record.text}
        elif not isinstance(record, Mapping):
            raise InvalidArgument(
                f"record in row {row} is {type(record).__name__}; a record is a Record or a dict with id, vector, "
                "metadata and text (columns of ids and vectors are what upsert takes)",
                field="records",
                row=row,
            )
        elif not record.keys() <= _RECORD_KEYS:
            unknown = sorted(map(str, record.keys() - _RECORD_KEYS))
            raise InvalidArgument(
                f"record in row {row} has unknown key {unknown[0]!r}; a record has id, vector, metadata and text "
                "(put further fields into metadata)",
                field=unknown[0],
                row=row,
            )
        ids.append(record.get("id"))
        if isinstance(ids[-1], list | tuple | np.ndarray):
            raise InvalidArgument(_COLUMNS, field="ids", row=row)
        for name, column in columns.items():
            column.append(record.get(name))
    missing = [row for row, value in enumerate(ids) if value is None]
    if missing:
        for row, text in zip(missing, generated_ids(len(missing)), strict=True):
            ids[row] = text
    given = {name: column for name, column in columns.items() if any(v is not None for v in column)}
    matrix, present = _matrix(given["vector"], config) if "vector" in given else (None, None)
    return Rows(
        as_ids(ids),
        matrix,
        present,
        _encoded(given["metadata"]) if "metadata" in given else None,
        _texts(given["text"]) if "text" in given else None,
    )


def query_matrix(vectors: Any, config: CollectionConfig, *, single: bool) -> NDArray[np.float32]:
    """Queries as float32[q, dim]: ``single`` takes one vector (float32[dim]), else a matrix.

    Raises:
        DimensionMismatch, InvalidArgument: As for writes.
    """
    if single:
        if type(vectors) is np.ndarray and vectors.dtype == np.float32 and vectors.shape == (config.dim,):
            return np.ascontiguousarray(vectors).reshape(1, -1)
        vector = _as_float32(vectors, "vector")
        if vector.ndim == 2 and len(vector) == 1:
            vector = vector[0]
        if vector.ndim != 1:
            raise InvalidArgument(
                f"a query is one vector of {config.dim} numbers, got shape {vector.shape}; "
                "use search_batch for several",
                field="vector",
            )
        if vector.shape[0] != config.dim:
            raise DimensionMismatch(
                f"collection {config.name!r} has dim {config.dim}, got {vector.shape[0]} in the query",
                collection=config.name,
                expected=config.dim,
                got=vector.shape[0],
                row=0,
            )
        return vector.reshape(1, -1)
    matrix, present = _matrix(vectors, config)
    if present is not None:
        row = int(np.argmin(present))
        raise InvalidArgument(f"query in row {row} is None; a query needs a vector", field="vectors", row=row)
    return matrix


def _as_float32(values: Any, field: str) -> NDArray[np.float32]:
    try:
        # Beyond float32 becomes infinite here and is refused by name in the engine.
        with np.errstate(over="ignore"):
            array = np.asarray(values)
            if array.dtype.kind not in "fiub" or array.dtype.kind == "b":
                raise ValueError(f"numbers expected, got dtype {array.dtype}")
            return np.ascontiguousarray(array, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"{field} cannot be read as float32: {error}", field=field) from None


def _matrix(values: Any, config: CollectionConfig) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """float32[n, dim] and, where some rows have no vector, bool[n] of those that have one."""
    if hasattr(values, "combine_chunks"):  # arrow ChunkedArray
        values = values.combine_chunks()
    if hasattr(values, "flatten") and hasattr(values, "null_count"):  # arrow (fixed size) list array
        if values.null_count == 0:
            lengths = np.asarray(values.value_lengths())
            if len(lengths) and (lengths == config.dim).all():
                return _as_float32(values.flatten().to_numpy(zero_copy_only=False), "vectors").reshape(
                    -1, config.dim
                ), None
        values = values.to_pylist()
    elif hasattr(values, "to_numpy"):  # pandas Series of arrays, or DataFrame of numbers
        values = values.to_numpy()
    if isinstance(values, np.ndarray) and values.dtype != object:
        matrix = _as_float32(values, "vectors")
        if matrix.ndim == 2 and matrix.shape[1] == config.dim:
            return matrix, None
        if matrix.ndim == 2:
            raise _wrong_dim(config, matrix.shape[1], 0)
        raise InvalidArgument(
            f"vectors need shape (n, {config.dim}), got {matrix.shape}", field="vectors", expected=config.dim
        )
    rows = _listed(values, "vectors", f"vectors of {config.dim} numbers")
    if _all_alike(rows, config.dim):
        return _as_float32(np.concatenate(rows).reshape(len(rows), config.dim), "vectors"), None
    return _matrix_from_rows(rows, config)


def _all_alike(rows: list[Any], dim: int) -> bool:
    """Whether the rows are arrays of that dimension and of one type of numbers, which numpy joins at once."""
    if set(map(type, rows)) != {np.ndarray} or rows[0].dtype.kind not in "fiu":
        return False
    return {row.shape for row in rows} == {(dim,)} and len({row.dtype for row in rows}) == 1


def _matrix_from_rows(
    rows: list[Any], config: CollectionConfig
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    present = np.ones(len(rows), np.bool_)
    for row, value in enumerate(rows):
        if value is None or (isinstance(value, float) and value != value):  # pandas writes a missing vector as NaN
            present[row] = False
        elif not hasattr(value, "__len__"):
            raise InvalidArgument(
                f"vector in row {row} is {type(value).__name__}; a vector is {config.dim} numbers",
                field="vectors",
                row=row,
            )
        elif len(value) != config.dim:
            raise _wrong_dim(config, len(value), row)
    if present.all():
        return _joined(rows, range(len(rows)), config), None
    matrix = np.zeros((len(rows), config.dim), np.float32)
    matrix[present] = _joined(rows, np.flatnonzero(present).tolist(), config)
    return matrix, present


def _joined(rows: list[Any], places: Sequence[int], config: CollectionConfig) -> NDArray[np.float32]:
    """The rows at those places as one matrix, joined by numpy at once; only where it cannot, one by one."""
    if not places:
        return np.empty((0, config.dim), np.float32)
    with contextlib.suppress(InvalidArgument):
        matrix = _as_float32([rows[row] for row in places], "vectors")
        if matrix.shape == (len(places), config.dim):
            return matrix
    return np.stack([_vector(rows[row], row, config) for row in places])


def _vector(value: Any, row: int, config: CollectionConfig) -> NDArray[np.float32]:
    with contextlib.suppress(InvalidArgument):
        vector = _as_float32(value, "vectors")
        if vector.shape == (config.dim,):
            return vector
    raise InvalidArgument(
        f"vector in row {row} cannot be read as float32; a vector is {config.dim} numbers", field="vectors", row=row
    )


def _wrong_dim(config: CollectionConfig, got: int, row: int) -> DimensionMismatch:
    return DimensionMismatch(
        f"collection {config.name!r} has dim {config.dim}, got {got} in row {row}",
        collection=config.name,
        expected=config.dim,
        got=got,
        row=row,
    )


def _as_maps(metadata: Any) -> list[Any]:
    if hasattr(metadata, "column_names") and hasattr(metadata, "to_pylist"):  # arrow table
        return values_of(metadata, "metadata")
    if hasattr(metadata, "to_dict") and hasattr(metadata, "columns"):  # pandas DataFrame, NaN meaning missing
        return [{k: v for k, v in row.items() if not _missing(v)} for row in metadata.to_dict("records")]
    if hasattr(metadata, "to_pylist"):
        return values_of(metadata, "metadata")
    if isinstance(metadata, Mapping):
        raise InvalidArgument("metadata is one map a row: give a list of dicts", field="metadata")
    return _listed(metadata, "metadata", "dicts, one a row")


def _missing(value: Any) -> bool:
    """Whether pandas means by it that there is nothing: NaN, NaT. An array would be compared by its elements."""
    return not isinstance(value, np.ndarray) and bool(value != value)


def _listed(values: Any, field: str, what: str) -> list[Any]:
    if isinstance(values, Iterable) and not isinstance(values, str | bytes):
        return list(values)
    raise InvalidArgument(f"{field} is a list of {what}, got {values!r:.60}", field=field)


def encoded(metadata: Any, row: int = 0) -> bytes:
    """One metadata map as bytes.

    Raises:
        InvalidArgument: Not a map, or a value that has no stored form; the row is named.
    """
    if metadata is None or (isinstance(metadata, float) and metadata != metadata):  # pandas' missing one is NaN
        return b""
    if not isinstance(metadata, Mapping):
        raise InvalidArgument(
            f"metadata in row {row} is {type(metadata).__name__}; it is a dict of field names to values",
            field="metadata",
            row=row,
        )
    try:
        return encode_metadata(metadata if type(metadata) is dict else dict(metadata))
    except (TypeError, ValueError) as error:
        culprit, why = _unstorable(metadata)
        where = "metadata" if culprit is None else f"metadata field {culprit!r}"
        raise InvalidArgument(
            f"{where} in row {row} cannot be stored: {why or error}; "
            "use str, int, float, bool, datetime, None, lists of them, or dicts",
            field="metadata",
            row=row,
        ) from None


def _unstorable(metadata: Mapping[Any, Any]) -> tuple[str | None, str | None]:
    """The path of the innermost field that has no stored form by itself, None where it is not one field's fault; and
    why, where there is more to say than its type."""
    for key, value in metadata.items():
        try:
            encode_metadata({key: value})
        except (TypeError, ValueError):
            if not isinstance(key, str):
                return None, None
            try:
                inner, why = _unstorable(value) if isinstance(value, Mapping) else (None, refusal(value))
            except RecursionError:
                return key, None
            return (key if inner is None else f"{key}.{inner}"), why
    return None, None


def _encoded(maps: list[Any]) -> list[bytes]:
    return [encoded(value, row) for row, value in enumerate(maps)]


def _texts(values: Any) -> list[str | None]:
    if hasattr(values, "to_pylist"):
        values = values.to_pylist()
    texts: list[str | None] = []
    for row, value in enumerate(_listed(values, "texts", "strings, one a row")):
        if isinstance(value, str):
            texts.append(value)
        elif value is None or (isinstance(value, float) and value != value):
            texts.append(None)
        else:
            raise InvalidArgument(f"text in row {row} is {type(value).__name__}, not str", field="texts", row=row)
    return texts
