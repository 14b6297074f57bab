"""The transport to a server: a ``vectordb.requests.Backend`` over one gRPC channel. The synchronous half.

What a call sends and how its answer is read stands in ``calls``, what may be repeated in ``retry``, how grpc's
failures become this library's in ``status``; all three are shared with the asynchronous half, ``grpc_aio``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from vectordb.errors import Closed, VectorDBError
from vectordb_client.transport import calls
from vectordb_client.transport.base import ForkGuarded, closed, forked
from vectordb_client.transport.bulk import bulk_write
from vectordb_client.transport.calls import PATHS, Call, Limits, stub_of
from vectordb_client.transport.channel import OPTIONS, Metadata, ServerOptions, credentials, traced, within_policy
from vectordb_client.transport.direct import DirectCalls
from vectordb_client.transport.http2 import Elsewhere
from vectordb_client.transport.pages import Pages, Releaser
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


class GrpcBackend(ForkGuarded):
    """One channel to one server. Thread-safe; connects at the first call and again whenever the connection was lost.

    After ``close``, or in a child process after a fork, every call raises ``Closed``.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.limits = Limits()
        self._policy = RetryPolicy(options.retries)
        self._metadata = options.metadata()
        self._gone: Callable[[str], Closed] | None = None
        # Set by close: wakes calls that wait for their next attempt.
        self._closing = threading.Event()
        if options.tls is None:
            self._channel = grpc.insecure_channel(options.address, OPTIONS)
        else:
            self._channel = grpc.secure_channel(options.address, credentials(options.tls), OPTIONS)
        self.stub = stub_of(self._channel)
        self._direct = DirectCalls(options.address) if _may_be_direct(options) else None
        self.releaser = Releaser(self, self.stub, self._metadata)
        super().__init__()

    # Calling

    def call(self, call: Call[T]) -> T:
        """Makes a call, repeating it as far as that is safe.

        Raises:
            Unavailable: Nobody answered, as often as was asked for. DeadlineExceeded: The time ran out.
            VectorDBError: What the server raised.
        """
        clock = Clock(call.timeout)
        attempt = 0
        while True:
            try:
                return self.attempt(call, clock, first=attempt == 0)
            except VectorDBError as error:
                attempt += 1
                wait = self._policy.delay(error, attempt, idempotent=call.idempotent, clock=clock)
                if wait is None:
                    raise
            self._closing.wait(wait)

    def attempt(self, call: Call[T], clock: Clock, *, first: bool = True) -> T:
        """Makes a call once."""
        self.check_open()
        if not first:
            call.shorten(clock.remaining())
        try:
            message = self._asked(call, clock)
        except (grpc.RpcError, ValueError) as error:
            raise self.error(error, call.timeout) from None
        return call.answer(message)

    def _asked(self, call: Call[T], clock: Clock) -> Any:
        """The answer's message."""
        metadata = traced(self._metadata)
        if self._direct is not None and (path := PATHS.get(call.rpc)) is not None:
            try:
                return self._direct.call(path, call.message, call.deadline(clock), metadata)
            except Elsewhere:
                pass
        return getattr(self.stub, call.rpc)(call.whole, timeout=call.deadline(clock), metadata=metadata)

    def check_open(self) -> None:
        """Raises ``Closed`` after :meth:`close`, or in a child process after a fork."""
        if self._gone is not None:
            raise self._gone(self.options.address)

    def error(self, error: BaseException, timeout: float | None = None) -> VectorDBError:
        """What went wrong with a call, in this library's terms. ``ValueError`` is grpc's for a closed channel."""
        if self._gone is not None:
            return self._gone(self.options.address)
        return to_error(error, self.options.address, timeout)

    @property
    def call_metadata(self) -> Metadata:
        """The request metadata that every call carries."""
        return self._metadata

    # Backend

    def create_collection(self, request: CreateRequest) -> CollectionConfig:
        return self.limits.learn(self.call(calls.create_collection(request)))

    def collection_config(self, name: str) -> CollectionConfig:
        return self.limits.learn(self.call(calls.collection_config(name, self.options.timeout)))

    def list_collections(self) -> list[str]:
        return self.call(calls.list_collections(self.options.timeout))

    def delete_collection(self, name: str) -> None:
        self.call(calls.delete_collection(name, self.options.timeout))
        self.limits.forget(name)

    def info(self) -> DatabaseInfo:
        return self.call(calls.info(self.options.timeout))

    def write(self, collection: str, request: WriteRequest) -> WriteResult:
        return self.call(calls.write(collection, request, self.limits))

    def bulk_write(self, collection: str, requests: Iterator[WriteRequest]) -> Iterator[WriteResult]:
        """Writes batches over one stream, several on their way at a time; results in order, each once durable.

        Every batch is its own commit. An error comes after the results of all batches before the one that it is about.
        """
        return bulk_write(self, collection, requests)

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int:
        return self.call(calls.update_metadata(collection, request))

    def delete(self, collection: str, request: DeleteRequest) -> int:
        return self.call(calls.delete(collection, request))

    def get(self, collection: str, request: GetRequest) -> list[Record]:
        return self.call(calls.get(collection, request))

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int:
        return self.call(calls.count(collection, where, timeout))

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        return Pages(self, collection, request)

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        return self.call(calls.search(collection, request))

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan:
        return self.call(calls.explain(collection, request, analyze))

    def optimize(self, collection: str, request: OptimizeRequest) -> None:
        self.call(calls.optimize(collection, request, self.options.timeout))

    def reindex(self, collection: str, request: ReindexRequest) -> CollectionConfig:
        return self.call(calls.reindex(collection, request, self.options.timeout))

    def cancel_reindex(self, collection: str) -> bool:
        return self.call(calls.cancel_reindex(collection, self.options.timeout))

    def stats(self, collection: str) -> CollectionStats:
        return self.call(calls.stats(collection, self.options.timeout))

    def backup(self, destination: str) -> BackupInfo:
        return self.call(calls.backup(destination))

    def verify(self, searches: int) -> VerifyReport:
        return self.call(calls.verify(searches))

    def repair(self, dry_run: bool) -> RepairReport:
        return self.call(calls.repair(dry_run))

    def erase(self, collection: str, request: EraseRequest) -> Erasure:
        return self.call(calls.erase(collection, request))

    def with_policy(self, policy: Filter) -> GrpcBackend:
        """This channel with calls that ask the server to stay within a row policy; closing it leaves this one open."""
        return _Narrowed(self, policy)

    def close(self) -> None:
        """Closes the channel; calls on their way fail with ``Closed``. Idempotent."""
        if self._gone is None:
            self._gone = closed
            self._closing.set()
            self.releaser.stop()
            self._channel.close()
            if self._direct is not None:
                self._direct.close()

    def _abandon(self) -> None:
        self._gone = forked
        self._closing = threading.Event()
        self._closing.set()


def _may_be_direct(options: ServerOptions) -> bool:
    return options.tls is None and DirectCalls.reaches(options.address)


class _Narrowed(GrpcBackend):
    """Calls within a row policy over another backend's channel, which closes with that backend."""

    def __init__(self, whole: GrpcBackend, policy: Filter) -> None:
        self._whole = whole
        self.options, self.limits, self.stub = whole.options, whole.limits, whole.stub
        self._policy, self._closing, self._direct = whole._policy, whole._closing, whole._direct
        self._metadata = within_policy(whole._metadata, policy)
        self.releaser = Releaser(self, self.stub, self._metadata)

    @property
    def _gone(self) -> Callable[[str], Closed] | None:  # type: ignore[override]
        return self._whole._gone

    def close(self) -> None:
        """Leaves the channel open."""
        self.releaser.stop()
