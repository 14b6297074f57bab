"""Messages that are larger, deeper or emptier than they say: refused by name, and the server goes on."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from tests.server.halfway import Halfway, bomb
from vectordb.errors import InvalidArgument, ResourceExhausted, VectorDBError
from vectordb.requests import CreateRequest, Rows, WriteMode, WriteRequest
from vectordb.types import CollectionConfig
from vectordb.wire import requests
from vectordb_proto.v1 import service_pb2 as pb

_PREFIX = "/vectordb.v1.VectorDBService/"
OK = b"grpc-status\x010", b"\x9a\xca\xc8\xb2\x12\x34\xda\x8f\x81\x07"
"""The field grpc-status: 0 as HTTP/2 writes it, plain and in Huffman's code."""


def is_ok(answer: bytes) -> bool:
    return any(field in answer for field in OK)


@pytest.fixture
def small(serve: Any) -> Iterator[Any]:
    """A server that takes messages of 1 MiB, with the collection ``docs`` of dim 3; at the end it still answers."""
    served = serve(max_message_bytes=1 << 20)
    served.backend.create_collection(CreateRequest(CollectionConfig("docs", 3)))
    yield served
    rows = Rows(["a"], np.ones((1, 3), np.float32))
    assert served.stub.Write(requests.write_to_message("docs", WriteRequest(WriteMode.UPSERT, rows)), timeout=10)
    assert served.server._admission.running == 0


def refused(served: Any, rpc: str, data: bytes) -> VectorDBError:
    """The error that bytes as they are end with."""
    method = served.channel.unary_unary(_PREFIX + rpc)
    error: VectorDBError = served.error(lambda: method(data, timeout=20))
    return error


def test_a_message_that_inflates_beyond_the_limit_is_refused(small: Any) -> None:
    small_bomb = bomb(50 << 20)
    assert len(small_bomb) < 60_000  # what a server takes of a call at once
    with Halfway(small.address) as connection:
        connection.call("Write", small_bomb, encoding="gzip")
        answer = connection.answered()
    assert answer
    assert not is_ok(answer)
    assert not small.backend.rows["docs"]


def test_a_compressed_message_within_the_limit_is_read(small: Any) -> None:
    rows = Rows([f"r{i}" for i in range(100)], np.ones((100, 3), np.float32))
    message = requests.write_to_message("docs", WriteRequest(WriteMode.UPSERT, rows))
    assert small.stub.Write(message, compression=grpc.Compression.Gzip, timeout=10).result.count == 100
    with Halfway(small.address) as connection:
        connection.call("Write", gzip.compress(message.SerializeToString()), encoding="gzip")
        assert is_ok(connection.answered())


def test_what_is_no_gzip_is_refused(small: Any) -> None:
    with Halfway(small.address) as connection:
        connection.call("Write", b"this is no gzip", encoding="gzip")
        assert connection.answered()
    assert not small.backend.rows["docs"]


def test_a_length_that_lies(small: Any, transport: str) -> None:
    with Halfway(small.address) as connection:
        connection.call("Write", bytes(3 << 20), sent=20_000)  # the header says 3 MiB
        if transport == "grpcio":
            assert connection.answered()  # refused before it comes
        assert small.stub.Count(pb.CountRequest(collection="docs"), timeout=10).count == 0


def nested(depth: int) -> bytes:
    """Filters within filters, by hand: no library would write them."""
    node = b""
    for _ in range(depth):
        node = b"\x12" + varint(len(node)) + node  # children = 2
    return node


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


@pytest.mark.parametrize("depth", [65, 99, 101, 5_000, 50_000])
def test_filters_nested_too_deep(small: Any, depth: int) -> None:
    number = pb.CountRequest.DESCRIPTOR.fields_by_name["where"].number
    error = refused(small, "Count", field(1, b"docs") + field(number, nested(depth)))
    assert isinstance(error, InvalidArgument)


def test_a_filter_of_too_many_conditions(small: Any) -> None:
    number = pb.CountRequest.DESCRIPTOR.fields_by_name["where"].number
    error = refused(small, "Count", field(1, b"docs") + field(number, b"\x12\x00" * 200_000))
    assert isinstance(error, InvalidArgument)


def test_dimensions_and_counts_that_the_bytes_do_not_have(small: Any) -> None:
    huge = pb.SearchRequest(collection="docs", dim=(1 << 32) - 1, vectors=bytes(12), limit=1)
    error = small.error(lambda: small.stub.Search(huge, timeout=10))
    assert isinstance(error, InvalidArgument)
    assert error.field == "vectors"
    write = pb.WriteRequest(collection="docs", mode=1)
    write.rows.ids.extend(["a"] * 50_000)
    write.rows.dim = 60_000
    error = small.error(lambda: small.stub.Write(write, timeout=10))
    assert isinstance(error, InvalidArgument)
    assert error.expected == 4 * 60_000 * 50_000


def test_bitmaps_and_columns_of_another_length(small: Any) -> None:
    write = pb.WriteRequest(collection="docs", mode=1)
    write.rows.ids.extend(["a", "b"])
    write.rows.dim, write.rows.vectors, write.rows.has_vector = 3, bytes(24), bytes(500_000)
    assert isinstance(small.error(lambda: small.stub.Write(write, timeout=10)), InvalidArgument)
    write.rows.ClearField("has_vector")
    write.rows.metadata.extend([b""] * 100_000)
    assert isinstance(small.error(lambda: small.stub.Write(write, timeout=10)), InvalidArgument)


def test_a_packed_field_with_more_numbers_than_bytes(small: Any) -> None:
    # A length that reaches beyond the message; a varint that never ends.
    for data in (b"\x0a\xff\xff\xff\xff\x0f", b"\x1a" + b"\xff" * 12, struct.pack("<I", 0xFFFFFFFF) * 1000):
        assert isinstance(refused(small, "Search", data), InvalidArgument)


def test_the_largest_message_is_refused_by_size_alone(small: Any) -> None:
    error = refused(small, "Search", bytes(2 << 20))
    assert isinstance(error, ResourceExhausted)
