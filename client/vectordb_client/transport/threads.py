"""The asynchronous backend of an engine in this process: its calls run in worker threads of their own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from vectordb_client.transport.base import Pending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vectordb.filter import Filter
    from vectordb.reports import Erasure, RepairReport, VerifyReport
    from vectordb.requests import (
        Backend,
        CreateRequest,
        DeleteRequest,
        EraseRequest,
        GetRequest,
        OptimizeRequest,
        ReindexRequest,
        ScanRequest,
        SearchRequest,
        UpdateMetadataRequest,
        WriteRequest,
    )
    from vectordb.results import Plan, SearchResult
    from vectordb.stats import BackupInfo, CollectionStats, DatabaseInfo
    from vectordb.types import CollectionConfig, Record, WriteResult

P = ParamSpec("P")
T = TypeVar("T")


class ThreadedBackend:
    """An ``AsyncBackend`` over a synchronous one. A bounded pool: further calls wait for a free thread.

    Cancelling an awaiting task drops the answer; a call that runs already goes on to its end or ``timeout``.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        # Writers wait for disk syncs in groups, so more threads than processors pay; searches share what there is.
        self._pool = ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 8), thread_name_prefix="vectordb-async")
        self._closing = False

    def _later(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Pending[T]:
        async def call() -> T:
            return await self._run(method, *args, **kwargs)

        return Pending(call)

    async def _run(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closing:
            # The closed handle answers by itself, with Closed.
            return method(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: method(*args, **kwargs))

    def create_collection(self, request: CreateRequest) -> Pending[CollectionConfig]:
        return self._later(self._backend.create_collection, request)

    def collection_config(self, name: str) -> Pending[CollectionConfig]:
        return self._later(self._backend.collection_config, name)

    def list_collections(self) -> Pending[list[str]]:
        return self._later(self._backend.list_collections)

    def delete_collection(self, name: str) -> Pending[None]:
        return self._later(self._backend.delete_collection, name)

    def info(self) -> Pending[DatabaseInfo]:
        return self._later(self._backend.info)

    def write(self, collection: str, request: WriteRequest) -> Pending[WriteResult]:
        return self._later(self._backend.write, collection, request)

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> Pending[int]:
        return self._later(self._backend.update_metadata, collection, request)

    def delete(self, collection: str, request: DeleteRequest) -> Pending[int]:
        return self._later(self._backend.delete, collection, request)

    def get(self, collection: str, request: GetRequest) -> Pending[list[Record]]:
        return self._later(self._backend.get, collection, request)

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> Pending[int]:
        return self._later(self._backend.count, collection, where, timeout)

    async def scan(self, collection: str, request: ScanRequest) -> AsyncIterator[list[Record]]:
        pages: Iterator[list[Record]] = await self._run(self._backend.scan, collection, request)
        fetch: Future[list[Record] | None] | None = None
        try:
            while True:
                fetch = self._pool.submit(_next_page, pages)
                page = await asyncio.wrap_future(fetch)
                if page is None:
                    return
                yield page
        finally:
            if fetch is not None:
                # A cancelled task leaves a thread inside the iterator, which can only be closed when it is out.
                fetch.add_done_callback(lambda _: _close(pages))

    def search(self, collection: str, request: SearchRequest) -> Pending[list[SearchResult]]:
        return self._later(self._backend.search, collection, request)

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Pending[Plan]:
        return self._later(self._backend.explain, collection, request, analyze)

    def optimize(self, collection: str, request: OptimizeRequest) -> Pending[None]:
        return self._later(self._backend.optimize, collection, request)

    def reindex(self, collection: str, request: ReindexRequest) -> Pending[CollectionConfig]:
        return self._later(self._backend.reindex, collection, request)

    def cancel_reindex(self, collection: str) -> Pending[bool]:
        return self._later(self._backend.cancel_reindex, collection)

    def stats(self, collection: str) -> Pending[CollectionStats]:
        return self._later(self._backend.stats, collection)

    def backup(self, destination: str) -> Pending[BackupInfo]:
        return self._later(self._backend.backup, destination)

    def verify(self, searches: int) -> Pending[VerifyReport]:
        return self._later(self._backend.verify, searches)

    def repair(self, dry_run: bool) -> Pending[RepairReport]:
        return self._later(self._backend.repair, dry_run)

    def erase(self, collection: str, request: EraseRequest) -> Pending[Erasure]:
        return self._later(self._backend.erase, collection, request)

    def with_policy(self, policy: Filter) -> ThreadedBackend:
        """The same threads on a backend within a row policy; closing it leaves this one open."""
        return _Narrowed(self, policy)

    async def close(self) -> None:
        """Waits for the calls that run, then closes the backend."""
        if self._closing:
            return
        self._closing = True
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._backend.close()
        self._pool.shutdown(wait=True)


class _Narrowed(ThreadedBackend):
    """Another backend's threads on what it runs, within a row policy."""

    def __init__(self, whole: ThreadedBackend, policy: Filter) -> None:
        self._whole = whole
        self._backend = whole._backend.with_policy(policy)
        self._pool = whole._pool

    @property
    def _closing(self) -> bool:  # type: ignore[override]
        return self._whole._closing

    async def close(self) -> None:
        """Leaves the threads running."""


def _close(pages: Iterator[list[Record]]) -> None:
    close = getattr(pages, "close", None)
    if close is not None:
        close()


def _next_page(pages: Iterator[list[Record]]) -> list[Record] | None:
    # StopIteration cannot travel through a future.
    return next(pages, None)
