"""The asynchronous face: ``connect_async``, :class:`AsyncDatabase`, :class:`AsyncCollection`.

Nothing is written twice: each method is made from its synchronous twin of ``vectordb.api``, with the same signature
and documentation. The twin builds the request and hands it to a backend that answers with a
:class:`~vectordb_client.transport.base.Pending`, which is then awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sized,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

from vectordb.api import Collection, Database, build
from vectordb.api.streams import (
    SEARCHES_AHEAD,
    batch_request,
    checked_batch_size,
    records_in,
    rows_counted_from,
    search_request,
    vectors_in,
)
from vectordb.arguments import collection_name, flag
from vectordb.metric import Metric
from vectordb.reports import Erasure
from vectordb.requests import Backend, OptimizeRequest, SearchRequest
from vectordb.results import SearchResult
from vectordb.stats import CollectionStats
from vectordb.types import CollectionConfig, IndexSpec, QuantizationSpec, Record, WriteResult

if TYPE_CHECKING:
    from vectordb_client.transport.base import AsyncBackend

P = ParamSpec("P")
R = TypeVar("R")


def _awaited(
    method: Callable[Concatenate[Collection, P], R], *, in_thread: bool = False
) -> Callable[Concatenate[AsyncCollection, P], Coroutine[Any, Any, R]]:
    """``method`` as a coroutine; ``in_thread`` where building its request may take long (writes)."""

    @functools.wraps(method)
    async def call(self: AsyncCollection, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if in_thread:
            pending = await asyncio.to_thread(method, self._face, *args, **kwargs)
        else:
            pending = method(self._face, *args, **kwargs)
        return await cast("Awaitable[R]", pending)

    return call


def _awaited_db(
    method: Callable[Concatenate[Database, P], R],
) -> Callable[Concatenate[AsyncDatabase, P], Coroutine[Any, Any, R]]:
    @functools.wraps(method)
    async def call(self: AsyncDatabase, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await cast("Awaitable[R]", method(self._face, *args, **kwargs))

    return call


def _opened(
    method: Callable[Concatenate[Database, P], Collection],
) -> Callable[Concatenate[AsyncDatabase, P], Coroutine[Any, Any, AsyncCollection]]:
    """``method``, which gives a collection, as a coroutine that gives an :class:`AsyncCollection`."""

    @functools.wraps(method)
    async def call(self: AsyncDatabase, /, *args: P.args, **kwargs: P.kwargs) -> AsyncCollection:
        # Over an asynchronous backend the handle's configuration is still pending.
        pending = cast("Awaitable[CollectionConfig]", method(self._face, *args, **kwargs).config)
        return AsyncCollection(self._backend, await pending, timeout=self._timeout)

    return call


class AsyncCollection:
    """Handle of one collection: the methods of ``Collection``, awaitable; ``scan`` is an async iterator.

    Belongs to one event loop; calls may overlap. Cancelling a task that awaits a call cancels the call (embedded: the
    answer is dropped, and the work stops at its ``timeout``).
    """

    def __init__(self, backend: AsyncBackend, config: CollectionConfig, *, timeout: float | None = None) -> None:
        self._backend = backend
        self._face = Collection(cast("Backend", backend), config, timeout=timeout)

    @property
    def config(self) -> CollectionConfig:
        return self._face.config

    @property
    def name(self) -> str:
        return self._face.name

    @property
    def dim(self) -> int:
        return self._face.dim

    @property
    def metric(self) -> Metric:
        return self._face.metric

    @property
    def index(self) -> IndexSpec:
        return self._face.index

    @property
    def quantization(self) -> QuantizationSpec | None:
        return self._face.quantization

    def __repr__(self) -> str:
        return repr(self._face).replace("<Collection", "<AsyncCollection", 1)

    upsert = _awaited(Collection.upsert, in_thread=True)
    insert = _awaited(Collection.insert, in_thread=True)
    update = _awaited(Collection.update, in_thread=True)
    update_metadata = _awaited(Collection.update_metadata)
    delete = _awaited(Collection.delete)
    get = _awaited(Collection.get)
    count = _awaited(Collection.count)
    search = _awaited(Collection.search)
    search_text = _awaited(Collection.search_text)
    # mypy: their **options could be named like the first parameter.
    search_batch = _awaited(Collection.search_batch)  # type: ignore[arg-type]
    explain = _awaited(Collection.explain)  # type: ignore[arg-type]
    cancel_reindex = _awaited(Collection.cancel_reindex)

    # Written out where the twin drops its backend's answer, or does more than one call.

    async def optimize(self, wait: bool = True, *, erase: bool = False, timeout: float | None = None) -> Erasure | None:
        """As ``Collection.optimize``: seals, indexes and merges what is pending; returns at once without ``wait``."""
        if not flag(erase, "erase"):
            await self._backend.optimize(self.name, OptimizeRequest(flag(wait, "wait"), timeout))
            return None
        return await cast("Awaitable[Erasure]", self._face.optimize(wait, erase=True, timeout=timeout))

    async def reindex(self, index: Any = None, quantization: Any = None, wait: bool = True) -> None:
        """As ``Collection.reindex``: another index and/or quantization, built beside the serving ones."""
        request = build.reindex_request(index, quantization, wait)
        self._face.config = await self._backend.reindex(self.name, request)

    async def stats(self) -> CollectionStats:
        """As ``Collection.stats``."""
        found = await self._backend.stats(self.name)
        self._face._note(found)
        return found

    async def scan(
        self,
        where: Any = None,
        order_by: str | None = None,
        page_size: int = 1000,
        include: Any = ("metadata", "text"),
    ) -> AsyncIterator[Record]:
        """As ``Collection.scan``, for ``async for``; ``aclose`` it when it is left early."""
        pages = self._backend.scan(self.name, build.scan_request(where, order_by, page_size, include))
        async with contextlib.aclosing(cast("Any", pages)):
            async for page in pages:
                for record in page:
                    yield record

    def search_stream(
        self, vectors: Iterable[Any] | AsyncIterable[Any], limit: int = 10, *, batch_size: int = 100, **options: Any
    ) -> AsyncGenerator[SearchResult, None]:
        """As ``Collection.search_stream``, for ``async for``; ``vectors`` may be an async iterable too.

        ``aclose`` it when it is left early.
        """
        like, size = self._face._stream_request(limit, batch_size, options)
        source = vectors if isinstance(vectors, AsyncIterable) else vectors_in(vectors)
        return self._searched(like, _batches(source, size))

    async def _searched(self, like: SearchRequest, batches: Any) -> AsyncGenerator[SearchResult, None]:
        ahead: deque[tuple[int, asyncio.Future[list[SearchResult]]]] = deque()
        start = 0
        failure: Exception | None = None
        try:
            while True:
                try:
                    batch: list[Any] = await anext(batches, [])
                    request = (
                        await asyncio.to_thread(search_request, self.config, like, batch, start) if batch else None
                    )
                except Exception as error:
                    # It shows after the results of what was read before.
                    failure, request = error, None
                if request is not None:
                    ahead.append((start, asyncio.ensure_future(self._backend.search(self.name, request))))
                    start += len(batch)
                while ahead and (request is None or len(ahead) > SEARCHES_AHEAD or ahead[0][1].done()):
                    first, answer = ahead.popleft()
                    with rows_counted_from(first):
                        results = await answer
                    for result in results:
                        yield result
                if failure is not None:
                    raise failure
                if request is None:
                    return
        finally:
            await batches.aclose()
            left = [answer for _, answer in ahead]
            for answer in left:
                answer.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def bulk_upsert(
        self, records: Iterable[Any] | AsyncIterable[Any], batch_size: int = 1000, progress: bool = True
    ) -> WriteResult:
        """As ``Collection.bulk_upsert``; ``records`` may be an async iterable too.

        One batch is written while the next is read and encoded.
        """
        from tqdm import tqdm

        batch_size = checked_batch_size(batch_size)
        total = len(records) if isinstance(records, Sized) else None
        read, count, version, ids = 0, 0, 0, []
        writing: asyncio.Future[WriteResult] | None = None
        batches = _batches(records if isinstance(records, AsyncIterable) else records_in(records), batch_size)
        with tqdm(total=total, unit="row", disable=not progress) as bar:
            try:
                while True:
                    try:
                        batch: list[Any] = await anext(batches, [])
                        request = await asyncio.to_thread(batch_request, self.config, batch, read) if batch else None
                        read += len(batch)
                    except Exception:
                        # What was read before is written before the error shows, and its own error comes first.
                        if writing is not None:
                            with rows_counted_from(count):
                                await writing
                        raise
                    if writing is not None:
                        with rows_counted_from(count):
                            result = await writing
                        count, version = count + result.count, result.version
                        ids.extend(result.ids)
                        bar.update(result.count)
                    if request is None:
                        return WriteResult(count, version, ids)
                    writing = asyncio.ensure_future(self._backend.write(self.name, request))
            finally:
                await batches.aclose()
                if writing is not None and not writing.done():
                    # The task was cancelled: what is on its way is one whole batch.
                    writing.cancel()
                    await asyncio.gather(writing, return_exceptions=True)


async def _batches(source: Iterator[Any] | AsyncIterable[Any], size: int) -> Any:
    """Lists of ``size``, the last one shorter. A synchronous source is read in a worker thread."""
    if isinstance(source, AsyncIterable):
        batch: list[Any] = []
        async for item in source:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch
        return
    while taken := await asyncio.to_thread(lambda: list(itertools.islice(source, size))):
        yield taken


class AsyncDatabase:
    """Collections behind one target: the methods of ``Database``, awaitable; ``async with`` closes it.

    Belongs to the event loop in which it is first used.
    """

    def __init__(self, backend: AsyncBackend, *, timeout: float | None = None) -> None:
        self._backend = backend
        self._timeout = timeout
        self._face = Database(cast("Backend", backend), timeout=timeout)

    create_collection = _opened(Database.create_collection)  # type: ignore[arg-type]
    collection = _opened(Database.collection)
    list_collections = _awaited_db(Database.list_collections)
    info = _awaited_db(Database.info)
    backup = _awaited_db(Database.backup)
    verify = _awaited_db(Database.verify)
    repair = _awaited_db(Database.repair)

    async def delete_collection(self, name: str) -> None:
        """Deletes a collection and all it holds.

        Raises:
            CollectionNotFound: There is none of this name.
        """
        await self._backend.delete_collection(collection_name(name))

    def __getitem__(self, name: str) -> Awaitable[AsyncCollection]:
        """``await adb["docs"]``: as :meth:`collection`."""
        return self.collection(name)

    # Both need a call: without this Python would ask for adb[0], adb[1], ... and never end.
    __contains__ = None
    __iter__ = None

    def with_policy(self, where: Any) -> AsyncDatabase:
        """As ``Database.with_policy``: this database within a row policy; closing the handle leaves the target open."""
        return AsyncDatabase(cast("AsyncBackend", self._face.with_policy(where)._backend), timeout=self._timeout)

    async def close(self) -> None:
        """Releases the target. Idempotent; calls after it raise ``Closed``."""
        await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
