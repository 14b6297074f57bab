"""The RPCs: each turns its message into a request, hands it to the backend, and turns the answer into a message.

Messages are read and written in ``vectordb.wire``, errors become statuses in ``interceptors``.
"""

# ruff: noqa: N802 -- the protocol names the methods.

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TypeAlias

import grpc

from vectordb.errors import DeadlineExceeded, PermissionDenied, Unavailable
from vectordb.requests import SAMPLE_SEARCHES, Backend
from vectordb.server.access import CALLER, CallersBackend
from vectordb.server.admission import until_deadline
from vectordb.server.audit import AuditLog
from vectordb.server.calls import CALL
from vectordb.server.scans import Owner, Scans
from vectordb.wire import reports, requests, results, stats
from vectordb.wire.answer import answer_to_bytes
from vectordb.wire.config import config_to_message
from vectordb.wire.search import Asked
from vectordb.wire.write import Written
from vectordb_proto.v1 import service_pb2 as pb
from vectordb_proto.v1 import service_pb2_grpc

ANYWHERE = "*"
"""The place for backups of a server whose clients may write wherever it may: processes of the same user."""
_Context: TypeAlias = grpc.ServicerContext
_RESERVE, _LONG_RESERVE = 0.05, 0.5
"""Seconds of a call's deadline that its answer may need, and that of a call whose work notices late that time is up."""


class Service(service_pb2_grpc.VectorDBServiceServicer):  # type: ignore[misc,unused-ignore]
    """The protocol's service over a backend, which may come later than the first call. Thread-safe.

    Args:
        max_message_bytes: What the longest answer may have; see ``interceptors``.
    """

    def __init__(
        self, scans: Scans, backup_to: str | None, max_message_bytes: int, audit: AuditLog | None = None
    ) -> None:
        self._scans = scans
        self._longest = max_message_bytes
        self._backup_to = backup_to
        self._audit = audit
        self._opened: Backend | None = None

    def open(self, backend: Backend) -> None:
        """From now on calls are carried out; before they are ``Unavailable``."""
        self._opened = backend

    @property
    def backend(self) -> Backend:
        """What carries out the calls, within what the caller's key allows.

        Raises:
            Unavailable: The server is still starting.
        """
        if self._opened is None:
            raise Unavailable("the server is starting; try again in a moment", retry_after=0.5)
        caller, call = CALLER.get(), CALL.get()
        backend: Backend = self._opened if caller is None else CallersBackend(self._opened, caller, self._audit)
        if call is None or not call.policies:
            return backend
        policy = call.policy
        return backend if policy is None else backend.with_policy(policy)

    # Collections

    def CreateCollection(self, message: pb.CreateCollectionRequest, context: _Context) -> pb.CreateCollectionResponse:
        request = requests.create_from_message(message)
        request.timeout = time_left(context, request.timeout)
        response = pb.CreateCollectionResponse()
        config_to_message(self.backend.create_collection(request), response.config)
        return response

    def GetCollection(self, message: pb.GetCollectionRequest, context: _Context) -> pb.GetCollectionResponse:
        response = pb.GetCollectionResponse()
        config_to_message(self.backend.collection_config(message.collection), response.config)
        return response

    def ListCollections(self, message: pb.ListCollectionsRequest, context: _Context) -> pb.ListCollectionsResponse:
        return pb.ListCollectionsResponse(names=self.backend.list_collections())

    def DeleteCollection(self, message: pb.DeleteCollectionRequest, context: _Context) -> pb.DeleteCollectionResponse:
        self.backend.delete_collection(message.collection)
        return pb.DeleteCollectionResponse()

    def GetInfo(self, message: pb.GetInfoRequest, context: _Context) -> pb.GetInfoResponse:
        response = pb.GetInfoResponse()
        stats.info_to_message(self.backend.info(), response.info)
        return response

    # Writing

    def Write(self, written: Written, context: _Context) -> pb.WriteResponse:
        """From what ``write_from_bytes`` reads: see ``interceptors``."""
        response = pb.WriteResponse()
        self._write(written, context, response.result)
        return response

    def BulkWrite(self, messages: Iterator[pb.BulkWriteRequest], context: _Context) -> Iterator[pb.BulkWriteResponse]:
        for message in messages:
            response = pb.BulkWriteResponse()
            request = requests.write_from_message(message.write)
            self._write(Written(message.write.collection, request), context, response.result)
            yield response

    def UpdateMetadata(self, message: pb.UpdateMetadataRequest, context: _Context) -> pb.UpdateMetadataResponse:
        request = requests.update_metadata_from_message(message)
        request.timeout = time_left(context, request.timeout)
        return pb.UpdateMetadataResponse(count=self.backend.update_metadata(message.collection, request))

    def Delete(self, message: pb.DeleteRequest, context: _Context) -> pb.DeleteResponse:
        request = requests.delete_from_message(message)
        request.timeout = time_left(context, request.timeout)
        return pb.DeleteResponse(count=self.backend.delete(message.collection, request))

    # Reading

    def Get(self, message: pb.GetRequest, context: _Context) -> pb.GetResponse:
        request = requests.get_from_message(message)
        request.timeout = time_left(context, request.timeout)
        request.encoded = True
        response = pb.GetResponse()
        results.records_to_message(self.backend.get(message.collection, request), response.records)
        return response

    def Count(self, message: pb.CountRequest, context: _Context) -> pb.CountResponse:
        where, timeout = requests.count_from_message(message)
        return pb.CountResponse(count=self.backend.count(message.collection, where, time_left(context, timeout)))

    def Scan(self, message: pb.ScanRequest, context: _Context) -> pb.ScanResponse:
        owner = _owner()
        if message.cursor:
            page, cursor = self._scans.resume(message.cursor, owner)
        else:
            request = requests.scan_from_message(message)
            request.encoded = True
            begin = partial(self.backend.scan, message.collection, request)
            page, cursor = self._scans.start(begin, request.page_size, owner)
        response = pb.ScanResponse(next_cursor=cursor)
        results.records_to_message(page, response.records)
        if cursor and not message.cursor and (response.ByteSize() > self._longest or not context.is_active()):
            # This answer will not arrive, so nobody has the cursor that would go on with the scan, or end it.
            self._scans.close(cursor, owner)
        return response

    def CloseScan(self, message: pb.CloseScanRequest, context: _Context) -> pb.CloseScanResponse:
        self._scans.close(message.cursor, _owner())
        return pb.CloseScanResponse()

    def Search(self, asked: Asked, context: _Context) -> bytes:
        """From what ``search_from_bytes`` reads: see ``interceptors``."""
        request = asked.request
        request.timeout = time_left(context, request.timeout)
        request.encoded = True
        return answer_to_bytes(self.backend.search(asked.shape.collection, request), request.include)

    def Explain(self, message: pb.ExplainRequest, context: _Context) -> pb.ExplainResponse:
        request = requests.search_from_message(message.search)
        request.timeout = time_left(context, request.timeout)
        response = pb.ExplainResponse()
        plan = self.backend.explain(message.search.collection, request, message.analyze)
        stats.plan_to_message(plan, response.plan)
        return response

    # Care

    def Optimize(self, message: pb.OptimizeRequest, context: _Context) -> pb.OptimizeResponse:
        request = requests.optimize_from_message(message)
        request.timeout = time_left(context, request.timeout)
        request.wanted = context.is_active
        self.backend.optimize(message.collection, request)
        return pb.OptimizeResponse()

    def Reindex(self, message: pb.ReindexRequest, context: _Context) -> pb.ReindexResponse:
        request = requests.reindex_from_message(message)
        request.wanted = context.is_active
        response = pb.ReindexResponse()
        config_to_message(self.backend.reindex(message.collection, request), response.config)
        return response

    def CancelReindex(self, message: pb.CancelReindexRequest, context: _Context) -> pb.CancelReindexResponse:
        return pb.CancelReindexResponse(cancelled=self.backend.cancel_reindex(message.collection))

    def GetStats(self, message: pb.GetStatsRequest, context: _Context) -> pb.GetStatsResponse:
        response = pb.GetStatsResponse()
        stats.stats_to_message(self.backend.stats(message.collection), response.stats)
        return response

    def Backup(self, message: pb.BackupRequest, context: _Context) -> pb.BackupResponse:
        response = pb.BackupResponse()
        backup = self.backend.backup(backup_place(self._backup_to, message.destination))
        stats.backup_to_message(backup, response.backup)
        return response

    def Verify(self, message: pb.VerifyRequest, context: _Context) -> pb.VerifyResponse:
        response = pb.VerifyResponse()
        searches = message.searches if message.HasField("searches") else SAMPLE_SEARCHES
        reports.verify_to_message(self.backend.verify(searches), response.report)
        return response

    def Repair(self, message: pb.RepairRequest, context: _Context) -> pb.RepairResponse:
        response = pb.RepairResponse()
        reports.repair_to_message(self.backend.repair(message.dry_run), response.report)
        return response

    def Erase(self, message: pb.EraseRequest, context: _Context) -> pb.EraseResponse:
        request = requests.erase_from_message(message)
        request.timeout = time_left(context, request.timeout, _LONG_RESERVE)
        response = pb.EraseResponse()
        reports.erasure_to_message(self.backend.erase(message.collection, request), response.erasure)
        return response

    def _write(self, written: Written, context: _Context, result: pb.WriteResult) -> None:
        collection, request = written
        request.timeout = time_left(context, request.timeout)
        given = request.rows.ids
        results.write_result_to_message(self.backend.write(collection, request), given, result)


