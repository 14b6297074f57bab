"""Row policies: a mandatory filter that bounds what a caller reads and writes, whatever the caller asks for.

Under a policy a collection seems to hold the rows that match it and no others:

- ``search``, ``search_text``, ``count``, ``scan`` and ``explain`` join it to their own filter; ``get`` leaves other
  rows out; ``update_metadata`` and ``delete`` pass them by, and ``if_version`` takes them for missing.
- ``insert``, ``upsert`` and ``update`` must write rows that match, and ``update_metadata`` must leave rows that match.
- The id of a row that is hidden cannot be written: ``update`` says that it is missing, ``insert`` and ``upsert`` are
  refused. That such an id is taken is the one thing about a hidden row that a caller can find out by asking.
- What counts or changes all rows (statistics, indexes, collections, backups) is refused.

The committer judges rows as they are when it writes (``engine/operations.py``), so nothing can change between the check
and the write. Not hidden are: the collection's version, which counts everybody's writes; how long a call takes; and how
rare a word is in the whole collection, which keyword scores depend on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TypeVar

from vectordb.encoding import decode_metadata
from vectordb.errors import InvalidFilter, PermissionDenied
from vectordb.filter import Filter, matches
from vectordb.results import Plan, SegmentPlan
from vectordb.validate import check_filter

if TYPE_CHECKING:
    from vectordb.requests import (
        Backend,
        CreateRequest,
        DeleteRequest,
        GetRequest,
        OptimizeRequest,
        ReindexRequest,
        ScanRequest,
        SearchRequest,
        UpdateMetadataRequest,
        WriteRequest,
    )
    from vectordb.results import SearchResult
    from vectordb.stats import BackupInfo, CollectionStats, DatabaseInfo
    from vectordb.types import CollectionConfig, Record, WriteResult

T = TypeVar("T")
R = TypeVar("R", "SearchRequest", "ScanRequest")


def joined(first: Filter | None, second: Filter | None) -> Filter | None:
    """What meets both; None where there is neither."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def require_rows(policy: Filter, ids: Sequence[str], metadata: Sequence[bytes]) -> None:
    """Refuses rows that their writer could not see.

    Args:
        metadata: One encoded map a row, as it would be stored.

    Raises:
        PermissionDenied: With ``row`` and ``id`` of the first that does not match.
    """
    for row, data in enumerate(metadata):
        if not matches(policy, decode_metadata(data)):
            raise PermissionDenied(
                f"row {row} (id {ids[row]!r}) does not match the caller's row policy; give it metadata that does "
                f"({_fields(policy)})",
                row=row,
                id=ids[row],
            )


def outside(row: int, id_: str) -> PermissionDenied:
    """The error for an id that is taken by a row that its writer cannot see."""
    return PermissionDenied(
        f"row {row} (id {id_!r}) cannot be written under the caller's row policy; use another id", row=row, id=id_
    )


def would_leave(policy: Filter, id_: str) -> PermissionDenied:
    """The error for a change by which a row would leave its writer's sight."""
    return PermissionDenied(
        f"record {id_!r} would not match the caller's row policy any more; leave {_fields(policy)} as it is", id=id_
    )


def scoped_key(policy: Filter | None, idempotency_key: str | None) -> str | None:
    """The key under which a write's result is kept: callers of different policies never share one."""
    if policy is None or idempotency_key is None:
        return idempotency_key
    told = json.dumps([policy.to_json(), idempotency_key], sort_keys=True)
    return "policy:" + hashlib.sha256(told.encode()).hexdigest()


def shown(plan: Plan) -> Plan:
    """The plan without what tells about hidden rows: one entry a strategy, and of the counts only those of matches."""
    entries: dict[str, SegmentPlan] = {}
    for part in plan:
        before = entries.get(part.strategy)
        known = part.matched is not None and (before is None or before.matched is not None)
        matched = (part.matched or 0) + (0 if before is None else before.matched or 0) if known else None
        entries[part.strategy] = SegmentPlan(
            "*", part.strategy, matched or 0, matched or 0, matched, filtered=True, params=part.params
        )
    if len(entries) > 1:
        entries.pop("empty", None)
    return replace(plan, segments=tuple(entries.values()), timings_ms={})


