"""Searches and their answers as bytes: the calls of which there are most.

What stands here makes and reads the same bytes as protobuf does for ``SearchRequest`` and ``SearchResponse``. Of a
request everything but the vectors is alike from one search to the next: it is made and read once and kept. Of an answer
nothing is alike but the plan's parts; its messages would be filled field by field, so most of it is written at once.
``requests`` and ``stats`` have the general ways, which all that is rare goes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from struct import Struct
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from vectordb.errors import Internal, InvalidArgument
from vectordb.requests import SearchRequest
from vectordb.types import HitColumns, Plan, SearchResult
from vectordb.wire.columns import LITTLE, MAX_DIM, bytes_of_vectors, vectors_from_bytes
from vectordb.wire.requests import search_from_message, search_settings, search_to_message
from vectordb.wire.results import check_lengths, columns_from_message, columns_to_message
from vectordb.wire.stats import plan_from_message, plan_to_bytes
from vectordb.wire.varints import varint
from vectordb_proto.v1 import service_pb2, types_pb2

_KEPT_BYTES = 2_048
"""Longer requests (filters with many values) are not kept."""
_COLLECTION, _DIM, _VECTORS = 0x0A, 0x10, 0x1A
"""Tags of the first fields of ``SearchRequest``, which is their order on the wire."""


class Shape(NamedTuple):
    """What says how much work a search is, but for the number of its queries.

    Attributes:
        width: How many candidates it is to look at, as far as it says so.
    """

    collection: str
    exact: bool
    filtered: bool
    mode: int
    width: int


class Asked(NamedTuple):
    """A search as it came."""

    request: SearchRequest
    shape: Shape


class _Kept(NamedTuple):
    """All of a request but its vectors. Nobody changes it."""

    dim: int
    settings: tuple[Any, ...]
    shape: Shape


def search_from_bytes(data: bytes) -> Asked:
    """The search of a serialized ``SearchRequest``.

    Raises:
        google.protobuf.message.DecodeError: It is none.
        InvalidArgument: It cannot be converted; the field is named.
    """
    found = _vectors_in(data)
    if found is not None:
        before, first, end = found
        if len(data) - (end - first) <= _KEPT_BYTES:
            kept = _kept(data[:before] + data[end:])
            if kept is not None:
                vectors = vectors_from_bytes(data[first:end], kept.dim, "vectors")
                return Asked(SearchRequest(vectors, *kept.settings), kept.shape)
    message = service_pb2.SearchRequest.FromString(data)
    return Asked(search_from_message(message), shape_of(message))


def _vectors_in(data: bytes) -> tuple[int, int, int] | None:
    """Where a request's vectors are: their tag, their first byte, and what follows them. ``None`` where the collection,
    the dimension and the vectors are not all there in this order, or are longer than is usual."""
    try:
        name = data[1]
        at = 2 + name
        if data[0] != _COLLECTION or name > 127 or data[at] != _DIM:
            return None
        at += 2 if data[at + 1] < 128 else 3
        if data[at - 1] > 127 or data[at] != _VECTORS:
            return None
        size, first = data[at + 1], at + 2
        if size > 127:
            size, first = size & 127 | data[at + 2] << 7, at + 3
            if size > 16_383:
                size, first = size & 16_383 | data[at + 3] << 14, at + 4
                if data[at + 3] > 127:
                    return None
    except IndexError:
        return None
    end = first + size
    return (at, first, end) if end <= len(data) else None


@lru_cache(maxsize=256)
def _kept(data: bytes) -> _Kept | None:
    """Searches that differ in their vectors alone, as most do, are read once. ``None``: not to be read so."""
    message = service_pb2.SearchRequest.FromString(data)
    if message.vectors or message.texts:
        # Texts differ from one search to the next: nothing to gain from keeping them.
        return None
    return _Kept(message.dim, search_settings(message), shape_of(message))


_WIDTHS = ("ef", "nprobe")


def shape_of(message: service_pb2.SearchRequest) -> Shape:
    """The shape of a search; its width is its limit, or what its parameters say."""
    width: int = message.limit
    for name in _WIDTHS if message.params else ():
        if name in message.params:
            width = max(width, int(message.params[name].int_value))
    return Shape(message.collection, message.exact, message.HasField("where"), message.filter_mode, width)


def search_to_bytes(collection: str, request: SearchRequest) -> bytes:
    """A search as a serialized ``SearchRequest``.

    Raises:
        InvalidArgument: Something cannot be sent; the field is named.
    """
    vectors = request.vectors
    if vectors is None or request.texts or request.where is not None or request.fusion is not None:
        return _made_whole(collection, request)
    if vectors.ndim != 2 or vectors.shape[1] > MAX_DIM:
        raise InvalidArgument(f"vectors is float32[queries, dim], got shape {vectors.shape}", field="vectors")
    params, timeout, score = request.params, request.timeout, request.min_score
    given = (*params.items(), *map(type, params.values())) if params else ()
    numbers = (request.limit, timeout, score)
    try:
        before, after = _around(
            # The types too, since 1 == True == 1.0.
            (collection, vectors.shape[1], *numbers, *map(type, numbers), given),
            (request.filter_mode, bool(request.exact), bool(request.allow_partial), request.include),
            request.vector_name,
        )
    except TypeError:
        # Something has no hash, or no order: the general way says what is wrong with it, if anything is.
        return _made_whole(collection, request)
    if not vectors.size:
        return before + after
    data = bytes_of_vectors(vectors)
    return b"".join((before, b"\x1a", varint(data.nbytes), data, after))


def _made_whole(collection: str, request: SearchRequest) -> bytes:
    data: bytes = search_to_message(collection, request).SerializeToString()
    return data


@lru_cache(maxsize=256)
def _around(asked: tuple[Any, ...], how: tuple[Any, ...], vector_name: str) -> tuple[bytes, bytes]:
    """What stands before the vectors and after them."""
    collection, dim, limit, timeout, score, *_, given = asked
    mode, exact, partial, include = how
    request = SearchRequest(
        None, limit, None, mode, exact, score, dict(given[: len(given) // 2]), timeout, partial, include, vector_name
    )
    message = search_to_message(collection, request)
    message.dim = dim
    before = service_pb2.SearchRequest(collection=collection, dim=dim).SerializeToString()
    return before, message.SerializeToString()[len(before) :]


# Answers

_MALFORMED = "the server's answer to a search is not well formed; are both of one release?"
_COMPLETE = Struct("<3sdcd")
_INCOMPLETE = Struct("<cdcd")


def answer_to_bytes(results: Sequence[SearchResult], include: Sequence[str]) -> bytes:
    """The answers to all queries of a request as a serialized ``SearchResponse``. Plans that are one object are sent
    once.

    Args:
        include: What the request asked for beside ids and scores.
    """
    parts: list[bytes] = []
    plans: dict[int, tuple[int, Plan]] = {}
    columns = [result.by_column() for result in results]
    alike, end = None, b""
    for result, hits in zip(results, _hits_to_bytes(columns, include), strict=True):
        plan = result.plan
        # Of a batch all have the same plan and end.
        told = (id(plan), result.took_ms, result.searched_fraction, result.incomplete_reason)
        if told != alike:
            known = plans.get(id(plan))
            if known is None:
                known = plans[id(plan)] = len(plans), plan
            alike, end = told, _end_to_bytes(result, known[0])
        parts += (b"\x0a", varint(len(hits) + len(end)), hits, end)
    for _, plan in plans.values():
        data = plan_to_bytes(plan)
        parts += (b"\x12", varint(len(data)), data)
    return b"".join(parts)


def _hits_to_bytes(columns: Sequence[HitColumns], include: Sequence[str]) -> list[bytes]:
    """The hits of each query as the first fields of its result; nothing where there are none."""
    if not include and len(columns) > 1:
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
    rows = types_pb2.Rows()
    if include:
        columns_to_message(rows, ids, vectors, metadata, texts)
    else:
        rows.ids.extend(ids)
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
    results = []
    for entry in message.results:
        number, complete = entry.plan, entry.complete
        reason = None if complete else entry.incomplete_reason
        if number >= len(plans) or complete == entry.HasField("incomplete_reason"):
            raise Internal(_MALFORMED)
        hits = _columns_from_message(entry) if include else _bare_columns_from_message(entry)
        results.append(SearchResult(hits, plans[number], entry.took_ms, reason, entry.searched_fraction))
    return results


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
