"""What is turned into a message and back is what it was, as bytes too; what is kept of messages mixes nothing up."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.given import INT64, SCALAR, TEXT, again
from vectordb.encoding import encode_metadata
from vectordb.errors import InvalidArgument
from vectordb.filter import MAX_DEPTH, And, Condition, Not, Op, Or
from vectordb.metric import Metric
from vectordb.requests import (
    CreateRequest,
    DeleteRequest,
    GetRequest,
    OptimizeRequest,
    ReindexRequest,
    Rows,
    Rrf,
    ScanRequest,
    SearchRequest,
    UpdateMetadataRequest,
    Weights,
    WriteMode,
    WriteRequest,
)
from vectordb.stats import CollectionStats, OptimizerStats, SegmentStats
from vectordb.types import (
    CollectionConfig,
    Durability,
    FieldSpec,
    FieldType,
    FilterMode,
    IndexSpec,
    QuantizationSpec,
    Record,
    Tuning,
    WriteResult,
)
from vectordb.wire import columns, filters, requests, results, search, stats, write
from vectordb_proto.v1 import filter_pb2, service_pb2, types_pb2

IDS = st.lists(st.text(min_size=1, max_size=8), max_size=9)
SECONDS = st.none() | st.floats(0.001, 1e6)
VERSION = st.none() | st.integers(0, 2**63 - 1)
KEY = st.none() | st.text(min_size=1, max_size=20)
PARAMS = st.dictionaries(TEXT, INT64 | st.floats(allow_nan=False) | st.booleans() | TEXT, max_size=3)
FIELD = st.sampled_from(["a", "b.c", "jahr", "ü"])


def conditions():
    one = st.builds(Condition, FIELD, st.sampled_from([Op.LT, Op.LE, Op.GT, Op.GE, Op.CONTAINS]), SCALAR)
    whole = st.builds(Condition, FIELD, st.sampled_from([Op.EQ, Op.NE]), SCALAR | st.lists(SCALAR, max_size=3))
    many = st.builds(Condition, FIELD, st.sampled_from([Op.IN, Op.NOT_IN]), st.lists(SCALAR, max_size=4))
    between = st.builds(lambda f, a, b: Condition(f, Op.BETWEEN, (a, b)), FIELD, INT64, st.integers(0, 9))
    prefix = st.builds(Condition, FIELD, st.just(Op.STARTS_WITH), TEXT)
    bare = st.builds(Condition, FIELD, st.sampled_from([Op.IS_NULL, Op.EXISTS]))
    return one | whole | many | between | prefix | bare


FILTER = st.recursive(
    conditions(),
    lambda inner: (
        st.builds(lambda c: And(tuple(c)), st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda c: Or(tuple(c)), st.lists(inner, min_size=1, max_size=3))
        | st.builds(Not, inner)
    ),
    max_leaves=8,
)


@st.composite
def rows(draw):
    ids = draw(IDS)
    n, dim = len(ids), draw(st.integers(1, 5))
    kind = draw(st.sampled_from(["none", "all", "some"]))
    present = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    vectors = np.arange(n * dim, dtype=np.float32).reshape(n, dim)
    metadata = [encode_metadata({"n": i} if i % 2 else {}) for i in range(n)]
    return Rows(
        ids,
        None if kind == "none" else vectors,
        present if kind == "some" and not present.all() else None,
        draw(st.sampled_from([None, metadata])) if n else None,
        draw(st.none() | st.lists(st.none() | TEXT, min_size=n, max_size=n)) if n else None,
    )


def same_rows(a, b):
    assert a.ids == b.ids
    for name in ("vectors", "has_vector"):
        one, two = getattr(a, name), getattr(b, name)
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_array_equal(one, two)
    assert a.metadata == b.metadata
    assert a.texts == b.texts or (b.texts is None and set(a.texts) <= {None})


@given(rows(), st.sampled_from(WriteMode), VERSION, KEY, SECONDS)
def test_writes(data, mode, version, key, timeout):
    request = WriteRequest(mode, data, version, key, timeout, "")
    message = requests.write_to_message("docs", request)
    sent = b"".join(write.write_to_parts("docs", request))
    assert service_pb2.WriteRequest.FromString(sent) == message
    for written in (
        write.Written(message.collection, requests.write_from_message(again(message))),
        write.write_from_bytes(sent),
        write.write_from_bytes(message.SerializeToString()),
        write.write_from_bytes(sent[:6] + sent),
    ):
        got = written.request
        assert written.collection == "docs"
        same_rows(data, got.rows)
        assert got.rows.vectors is None or got.rows.vectors.flags.aligned
        assert (got.mode, got.if_version, got.idempotency_key, got.timeout) == (mode, version, key, timeout)


def test_vectors_to_be_written_are_sent_and_read_where_they_lie():
    for width in range(4):
        request = WriteRequest(WriteMode.UPSERT, Rows(["a" * (20 + width)] * 50, np.ones((50, 7), np.float32)))
        *_, vectors = write.write_to_parts("docs", request)
        assert np.shares_memory(np.asarray(vectors), request.rows.vectors)
        sent = b"".join(write.write_to_parts("docs", request))
        got = write.write_from_bytes(sent).request.rows.vectors
        np.testing.assert_array_equal(got, request.rows.vectors)
        assert got.flags.aligned
        # Where they begin at a multiple of four they are not copied.
        assert np.shares_memory(got, np.frombuffer(sent, np.uint8)) is ((len(sent) - vectors.nbytes) % 4 == 0)


def test_of_vectors_that_come_twice_the_last_count():
    first, second = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    sent = [
        b"".join(write.write_to_parts("c", WriteRequest(WriteMode.UPSERT, Rows(["a"], each))))
        for each in (first, second)
    ]
    alone = [data[-len(b"\x1a\x0a\x1a\x08") - 8 :] for data in sent]
    for data in (sent[0] + alone[1], alone[0] + sent[1]):
        message = service_pb2.WriteRequest.FromString(data)
        got = write.write_from_bytes(data).request.rows.vectors
        np.testing.assert_array_equal(got, second)
        assert message.rows.vectors == second.tobytes()


@given(FILTER)
def test_filters_keep_structure_and_types(tree):
    message = filter_pb2.Filter()
    filters.filter_to_message(tree, message)
    got = filters.filter_from_message(again(message))
    assert got == tree, "equality of trees tells 1, 1.0 and True apart"


@given(st.none() | IDS, st.none() | FILTER, VERSION, KEY, SECONDS)
def test_selecting_writes(ids, where, version, key, timeout):
    delete = DeleteRequest(ids, where, version, key, timeout)
    assert requests.delete_from_message(again(requests.delete_to_message("c", delete))) == delete
    update = UpdateMetadataRequest(ids, where, b"\x80", ("a.b", "c"), version, key, timeout)
    assert requests.update_metadata_from_message(again(requests.update_metadata_to_message("c", update))) == update
    update.set, update.unset = None, ()
    assert requests.update_metadata_from_message(again(requests.update_metadata_to_message("c", update))) == update


@given(IDS, st.none() | FILTER, SECONDS, st.none() | TEXT, st.lists(TEXT, max_size=3).map(tuple), INT64)
def test_reads(ids, where, timeout, order_by, include, size):
    get = GetRequest(ids, include, timeout)
    assert requests.get_from_message(again(requests.get_to_message("c", get))) == get
    assert requests.count_from_message(again(requests.count_to_message("c", where, timeout))) == (where, timeout)
    scan = ScanRequest(where, order_by, size, include)
    assert requests.scan_from_message(again(requests.scan_to_message("c", scan))) == scan


FUSION = (
    st.none()
    | st.builds(Rrf, st.floats(allow_nan=False))
    | st.builds(Weights, st.lists(st.floats(allow_nan=False), max_size=3).map(tuple))
)
WORDS = st.tuples(st.lists(TEXT, max_size=3).map(tuple), FUSION)


@given(
    st.tuples(st.integers(0, 4), st.integers(1, 5)), INT64, st.none() | FILTER, st.sampled_from(FilterMode),
    st.none() | st.floats(allow_nan=False), st.none() | PARAMS.filter(bool), SECONDS, st.booleans(), WORDS,
)  # fmt: skip
def test_searches(shape, limit, where, mode, min_score, params, timeout, flag, words):
    vectors = np.full(shape, 1.5, np.float32)
    request = SearchRequest(
        vectors, limit, where, mode, flag, min_score, params, timeout, not flag, ("text",), "x", *words
    )
    message, data = requests.search_to_message("c", request), b"".join(search.search_to_parts("c", request))
    assert service_pb2.SearchRequest.FromString(data) == message
    asked = search.search_from_bytes(data)
    assert asked.shape == search.shape_of(message)
    for got in (requests.search_from_message(again(message)), asked.request):
        np.testing.assert_array_equal(got.vectors, vectors)
        assert got.vectors.dtype == np.float32
        assert [getattr(got, name) for name in SearchRequest.__slots__[1:]] == [
            getattr(request, name) for name in SearchRequest.__slots__[1:]
        ]
        assert {k: type(v) for k, v in (got.params or {}).items()} == {k: type(v) for k, v in (params or {}).items()}


@given(st.lists(TEXT, min_size=1, max_size=3).map(tuple), INT64)
def test_searches_by_text_alone(texts, limit):
    request = SearchRequest(None, limit, texts=texts)
    assert requests.search_from_message(again(requests.search_to_message("c", request))) == request
    assert search.search_from_bytes(b"".join(search.search_to_parts("c", request))).request == request


def test_a_fusion_that_says_nothing_is_the_default():
    for given_fusion in ({}, {"rrf": {}}):
        message = service_pb2.SearchRequest(dim=1, vectors=bytes(4), texts=["a"], fusion=given_fusion)
        assert requests.search_from_message(message).fusion == Rrf()


@given(
    TEXT, INT64, st.sampled_from(Metric), PARAMS,
    st.none() | st.dictionaries(TEXT, st.builds(FieldSpec, st.sampled_from(FieldType), st.booleans()), max_size=3),
    st.builds(Tuning, *[INT64] * 7, st.none() | st.sampled_from(Durability)),
)  # fmt: skip
def test_collections(name, dim, metric, params, fields, tuning):
    quantization = QuantizationSpec("pq", params) if params else None
    config = CollectionConfig(
        name, dim, metric, IndexSpec("hnsw", params), quantization, fields, tuning, analyzer="german"
    )
    request = CreateRequest(config, True, 2.5)
    assert requests.create_from_message(again(requests.create_to_message(request))) == request


def test_an_empty_configuration_takes_the_defaults():
    message = service_pb2.CreateCollectionRequest(config={"name": "c", "dim": 3})
    assert requests.create_from_message(message) == CreateRequest(CollectionConfig("c", 3))


def test_metadata_that_comes_encoded_travels_as_it_is():
    foreign = b"\x81\xa1t\xd6\xff\x00\x00\x00\x01"  # {"t": 1970-01-01T00:00:01Z} with MessagePack's own timestamp
    message = types_pb2.Records()
    results.records_to_message([Record("a", metadata=foreign), Record("b", metadata={}), Record("c")], message)
    assert list(message.rows.metadata) == [foreign, b"", b"\xc0"]
    got = results.records_from_message(again(message))
    assert [record.metadata for record in got] == [{"t": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}, {}, None]


def test_searches_that_differ_in_their_vectors_alone_are_read_once():
    def got(vector, values):
        request = SearchRequest(np.array([vector], np.float32), where=Condition("a", Op.IN, values), params={"ef": 9})
        return search.search_from_bytes(b"".join(search.search_to_parts("c", request))).request

    first, second = got([1, 2], [1]), got([3, 4], [1])
    assert (first.vectors.tolist(), second.vectors.tolist()) == ([[1, 2]], [[3, 4]])
    assert first.where is second.where
    assert got([1, 2], [2]).where == Condition("a", Op.IN, [2])
    many = list(range(10_000))
    assert got([1, 2], many).where is not got([1, 2], many).where, "long ones are not kept"


@pytest.mark.parametrize("value", [1, True, 1.0])
def test_searches_alike_but_for_a_type_are_kept_apart(value):
    for options in ({"params": {"ef": value}}, {"timeout": value}, {"limit": value}):
        request = SearchRequest(np.ones((1, 2), np.float32), **options)
        try:
            message = requests.search_to_message("c", request)
        except InvalidArgument:
            with pytest.raises(InvalidArgument):
                search.search_to_parts("c", request)
        else:
            assert service_pb2.SearchRequest.FromString(b"".join(search.search_to_parts("c", request))) == message


@given(st.booleans(), st.none() | st.floats(0.001, 1e6))
def test_optimize(wait, timeout):
    message = again(requests.optimize_to_message("docs", OptimizeRequest(wait, timeout)))
    assert message.collection == "docs"
    got = requests.optimize_from_message(message)
    assert (got.wait, got.timeout) == (wait, timeout)


@given(st.none() | PARAMS, st.none() | PARAMS, st.booleans())
def test_reindex(index, quantization, wait):
    request = ReindexRequest(
        None if index is None else IndexSpec("ivf", index),
        None if quantization is None else QuantizationSpec("none", quantization),
        wait,
    )
    message = again(requests.reindex_to_message("docs", request))
    assert message.collection == "docs"
    got = requests.reindex_from_message(message)
    assert (got.index, got.quantization, got.wait) == (request.index, request.quantization, wait)


def test_statistics():
    given_ = CollectionStats(
        1, 2, 3, 4, 5, 6, 7, IndexSpec("hnsw", {"m": 16}), (SegmentStats("s", 1, 2, "flat", 3, 4),),
        OptimizerStats("reindexing", 0.5, 12, "broken"), QuantizationSpec("pq", {"m": 48}),
    )  # fmt: skip
    message = types_pb2.CollectionStats()
    stats.stats_to_message(given_, message)
    assert stats.stats_from_message(again(message)) == given_


def test_ids_of_a_write_travel_back_only_where_they_are_new():
    given_ = WriteResult(2, 9, ["a", "b"])
    quiet = results.write_result_to_message(given_, ["a", "b"], service_pb2.WriteResult())
    assert not quiet.ids
    assert results.write_result_from_message(quiet, ["a", "b"]) == given_
    loud = results.write_result_to_message(given_, [], service_pb2.WriteResult())
    assert results.write_result_from_message(again(loud), []) == given_


def test_vectors_are_not_copied():
    data = np.arange(6, dtype="<f4").tobytes()
    view = columns.vectors_from_bytes(data, 3, "vectors", 2)
    assert not view.flags.owndata
    assert not view.flags.writeable
    np.testing.assert_array_equal(view, [[0, 1, 2], [3, 4, 5]])


def test_vectors_are_a_packed_repeated_float_on_the_wire():
    message = types_pb2.SearchResult(scores=[1.5, -2.0])
    # Field 2, length-delimited: tag and length, then the same bytes as our columns have.
    assert message.SerializeToString() == b"\x12\x08" + columns.vectors_to_bytes(np.array([[1.5, -2.0]], np.float32))


def test_the_deepest_filter_fits_into_a_message():
    tree = Condition("a", Op.EQ, [1, 2])
    for level in range(MAX_DEPTH - 1):
        tree = [Not, lambda t: And((t,)), lambda t: Or((t,))][level % 3](tree)
    message = again(requests.explain_to_message("c", SearchRequest(np.ones((1, 2), np.float32), where=tree), False))
    assert requests.search_from_message(message.search).where == tree
