"""Writes as bytes: their vectors, which are nearly all of them, are neither copied into a message nor out of it.

What stands here makes and reads ``WriteRequest`` as protobuf does. A field that is a message may come in pieces, which
are joined: the rows come first without their vectors, at the end their vectors alone. ``requests`` has the general way,
which messages of other clients go.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from vectordb.requests import WriteRequest
from vectordb.wire.columns import Parts, bytes_of_vectors
from vectordb.wire.requests import write_from_message, write_to_message
from vectordb.wire.varints import varint, varint_at
from vectordb_proto.v1 import service_pb2

_ROWS, _VECTORS = 0x1A, 0x1A
"""Tags of ``WriteRequest.rows`` and of ``Rows.vectors``."""
_VARINT, _DOUBLE, _BYTES = 0, 1, 2
"""Kinds of fields, by the last three bits of their tags."""
_MOST_FIELDS = 16
"""So many are looked at: there are seven, and few come twice."""


class Written(NamedTuple):
    """A write as it came."""

    collection: str
    request: WriteRequest


def write_to_parts(collection: str, request: WriteRequest) -> Parts:
    """A write as a serialized ``WriteRequest``.

    Raises:
        InvalidArgument: Something cannot be sent; the field is named.
    """
    vectors = request.rows.vectors
    if vectors is None or vectors.ndim != 2 or not vectors.size:
        return (write_to_message(collection, request).SerializeToString(),)
    without = replace(request, rows=replace(request.rows, vectors=vectors[:0]))
    rest = write_to_message(collection, without).SerializeToString()
    data = bytes_of_vectors(vectors)
    inner = b"\x1a" + varint(data.nbytes)
    return b"".join((rest, b"\x1a", varint(len(inner) + data.nbytes), inner)), data


def write_from_bytes(data: bytes) -> Written:
    """The write of a serialized ``WriteRequest``.

    Raises:
        google.protobuf.message.DecodeError: It is none.
        InvalidArgument: It cannot be converted; the field is named.
    """
    found = _vectors_in(data)
    if found is not None:
        at, first, end = found
        message = service_pb2.WriteRequest.FromString(data[:at] + data[end:])
        # Vectors that came twice: the last ones count, which protobuf knows.
        if not message.rows.vectors:
            return Written(message.collection, write_from_message(message, memoryview(data)[first:end]))
    message = service_pb2.WriteRequest.FromString(data)
    return Written(message.collection, write_from_message(message))


def _vectors_in(data: bytes) -> tuple[int, int, int] | None:
    """Where rows that are nothing but vectors are: their tag, the vectors' first byte, and what follows them."""
    at = 0
    try:
        for _ in range(_MOST_FIELDS):
            tag = data[at]
            if tag & 7 == _BYTES:
                size, first = varint_at(data, at + 1)
                end = first + size
                if tag == _ROWS and data[first] == _VECTORS:
                    size, first = varint_at(data, first + 1)
                    if size and first + size == end and end <= len(data):
                        return at, first, end
            elif tag & 7 == _VARINT:
                _, end = varint_at(data, at + 1)
            elif tag & 7 == _DOUBLE:
                end = at + 9
            else:
                return None
            at = end
    except IndexError:
        pass  # the end of the message, or of what is not one
    return None
