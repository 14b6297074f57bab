"""Searches as bytes: the calls of which there are most. Their answers are in ``answer``.

What stands here makes and reads the same bytes as protobuf does for ``SearchRequest``. Everything but the vectors is
alike from one search to the next: it is made and read once and kept. ``requests`` has the general way, which all that
is rare goes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from vectordb.errors import InvalidArgument
from vectordb.requests import SearchRequest
from vectordb.wire.columns import MAX_DIM, Parts, bytes_of_vectors, vectors_from_bytes
from vectordb.wire.requests import search_from_message, search_settings, search_to_message
from vectordb.wire.varints import varint
from vectordb_proto.v1 import service_pb2

_KEPT_BYTES = 2_048
"""Longer requests (filters with many values) are not kept."""
_COLLECTION, _DIM, _VECTORS = 0x0A, 0x10, 0x1A
"""Tags of the first fields of ``SearchRequest``, which is their order on the wire."""


_HEADER = 8
"""Bytes of a request up to its vectors, beside the collection's name: three tags, two sizes, and the dimension."""


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
                vectors = vectors_from_bytes(memoryview(data)[first:end], kept.dim, "vectors")
                return Asked(SearchRequest(vectors, *kept.settings), kept.shape)
    message = service_pb2.SearchRequest.FromString(data)
    return Asked(search_from_message(message), shape_of(message))


def _vectors_in(data: bytes) -> tuple[int, int, int] | None:
    """Where a request's vectors are: their tag, their first byte, and what follows them. ``None`` where the collection,
    the dimension and the vectors are not all there in this order, or are longer than is usual."""
    if len(data) < _HEADER:
        return None
    # Cut just before the vectors, for one query of 128 to 4,095 dimensions: searches that differ in these alone have
    # one header. Of more vectors the size may take another byte.
    usual = data[1] + _HEADER
    header = _header(data[:usual]) or _header(data[: usual + 1])
    if header is None:
        return None
    at, first, size = header
    end = first + size
    return (at, first, end) if end <= len(data) else None


@lru_cache(maxsize=1024)
def _header(data: bytes) -> tuple[int, int, int] | None:
    """Where the vectors' tag is in a request that begins so, where their first byte, and how many they are."""
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
    return at, first, size


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


def search_to_parts(collection: str, request: SearchRequest) -> Parts:
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
        return before, after
    data = bytes_of_vectors(vectors)
    return b"".join((before, b"\x1a", varint(data.nbytes))), data, after


def _made_whole(collection: str, request: SearchRequest) -> Parts:
    return (search_to_message(collection, request).SerializeToString(),)


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