def _owner() -> Owner:
    """Whose scans the running call may go on with: those of the same key, as it was, within the same policy."""
    caller, call = CALLER.get(), CALL.get()
    return None if caller is None else caller.key, () if call is None else call.policies


def backup_place(allowed: str | None, wanted: str) -> str:
    """Where a client's backup goes: at or below the server's own place, so that clients cannot write anywhere else.

    Raises:
        PermissionDenied: The server has no place for backups, or the client named another.
    """
    if not allowed:
        raise PermissionDenied("this server makes no backups for its clients; start it with --backup-to")
    if allowed == ANYWHERE:
        return wanted
    root = allowed.rstrip("/")
    below = wanted.removeprefix(root).strip("/") if wanted == root or wanted.startswith(f"{root}/") else wanted
    if below.startswith("/") or "://" in below or ".." in below.split("/"):
        raise PermissionDenied(f"backups of this server lie at or below {root!r}, not at {wanted!r}")
    return f"{root}/{below}" if below else root


def time_left(context: grpc.ServicerContext, timeout: float | None, reserve: float = _RESERVE) -> float | None:
    """The request's timeout or the call's deadline in seconds, whichever is sooner; ``None`` for neither.

    A little of the deadline is kept back, a tenth but at most ``reserve``, so that the answer, or what was found until
    then, still arrives.

    Raises:
        DeadlineExceeded: The deadline has passed.
    """
    remaining = until_deadline(context)
    if remaining is None:
        return timeout
    if remaining <= 0:
        raise DeadlineExceeded("the call's deadline had passed before the server began it", timeout=timeout)
    left = remaining - min(reserve, 0.1 * remaining)
    # A timeout that is no positive number goes on to the engine, which refuses it.
    return timeout if timeout is not None and not timeout > left else left
