"""Damaged messages, errors as statuses, and metadata on the wire."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from vectordb.encoding import decode_metadata, encode_metadata
from vectordb.errors import BY_NAME, Internal, InvalidArgument, NotFound, Unavailable
from vectordb.filter import col
from vectordb.requests import (
    CreateRequest,
    Rows,
    SearchRequest,
    Weights,
    WriteMode,
    WriteRequest,
)
from vectordb.results import HitColumns, Plan, SearchResult
from vectordb.types import CollectionConfig, FieldSpec, FieldType, Record
from vectordb.wire import answer, errors, requests, results, search, write
from vectordb_proto.v1 import service_pb2, types_pb2

TEXT = st.text(max_size=8)
WHEN = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))

READERS = {
    service_pb2.CreateCollectionRequest: requests.create_from_message,
    service_pb2.WriteRequest: requests.write_from_message,
    service_pb2.UpdateMetadataRequest: requests.update_metadata_from_message,
    service_pb2.DeleteRequest: requests.delete_from_message,
    service_pb2.GetRequest: requests.get_from_message,
    service_pb2.CountRequest: requests.count_from_message,
    service_pb2.ScanRequest: requests.scan_from_message,
    service_pb2.SearchRequest: requests.search_from_message,
}
WRITE = WriteRequest(WriteMode.UPSERT, Rows(["a"], np.ones((1, 3), np.float32), None, [b"\x80"], ["t"]))
REQUEST = SearchRequest(np.ones((2, 3), np.float32), where=(col("a") == 1) & ~col("b").isin(["x"]), params={"ef": 1})
WORDS = SearchRequest(np.ones((1, 3), np.float32), texts=("some words",), fusion=Weights((0.7, 0.3)))
SEEDS = [
    requests.search_to_message("c", REQUEST).SerializeToString(),
    requests.search_to_message("c", WORDS).SerializeToString(),
    requests.write_to_message("c", WRITE).SerializeToString(),
    b"".join(write.write_to_parts("c", WRITE)),
    requests.create_to_message(CreateRequest(CollectionConfig("c", 3, fields={"a": FieldSpec(FieldType.INT)})))
    .SerializeToString(),
]  # fmt: skip


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.binary(max_size=60) | damaged())
def test_no_bytes_raise_anything_but_typed_errors(data):
    for kind, read in READERS.items():
        try:
            message = kind.FromString(data)
        except DecodeError:
            continue
        with contextlib.suppress(InvalidArgument):
            read(message)


@given(damaged())
def test_searches_are_read_from_bytes_as_from_messages(data):
    def read(way):
        try:
            asked = way(data)
        except (DecodeError, InvalidArgument) as error:
            return type(error)
        found = None if asked.vectors is None else (asked.vectors.shape, asked.vectors.tobytes())
        return found, [getattr(asked, name) for name in SearchRequest.__slots__[1:]]

    message = read(lambda data: requests.search_from_message(service_pb2.SearchRequest.FromString(data)))
    assert repr(read(lambda data: search.search_from_bytes(data).request)) == repr(message)


@given(damaged() | st.binary(max_size=60))
def test_writes_are_read_from_bytes_as_from_messages(data):
    def read(way):
        try:
            collection, written = way(data)
        except (DecodeError, InvalidArgument) as error:
            return type(error)
        rows = written.rows
        vectors = None if rows.vectors is None else (rows.vectors.shape, rows.vectors.tobytes())
        others = [getattr(written, name) for name in WriteRequest.__slots__ if name != "rows"]
        return collection, vectors, rows.ids, rows.has_vector, rows.metadata, rows.texts, others

    def from_message(data):
        message = service_pb2.WriteRequest.FromString(data)
        return message.collection, requests.write_from_message(message)

    assert repr(read(write.write_from_bytes)) == repr(read(from_message))


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 255)), max_size=3), st.integers(0, 9))
def test_tables_of_results_are_read_as_their_messages(damages, more):
    plan = Plan((), version=5)
    hits = HitColumns(["aa", "bb"], [2.0, 1.0])
    data = bytearray(answer.answer_to_bytes([SearchResult(hits, plan, 1.5) for _ in range(8 + more)], ()))
    for place, value in damages:
        data[place % len(data)] = value

    def read(include):
        try:
            found = answer.answer_from_bytes(bytes(data), include)
        except Internal:
            return None
        return [(got.ids, got.scores, got.took_ms, got.incomplete_reason, got.searched_fraction) for got in found]

    # Nothing was asked for that there is: read is the same, result by result.
    assert repr(read(())) == repr(read(("text",)))


FACT = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | st.lists(TEXT, max_size=3)
NAME = st.from_regex(r"\A(?!message|self)[a-z_]{1,9}\Z")


@given(st.sampled_from(sorted(BY_NAME)), st.text(max_size=99), st.dictionaries(NAME, FACT, max_size=4))
def test_errors(name, message, fields):
    error = BY_NAME[name](message, **fields)
    code, plain, details = errors.error_to_status(error)
    got = errors.error_from_status(code, plain, details)
    assert (type(got), got.message, dict(got.fields)) == (type(error), error.message, fields)


@given(st.text(), st.lists(st.text(max_size=600), max_size=2000))
def test_errors_always_fit_into_trailing_metadata(message, ids):
    _, plain, details = errors.error_to_status(NotFound(message, ids=ids, extra="x" * 5000))
    assert len(details) * 4 / 3 + 3 * len(plain.encode()) < 8000


def test_statuses_without_our_details():
    assert type(errors.error_from_status("UNAVAILABLE", "gone")) is Unavailable
    assert type(errors.error_from_status("UNKNOWN", None, b"\xff\xff\xff")) is Internal
    assert errors.error_from_status("NOT_FOUND", "x").message == "x"


def test_metadata_that_is_none_is_not_an_empty_map():
    message = types_pb2.Records()
    results.records_to_message([Record("a", metadata={}), Record("b")], message)
    assert [decode_metadata(data) for data in message.rows.metadata] == [{}, None]


@given(WHEN)
def test_datetimes_keep_their_microseconds(when):
    assert decode_metadata(encode_metadata({"t": when, "l": [when]})) == {"t": when, "l": [when]}


def test_timestamps_of_other_clients_are_read():
    for data in (b"\xd6\xff" + (5).to_bytes(4, "big"), b"\xc7\x0c\xff" + bytes(4) + (5).to_bytes(8, "big")):
        assert decode_metadata(b"\x81\xa1t" + data) == {"t": datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)}
