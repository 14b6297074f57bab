"""Columns of rows: vectors as little-endian float32 bytes, bitmaps of presence, metadata and texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectordb.errors import InvalidArgument
from vectordb.requests import Rows
from vectordb_proto.v1 import types_pb2

_FLOATS = np.dtype("<f4")
LITTLE = sys.byteorder == "little"
MAX_DIM = (1 << 32) - 1
Parts = tuple[bytes | memoryview, ...]
"""A serialized message, piece by piece: vectors lie where the caller has them until they are sent."""


def vectors_to_bytes(vectors: NDArray[np.float32]) -> bytes:
    """float32[n, d] as the wire has it: row after row, little-endian."""
    return np.ascontiguousarray(vectors, _FLOATS).tobytes()


def bytes_of_vectors(vectors: NDArray[np.float32]) -> memoryview:
    """The same of at least one row and column, in place where they lie so in memory."""
    return np.ascontiguousarray(vectors, _FLOATS).data.cast("B")


def vectors_from_bytes(data: bytes | memoryview, dim: int, field: str, rows: int | None = None) -> NDArray[np.float32]:
    """A read-only float32[n, dim] over ``data``, without a copy where floats can lie so in this machine's memory.

    Args:
        rows: How many rows there must be; ``None`` for any number.

    Raises:
        InvalidArgument: The bytes are not that many floats.
    """
    size = len(data)
    if rows is None:
        if size % (4 * dim) if dim else size:
            raise InvalidArgument(
                f"{field} has {size} bytes, which is no multiple of 4 * dim = {4 * dim}", field=field, got=size, dim=dim
            )
        rows = size // (4 * dim) if dim else 0
    elif size != 4 * dim * rows:
        raise InvalidArgument(
            f"{field} has {size} bytes; {rows} rows of dim {dim} have {4 * dim * rows}",
            field=field,
            got=size,
            expected=4 * dim * rows,
        )
    array = np.frombuffer(data, _FLOATS).reshape(rows, dim)
    return array if LITTLE and array.flags.aligned else array.astype(np.float32)


def bitmap_to_bytes(present: NDArray[np.bool_] | Sequence[bool]) -> bytes:
    """bool[n] as a bitmap; no bytes where all are true."""
    flags = np.asarray(present, np.bool_)
    return b"" if flags.all() else np.packbits(flags, bitorder="little").tobytes()


def bitmap_from_bytes(data: bytes, rows: int, field: str) -> NDArray[np.bool_] | None:
    """The bitmap as bool[rows]; ``None`` where no bytes say that all are true.

    Raises:
        InvalidArgument: It has another length than ``rows`` need.
    """
    if not data:
        return None
    if len(data) != (rows + 7) // 8:
        raise InvalidArgument(
            f"{field} has {len(data)} bytes; a bitmap of {rows} rows has {(rows + 7) // 8}",
            field=field,
            got=len(data),
            expected=(rows + 7) // 8,
        )
    return np.unpackbits(np.frombuffer(data, np.uint8), count=rows, bitorder="little").view(np.bool_)


def texts_to_message(texts: Sequence[str | None], message: types_pb2.Rows) -> None:
    """Writes the texts; nothing at all where no row has one."""
    if None not in texts:
        message.texts.extend(texts)
        return
    present = [text is not None for text in texts]
    if any(present):
        message.texts.extend("" if text is None else text for text in texts)
        message.has_text = bitmap_to_bytes(present)


def texts_from_message(message: types_pb2.Rows, rows: int, field: str) -> list[str | None] | None:
    """One text or ``None`` a row; ``None`` where no row has one.

    Raises:
        InvalidArgument: Their number is not that of the rows.
    """
    if not message.texts:
        if message.has_text:
            raise InvalidArgument(f"{field}.has_text is set, but {field}.texts is empty", field=f"{field}.has_text")
        return None
    texts: list[str | None] = list(message.texts)
    check_length(len(texts), rows, f"{field}.texts")
    present = bitmap_from_bytes(message.has_text, rows, f"{field}.has_text")
    if present is not None:
        for row in np.flatnonzero(~present).tolist():
            texts[row] = None
    return texts


def check_length(got: int, rows: int, field: str) -> None:
    """Raises:
    InvalidArgument: A column has another length than ``ids``.
    """
    if got != rows:
        raise InvalidArgument(f"{field} has {got} entries, but there are {rows} ids", field=field, got=got, rows=rows)


def rows_to_message(rows: Rows, message: types_pb2.Rows) -> None:
    """Writes rows into a message.

    Raises:
        InvalidArgument: Something is no column of rows (an id that is no text, vectors that are no matrix).
    """
    message.ids.extend(checked_strings(rows.ids, "ids"))
    if rows.vectors is not None:
        if rows.vectors.ndim != 2 or not 0 <= rows.vectors.shape[1] <= MAX_DIM:
            raise InvalidArgument(f"vectors is float32[n, dim], got shape {rows.vectors.shape}", field="vectors")
        message.dim = rows.vectors.shape[1]
        message.vectors = vectors_to_bytes(rows.vectors)
        if rows.has_vector is not None:
            message.has_vector = bitmap_to_bytes(rows.has_vector)
    if rows.metadata is not None:
        message.metadata.extend(rows.metadata)
    if rows.texts is not None:
        texts_to_message(checked_strings(rows.texts, "texts"), message)


def rows_from_message(message: types_pb2.Rows, field: str = "rows", data: bytes | memoryview = b"") -> Rows:
    """The rows of a message. Vectors are read-only views of its bytes.

    Args:
        data: The vectors' bytes where the message is without them.

    Raises:
        InvalidArgument: A column has the wrong size; the field is named.
    """
    ids = list(message.ids)
    n = len(ids)
    vectors = has_vector = None
    data = data or message.vectors
    if data or message.dim:
        vectors = vectors_from_bytes(data, message.dim, f"{field}.vectors", n)
        has_vector = bitmap_from_bytes(message.has_vector, n, f"{field}.has_vector")
    elif message.has_vector:
        raise InvalidArgument(f"{field}.has_vector is set, but {field}.vectors is empty", field=f"{field}.has_vector")
    metadata = None
    if message.metadata:
        metadata = list(message.metadata)
        check_length(len(metadata), n, f"{field}.metadata")
    return Rows(ids, vectors, has_vector, metadata, texts_from_message(message, n, field))


def checked_strings(values: Sequence[Any], field: str) -> Sequence[Any]:
    """The values, all text that UTF-8 can hold (``None`` passes).

    Raises:
        InvalidArgument: One is not; it is named by its row.
    """
    try:
        "".join(value for value in values if value is not None).encode()
    except (TypeError, UnicodeEncodeError):
        for row, value in enumerate(values):
            if value is not None and not _is_utf8(value):
                raise InvalidArgument(
                    f"{field} in row {row} is no text in UTF-8: {value!r:.60}", field=field, row=row
                ) from None
    return values


def _is_utf8(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False
