"""Reading: get, count, scan and search on one snapshot. A snapshot that is held keeps its rows from being purged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.encoding import decode_metadata
from vectordb.engine import checks
from vectordb.engine.draft import read_entries
from vectordb.errors import DeadlineExceeded
from vectordb.filter import Filter
from vectordb.ids import encoded_ids
from vectordb.query.deadline import Deadline
from vectordb.query.executor import execute
from vectordb.query.explain import analyzed, explain
from vectordb.query.merge import at_least
from vectordb.query.spec import SearchSpec, Winners
from vectordb.requests import GetRequest, ScanRequest, SearchRequest
from vectordb.segments.part import Part
from vectordb.storage import codec, keys
from vectordb.storage.base import Family
from vectordb.storage.codec import IdEntry
from vectordb.types import Hit, Plan, Record, SearchResult
from vectordb.validate import check_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.engine.live import LiveCollection
    from vectordb.segments.snapshot import Snapshot

_LOCK_FREE_TRIES = 3
_GET_SLICE = 4_096


def search(live: LiveCollection, request: SearchRequest) -> list[SearchResult]:
    """One result a query.

    Raises:
        InvalidArgument, DimensionMismatch, InvalidVector, InvalidFilter: The request is wrong.
        DeadlineExceeded: Time ran out and ``allow_partial`` was not set.
    """
    started = time.perf_counter()
    queries = checks.check_search(live.config, request)
    snapshot = live.snapshot
    outcome = execute(snapshot.parts, queries, _spec(live, request), Deadline.after(request.timeout))
    plan = Plan(outcome.plan.segments, request.filter_mode, snapshot.version, outcome.plan.timings_ms)
    results = []
    for winners in outcome.winners:
        hits = _hits(live, snapshot.parts, winners, request.include)
        took_ms = (time.perf_counter() - started) * 1e3
        results.append(SearchResult(hits, plan, took_ms, outcome.incomplete_reason, outcome.searched_fraction))
    return results


def explain_search(live: LiveCollection, request: SearchRequest, analyze: bool) -> Plan:
    """The plan of a search; with its measured figures and an estimate of its recall where it is run (``analyze``)."""
    queries = checks.check_search(live.config, request)
    snapshot = live.snapshot
    spec = _spec(live, request)
    if not analyze:
        return Plan(explain(snapshot.parts, spec, live.config.dim), request.filter_mode, snapshot.version)
    deadline = Deadline.after(request.timeout)
    started = time.perf_counter()
    # The least score is applied after: what it drops was found all the same.
    spec.min_score = None
    outcome = execute(snapshot.parts, queries, spec, deadline)
    winners = outcome.winners[0]
    if request.min_score is not None:
        winners = at_least(winners, request.min_score, live.config.metric)
    reading = time.perf_counter()
    _hits(live, snapshot.parts, winners, request.include)
    ended = time.perf_counter()
    plan = analyzed(snapshot.parts, queries, spec, outcome, deadline)
    timings = {**plan.timings_ms, "read": (ended - reading) * 1e3, "total": (ended - started) * 1e3}
    return replace(plan, version=snapshot.version, timings_ms=timings)


def _spec(live: LiveCollection, request: SearchRequest) -> SearchSpec:
    return SearchSpec(
        limit=request.limit,
        where=request.where,
        filter_mode=request.filter_mode,
        exact=request.exact,
        min_score=request.min_score,
        params=request.params,
        allow_partial=request.allow_partial,
        metric=live.config.metric,
    )


def _hits(live: LiveCollection, parts: Sequence[Part], winners: Winners, include: Sequence[str]) -> list[Hit]:
    if not include:
        return list(map(Hit, winners.ids, winners.scores.tolist()))
    records = _read(live, _locate(parts, winners.parts, winners.rows), include)
    return [
        Hit(id_, score, metadata, text, vector)
        for id_, score, (_, metadata, text, vector) in zip(winners.ids, winners.scores.tolist(), records, strict=True)
    ]


def _locate(parts: Sequence[Part], owners: NDArray[np.int64], rows: NDArray[np.int64]) -> list[IdEntry]:
    """Where the payloads of rows int64[k] of several parts are stored; ``owners`` int64[k] has each row's part."""
    if not len(rows):
        return []
    first = int(owners[0])
    if (owners == first).all():
        part = parts[first]
        return list(map(IdEntry, part.offsets(rows).tolist(), part.payload_versions(rows).tolist()))
    offsets = np.empty(len(rows), np.uint64)
    versions = np.empty(len(rows), np.uint64)
    for index in np.unique(owners).tolist():
        mine = owners == index
        offsets[mine] = parts[index].offsets(rows[mine])
        versions[mine] = parts[index].payload_versions(rows[mine])
    return list(map(IdEntry, offsets.tolist(), versions.tolist()))


_Parts = tuple[bytes, dict[str, Any] | None, str | None, "NDArray[np.float32] | None"]


def _read(live: LiveCollection, located: Sequence[IdEntry], include: Sequence[str]) -> list[_Parts]:
    """Id, and the included metadata, text and vector, of stored rows."""
    number = live.number
    stored = live.storage.get_many(Family.ROWS, [keys.payload_key(number, *entry) for entry in located])
    with_metadata, with_text = "metadata" in include, "text" in include
    vectors: Sequence[bytes | None] = ()
    if "vector" in include:
        vectors = live.storage.get_many(
            Family.VECTORS, keys.vector_keys_at(number, [entry.offset for entry in located])
        )
    found: list[_Parts] = []
    for i, data in enumerate(stored):
        if data is None:
            raise live.missing_payload(*located[i])
        payload = codec.decode_payload(data)
        vector = vectors[i] if vectors else None
        found.append(
            (
                payload.id,
                decode_metadata(payload.metadata) if with_metadata else None,
                payload.text.decode() if with_text and payload.text is not None else None,
                None if vector is None else np.frombuffer(vector, "<f4"),
            )
        )
    return found


