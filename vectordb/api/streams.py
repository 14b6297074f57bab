"""Calls that take or give more than is held at a time: records written and vectors searched in batches, scans read page
by page."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from vectordb.api import build
from vectordb.api.arrow import rows_of_column
from vectordb.api.columns import query_matrix, rows_of_table
from vectordb.arguments import whole
from vectordb.errors import Closed, InvalidArgument, VectorDBError
from vectordb.requests import Backend, SearchRequest, WriteRequest
from vectordb.results import SearchResult
from vectordb.types import CollectionConfig, Record, WriteResult

T = TypeVar("T")

SEARCHES_AHEAD = 1
"""Batches of a stream that are searched while results are used. More of them at a time only shared the processors."""
_ROW_NUMBERS = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\b(?:rows?|query) (?P<row>\d+)(?: and \d+)?\b""")
"""The rows, or queries, that a message names, and what is quoted, which may be anything and is no row."""


def bulk_upsert(
    backend: Backend, config: CollectionConfig, records: Iterable[Any], batch_size: int, progress: bool
) -> WriteResult:
    """As ``Collection.bulk_upsert``."""
    from tqdm import tqdm

    batch_size = checked_batch_size(batch_size)
    source = records_in(records)
    total = len(records) if isinstance(records, Sized) else None
    count, version, ids = 0, 0, []
    with tqdm(total=total, unit="row", disable=not progress) as bar:
        for result in _written(backend, config.name, _requests(config, source, batch_size)):
            count, version = count + result.count, result.version
            ids.extend(result.ids)
            bar.update(result.count)
    return WriteResult(count, version, ids)


def records_in(records: Any) -> Iterator[Any]:
    """Records one by one, of a table its rows.

    Raises:
        InvalidArgument: They cannot be iterated: a number, or one ``Record`` instead of a list.
    """
    table = rows_of_table(records)
    return iterator_of(records, "records", "Record or dict, or a table") if table is None else table


def vectors_in(vectors: Any) -> Iterator[Any]:
    """Vectors one by one, of a column its rows.

    Raises:
        InvalidArgument: They cannot be iterated, or are text or a table.
    """
    column = rows_of_column(vectors)
    if column is not None:
        return column
    # These can be iterated, but not to vectors.
    if isinstance(vectors, str | bytes | Mapping) or hasattr(vectors, "column_names"):
        raise _not_iterable(vectors, "vectors", "vectors")
    return iterator_of(vectors, "vectors", "vectors")


def iterator_of(values: Any, field: str, what: str) -> Iterator[Any]:
    """``values`` one by one.

    Raises:
        InvalidArgument: They cannot be iterated; says that ``field`` takes an iterable of ``what``.
    """
    try:
        return iter(values)
    except TypeError:
        raise _not_iterable(values, field, what) from None


def _not_iterable(values: Any, field: str, what: str) -> InvalidArgument:
    return InvalidArgument(f"{field} is {type(values).__name__}; give an iterable of {what}", field=field)


def batches(source: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size``, the last one shorter."""
    while batch := list(itertools.islice(source, size)):
        yield batch


def checked_batch_size(batch_size: Any) -> int:
    """Raises ``InvalidArgument`` where it is no positive number: with none in a batch nothing would be done."""
    size = whole(batch_size, "batch_size")
    if size < 1:
        raise InvalidArgument(f"batch_size is a positive number, got {size}", field="batch_size")
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
    for batch in batches(source, batch_size):
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


def searched(
    backend: Backend, collection: str, requests: Iterator[tuple[int, SearchRequest]]
) -> Generator[SearchResult, None, None]:
    """The results of all queries in order, ``SEARCHES_AHEAD`` requests being carried out meanwhile.

    Args:
        requests: Each with the number that its first query has in the stream.
    """
    pool = ThreadPoolExecutor(SEARCHES_AHEAD, "vectordb-ahead")
    ahead: deque[tuple[int, Future[list[SearchResult]]]] = deque()
    process = os.getpid()
    failure: Exception | None = None
    try:
        while True:
            try:
                read = next(requests, None)
            except Exception as error:
                # It shows after the results of what was read before.
                failure, read = error, None
            if read is not None:
                start, request = read
                # The caller's context goes along: spans have their parents in it.
                ahead.append((start, _begun(pool, partial(copy_context().run, backend.search, collection, request))))
            while ahead and (read is None or len(ahead) > SEARCHES_AHEAD or ahead[0][1].done()):
                first, answer = ahead.popleft()
                with rows_counted_from(first):
                    results = answer.result()
                yield from results
                if os.getpid() != process:
                    # What is under way is so in the parent's thread: here nobody would end the wait for it.
                    raise Closed("the stream of searches was begun before a fork; begin it anew in this process")
            if failure is not None:
                raise failure
            if read is None:
                return
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begun(pool: ThreadPoolExecutor, search: Callable[[], T]) -> Future[T]:
    """The search, which the pool carries out; where that has no thread for it any more, this one does at once.

    Other threads may run on after the main one, and from its end on pools take no work.
    """
    try:
        return pool.submit(search)
    except RuntimeError:
        done: Future[T] = Future()
        try:
            done.set_result(search())
        except Exception as error:
            done.set_exception(error)
        return done


def search_requests(
    config: CollectionConfig, like: SearchRequest, source: Iterator[Any], batch_size: int
) -> Iterator[tuple[int, SearchRequest]]:
    """The searches of all vectors of ``source``, each as ``like`` is but for its vectors, and where it begins."""
    start = 0
    for batch in batches(source, batch_size):
        yield start, search_request(config, like, batch, start)
        start += len(batch)


def search_request(config: CollectionConfig, like: SearchRequest, batch: list[Any], start: int) -> SearchRequest:
    """One batch of a stream of searches, whose first vector is the stream's number ``start``."""
    with rows_counted_from(start):
        vectors = query_matrix(batch, config, single=False)
    return replace(like, vectors=vectors, texts=tuple(like.texts) * len(batch))


def records_of(pages: Iterator[list[Record]]) -> Generator[Record, None, None]:
    """The records of all pages of a scan; closing it releases the snapshot."""
    try:
        for page in pages:
            yield from page
    finally:
        close = getattr(pages, "close", None)
        if close is not None:
            close()
