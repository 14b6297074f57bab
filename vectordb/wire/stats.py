"""Plans, statistics and the database's description as messages and back."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from vectordb.results import Alternative, Plan, RepeatedPlan, SegmentPlan
from vectordb.stats import BackupInfo, CollectionStats, DatabaseInfo, OptimizerStats, ScrubStats, SegmentStats
from vectordb.types import Durability, FilterMode
from vectordb.wire.config import (
    index_from_message,
    index_to_message,
    quantization_from_message,
    quantization_to_message,
)
from vectordb.wire.values import enum_from_number, enum_to_number, optional, params_from_message, params_to_message
from vectordb.wire.varints import varint
from vectordb_proto.v1 import types_pb2

_DOUBLE = Struct("<d")
_UNEXPLAINED = [None, 0.0, ()]
"""What a plan has in its last fields where nobody asked for reasons."""
_RECALL = ("recall", "recall_low", "recall_sampled")
_SEGMENT = ("name", "rows", "deleted", "index", "memory_bytes", "disk_bytes")
_BACKUP = ("id", "created", "files", "total_bytes", "new_bytes")
_SCRUB = ("passes", "bytes", "damaged", "rebuilt")
_COLLECTION = ("rows", "deleted", "indexed_rows", "tail_rows", "version", "memory_bytes", "disk_bytes")


def plan_to_message(plan: Plan, message: types_pb2.Plan) -> None:
    """Writes a plan."""
    for segment in plan.segments:
        entry = message.segments.add()
        entry.CopyFrom(_segment_message(_unmeasured(segment)))
        if segment.rows_scored:
            entry.rows_scored = segment.rows_scored
        if segment.reason is not None or segment.cost_us or segment.alternatives:
            _reasons_to_message(segment, entry)
    message.filter_mode = enum_to_number(plan.filter_mode)  # type: ignore[assignment,unused-ignore]
    message.version = plan.version
    timings = message.timings_ms
    for name, milliseconds in plan.timings_ms.items():
        timings[name] = milliseconds
    if plan.recall is not None:
        for name in _RECALL:
            setattr(message, name, getattr(plan, name))


def plan_to_bytes(plan: Plan) -> bytes:
    """A plan as a serialized message."""
    if plan.recall is not None:
        return _explained_to_bytes(plan)
    parts: list[bytes] = []
    for segment in plan.segments:
        name, strategy, rows, estimated, matched, scored, fallback, filtered, params, *explained = segment
        if explained != _UNEXPLAINED:
            return _explained_to_bytes(plan)
        given = (*params.items(), *map(type, params.values())) if params else ()
        data = _segment_bytes(name, strategy, rows, estimated, matched, fallback, filtered, given)
        if scored:
            data += b"\x30" + varint(scored)
        parts += (b"\x0a", varint(len(data)), data)
    mode = plan.filter_mode
    parts += (_AUTO if mode is FilterMode.AUTO else _mode(mode), b"\x18", varint(plan.version))
    for name, milliseconds in plan.timings_ms.items():
        parts += (_timing(name), _DOUBLE.pack(milliseconds))
    return b"".join(parts)


class _Like(NamedTuple):
    """What the plans of searches that go alike have in common, as bytes: before the segment that is searched, of it,
    and after it up to the times. ``plan`` is kept so that its address is its alone."""

    plan: Plan
    before: bytes
    own: bytes
    after: bytes


def repeated_plan_to_bytes(plan: RepeatedPlan) -> bytes:
    """What :func:`plan_to_bytes` makes of the plan that this one would make."""
    like, _, scored, search, merge = plan
    kept = _likes.get(id(like))
    if kept is None:
        kept = _kept_like(plan)
    _, before, own, after = kept
    measured = b"\x30" + varint(scored)
    own_size = varint(len(own) + len(measured))
    return b"".join((before, own_size, own, measured, after, _TIMES.pack(_SEARCH, search, _MERGE, merge)))


def _kept_like(plan: RepeatedPlan) -> _Like:
    like, number, *_ = plan
    segments = [_segment_bytes(*_unmeasured(segment)) for segment in like.segments]
    framed = [b"".join((b"\x0a", varint(len(data)), data)) for data in segments]
    rest = plan_to_bytes(replace(like, segments=()))
    before, after = b"".join((*framed[:number], b"\x0a")), b"".join((*framed[number + 1 :], rest))
    if len(_likes) >= _KEPT_LIKES:
        _likes.clear()
    kept = _likes[id(like)] = _Like(like, before, segments[number], after)
    return kept


def _mode(mode: FilterMode) -> bytes:
    return b"\x10" + varint(enum_to_number(mode))


_AUTO = _mode(FilterMode.AUTO)


def _explained_to_bytes(plan: Plan) -> bytes:
    message = types_pb2.Plan()
    plan_to_message(plan, message)
    data: bytes = message.SerializeToString()
    return data


@lru_cache(maxsize=512)
def _segment_bytes(*unmeasured: Any) -> bytes:
    data: bytes = _segment_message(unmeasured).SerializeToString()
    return data


@lru_cache(maxsize=64)
def _timing(name: str) -> bytes:
    """The entry of a stage's milliseconds, without the number at its end."""
    key = name.encode()
    entry = b"".join((b"\x0a", varint(len(key)), key, b"\x11"))
    return b"".join((b"\x22", varint(len(entry) + _DOUBLE.size), entry))


_SEARCH, _MERGE = _timing("search"), _timing("merge")
_TIMES = Struct(f"<{len(_SEARCH)}sd{len(_MERGE)}sd")
_KEPT_LIKES = 256
_likes: dict[int, _Like] = {}