def get(live: LiveCollection, request: GetRequest) -> list[Record]:
    """Records by id in the asked order, missing ones left out, all as of one moment."""
    checks.check_include(request.include)
    checks.check_timeout(request.timeout)
    deadline = Deadline.after(request.timeout)
    snapshot, entries = _entries(live, encoded_ids(request.ids, unique=False))
    found = [entry for entry in entries if entry is not None]
    records: list[Record] = []
    for start in range(0, len(found), _GET_SLICE):
        if deadline.expired():
            raise DeadlineExceeded(
                f"get read {start} of {len(found)} records in {request.timeout} s; ask for fewer at a time",
                timeout=request.timeout,
            )
        chosen = found[start : start + _GET_SLICE]
        records.extend(
            Record(id_.decode(), vector, metadata, text, version)
            for (_, version), (id_, metadata, text, vector) in zip(
                chosen, _read(live, chosen, request.include), strict=True
            )
        )
    del snapshot  # held until here: it keeps the rows from being purged
    return records


def _entries(live: LiveCollection, ids: list[bytes]) -> tuple[Snapshot, list[IdEntry | None]]:
    """Where the ids are as of one published version, and a snapshot that keeps those rows readable.

    The id map may already hold a group that is not synced yet; ``unsynced`` has where those ids were before. When
    nothing was published between the two looks at the snapshot, both belong to one version.
    """
    for _ in range(_LOCK_FREE_TRIES):
        before = live.snapshot
        entries = read_entries(live, ids)
        unsynced = live.unsynced
        if live.snapshot is before:
            return before, _before(ids, entries, unsynced)
    with live.commit_gate:  # nothing is being written now
        return live.snapshot, _before(ids, read_entries(live, ids), live.unsynced)


def _before(
    ids: list[bytes], entries: list[IdEntry | None], unsynced: Mapping[bytes, IdEntry | None] | None
) -> list[IdEntry | None]:
    return [unsynced.get(i, entry) for i, entry in zip(ids, entries, strict=True)] if unsynced else entries


def count(live: LiveCollection, where: Filter | None, timeout: float | None) -> int:
    """Exact number of live records, all or those that match."""
    check_filter(where, live.config.fields)
    checks.check_timeout(timeout)
    snapshot = live.snapshot
    if where is None:
        return snapshot.rows
    deadline = Deadline.after(timeout)
    total = 0
    for part in snapshot.parts:
        if deadline.expired():
            raise DeadlineExceeded(f"count did not finish in {timeout} s", timeout=timeout)
        found = part.matching(where)
        total += len(found) - (found.intersection_cardinality(part.dead_rows()) if part.dead else 0)
    return total


def scan(live: LiveCollection, request: ScanRequest) -> Iterator[list[Record]]:
    """Pages of all matching records over the snapshot of this call."""
    checks.check_scan(live.config, request)
    return _pages(live, live.snapshot, request)


def _pages(live: LiveCollection, snapshot: Snapshot, request: ScanRequest) -> Iterator[list[Record]]:
    rows = [_live_rows(part, request.where) for part in snapshot.parts]
    which = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    flat = np.concatenate(rows) if rows else np.empty(0, np.int64)
    if request.order_by is not None:
        order = _order(snapshot.parts, rows, request.order_by)
        which, flat = which[order], flat[order]
    for start in range(0, len(flat), request.page_size):
        chosen = slice(start, start + request.page_size)
        located = _locate(snapshot.parts, which[chosen], flat[chosen])
        live.check_open()
        yield [
            Record(id_.decode(), vector, metadata, text, version)
            for (_, version), (id_, metadata, text, vector) in zip(
                located, _read(live, located, request.include), strict=True
            )
        ]


def _live_rows(part: Part, where: Filter | None) -> NDArray[np.int64]:
    if where is not None:
        found = part.matching(where)
        if part.dead:
            found = found - part.dead_rows()
        return np.asarray(found.to_array(), np.int64)
    rows = np.arange(part.rows, dtype=np.int64)
    return rows[part.alive(rows)] if part.dead else rows


def _order(parts: Sequence[Part], rows: list[NDArray[np.int64]], order_by: str) -> NDArray[np.int64]:
    """The permutation that sorts all rows by a field: missing last, ties by id. Values order by type (bool, number,
    datetime, string), then by value."""
    descending, path = order_by.startswith("-"), order_by.removeprefix("-")
    ids: list[bytes] = []
    ranks: list[tuple[int, Any] | None] = []
    for part, chosen in zip(parts, rows, strict=True):
        ids.extend(i.encode() for i in part.ids(chosen))
        ranks.extend(part.sort_keys(path, chosen))
    order = sorted(range(len(ids)), key=ids.__getitem__)
    there = [i for i in order if ranks[i] is not None]
    # Stable also when reversed: ties stay in the order of their ids.
    there.sort(key=lambda i: ranks[i] or (), reverse=descending)
    there.extend(i for i in order if ranks[i] is None)
    return np.asarray(there, np.int64)
