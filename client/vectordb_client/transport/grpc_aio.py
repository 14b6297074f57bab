"""The transport to a server for one event loop: an ``AsyncBackend`` over ``grpc.aio``. See ``grpc``, its twin."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from vectordb.errors import Closed, ResourceExhausted, VectorDBError
from vectordb_client.transport import calls
from vectordb_client.transport.base import ForkGuarded, Pending, closed, forked
from vectordb_client.transport.calls import Call, Limits, stub_of
from vectordb_client.transport.channel import OPTIONS, ServerOptions, credentials, traced, within_policy
from vectordb_client.transport.retry import Clock, RetryPolicy
from vectordb_client.transport.status import to_error

if TYPE_CHECKING:
    from vectordb.filter import Filter
    from vectordb.reports import Erasure, RepairReport, VerifyReport
    from vectordb.requests import (
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

T = TypeVar("T")


class AioBackend(ForkGuarded):
    """One channel to one server, for the event loop that runs when it is made.

    After ``close``, or in a child process after a fork, every call raises ``Closed``.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._limits = Limits()
        self._policy = RetryPolicy(options.retries)
        self._metadata = options.metadata()
        self._gone: Callable[[str], Closed] | None = None
        self._closing = asyncio.Event()
        if options.tls is None:
            self._channel = grpc.aio.insecure_channel(options.address, OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(options.address, credentials(options.tls), OPTIONS)
        self._stub = stub_of(self._channel)
        super().__init__()

    # Calling

    def _later(self, call: Call[T], note: Callable[[T], object] | None = None) -> Pending[T]:
        """The call as a pending answer; ``note`` is told the answer."""
        call.settle()

        async def run() -> T:
            answer = await self._call(call)
            if note is not None:
                note(answer)
            return answer

        return Pending(run)

    async def _call(self, call: Call[T]) -> T:
        clock = Clock(call.timeout)
        attempt = 0
        while True:
            try:
                return await self._attempt(call, clock, first=attempt == 0)
            except VectorDBError as error:
                attempt += 1
                wait = self._policy.delay(error, attempt, idempotent=call.idempotent, clock=clock)
                if wait is None:
                    raise
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), wait)

    async def _attempt(self, call: Call[T], clock: Clock, *, first: bool = True) -> T:
        if self._gone is not None:
            raise self._gone(self.options.address)
        if not first:
            call.shorten(clock.remaining())
        method = getattr(self._stub, call.rpc)
        try:
            message = await method(call.whole, timeout=call.deadline(clock), metadata=traced(self._metadata))
        except asyncio.CancelledError:
            # grpc.aio reports a closed channel as the cancellation of a task that nobody cancelled.
            if self._gone is not None:
                raise self._gone(self.options.address) from None
            raise
        except (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError) as error:
            if self._gone is not None:
                raise self._gone(self.options.address) from None
            raise to_error(error, self.options.address, call.timeout) from None
        return call.answer(message)

    # AsyncBackend

    def create_collection(self, request: CreateRequest) -> Pending[CollectionConfig]:
        return self._later(calls.create_collection(request), self._limits.learn)

    def collection_config(self, name: str) -> Pending[CollectionConfig]:
        return self._later(calls.collection_config(name, self.options.timeout), self._limits.learn)

    def list_collections(self) -> Pending[list[str]]:
        return self._later(calls.list_collections(self.options.timeout))

    def delete_collection(self, name: str) -> Pending[None]:
        return self._later(calls.delete_collection(name, self.options.timeout), lambda _: self._limits.forget(name))

    def info(self) -> Pending[DatabaseInfo]:
        return self._later(calls.info(self.options.timeout))

    def write(self, collection: str, request: WriteRequest) -> Pending[WriteResult]:
        return self._later(calls.write(collection, request, self._limits))

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> Pending[int]:
        return self._later(calls.update_metadata(collection, request))

    def delete(self, collection: str, request: DeleteRequest) -> Pending[int]:
        return self._later(calls.delete(collection, request))

    def get(self, collection: str, request: GetRequest) -> Pending[list[Record]]:
        return self._later(calls.get(collection, request))

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> Pending[int]:
        return self._later(calls.count(collection, where, timeout))

    async def scan(self, collection: str, request: ScanRequest) -> AsyncIterator[list[Record]]:
        cursor = ""
        try:
            while True:
                try:
                    page, cursor = await self._call(calls.scan(collection, request, cursor))
                except ResourceExhausted:
                    raise  # a page is too large: the scan stays open
                except VectorDBError:
                    cursor = ""  # there is nothing left to release
                    raise
                if page or cursor:
                    yield page
                if not cursor:
                    return
        finally:
            if cursor and self._gone is None:
                # Left early: the server would release it by itself after a minute.
                with contextlib.suppress(VectorDBError):
                    await self._attempt(calls.close_scan(cursor), Clock(calls.RELEASE_TIMEOUT))

    def search(self, collection: str, request: SearchRequest) -> Pending[list[SearchResult]]:
        return self._later(calls.search(collection, request))

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Pending[Plan]:
        return self._later(calls.explain(collection, request, analyze))

    def optimize(self, collection: str, request: OptimizeRequest) -> Pending[None]:
        return self._later(calls.optimize(collection, request, self.options.timeout))

    def reindex(self, collection: str, request: ReindexRequest) -> Pending[CollectionConfig]:
        return self._later(calls.reindex(collection, request, self.options.timeout))

    def cancel_reindex(self, collection: str) -> Pending[bool]:
        return self._later(calls.cancel_reindex(collection, self.options.timeout))

    def stats(self, collection: str) -> Pending[CollectionStats]:
        return self._later(calls.stats(collection, self.options.timeout))

    def backup(self, destination: str) -> Pending[BackupInfo]:
        return self._later(calls.backup(destination))

    def verify(self, searches: int) -> Pending[VerifyReport]:
        return self._later(calls.verify(searches))

    def repair(self, dry_run: bool) -> Pending[RepairReport]:
        return self._later(calls.repair(dry_run))

    def erase(self, collection: str, request: EraseRequest) -> Pending[Erasure]:
        return self._later(calls.erase(collection, request))

    def with_policy(self, policy: Filter) -> AioBackend:
        """This channel with calls that ask the server to stay within a row policy; closing it leaves this one open."""
        return _Narrowed(self, policy)

    async def close(self) -> None:
        """Closes the channel; calls on their way fail with ``Closed``. Idempotent."""
        if self._gone is None:
            self._gone = closed
            self._closing.set()
            await self._channel.close()

    def _abandon(self) -> None:
        self._gone = forked


class _Narrowed(AioBackend):
    """Calls within a row policy over another backend's channel, which closes with that backend."""

    def __init__(self, whole: AioBackend, policy: Filter) -> None:
        self._whole = whole
        self.options, self._limits, self._stub = whole.options, whole._limits, whole._stub
        self._policy, self._closing = whole._policy, whole._closing
        self._metadata = within_policy(whole._metadata, policy)

    @property
    def _gone(self) -> Callable[[str], Closed] | None:  # type: ignore[override]
        return self._whole._gone

    async def close(self) -> None:
        """Leaves the channel open."""
