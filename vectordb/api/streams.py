"""Calls that take or give more than is held at a time: records written in batches, scans read page by page."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sized
from typing import Any

from vectordb.api import build
from vectordb.errors import InvalidArgument
from vectordb.requests import Backend, WriteMode, WriteRequest
from vectordb.types import CollectionConfig, Record, WriteResult


def bulk_upsert(
    backend: Backend, config: CollectionConfig, records: Iterable[Any], batch_size: int, progress: bool
) -> WriteResult:
    """As ``Collection.bulk_upsert``."""
    from tqdm import tqdm

    check_batch_size(batch_size)
    total = len(records) if isinstance(records, Sized) else None
    count, version, ids = 0, 0, []
    with tqdm(total=total, unit="row", disable=not progress) as bar:
        for result in _written(backend, config.name, _requests(config, records, batch_size)):
            count, version = count + result.count, result.version
            ids.extend(result.ids)
            bar.update(result.count)
    return WriteResult(count, version, ids)


def check_batch_size(batch_size: Any) -> None:
    """Raises ``InvalidArgument`` where it is no positive number: with none in a batch nothing would be written."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidArgument(f"batch_size is a positive number of records, got {batch_size!r}", field="batch_size")


def batch_request(config: CollectionConfig, batch: list[Any]) -> WriteRequest:
    """One batch of a bulk upsert; ``batch`` are ``Record``s or dicts."""
    return build.write_request(config, WriteMode.UPSERT, (batch, None, None, None))


def _requests(config: CollectionConfig, records: Iterable[Any], batch_size: int) -> Iterator[WriteRequest]:
    source = iter(records)
    while batch := list(itertools.islice(source, batch_size)):
        yield batch_request(config, batch)


def _written(backend: Backend, collection: str, requests: Iterator[WriteRequest]) -> Iterator[WriteResult]:
    """The results in order: of a backend that can, by one stream on which the next batch does not wait for the last."""
    pipelined = getattr(backend, "bulk_write", None)
    if pipelined is not None:
        yield from pipelined(collection, requests)
        return
    for request in requests:
        yield backend.write(collection, request)


def records_of(pages: Iterator[list[Record]]) -> Generator[Record, None, None]:
    """The records of all pages of a scan; closing it releases the snapshot."""
    try:
        for page in pages:
            yield from page
    finally:
        close = getattr(pages, "close", None)
        if close is not None:
            close()