def _fields(policy: Filter) -> str:
    return ", ".join(sorted(policy.fields()))


class PolicyBackend:
    """A ``vectordb.requests.Backend`` within a row policy. As thread-safe as the one below; closing leaves that open.

    Args:
        backend: The engine, or what leads to one in this process.
        policy: What rows must match.
    """

    def __init__(self, backend: Backend, policy: Filter) -> None:
        self._backend = backend
        self._policy = policy

    def with_policy(self, policy: Filter) -> PolicyBackend:
        """The same within a further policy: rows must match both."""
        return PolicyBackend(self._backend, self._policy & policy)

    def _checked(self, collection: str) -> CollectionConfig:
        """The collection's configuration.

        Raises:
            PermissionDenied: Its fields are declared so that the policy cannot be applied: nobody can say which rows
                the caller may see.
        """
        config = self._backend.collection_config(collection)
        if config.fields:
            try:
                check_filter(self._policy, config.fields)
            except InvalidFilter as error:
                raise PermissionDenied(
                    f"the caller's row policy cannot be applied to collection {collection!r}: {error.message}",
                    collection=collection,
                ) from None
        return config

    def _where(self, collection: str, where: Filter | None) -> Filter:
        config = self._checked(collection)
        # Before they are joined: an error names the place in the caller's own filter.
        check_filter(where, config.fields)
        return self._policy if where is None else self._policy & where

    def _bound(self, collection: str, request: T) -> T:
        self._checked(collection)
        bound = copy(request)
        # What a handle above asked for stays: a policy of the key's is one more.
        bound.policy = joined(request.policy, self._policy)  # type: ignore[attr-defined]
        return bound

    def create_collection(self, request: CreateRequest) -> CollectionConfig:
        _refuse("create_collection")

    def collection_config(self, name: str) -> CollectionConfig:
        return self._backend.collection_config(name)

    def list_collections(self) -> list[str]:
        return self._backend.list_collections()

    def delete_collection(self, name: str) -> None:
        _refuse("delete_collection")

    def info(self) -> DatabaseInfo:
        """Without what tells of the machine, or of how much there is in all."""
        return replace(self._backend.info(), path="", memory={}, memory_limit=None)

    def write(self, collection: str, request: WriteRequest) -> WriteResult:
        return self._backend.write(collection, self._bound(collection, request))

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int:
        return self._backend.update_metadata(collection, self._bound(collection, request))

    def delete(self, collection: str, request: DeleteRequest) -> int:
        return self._backend.delete(collection, self._bound(collection, request))

    def get(self, collection: str, request: GetRequest) -> list[Record]:
        return self._backend.get(collection, self._bound(collection, request))

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int:
        return self._backend.count(collection, self._where(collection, where), timeout)

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        return self._backend.scan(collection, self._within(collection, request))

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        results = self._backend.search(collection, self._within(collection, request))
        for result in results:
            result.plan = shown(result.plan)
        return results

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan:
        return shown(self._backend.explain(collection, self._within(collection, request), analyze))

    def _within(self, collection: str, request: R) -> R:
        within = copy(request)
        within.where = self._where(collection, request.where)
        return within

    def optimize(self, collection: str, request: OptimizeRequest) -> None:
        _refuse("optimize")

    def reindex(self, collection: str, request: ReindexRequest) -> CollectionConfig:
        _refuse("reindex")

    def cancel_reindex(self, collection: str) -> bool:
        _refuse("cancel_reindex")

    def stats(self, collection: str) -> CollectionStats:
        _refuse("stats")

    def backup(self, destination: str) -> BackupInfo:
        _refuse("backup")

    def verify(self, searches: int) -> NoReturn:
        _refuse("verify")

    def repair(self, dry_run: bool) -> NoReturn:
        _refuse("repair")

    def erase(self, collection: str, request: object) -> NoReturn:
        _refuse("erase")

    def close(self) -> None:
        """Leaves the backend open: it is its owner's to close."""


def _refuse(call: str) -> NoReturn:
    raise PermissionDenied(f"{call} concerns all rows, and the caller's row policy allows some of them", call=call)
