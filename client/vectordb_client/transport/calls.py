"""What each method of a backend sends, how its answer is read, how long it may take, and whether it may be repeated.

Shared by the synchronous and the asynchronous transport. A function here makes one :class:`Call`; nothing is sent.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from struct import Struct
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vectordb.arguments import utf8, whole
from vectordb.errors import Internal, ResourceExhausted
from vectordb.wire import requests as wire
from vectordb.wire.answer import answer_from_bytes
from vectordb.wire.config import config_from_message
from vectordb.wire.reports import erasure_from_message, repair_from_message, verify_from_message
from vectordb.wire.results import records_from_message, write_result_from_bytes
from vectordb.wire.search import search_to_parts
from vectordb.wire.stats import backup_from_message, info_from_message, plan_from_message, stats_from_message
from vectordb.wire.write import write_to_parts
from vectordb_client.transport.retry import Clock, is_repeatable
from vectordb_proto.v1 import service_pb2
from vectordb_proto.v1.service_pb2_grpc import VectorDBServiceStub

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
        Rows,
        ScanRequest,
        SearchRequest,
        UpdateMetadataRequest,
        WriteRequest,
    )
    from vectordb.results import Plan, SearchResult
    from vectordb.stats import BackupInfo, CollectionStats, DatabaseInfo
    from vectordb.types import CollectionConfig, Record, WriteResult

T = TypeVar("T")

GRACE = 0.5
"""Seconds by which the channel's deadline is later than the ``timeout`` sent, so that the server's own, typed
``DeadlineExceeded`` arrives; the channel's is for servers that do not answer at all."""
PARTIAL_GRACE = 2.0
"""The same for a search that may be partial: its hits have yet to be fetched and sent when the time is up."""
RELEASE_TIMEOUT = 2.0
"""Seconds that giving a scan back may take; the server does it by itself after a minute."""
MAX_MESSAGE_BYTES = (1 << 31) - (1 << 20)
"""protobuf cannot serialize 2 GiB; some room is left for ids and framing."""
_MAX_SECONDS = 1e8
_SERVICE = service_pb2.DESCRIPTOR.services_by_name["VectorDBService"].full_name
PATHS = {rpc: f"/{_SERVICE}/{rpc}" for rpc in ("Search", "Write")}
"""Full names of those whose messages are bytes on both ways."""
_TIMEOUTS = {"Search": b"\x51", "Write": b"\x31"}
"""Tags of their ``timeout_seconds``."""
_SECONDS = Struct("<d")


@dataclass(slots=True)
class Call(Generic[T]):
    """One call, ready to be made.

    Attributes:
        rpc: Name of the method of ``vectordb.v1.VectorDBService``.
        message: The request, of those in ``PATHS`` in serialized parts, which may lie in the caller's arrays; where it
            has ``timeout_seconds``, :meth:`shorten` lowers it for a repeat.
        read: From the response message, of those in ``PATHS`` its bytes, to the answer.
        timeout: Seconds for all attempts together, or ``None``.
        idempotent: Whether repeating the call is harmless even if it was carried out.
        grace: Seconds by which the channel waits longer than ``timeout``.
    """

    rpc: str
    message: Any
    read: Callable[[Any], T]
    timeout: float | None = None
    idempotent: bool = True
    grace: float = 0.0

    def deadline(self, clock: Clock) -> float | None:
        """Seconds for grpc to wait from now, or ``None``."""
        left = clock.remaining()
        return None if left is None or not left < _MAX_SECONDS else left + self.grace

    @property
    def whole(self) -> Any:
        """The request as grpc takes it: in one piece."""
        return b"".join(self.message) if self.rpc in PATHS else self.message

    def answer(self, message: Any) -> T:
        """What :attr:`read` makes of a response message.

        Raises:
            Internal: It is not well formed, or there is none.
        """
        if message is None:
            # So grpc has a success without a message; no server of this protocol sends one.
            raise Internal(f"the server's answer to {self.rpc} has no message; does something else answer for it?")
        return self.read(message)

    def settle(self) -> Call[T]:
        """Copies what the request still shares with the caller, who may change it; gives the call back."""
        if self.rpc in PATHS:
            self.message = (self.whole,)
        return self

    def shorten(self, remaining: float | None) -> None:
        """Before a repeat: the server may take only what is left."""
        # Zero would be refused as a wrong timeout.
        if remaining is not None and self.grace and math.isfinite(remaining):
            if self.rpc in PATHS:
                # Of a field that comes again the last counts.
                self.message += (_TIMEOUTS[self.rpc] + _SECONDS.pack(max(remaining, 1e-3)),)
                return
            target = self.message.search if self.rpc == "Explain" else self.message
            target.timeout_seconds = max(remaining, 1e-3)


