"""What the client's transports share: the asynchronous twin of ``vectordb.requests.Backend``, and care about forks.

Backend        LocalBackend (transport.local)    GrpcBackend (transport.grpc)
AsyncBackend   ThreadedBackend (transport.threads)    AioBackend (transport.grpc_aio)
"""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vectordb.errors import Closed

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


class Pending(Generic[T]):
    """An answer not asked for yet: awaiting it makes the call. Awaitable once.

    Indexing it gives the pending item, so that ``vectordb.api`` may write ``backend.search(...)[0]`` whether the
    backend answers at once or later.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, Any, T]:
        return self._call().__await__()

    def __getitem__(self, index: int) -> Pending[Any]:
        async def item() -> Any:
            answer: Any = await self
            return answer[index]

        return Pending(item)


class AsyncBackend(Protocol):
    """``vectordb.requests.Backend``, awaitable. Used from one event loop; calls may overlap.

    Every method but ``scan`` and ``close`` returns at once, without touching the event loop, so that a worker thread
    may build requests; the call is made when its result is awaited. Cancelling the awaiting task cancels the call.
    """

    def create_collection(self, request: CreateRequest) -> Pending[CollectionConfig]: ...

    def collection_config(self, name: str) -> Pending[CollectionConfig]: ...

    def list_collections(self) -> Pending[list[str]]: ...

    def delete_collection(self, name: str) -> Pending[None]: ...

    def info(self) -> Pending[DatabaseInfo]: ...

    def write(self, collection: str, request: WriteRequest) -> Pending[WriteResult]: ...

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> Pending[int]: ...

    def delete(self, collection: str, request: DeleteRequest) -> Pending[int]: ...

    def get(self, collection: str, request: GetRequest) -> Pending[list[Record]]: ...

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> Pending[int]: ...

    def scan(self, collection: str, request: ScanRequest) -> AsyncIterator[list[Record]]:
        """Pages of records; an async generator, whose ``aclose`` releases the snapshot."""
        ...

    def search(self, collection: str, request: SearchRequest) -> Pending[list[SearchResult]]: ...

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Pending[Plan]: ...

    def optimize(self, collection: str, request: OptimizeRequest) -> Pending[None]: ...

    def reindex(self, collection: str, request: ReindexRequest) -> Pending[CollectionConfig]: ...

    def cancel_reindex(self, collection: str) -> Pending[bool]: ...

    def stats(self, collection: str) -> Pending[CollectionStats]: ...

    def backup(self, destination: str) -> Pending[BackupInfo]: ...

    def verify(self, searches: int) -> Pending[VerifyReport]: ...

    def repair(self, dry_run: bool) -> Pending[RepairReport]: ...

    def erase(self, collection: str, request: EraseRequest) -> Pending[Erasure]: ...

    def with_policy(self, policy: Filter) -> AsyncBackend: ...

    def close(self) -> Awaitable[None]: ...


class ForkGuarded:
    """A handle that a child process must not use: after a fork, :meth:`_abandon` is called in the child.

    Costs nothing a call: the child's copies are told once, by ``os.register_at_fork``.
    """

    def __init__(self) -> None:
        _guarded.add(self)

    def _abandon(self) -> None:
        """In the child, right after the fork: refuse all further calls; release nothing that the parent still uses."""
        raise NotImplementedError


_guarded: weakref.WeakSet[ForkGuarded] = weakref.WeakSet()
_kept: list[ForkGuarded] = []


def _after_fork_in_child() -> None:
    for handle in list(_guarded):
        handle._abandon()
        # Never freed in the child: a destructor would act on the parent's files, threads or sockets.
        _kept.append(handle)
    _guarded.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


def closed(target: str) -> Closed:
    """The error of a call on a closed handle."""
    return Closed(f"the connection to {target!r} is closed; connect again", target=target)


def forked(target: str) -> Closed:
    """The error of a call, in a child process, on a handle opened by its parent."""
    return Closed(
        f"the connection to {target!r} was opened before a fork and belongs to the parent process; "
        "call connect in this process",
        target=target,
    )
