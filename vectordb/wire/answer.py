"""Answers to searches as bytes.

What stands here makes and reads the same bytes as protobuf does for ``SearchResponse``. Its messages would be filled
field by field, so most of it is written at once: ids by protobuf, scores as packed floats, each segment's plan from
bytes that are kept, batches whose results have one size as tables (``even``). ``results`` and ``stats`` have the
general ways.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from struct import Struct

from google.protobuf.message import DecodeError

from vectordb.errors import Internal
from vectordb.results import HitColumns, Plan, RepeatedPlan, SearchResult
from vectordb.wire.columns import LITTLE
from vectordb.wire.even import even_from_bytes, even_to_bytes
from vectordb.wire.results import check_lengths, columns_from_message, columns_to_message
from vectordb.wire.stats import plan_from_message, plan_to_bytes, repeated_plan_to_bytes
from vectordb.wire.varints import varint
from vectordb_proto.v1 import service_pb2, types_pb2

_MALFORMED = "the server's answer to a search is not well formed; are both of one release?"
_COMPLETE = Struct("<3sdcd")
_INCOMPLETE = Struct("<cdcd")
_FEWEST = 8
"""Results of which a table is made."""


def answer_to_bytes(results: Sequence[SearchResult], include: Sequence[str]) -> bytes:
    """The answers to all queries of a request as a serialized ``SearchResponse``. Plans that are one object are sent
    once.

    Args:
        include: What the request asked for beside ids and scores.
    """
    if len(results) == 1:
        return _single_to_bytes(results[0], include)
    columns = [result.by_column() for result in results]
    ends, plans = _ends(results)
    table = None
    if not include and len(results) >= _FEWEST and ends.count(ends[0]) == len(ends):
        table = even_to_bytes(columns, ends[0])
    parts: list[bytes] = [] if table is None else [table]
    if table is None:
        for hits, end in zip(_hits_to_bytes(columns, include), ends, strict=True):
            parts += (b"\x0a", varint(len(hits) + len(end)), hits, end)
    for plan in plans:
        data = plan_to_bytes(plan)
        parts += (b"\x12", varint(len(data)), data)
    return b"".join(parts)


def _single_to_bytes(result: SearchResult, include: Sequence[str]) -> bytes:
    """The same of one query, the commonest, in fewer steps."""
    columns, plan_of = result.by_column(), result.plan_or_maker()
    hits = _hits(columns, include) if columns.ids else b""
    end = _end_to_bytes(result, 0)
    plan = repeated_plan_to_bytes(plan_of) if type(plan_of) is RepeatedPlan else plan_to_bytes(result.plan)
    return b"".join((b"\x0a", varint(len(hits) + len(end)), hits, end, b"\x12", varint(len(plan)), plan))


def _ends(results: Sequence[SearchResult]) -> tuple[list[bytes], list[Plan]]:
    """All of each result but its hits, and the plans by the numbers that they are given there."""
    ends, plans, numbers = list[bytes](), list[Plan](), dict[int, int]()
    alike, end = None, b""
    for result in results:
        plan = result.plan
        # Of a batch all have the same plan and end.
        told = (id(plan), result.took_ms, result.searched_fraction, result.incomplete_reason)
        if told != alike:
            number = numbers.setdefault(id(plan), len(plans))
            if number == len(plans):
                plans.append(plan)
            alike, end = told, _end_to_bytes(result, number)
        ends.append(end)
    return ends, plans


def _hits_to_bytes(columns: Sequence[HitColumns], include: Sequence[str]) -> list[bytes]:
    """The hits of each query as the first fields of its result; nothing where there are none."""
    if not include:
        ids = list(chain.from_iterable(hits.ids for hits in columns))
        data = types_pb2.Rows(ids=ids).SerializeToString()
        lengths = list(map(len, ids))
        # Then each id is ASCII, and there are two bytes before it.
        if len(data) == sum(lengths) + 2 * len(ids):
            counts = [len(hits.ids) for hits in columns]
            scores = _packed(chain.from_iterable(hits.scores for hits in columns))
            return list(_bare_hits(counts, data, [0, *accumulate(lengths)], scores))
    return [_hits(hits, include) if hits.ids else b"" for hits in columns]


def _hits(hits: HitColumns, include: Sequence[str]) -> bytes:
    ids, scores, metadata, texts, vectors = hits
    if include:
        rows = types_pb2.Rows()
        columns_to_message(rows, ids, vectors, metadata, texts)
    else:
        rows = types_pb2.Rows(ids=ids)
    return _framed(rows.SerializeToString(), _packed(scores))


def _bare_hits(counts: Sequence[int], ids: bytes, ends: Sequence[int], scores: bytes) -> Iterator[bytes]:
    """Cuts the serialized ids and the scores of all queries between queries of so many hits. ``ends``: where each id
    would begin, and the last end, were there no bytes but theirs."""
    first = 0
    for count in counts:
        last = first + count
        rows = ids[ends[first] + 2 * first : ends[last] + 2 * last]
        yield _framed(rows, scores[4 * first : 4 * last]) if count else b""
        first = last


def _framed(rows: bytes, scores: bytes) -> bytes:
    return b"".join((b"\x0a", varint(len(rows)), rows, b"\x12", varint(len(scores)), scores))


def _packed(scores: Iterable[float]) -> bytes:
    packed = array("f", scores)
    if not LITTLE:
        packed.byteswap()
    return packed.tobytes()


def _end_to_bytes(result: SearchResult, plan: int) -> bytes:
    """All of a result but its hits."""
    number = b"\x38" + varint(plan) if plan else b""
    if result.complete:
        return _COMPLETE.pack(b"\x18\x01\x29", result.searched_fraction, b"\x31", result.took_ms) + number
    reason = (result.incomplete_reason or "").encode()
    rest = _INCOMPLETE.pack(b"\x29", result.searched_fraction, b"\x31", result.took_ms)
    return b"".join((b"\x22", varint(len(reason)), reason, rest, number))


class _PlanLater:
    """A plan that is read when it is looked at, which is seldom. Thread-safe: read twice, it is the same."""

    __slots__ = ("_message", "_plan")

    def __init__(self, message: types_pb2.Plan) -> None:
        self._message = message
        self._plan: Plan | None = None

    def __call__(self) -> Plan:
        if self._plan is None:
            self._plan = plan_from_message(self._message)
        return self._plan


def answer_from_bytes(data: bytes, include: Sequence[str]) -> list[SearchResult]:
    """One result a query of a serialized ``SearchResponse``. Their plans are read when they are looked at.

    Args:
        include: What the request asked for beside ids and scores; nothing else is read.

    Raises:
        Internal: It is none, or not well formed.
    """
    try:
        message = service_pb2.SearchResponse.FromString(data)
    except DecodeError:
        raise Internal(_MALFORMED) from None
    plans = [_PlanLater(plan) for plan in message.plans]
    entries: Sequence[types_pb2.SearchResult] = message.results
    if not include and len(entries) >= _FEWEST:
        table = even_from_bytes(data, len(entries))
        if table is not None and (len(entries[0].hits.ids), len(entries[0].scores)) == (table.hits, table.hits):
            rest = _rest_from_message(entries[0], plans)
            return [SearchResult(HitColumns(*columns), *rest) for columns in zip(table.ids, table.scores, strict=True)]
    read = _columns_from_message if include else _bare_columns_from_message
    return [SearchResult(read(entry), *_rest_from_message(entry, plans)) for entry in entries]


def _rest_from_message(
    entry: types_pb2.SearchResult, plans: Sequence[_PlanLater]
) -> tuple[_PlanLater, float, str | None, float]:
    """All of a result but its hits."""
    number, complete = entry.plan, entry.complete
    if number >= len(plans) or complete == entry.HasField("incomplete_reason"):
        raise Internal(_MALFORMED)
    return plans[number], entry.took_ms, None if complete else entry.incomplete_reason, entry.searched_fraction


def _columns_from_message(entry: types_pb2.SearchResult) -> HitColumns:
    ids, (vectors, metadata, texts) = columns_from_message(entry.hits)
    scores = list(entry.scores)
    check_lengths(ids, (scores, metadata, texts, vectors), ("score", "metadata", "text", "vector"))
    return HitColumns(ids, scores, metadata, texts, vectors)


def _bare_columns_from_message(entry: types_pb2.SearchResult) -> HitColumns:
    ids, scores = list(entry.hits.ids), list(entry.scores)
    if len(ids) != len(scores):
        raise Internal(_MALFORMED)
    return HitColumns(ids, scores)