def stub_of(channel: Any) -> Any:
    """What makes the calls of this protocol over a channel of grpc."""
    stub = VectorDBServiceStub(channel)
    for rpc, path in PATHS.items():
        setattr(stub, rpc, channel.unary_unary(path, _registered_method=True))
    stub.BulkWrite = channel.stream_stream(f"/{_SERVICE}/BulkWrite", _registered_method=True)
    return stub


class Limits:
    """``max_write_bytes`` of the collections that this connection has seen. Thread-safe: single dict operations."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}

    def learn(self, config: CollectionConfig) -> CollectionConfig:
        """Notes the collection's limit; gives ``config`` back."""
        self._bytes[config.name] = config.tuning.max_write_bytes
        return config

    def forget(self, collection: str) -> None:
        """The collection is gone; one of the same name may have another limit."""
        self._bytes.pop(collection, None)

    def check(self, collection: str, rows: Rows) -> None:
        """Refuses a write that the engine would refuse for its size, before it is sent.

        Raises:
            ResourceExhausted: It has more than ``max_write_bytes``, or more than one message can hold.
        """
        size = rows.size()
        limit = self._bytes.get(collection, MAX_MESSAGE_BYTES)
        if size > limit:
            raise ResourceExhausted(
                f"the write has {size} bytes, more than max_write_bytes = {limit}; split it, or use bulk_upsert",
                limit=limit,
                got=size,
            )
        if size > MAX_MESSAGE_BYTES:
            raise ResourceExhausted(
                f"the write has {size} bytes, more than the {MAX_MESSAGE_BYTES} that one message can hold; split it, "
                "or use bulk_upsert",
                limit=MAX_MESSAGE_BYTES,
                got=size,
            )


def new_key() -> str:
    """An idempotency key: one a call, made before its first attempt."""
    return uuid.uuid4().hex


def create_collection(request: CreateRequest) -> Call[CollectionConfig]:
    return Call(
        "CreateCollection",
        wire.create_to_message(request),
        lambda answer: config_from_message(answer.config),
        request.timeout,
        idempotent=is_repeatable("create_collection", harmless=bool(request.exist_ok)),
        grace=GRACE,
    )


def collection_config(name: str, timeout: float | None) -> Call[CollectionConfig]:
    message = service_pb2.GetCollectionRequest(collection=utf8(name, "collection"))
    return Call("GetCollection", message, lambda answer: config_from_message(answer.config), timeout)


def list_collections(timeout: float | None) -> Call[list[str]]:
    return Call("ListCollections", service_pb2.ListCollectionsRequest(), lambda answer: list(answer.names), timeout)


def delete_collection(name: str, timeout: float | None) -> Call[None]:
    message = service_pb2.DeleteCollectionRequest(collection=utf8(name, "collection"))
    return Call("DeleteCollection", message, _nothing, timeout, idempotent=is_repeatable("delete_collection"))


def info(timeout: float | None) -> Call[DatabaseInfo]:
    return Call("GetInfo", service_pb2.GetInfoRequest(), lambda answer: info_from_message(answer.info), timeout)


def write(collection: str, request: WriteRequest, limits: Limits) -> Call[WriteResult]:
    """Raises:
    ResourceExhausted: The write is larger than the collection allows.
    """
    limits.check(collection, request.rows)
    if request.idempotency_key in (None, ""):
        request = replace(request, idempotency_key=new_key())
    ids = request.rows.ids
    return Call(
        "Write",
        write_to_parts(collection, request),
        lambda data: write_result_from_bytes(data, ids),
        request.timeout,
        grace=GRACE,
    )


def update_metadata(collection: str, request: UpdateMetadataRequest) -> Call[int]:
    message = wire.update_metadata_to_message(collection, request)
    _ensure_key(message)
    return Call("UpdateMetadata", message, _count, request.timeout, grace=GRACE)


def delete(collection: str, request: DeleteRequest) -> Call[int]:
    message = wire.delete_to_message(collection, request)
    _ensure_key(message)
    return Call("Delete", message, _count, request.timeout, grace=GRACE)


