"""Answers as messages and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from vectordb.encoding import decode_metadata, encode_metadata
from vectordb.errors import Internal
from vectordb.requests import Rows
from vectordb.types import Metadata, Record, WriteResult
from vectordb.wire.columns import bitmap_to_bytes, rows_from_message, texts_to_message, vectors_to_bytes
from vectordb_proto.v1 import service_pb2, types_pb2

_NIL = b"\xc0"
_NONE = {type(None)}


def write_result_to_message(
    result: WriteResult, given: Sequence[str], message: service_pb2.WriteResult
) -> service_pb2.WriteResult:
    """Writes what a write did; its ids only where they are not those that the request gave."""
    message.count = result.count
    message.version = result.version
    if result.ids != given:
        message.ids.extend(result.ids)
    return message


def write_result_from_message(message: service_pb2.WriteResult, given: list[str]) -> WriteResult:
    """What a write did. ``given``: the ids of the request."""
    return WriteResult(message.count, message.version, list(message.ids) or given)


def write_result_from_bytes(data: bytes, given: list[str]) -> WriteResult:
    """The same of a serialized ``WriteResponse``.

    Raises:
        Internal: It is none.
    """
    try:
        message = service_pb2.WriteResponse.FromString(data)
    except DecodeError:
        raise Internal("the server's answer to a write is not well formed; are both of one release?") from None
    return write_result_from_message(message.result, given)


def records_to_message(records: Sequence[Record], message: types_pb2.Records) -> None:
    """Writes records by column."""
    if not records:
        return
    rows = [(r.id, r.vector, r.metadata, r.text, r.version) for r in records]
    ids, vectors, metadata, texts, versions = zip(*rows, strict=True)
    columns_to_message(message.rows, ids, vectors, metadata, texts)
    message.versions.extend(versions)


def records_from_message(message: types_pb2.Records) -> list[Record]:
    """The records of a message, with what was asked for."""
    ids, columns = columns_from_message(message.rows)
    names = ("vector", "metadata", "text", "version")
    return list(starmap(Record, rows_of(ids, (*columns, list(message.versions)), names)))


def columns_to_message(
    message: types_pb2.Rows,
    ids: Sequence[str],
    vectors: Sequence[NDArray[np.float32] | None] | None,
    metadata: Sequence[Metadata | bytes | None] | None,
    texts: Sequence[str | None] | None,
) -> None:
    """Writes the columns of records or hits, at least one; those that no row has are left out."""
    message.ids.extend(ids)
    if metadata is not None and not _is_empty(metadata):
        message.metadata.extend(map(_encoded, metadata))
    if texts is not None and not _is_empty(texts):
        texts_to_message(texts, message)
    if vectors is not None and not _is_empty(vectors):
        present = [vector is not None for vector in vectors]
        given = [vector for vector in vectors if vector is not None]
        matrix = np.zeros((len(ids), len(given[0])), np.float32)
        matrix[present] = given
        message.dim = matrix.shape[1]
        message.vectors = vectors_to_bytes(matrix)
        message.has_vector = bitmap_to_bytes(present)


def _encoded(metadata: Metadata | bytes | None) -> bytes:
    """One row's metadata; what the engine gave as bytes passes (``GetRequest.encoded``)."""
    if isinstance(metadata, bytes):
        return metadata
    return _NIL if metadata is None else encode_metadata(metadata)


def _is_empty(column: Sequence[Any]) -> bool:
    # The first row nearly always tells. By type: comparing arrays with None compares their elements.
    return column[0] is None and set(map(type, column)) == _NONE


def columns_from_message(message: types_pb2.Rows) -> tuple[list[str], tuple[Any, Any, Any]]:
    """Ids, and the columns of vectors, metadata and texts, ``None`` where they were not asked for."""
    rows: Rows = rows_from_message(message)
    vectors: list[Any] | None = None
    if rows.vectors is not None:
        # Each row its own array, so that a kept hit does not keep the whole answer.
        vectors = [row.copy() for row in rows.vectors]
        if rows.has_vector is not None:
            for row in np.flatnonzero(~rows.has_vector).tolist():
                vectors[row] = None
    metadata = None if rows.metadata is None else [decode_metadata(data) for data in rows.metadata]
    return rows.ids, (vectors, metadata, rows.texts)


def rows_of(ids: list[str], columns: Sequence[Sequence[Any] | None], names: Sequence[str]) -> Any:
    """The rows of columns as tuples, ``None`` for a missing column.

    Raises:
        Internal: A column has another length than ``ids``.
    """
    check_lengths(ids, columns, names)
    return zip(ids, *[[None] * len(ids) if column is None else column for column in columns], strict=True)


def check_lengths(ids: Sequence[str], columns: Sequence[Sequence[Any] | None], names: Sequence[str]) -> None:
    """Checks that the columns of an answer are as long as its ids.

    Raises:
        Internal: One of them is not.
    """
    for name, column in zip(names, columns, strict=True):
        if column is not None and len(column) != len(ids):
            raise Internal(f"the server's answer has {len(column)} of {name} for {len(ids)} ids")
