"""Who calls, and a backend as that caller's API key may use it: by role, on its collections, noted in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from vectordb.errors import CollectionNotFound, PermissionDenied, VectorDBError
from vectordb.row_policy import PolicyBackend
from vectordb.server.keys import EVERYTHING, Key, Role

if TYPE_CHECKING:
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
    from vectordb.server.audit import AuditLog
    from vectordb.stats import BackupInfo, CollectionStats, DatabaseInfo
    from vectordb.types import CollectionConfig, Record, WriteResult

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: the key, and the address it comes from."""

    key: Key
    peer: str


CALLER: ContextVar[Caller | None] = ContextVar("vectordb_caller", default=None)
"""Who made the call that the running code answers; None on a server that asks for no keys and keeps no audit log."""


class CallersBackend:
    """Checks each call against the caller's key, notes it, and hands it on: a ``vectordb.requests.Backend``.

    Collections that the key is not for are neither listed nor told apart from missing ones. Thread-safe.
    """

    def __init__(self, backend: Backend, caller: Caller, audit: AuditLog | None) -> None:
        policy = caller.key.policy
        self._backend = backend if policy is None else backend.with_policy(policy)
        self._caller = caller
        self._audit = audit

    def _do(self, call: str, role: Role, collection: str | None, action: Callable[[Backend], T]) -> T:
        key = self._caller.key
        try:
            key.require(role)
            if collection is not None:
                key.require_collection(collection)
            answer = action(self._backend)
        except VectorDBError as error:
            if role > Role.READ or isinstance(error, PermissionDenied):
                self._note(call, collection, error)
            if isinstance(error, CollectionNotFound) and key.collections is not None:
                # The engine's names what there is, also what the key is not for.
                raise CollectionNotFound(f"collection {collection!r} does not exist", collection=collection) from None
            raise
        if role > Role.READ:
            self._note(call, collection, None)
        return answer

    def _note(self, call: str, collection: str | None, error: VectorDBError | None) -> None:
        if self._audit is not None:
            self._audit.note(self._caller.peer, self._caller.key.name, call, collection, error)

    def create_collection(self, request: CreateRequest) -> CollectionConfig:
        return self._do("create_collection", Role.ADMIN, request.config.name, lambda b: b.create_collection(request))

    def collection_config(self, name: str) -> CollectionConfig:
        return self._do("collection_config", Role.READ, name, lambda b: b.collection_config(name))

    def list_collections(self) -> list[str]:
        return [name for name in self._backend.list_collections() if self._caller.key.may_see(name)]

    def delete_collection(self, name: str) -> None:
        self._do("delete_collection", Role.ADMIN, name, lambda b: b.delete_collection(name))

    def info(self) -> DatabaseInfo:
        info = self._backend.info()
        return replace(info, collections=tuple(n for n in info.collections if self._caller.key.may_see(n)))

    def write(self, collection: str, request: WriteRequest) -> WriteResult:
        return self._do(request.mode.value, Role.WRITE, collection, lambda b: b.write(collection, request))

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int:
        return self._do("update_metadata", Role.WRITE, collection, lambda b: b.update_metadata(collection, request))

    def delete(self, collection: str, request: DeleteRequest) -> int:
        return self._do("delete", Role.WRITE, collection, lambda b: b.delete(collection, request))

    def get(self, collection: str, request: GetRequest) -> list[Record]:
        return self._do("get", Role.READ, collection, lambda b: b.get(collection, request))

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int:
        return self._do("count", Role.READ, collection, lambda b: b.count(collection, where, timeout))

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        return self._do("scan", Role.READ, collection, lambda b: b.scan(collection, request))

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        return self._do("search", Role.READ, collection, lambda b: b.search(collection, request))

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan:
        return self._do("explain", Role.READ, collection, lambda b: b.explain(collection, request, analyze))

    def optimize(self, collection: str, request: OptimizeRequest) -> None:
        self._do("optimize", Role.ADMIN, collection, lambda b: b.optimize(collection, request))

    def reindex(self, collection: str, request: ReindexRequest) -> CollectionConfig:
        return self._do("reindex", Role.ADMIN, collection, lambda b: b.reindex(collection, request))

    def cancel_reindex(self, collection: str) -> bool:
        return self._do("cancel_reindex", Role.ADMIN, collection, lambda b: b.cancel_reindex(collection))

    def stats(self, collection: str) -> CollectionStats:
        return self._do("stats", Role.READ, collection, lambda b: b.stats(collection))

    @property
    def _everything(self) -> str | None:
        """What a backup holds, and a report names: all collections, for which only a key for all of them will do."""
        return None if self._caller.key.collections is None else EVERYTHING

    def backup(self, destination: str) -> BackupInfo:
        return self._do("backup", Role.ADMIN, self._everything, lambda b: b.backup(destination))

    def verify(self, searches: int) -> VerifyReport:
        return self._do("verify", Role.ADMIN, self._everything, lambda b: b.verify(searches))

    def repair(self, dry_run: bool) -> RepairReport:
        return self._do("repair", Role.ADMIN, self._everything, lambda b: b.repair(dry_run))

    def erase(self, collection: str, request: EraseRequest) -> Erasure:
        return self._do("erase", Role.ADMIN, collection, lambda b: b.erase(collection, request))

    def with_policy(self, policy: Filter) -> PolicyBackend:
        """The same, within a policy of the caller's own choice beside the key's."""
        return PolicyBackend(self, policy)

    def close(self) -> None:
        """Not a client's to do."""