def get(collection: str, request: GetRequest) -> Call[list[Record]]:
    message = wire.get_to_message(collection, request)
    return Call("Get", message, lambda answer: records_from_message(answer.records), request.timeout, grace=GRACE)


def count(collection: str, where: Filter | None, timeout: float | None) -> Call[int]:
    return Call("Count", wire.count_to_message(collection, where, timeout), _count, timeout, grace=GRACE)


def scan(collection: str, request: ScanRequest, cursor: str) -> Call[tuple[list[Record], str]]:
    """One page and the next cursor; ``cursor`` empty for the first. Repeating a cursor gives the same page."""
    message = wire.next_page_message(cursor) if cursor else wire.scan_to_message(collection, request)
    return Call("Scan", message, lambda answer: (records_from_message(answer.records), answer.next_cursor))


def close_scan(cursor: str) -> Call[None]:
    return Call("CloseScan", service_pb2.CloseScanRequest(cursor=cursor), _nothing, RELEASE_TIMEOUT)


def search(collection: str, request: SearchRequest) -> Call[list[SearchResult]]:
    queries = len(request.texts) if request.vectors is None else len(request.vectors)

    def read(data: bytes) -> list[SearchResult]:
        results = answer_from_bytes(data, request.include)
        if len(results) != queries:
            raise Internal(
                f"the server answered {queries} queries with {len(results)} results; are both of one release?"
            )
        return results

    return Call(
        "Search",
        search_to_parts(collection, request),
        read,
        request.timeout,
        grace=PARTIAL_GRACE if request.allow_partial else GRACE,
    )


def explain(collection: str, request: SearchRequest, analyze: bool) -> Call[Plan]:
    message = wire.explain_to_message(collection, request, analyze)
    return Call("Explain", message, lambda answer: plan_from_message(answer.plan), request.timeout, grace=GRACE)


def optimize(collection: str, request: OptimizeRequest, timeout: float | None) -> Call[None]:
    # Repeated, it finds it done. The connection's time is for point calls.
    message = wire.optimize_to_message(collection, request)
    if request.timeout is not None:
        return Call("Optimize", message, _nothing, request.timeout, grace=GRACE)
    return Call("Optimize", message, _nothing, None if request.wait else timeout)


def reindex(collection: str, request: ReindexRequest, timeout: float | None) -> Call[CollectionConfig]:
    # Repeated, it finds itself running or done.
    message = wire.reindex_to_message(collection, request)
    return Call(
        "Reindex", message, lambda answer: config_from_message(answer.config), None if request.wait else timeout
    )


def cancel_reindex(collection: str, timeout: float | None) -> Call[bool]:
    message = service_pb2.CancelReindexRequest(collection=utf8(collection, "collection"))
    idempotent = is_repeatable("cancel_reindex")
    return Call("CancelReindex", message, lambda answer: bool(answer.cancelled), timeout, idempotent=idempotent)


def stats(collection: str, timeout: float | None) -> Call[CollectionStats]:
    message = service_pb2.GetStatsRequest(collection=utf8(collection, "collection"))
    return Call("GetStats", message, lambda answer: stats_from_message(answer.stats), timeout)


def backup(destination: str) -> Call[BackupInfo]:
    message = service_pb2.BackupRequest(destination=utf8(destination, "destination"))
    return Call("Backup", message, lambda answer: backup_from_message(answer.backup), None)


def verify(searches: int) -> Call[VerifyReport]:
    message = service_pb2.VerifyRequest(searches=whole(searches, "searches"))
    return Call("Verify", message, lambda answer: verify_from_message(answer.report), None)


def repair(dry_run: bool) -> Call[RepairReport]:
    message = service_pb2.RepairRequest(dry_run=bool(dry_run))
    idempotent = is_repeatable("repair", harmless=bool(dry_run))
    return Call("Repair", message, lambda answer: repair_from_message(answer.report), None, idempotent=idempotent)


def erase(collection: str, request: EraseRequest) -> Call[Erasure]:
    message = wire.erase_to_message(collection, request)
    if request.delete is not None:
        _ensure_key(message.delete)
    return Call("Erase", message, lambda answer: erasure_from_message(answer.erasure), request.timeout, grace=GRACE)


def _ensure_key(message: Any) -> None:
    if not message.idempotency_key:
        message.idempotency_key = new_key()


def _nothing(answer: Any) -> None:
    """For responses that hold nothing."""


def _count(answer: Any) -> int:
    return int(answer.count)
