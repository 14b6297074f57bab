"""Reading: get, count, scan and search on one snapshot. A snapshot that is held keeps its rows from being purged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.engine import checks
from vectordb.engine.draft import read_entries
from vectordb.engine.stored import Entries, PartRows, Stored, rows_of_parts
from vectordb.errors import DeadlineExceeded
from vectordb.filter import Filter
from vectordb.ids import encoded_ids
from vectordb.query.deadline import Deadline
from vectordb.query.direct import Direct
from vectordb.query.executor import execute
from vectordb.query.explain import analyzed, explain
from vectordb.query.fusion import execute_hybrid
from vectordb.query.keyword import execute_text, explain_text
from vectordb.query.merge import at_least, concatenated
from vectordb.query.spec import SearchSpec, Winners
from vectordb.requests import GetRequest, Rrf, ScanRequest, SearchRequest
from vectordb.results import HitColumns, Plan, PlanMaker, SearchResult, SegmentPlan
from vectordb.segments.part import Part
from vectordb.storage.codec import IdEntry
from vectordb.text.analyzers import analyzer
from vectordb.text.query import TextQuery, parse
from vectordb.types import Record
from vectordb.validate import check_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.engine.live import LiveCollection
    from vectordb.segments.snapshot import Snapshot

_LOCK_FREE_TRIES = 3
_GET_SLICE = 4_096
_KEPT_WAYS = 64
"""Kinds of searches for which a snapshot keeps the way."""


def search(live: LiveCollection, request: SearchRequest) -> list[SearchResult]:
    """One result a query.

    Raises:
        InvalidArgument, DimensionMismatch, InvalidVector, InvalidFilter: The request is wrong.
        DeadlineExceeded: Time ran out and ``allow_partial`` was not set.
    """
    started = time.perf_counter()
    queries = checks.check_search(live.config, request, live.limits)
    snapshot = live.snapshot
    deadline = Deadline.after(request.timeout)
    if len(queries) == 1 and not request.texts:
        found = _directly(live, snapshot, request, queries, deadline)
        if found is not None:
            hits, plan = found
            return [SearchResult(hits, plan, (time.perf_counter() - started) * 1e3)]
    spec = _spec(live, request, snapshot.version)
    make = partial(_all_columns, live, snapshot.parts, request, deadline)
    if not request.texts:
        outcome = execute(snapshot.parts, queries, spec, deadline, make)
        made: list[HitColumns] = outcome.made
    elif request.vectors is None:
        outcome = execute_text(snapshot.parts, _text_queries(live, request), spec, deadline)
        made = make(outcome.winners)
    else:
        both = (queries, _text_queries(live, request))
        outcome = execute_hybrid(snapshot.parts, both, spec, request.fusion or Rrf(), deadline)
        made = make(outcome.winners)
    took_ms = (time.perf_counter() - started) * 1e3
    rest = (outcome.plan, took_ms, outcome.incomplete_reason, outcome.searched_fraction)
    return [SearchResult(hits, *rest) for hits in made]


def _directly(
    live: LiveCollection,
    snapshot: Snapshot,
    request: SearchRequest,
    queries: NDArray[np.float32],
    deadline: Deadline,
) -> tuple[HitColumns, PlanMaker] | None:
    """The answer to the commonest search; None where it takes the general way."""
    if request.exact or request.min_score is not None or request.allow_partial:
        return None
    params = request.params
    kind = (request.limit, request.filter_mode, tuple(params.items()) if params else None)
    try:
        direct = snapshot.ways[kind]
    except KeyError:
        if len(snapshot.ways) >= _KEPT_WAYS:
            snapshot.ways.clear()
        spec = _spec(live, request, snapshot.version)
        direct = snapshot.ways[kind] = Direct.of(snapshot.parts, live.config.dim, spec)
    if direct is None:
        return None
    nearest = direct.search(queries, request.where, deadline)
    if nearest is None:
        return None
    if not request.include:
        return HitColumns(nearest.ids, nearest.scores), nearest.plan
    stored = Stored(live, PartRows(nearest.part, nearest.rows), request)
    columns = HitColumns(nearest.ids, nearest.scores, stored.metadata(), stored.texts(), stored.vectors())
    return columns, nearest.plan


def explain_search(live: LiveCollection, request: SearchRequest, analyze: bool) -> Plan:
    """The plan of a search; with its measured figures and an estimate of its recall where it is run (``analyze``)."""
    queries = checks.check_search(live.config, request, live.limits)
    snapshot = live.snapshot
    if analyze:
        return _analyzed_texts(live, request) if request.texts else _analyzed(live, snapshot, request, queries)
    spec = _spec(live, request, snapshot.version)
    segments: tuple[SegmentPlan, ...] = ()
    if request.vectors is not None:
        segments = explain(snapshot.parts, spec, live.config.dim)
    if request.texts:
        segments += explain_text(snapshot.parts, _text_queries(live, request), spec)
    return Plan(segments, request.filter_mode, snapshot.version)


def _analyzed(live: LiveCollection, snapshot: Snapshot, request: SearchRequest, queries: NDArray[np.float32]) -> Plan:
    """The plan of a search by vector that was run, with an estimate of its recall."""
    deadline = Deadline.after(request.timeout)
    started = time.perf_counter()
    # The least score is applied after: what it drops was found all the same.
    spec = replace(_spec(live, request, snapshot.version), min_score=None)
    outcome = execute(snapshot.parts, queries, spec, deadline)
    winners = outcome.winners[0]
    if request.min_score is not None:
        winners = at_least(winners, request.min_score, live.config.metric)
    reading = time.perf_counter()
    _columns(live, snapshot.parts, request, winners)
    ended = time.perf_counter()
    plan = analyzed(snapshot.parts, queries, spec, outcome, deadline)
    timings = {**plan.timings_ms, "read": (ended - reading) * 1e3, "total": (ended - started) * 1e3}
    return replace(plan, timings_ms=timings)


def _analyzed_texts(live: LiveCollection, request: SearchRequest) -> Plan:
    """The plan of a search by text, or by both, that was run; without an estimate, which only vectors have."""
    started = time.perf_counter()
    plan = search(live, request)[0].plan
    return replace(plan, timings_ms={**plan.timings_ms, "total": (time.perf_counter() - started) * 1e3})


def _text_queries(live: LiveCollection, request: SearchRequest) -> list[TextQuery]:
    how = analyzer(live.config.analyzer)
    return [parse(text, how) for text in request.texts]


def _spec(live: LiveCollection, request: SearchRequest, version: int) -> SearchSpec:
    return SearchSpec(
        request.limit,
        request.where,
        request.filter_mode,
        request.exact,
        request.min_score,
        request.params,
        request.allow_partial,
        live.config.metric,
        version,
    )


def _all_columns(
    live: LiveCollection, parts: Sequence[Part], request: SearchRequest, deadline: Deadline, winners: Sequence[Winners]
) -> list[HitColumns]:
    """The hits of each query; their payloads are read for many queries at once.

    Raises:
        DeadlineExceeded: Time ran out meanwhile and ``allow_partial`` was not set, or the caller went away.
    """
    if not request.include or len(winners) == 1:
        return [_columns(live, parts, request, one) for one in winners]
    found: list[HitColumns] = []
    together = max(1, _GET_SLICE // request.limit)
    for first in range(0, len(winners), together):
        # Reading the payloads of many hits takes longer than finding them. A partial answer has those that were found.
        if deadline.expired() and (not request.allow_partial or deadline.cancelled()):
            raise deadline.error()
        some = winners[first : first + together]
        whole = _columns(live, parts, request, concatenated(some))
        ends = accumulate(map(len, some))
        cuts = [slice(end - len(one), end) for one, end in zip(some, ends, strict=True)]
        found += [HitColumns._make(None if column is None else column[cut] for column in whole) for cut in cuts]
    return found


def _columns(live: LiveCollection, parts: Sequence[Part], request: SearchRequest, winners: Winners) -> HitColumns:
    ids, scores = winners.ids, winners.scores.tolist()
    if not request.include:
        return HitColumns(ids, scores)
    stored = Stored(live, rows_of_parts(parts, winners.parts, winners.rows), request)
    return HitColumns(ids, scores, stored.metadata(), stored.texts(), stored.vectors())


def get(live: LiveCollection, request: GetRequest) -> list[Record]:
    """Records by id in the asked order, missing ones left out, all as of one moment."""
    checks.check_include(request.include)
    checks.check_timeout(request.timeout)
    live.limits.check_count("max_get_ids", len(request.ids), "ids of one get")
    deadline = Deadline.after(request.timeout)
    wanted = encoded_ids(request.ids, unique=False)
    seen = _entries(live, wanted, deadline)
    if seen is None:
        raise DeadlineExceeded(
            f"get waited for a commit under way until its {request.timeout} s were over; ask again",
            timeout=request.timeout,
        )
    snapshot, entries = seen
    found = [(id_, entry) for id_, entry in zip(wanted, entries, strict=True) if entry is not None]
    if len(found) < len(wanted):
        live.check_open()  # a collection that is being deleted has no ids, and others than it had are no answer
    records: list[Record] = []
    for start in range(0, len(found), _GET_SLICE):
        if deadline.expired():
            raise DeadlineExceeded(
                f"get read {start} of {len(found)} records in {request.timeout} s; ask for fewer at a time",
                timeout=request.timeout,
            )
        chosen = found[start : start + _GET_SLICE]
        located = Entries(
            [entry.offset for _, entry in chosen],
            [entry.payload_version for _, entry in chosen],
            [id_.decode() for id_, _ in chosen],
        )
        stored = Stored(live, located, request)
        if request.policy is not None:
            stored.keep(request.policy)
        records.extend(stored.records())
    del snapshot  # held until here: it keeps the rows from being purged
    return records


def _entries(
    live: LiveCollection, ids: list[bytes], deadline: Deadline
) -> tuple[Snapshot, list[IdEntry | None]] | None:
    """Where the ids are as of one published version, and a snapshot that keeps those rows readable.

    The id map may already hold a group that is not synced yet; ``unsynced`` has where those ids were before. When
    nothing was published between the two looks at the snapshot, both belong to one version. Beside writers that never
    pause that may not come about: then this waits for the one commit that is under way, or gives None for lack of time.
    """
    for _ in range(_LOCK_FREE_TRIES):
        before = live.snapshot
        entries = read_entries(live, ids)
        unsynced = live.unsynced
        if live.snapshot is before:
            return before, _shown(ids, entries, unsynced, before.version)
    if not live.commit_gate.acquire(timeout=min(deadline.remaining(), TIMEOUT_MAX) if deadline.bounded else -1):
        return None
    try:  # nothing is being written now
        snapshot = live.snapshot
        return snapshot, _shown(ids, read_entries(live, ids), live.unsynced, snapshot.version)
    finally:
        live.commit_gate.release()


def _shown(
    ids: list[bytes],
    entries: list[IdEntry | None],
    unsynced: tuple[int, Mapping[bytes, IdEntry | None]] | None,
    version: int,
) -> list[IdEntry | None]:
    if unsynced is None or unsynced[0] != version:
        return entries
    return [unsynced[1].get(i, entry) for i, entry in zip(ids, entries, strict=True)]


def count(live: LiveCollection, where: Filter | None, timeout: float | None) -> int:
    """Exact number of live records, all or those that match."""
    live.limits.check_filter(where)
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
    checks.check_scan(live.config, request, live.limits)
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
        live.check_open()
        located = rows_of_parts(snapshot.parts, which[chosen], flat[chosen])
        yield list(Stored(live, located, request).records())


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
