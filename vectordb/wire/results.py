"""Answers as messages and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import Any

import numpy as np
from vectordb_proto.v1 import service_pb2, types_pb2

from vectordb.encoding import decode_metadata, encode_metadata
from vectordb.errors import Internal
from vectordb.requests import Rows
from vectordb.types import Hit, Record, SearchResult, WriteResult
from vectordb.wire.columns import bitmap_to_bytes, rows_from_message, texts_to_message, vectors_to_bytes
from vectordb.wire.stats import plan_from_message, plan_to_message

_NIL = b"\xc0"


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


def records_to_message(records: Sequence[Record], message: types_pb2.Records) -> None:
    """Writes records by column."""
    _columns_to_message(records, message.rows)
    message.versions.extend([record.version for record in records])


def records_from_message(message: types_pb2.Records) -> list[Record]:
    """The records of a message, with what was asked for."""
    ids, columns = _columns_from_message(message.rows)
    names = ("vector", "metadata", "text", "version")
    return list(starmap(Record, _rows(ids, (*columns, list(message.versions)), names)))


def search_response_to_message(results: Sequence[SearchResult]) -> service_pb2.SearchResponse:
    """The answers to all queries of a request. Plans that are one object are sent once."""
    message = service_pb2.SearchResponse()
    numbers: dict[int, int] = {}
    for result in results:
        # Positional constructors are the quickest way to fill a message.
        entry = message.results.add(
            scores=[hit.score for hit in result],
            complete=result.complete,
            incomplete_reason=result.incomplete_reason,
            searched_fraction=result.searched_fraction,
            took_ms=result.took_ms,
        )
        _columns_to_message(result, entry.hits)
        number = numbers.get(id(result.plan))
        if number is None:
            number = numbers[id(result.plan)] = len(message.plans)
            plan_to_message(result.plan, message.plans.add())
        entry.plan = number
    return message


def search_response_from_message(message: service_pb2.SearchResponse) -> list[SearchResult]:
    """One result a query.

    Raises:
        Internal: The answer is not well formed.
    """
    plans = [plan_from_message(plan) for plan in message.plans]
    results = []
    for entry in message.results:
        if entry.plan >= len(plans) or entry.complete == entry.HasField("incomplete_reason"):
            raise Internal("the server's answer to a search is not well formed; are both of one release?")
        ids, (vectors, metadata, texts) = _columns_from_message(entry.hits)
        columns = (list(entry.scores), metadata, texts, vectors)
        hits = list(map(Hit._make, _rows(ids, columns, ("score", "metadata", "text", "vector"))))
        reason = entry.incomplete_reason if entry.HasField("incomplete_reason") else None
        results.append(SearchResult(hits, plans[entry.plan], entry.took_ms, reason, entry.searched_fraction))
    return results


def _columns_to_message(rows: Sequence[Any], message: types_pb2.Rows) -> None:
    """Writes ids, metadata, texts and vectors of records or hits; columns that no row has are left out."""
    message.ids.extend([row.id for row in rows])
    if any(row.metadata is not None for row in rows):
        message.metadata.extend([_NIL if row.metadata is None else encode_metadata(row.metadata) for row in rows])
    if any(row.text is not None for row in rows):
        texts_to_message([row.text for row in rows], message)
    present = [row.vector is not None for row in rows]
    if any(present):
        given = [row.vector for row in rows if row.vector is not None]
        matrix = np.zeros((len(rows), len(given[0])), np.float32)
        matrix[present] = given
        message.dim = matrix.shape[1]
        message.vectors = vectors_to_bytes(matrix)
        message.has_vector = bitmap_to_bytes(present)


def _columns_from_message(message: types_pb2.Rows) -> tuple[list[str], tuple[Any, Any, Any]]:
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


def _rows(ids: list[str], columns: Sequence[Sequence[Any] | None], names: Sequence[str]) -> Any:
    """The rows of columns as tuples, ``None`` for a missing column.

    Raises:
        Internal: A column has another length than ``ids``.
    """
    for name, column in zip(names, columns, strict=True):
        if column is not None and len(column) != len(ids):
            raise Internal(f"the server's answer has {len(column)} of {name} for {len(ids)} ids")
    return zip(ids, *[[None] * len(ids) if column is None else column for column in columns], strict=True)