def _unmeasured(segment: SegmentPlan) -> tuple[Any, ...]:
    """What plans of one segment share from search to search, with the types of its parameters, since 1 == 1.0."""
    name, strategy, rows, estimated, matched, _, fallback, filtered, params, *_ = segment
    given = (*params.items(), *map(type, params.values())) if params else ()
    return name, strategy, rows, estimated, matched, fallback, filtered, given


@lru_cache(maxsize=512)
def _segment_message(unmeasured: tuple[Any, ...]) -> types_pb2.SegmentPlan:
    """Kept, since most searches have plans like those before them. Do not change it."""
    name, strategy, rows, estimated, matched, reason, filtered, given = unmeasured
    entry = types_pb2.SegmentPlan(segment=name, strategy=strategy, rows=rows, estimated=estimated)
    if matched is not None:
        entry.matched = matched
    if reason is not None:
        entry.fallback_reason = reason
    if filtered:
        entry.filtered = True
    params_to_message(dict(given[: len(given) // 2]), entry.params, "params")
    return entry


def _reasons_to_message(segment: SegmentPlan, entry: types_pb2.SegmentPlan) -> None:
    if segment.reason is not None:
        entry.reason = segment.reason
    entry.cost_us = segment.cost_us
    for other in segment.alternatives:
        entry.alternatives.add(strategy=other.strategy, cost_us=other.cost_us, reason=other.reason)


def plan_from_message(message: types_pb2.Plan) -> Plan:
    """The plan of a message."""
    segments = tuple(
        SegmentPlan(
            segment=entry.segment,
            strategy=entry.strategy,
            rows=entry.rows,
            estimated=entry.estimated,
            matched=optional(entry, "matched"),
            rows_scored=entry.rows_scored,
            fallback_reason=optional(entry, "fallback_reason"),
            filtered=entry.filtered,
            params=params_from_message(entry.params, "params") if entry.params else {},
            reason=optional(entry, "reason"),
            cost_us=entry.cost_us,
            alternatives=tuple(
                Alternative(other.strategy, optional(other, "cost_us"), optional(other, "reason"))
                for other in entry.alternatives
            ),
        )
        for entry in message.segments
    )
    mode = enum_from_number(FilterMode, message.filter_mode, "filter_mode", FilterMode.AUTO)
    recall = {name: optional(message, name) for name in _RECALL}
    return Plan(segments, mode, message.version, dict(message.timings_ms), **recall)


def stats_to_message(stats: CollectionStats, message: types_pb2.CollectionStats) -> None:
    """Writes the state of a collection."""
    for name in _COLLECTION:
        setattr(message, name, getattr(stats, name))
    index_to_message(stats.index, message.index)
    quantization_to_message(stats.quantization, message.quantization)
    for segment in stats.segments:
        entry = message.segments.add(**{name: getattr(segment, name) for name in _SEGMENT})
        if segment.quantization is not None:
            entry.quantization = segment.quantization
    optimizer = stats.optimizer
    message.optimizer.state = optimizer.state
    message.optimizer.progress = optimizer.progress
    message.optimizer.pending_bytes = optimizer.pending_bytes
    if optimizer.error is not None:
        message.optimizer.error = optimizer.error
    for name in _SCRUB:
        setattr(message.scrub, name, getattr(stats.scrub, name))
    if stats.scrub.error is not None:
        message.scrub.error = stats.scrub.error
    message.memory.update(stats.memory)


def stats_from_message(message: types_pb2.CollectionStats) -> CollectionStats:
    """The state of a collection."""
    optimizer = message.optimizer
    return CollectionStats(
        **{name: getattr(message, name) for name in _COLLECTION},
        index=index_from_message(message.index),
        segments=tuple(
            SegmentStats(
                **{name: getattr(entry, name) for name in _SEGMENT}, quantization=optional(entry, "quantization")
            )
            for entry in message.segments
        ),
        optimizer=OptimizerStats(
            optimizer.state, optimizer.progress, optimizer.pending_bytes, optional(optimizer, "error")
        ),
        quantization=quantization_from_message(message),
        scrub=_scrub_from_message(message.scrub),
        memory=dict(message.memory),
    )


def _scrub_from_message(message: types_pb2.ScrubStats) -> ScrubStats:
    return ScrubStats(message.passes, message.bytes, message.damaged, message.rebuilt, optional(message, "error"))


def info_to_message(info: DatabaseInfo, message: types_pb2.DatabaseInfo) -> None:
    """Writes what a database is."""
    message.version = info.version
    message.format_version = info.format_version
    message.path = info.path
    message.collections.extend(info.collections)
    message.durability = enum_to_number(info.durability)  # type: ignore[assignment,unused-ignore]
    if info.read_only_reason is not None:
        message.read_only_reason = info.read_only_reason
    message.memory.update(info.memory)
    if info.memory_limit is not None:
        message.memory_limit = info.memory_limit


def info_from_message(message: types_pb2.DatabaseInfo) -> DatabaseInfo:
    """What a database is."""
    return DatabaseInfo(
        version=message.version,
        format_version=message.format_version,
        path=message.path,
        collections=tuple(message.collections),
        durability=enum_from_number(Durability, message.durability, "durability", Durability.SYNC),
        read_only_reason=optional(message, "read_only_reason"),
        memory=dict(message.memory),
        memory_limit=optional(message, "memory_limit"),
    )


def backup_to_message(backup: BackupInfo, message: types_pb2.BackupInfo) -> None:
    """Writes what a backup is."""
    for name in _BACKUP:
        setattr(message, name, getattr(backup, name))
    message.collections.update(backup.collections)


def backup_from_message(message: types_pb2.BackupInfo) -> BackupInfo:
    """What a backup is."""
    return BackupInfo(collections=dict(message.collections), **{name: getattr(message, name) for name in _BACKUP})
