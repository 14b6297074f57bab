"""Searches and their answers as bytes: the calls of which there are most.

What stands here makes and reads the same bytes as protobuf does for ``SearchRequest`` and ``SearchResponse``. Of a
request everything but the vectors is alike from one search to the next: it is made and read once and kept. Of an answer
nothing is alike but the plan's parts; its messages would be filled field by field, so most of it is written at once.
``requests`` and ``stats`` have the general ways, which all that is rare goes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from vectordb.errors import Internal, InvalidArgument
from vectordb.requests import SearchRequest
from vectordb.types import Hit, Plan, SearchResult, hits_of
from vectordb.wire.columns import LITTLE, MAX_DIM, vectors_from_bytes, vectors_to_bytes
from vectordb.wire.requests import search_from_message, search_settings, search_to_message
from vectordb.wire.results import columns_from_message, columns_to_message, rows_of
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
    data = vectors_to_bytes(vectors)
    if not data:
        return before + after
    return b"".join((before, b"\x1a", varint(len(data)), data, after))


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
_NONE = repeat(None)
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
    for result in results:
        plan = result.plan
        known = plans.get(id(plan))
        if known is None:
            known = plans[id(plan)] = len(plans), plan
        end = _end_to_bytes(result, known[0])
        hits = list(result)
        if not hits:
            parts += (b"\x0a", varint(len(end)), end)
            continue
        ids, scores, metadata, texts, vectors = zip(*hits, strict=True)
        rows = types_pb2.Rows()
        if include:
            columns_to_message(rows, ids, vectors, metadata, texts)
        else:
            rows.ids.extend(ids)
        data = rows.SerializeToString()
        packed = array("f", scores)
        if not LITTLE:
            packed.byteswap()
        size, sized = varint(len(data)), varint(4 * len(packed))
        whole = 2 + len(size) + len(data) + len(sized) + 4 * len(packed) + len(end)
        parts += (b"\x0a", varint(whole), b"\x0a", size, data, b"\x12", sized, packed.tobytes(), end)
    for _, plan in plans.values():
        data = plan_to_bytes(plan)
        parts += (b"\x12", varint(len(data)), data)
    return b"".join(parts)


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
        hits = _hits_from_message(entry) if include else _bare_hits_from_message(entry)
        results.append(SearchResult(hits, plans[number], entry.took_ms, reason, entry.searched_fraction))
    return results


def _hits_from_message(entry: types_pb2.SearchResult) -> list[Hit]:
    ids, (vectors, metadata, texts) = columns_from_message(entry.hits)
    columns = (list(entry.scores), metadata, texts, vectors)
    return hits_of(rows_of(ids, columns, ("score", "metadata", "text", "vector")))


def _bare_hits_from_message(entry: types_pb2.SearchResult) -> list[Hit]:
    ids, scores = entry.hits.ids, entry.scores
    if len(ids) != len(scores):
        raise Internal(_MALFORMED)
    return hits_of(zip(ids, scores, _NONE, _NONE, _NONE, strict=False))
