"""Every RPC from end to end against a backend of dicts."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from vectordb.encoding import encode_metadata
from vectordb.errors import BY_NAME, CollectionNotFound, Internal, InvalidArgument, InvalidFilter, VectorDBError
from vectordb.filter import col
from vectordb.requests import (
    CreateRequest,
    DeleteRequest,
    GetRequest,
    Rows,
    ScanRequest,
    SearchRequest,
    UpdateMetadataRequest,
    WriteMode,
    WriteRequest,
)
from vectordb.types import CollectionConfig, Durability
from vectordb.wire import requests, results, stats
from vectordb.wire.answer import answer_from_bytes
from vectordb.wire.config import config_from_message
from vectordb_proto.v1 import service_pb2 as pb


def a_write(n: int = 5, mode: WriteMode = WriteMode.UPSERT) -> WriteRequest:
    vectors = np.arange(1, 3 * n + 1, dtype=np.float32).reshape(n, 3)
    metadata = [encode_metadata({"n": i}) for i in range(n)]
    return WriteRequest(mode, Rows([f"r{i}" for i in range(n)], vectors, None, metadata, ["t", *[None] * (n - 1)]))


def test_collections_come_and_go(served):
    stub = served.stub
    config = CollectionConfig("other", 7)
    created = stub.CreateCollection(requests.create_to_message(CreateRequest(config)))
    assert config_from_message(created.config) == config
    assert list(stub.ListCollections(pb.ListCollectionsRequest()).names) == ["docs", "other"]
    assert config_from_message(stub.GetCollection(pb.GetCollectionRequest(collection="other")).config) == config
    info = stats.info_from_message(stub.GetInfo(pb.GetInfoRequest()).info)
    assert info.collections == ("docs", "other")
    assert info.durability is Durability.ASYNC
    assert info.read_only_reason == "it is a fake"
    stub.DeleteCollection(pb.DeleteCollectionRequest(collection="other"))
    error = served.error(lambda: stub.GetCollection(pb.GetCollectionRequest(collection="other")))
    assert type(error) is CollectionNotFound
    assert error.collection == "other"


def test_what_is_written_is_read(served):
    stub = served.stub
    answer = stub.Write(requests.write_to_message("docs", a_write()))
    written = results.write_result_from_message(answer.result, ["r0"])
    assert written.count == 5
    assert written.ids == ["r0"], "ids that are the request's own do not travel back"
    message = requests.get_to_message("docs", GetRequest(["r3", "no", "r0"], ("metadata", "text", "vector")))
    records = results.records_from_message(stub.Get(message).records)
    assert [(r.id, r.metadata, r.text, r.version) for r in records] == [
        ("r3", {"n": 3}, None, written.version),
        ("r0", {"n": 0}, "t", written.version),
    ]
    np.testing.assert_array_equal(records[1].vector, [1, 2, 3])
    assert stub.Count(requests.count_to_message("docs", col("n") >= 2)).count == 3
    update = UpdateMetadataRequest(ids=["r0"], set=encode_metadata({"n": 9}), unset=("m",))
    assert stub.UpdateMetadata(requests.update_metadata_to_message("docs", update)).count == 1
    assert stub.Count(requests.count_to_message("docs", col("n") == 9)).count == 1
    assert stub.Delete(requests.delete_to_message("docs", DeleteRequest(ids=[]))).count == 0
    assert stub.Delete(requests.delete_to_message("docs", DeleteRequest(where=col("n") == 9))).count == 1
    state = stats.stats_from_message(stub.GetStats(pb.GetStatsRequest(collection="docs")).stats)
    assert state.rows == 4


def test_searches_of_many_queries_are_one_call(served):
    served.stub.Write(requests.write_to_message("docs", a_write()))
    queries = np.array([[1, 0, 0], [0, -1, 0]], np.float32)
    search = SearchRequest(queries, limit=2, where=col("n") < 4, include=("metadata", "vector"), allow_partial=True)
    data = served.stub.Search(requests.search_to_message("docs", search)).SerializeToString()
    found = answer_from_bytes(data, search.include)
    assert [result.ids for result in found] == [["r3", "r2"], ["r0", "r1"]]
    assert found[0].scores == [10.0, 7.0]
    assert found[1][0].metadata == {"n": 0}
    assert (found[0].complete, found[0].incomplete_reason, found[0].searched_fraction) == (False, "deadline", 0.5)
    assert found[0].plan == found[1].plan
    assert found[0].plan[0].params == {"ef": 64}
    explained = served.stub.Explain(requests.explain_to_message("docs", search, True)).plan
    assert stats.plan_from_message(explained) == found[0].plan


def test_bulk_writes_are_answered_batch_by_batch_until_one_fails(served):
    def batches():
        for size in (2, 3):
            yield pb.BulkWriteRequest(write=requests.write_to_message("docs", a_write(size)))
        yield pb.BulkWriteRequest(write=requests.write_to_message("nope", a_write(1)))

    call = served.stub.BulkWrite(batches())
    assert [next(call).result.count, next(call).result.count] == [2, 3]
    error = served.error(lambda: next(call))
    assert type(error) is CollectionNotFound
    assert len(served.backend.rows["docs"]) == 3


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_error_arrives_as_it_was_raised(served, name):
    fields = {"ids": ["a", "é"], "row": 17, "limit": None, "ratio": 0.5, "retry_after": 2}
    served.backend.fail = BY_NAME[name]("collection 'docs' has a fault: é", **fields)
    error = served.error(lambda: served.stub.GetStats(pb.GetStatsRequest(collection="docs")))
    assert type(error) is BY_NAME[name]
    assert error.message == "collection 'docs' has a fault: é"
    assert dict(error.fields) == fields


def test_an_unknown_exception_shows_nothing_but_a_number(served, caplog):
    served.backend.fail = ZeroDivisionError("the secret")
    with pytest.raises(grpc.RpcError) as caught:
        served.stub.GetStats(pb.GetStatsRequest(collection="docs"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value)
    assert b"secret" not in dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    error = served.typed(caught.value)
    assert type(error) is Internal
    assert error.request in error.message
    assert error.request in caplog.text
    assert "the secret" in caplog.text


def test_errors_too_long_for_a_header_are_shortened(served):
    served.backend.fail = VectorDBError("x" * 100_000, ids=["é" * 500] * 10_000, row=3)
    error = served.error(lambda: served.stub.GetStats(pb.GetStatsRequest(collection="docs")))
    assert type(error) is VectorDBError
    assert error.message.startswith("xxx")
    assert error.row == 3


def test_bytes_that_are_no_message_are_an_invalid_argument(served):
    for rpc, data in (("Search", b"\xff\xff"), ("Write", b"\x0a\x02\xff\xfe"), ("Count", b"\x12\x80")):
        raw = served.channel.unary_unary(f"/vectordb.v1.VectorDBService/{rpc}")
        assert type(served.error(lambda raw=raw, data=data: raw(data))) is InvalidArgument


def test_messages_that_are_no_request_name_the_field(served):
    cases = [
        (pb.SearchRequest(collection="docs", dim=3, vectors=b"\0" * 13), InvalidArgument, "vectors"),
        (pb.SearchRequest(collection="docs", filter_mode=99), InvalidArgument, "filter_mode"),
    ]
    for message, kind, field in cases:
        error = served.error(lambda message=message: served.stub.Search(message))
        assert type(error) is kind
        assert error.field == field
    assert type(served.error(lambda: served.stub.Count(pb.CountRequest(collection="docs", where={})))) is InvalidFilter


def test_the_sooner_of_timeout_and_deadline_counts(served):
    served.stub.Write(requests.write_to_message("docs", a_write()))

    def timeout_of(field: float | None, deadline: float | None) -> float | None:
        search = SearchRequest(np.ones((1, 3), np.float32), timeout=field)
        served.stub.Search(requests.search_to_message("docs", search), timeout=deadline)
        return served.backend.timeouts[-1]

    assert timeout_of(None, None) is None
    assert timeout_of(7.0, None) == 7.0
    assert timeout_of(7.0, 60.0) == 7.0
    sooner = timeout_of(60.0, 7.0)
    assert sooner is not None
    assert 5.0 < sooner < 7.0
    assert timeout_of(-1.0, 7.0) == -1.0, "the engine refuses it"
    served.stub.Optimize(pb.OptimizeRequest(collection="docs", wait=True, timeout_seconds=60.0), timeout=7.0)
    sooner = served.backend.timeouts[-1]
    assert sooner is not None
    assert 5.0 < sooner < 7.0
    served.stub.Optimize(pb.OptimizeRequest(collection="docs", wait=True))
    assert served.backend.timeouts[-1] is None


def test_health_and_reflection(served):
    check = health_pb2_grpc.HealthStub(served.channel).Check
    for service in ("", "vectordb.v1.VectorDBService"):
        answer = check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    database = ProtoReflectionDescriptorDatabase(served.channel)
    assert "vectordb.v1.VectorDBService" in database.get_services()
    descriptor = database.FindFileContainingSymbol("vectordb.v1.VectorDBService")
    assert {m.name for m in descriptor.service[0].method} >= {"Search", "Write", "Scan"}


def test_scans_over_the_wire(served):
    served.stub.Write(requests.write_to_message("docs", a_write(5)))
    message = requests.scan_to_message("docs", ScanRequest(page_size=2, where=col("n") != 1))
    first = served.stub.Scan(message)
    second = served.stub.Scan(requests.next_page_message(first.next_cursor))
    again = served.stub.Scan(requests.next_page_message(first.next_cursor))
    pages = [results.records_from_message(answer.records) for answer in (first, second)]
    assert [[r.id for r in page] for page in pages] == [["r0", "r2"], ["r3", "r4"]]
    assert again == second
    end = served.stub.Scan(requests.next_page_message(second.next_cursor))
    assert (len(end.records.rows.ids), end.next_cursor) == (0, "")
    assert served.backend.open_scans == 0
