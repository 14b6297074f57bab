"""Calls that take or give more than is held at a time: records written in batches, scans read page by page."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Generator, Iterable, Iterator, Sized
from typing import Any

from vectordb.api import build
from vectordb.api.columns import rows_of_table
from vectordb.arguments import whole
from vectordb.errors import InvalidArgument, VectorDBError
from vectordb.requests import Backend, WriteRequest
from vectordb.types import CollectionConfig, Record, WriteResult

_ROW_NUMBERS = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\brows? (?P<row>\d+)(?: and \d+)?\b""")
"""The rows that a message names, and what is quoted, which may be anything and is no row."""


def bulk_upsert(
    backend: Backend, config: CollectionConfig, records: Iterable[Any], batch_size: int, progress: bool
) -> WriteResult:
    """As ``Collection.bulk_upsert``."""
    from tqdm import tqdm

    batch_size = checked_batch_size(batch_size)
    source = iterator_of(records)
    total = len(records) if isinstance(records, Sized) else None
    count, version, ids = 0, 0, []
    with tqdm(total=total, unit="row", disable=not progress) as bar:
        for result in _written(backend, config.name, _requests(config, source, batch_size)):
            count, version = count + result.count, result.version
            ids.extend(result.ids)
            bar.update(result.count)
    return WriteResult(count, version, ids)


def iterator_of(records: Any) -> Iterator[Any]:
    """Records one by one, of a table its rows.

    Raises:
        InvalidArgument: They cannot be iterated: a number, or one ``Record`` instead of a list.
    """
    table = rows_of_table(records)
    if table is not None:
        return table
    try:
        return iter(records)
    except TypeError:
        raise InvalidArgument(
            f"records is {type(records).__name__}; give an iterable of Record or dict, or a table", field="records"
        ) from None


def checked_batch_size(batch_size: Any) -> int:
    """Raises ``InvalidArgument`` where it is no positive number: with none in a batch nothing would be written."""
    size = whole(batch_size, "batch_size")
    if size < 1:
        raise InvalidArgument(f"batch_size is a positive number of records, got {size}", field="batch_size")
    return size


def batch_request(config: CollectionConfig, batch: list[Any], start: int) -> WriteRequest:
    """One batch of a bulk upsert, whose first record is the iterable's number ``start``."""
    with rows_counted_from(start):
        return build.records_request(config, batch)


@contextlib.contextmanager
def rows_counted_from(start: int) -> Iterator[None]:
    """Errors about a row of one batch leave as errors about a row of the whole, in which the batch begins there."""
    try:
        yield
    except VectorDBError as error:
        row = error.fields.get("row")
        if start == 0 or not isinstance(row, int):
            raise
        raise _renumbered(error, row, start) from None


def _renumbered(error: VectorDBError, row: int, start: int) -> VectorDBError:
    def moved(found: re.Match[str]) -> str:
        if found["row"] is None:
            return found[0]
        return re.sub(r"\d+", lambda number: str(int(number[0]) + start), found[0])

    # Another object: the engine may give one error to several callers.
    whole = type(error)(_ROW_NUMBERS.sub(moved, error.message), **{**error.fields, "row": row + start})
    whole.request_id = error.request_id
    return whole


def _requests(config: CollectionConfig, source: Iterator[Any], batch_size: int) -> Iterator[WriteRequest]:
    start = 0
    while batch := list(itertools.islice(source, batch_size)):
        yield batch_request(config, batch, start)
        start += len(batch)


def _written(backend: Backend, collection: str, requests: Iterator[WriteRequest]) -> Iterator[WriteResult]:
    """The results in order: of a backend that can, by one stream on which the next batch does not wait for the last."""
    pipelined = getattr(backend, "bulk_write", None)
    if pipelined is not None:
        yield from pipelined(collection, requests)
        return
    start = 0
    for request in requests:
        with rows_counted_from(start):
            result = backend.write(collection, request)
        start += len(request.rows)
        yield result


def records_of(pages: Iterator[list[Record]]) -> Generator[Record, None, None]:
    """The records of all pages of a scan; closing it releases the snapshot."""
    try:
        for page in pages:
            yield from page
    finally:
        close = getattr(pages, "close", None)
        if close is not None:
            close()
