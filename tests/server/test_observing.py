"""Request ids, the slow-query log, spans and the estimate of recall, by a real server and real clients."""

from __future__ import annotations

import json
import logging
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from vectordb import errors
from vectordb.engine.database import Engine
from vectordb.filter import Filter, col
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb.server.logs import JsonLines
from vectordb.server.slow_log import SlowLog, shape
from vectordb.server.watch import Done
from vectordb_client import connect, connect_async
from vectordb_proto.v1 import service_pb2 as pb
from vectordb_proto.v1.service_pb2_grpc import VectorDBServiceStub

Serve = Callable[..., Server]


@pytest.fixture
def slow_lines() -> Iterator[list[dict[str, Any]]]:
    """What the slow-query log writes, as the JSON format has it."""
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonLines().format(record)))

    handler, log = Keep(), logging.getLogger("vectordb.slow")
    log.addHandler(handler)
    yield lines
    log.removeHandler(handler)


def ended(address: str, rpc: str, message: Any, *metadata: tuple[str, str]) -> tuple[str | None, dict[str, Any]]:
    """The name of the status with which a call ended (None for OK), and its trailing metadata."""
    with grpc.insecure_channel(address) as channel:
        call = getattr(VectorDBServiceStub(channel), rpc)
        try:
            _, done = call.with_call(message, metadata=metadata, timeout=10)
        except grpc.RpcError as failed:
            return failed.code().name, dict(failed.trailing_metadata())
        return None, dict(done.trailing_metadata())


def test_request_ids_come_back(serve_engine: Serve) -> None:
    plain, logged = serve_engine().address, serve_engine(slow_query_seconds=60).address
    for address in (plain, logged):
        status, trailing = ended(address, "ListCollections", pb.ListCollectionsRequest(), ("x-request-id", "mine-1"))
        assert (status, trailing["x-request-id"]) == (None, "mine-1")
        status, trailing = ended(address, "Count", pb.CountRequest(collection="no"), ("x-request-id", "mine-2"))
        assert (status, trailing["x-request-id"]) == ("NOT_FOUND", "mine-2")
    made = {ended(logged, "ListCollections", pb.ListCollectionsRequest())[1]["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    assert "x-request-id" not in ended(plain, "ListCollections", pb.ListCollectionsRequest())[1]
    long = ended(plain, "Count", pb.CountRequest(collection="no"), ("x-request-id", "y" * 129))[1]["x-request-id"]
    assert "y" not in long


def test_errors_carry_their_request_id(serve_engine: Serve) -> None:
    with connect(serve_engine().address) as db:
        ids = []
        for _ in range(2):
            with pytest.raises(errors.CollectionNotFound) as caught:
                db["missing"]
            ids.append(caught.value.request_id)
            assert "request_id" not in caught.value.fields
            assert pickle.loads(pickle.dumps(caught.value)).request_id == ids[-1]
    assert len(set(ids)) == 2
    assert all(ids)
    with connect(":memory:") as db, pytest.raises(errors.CollectionNotFound) as caught:
        db["missing"]
    assert caught.value.request_id is None


@pytest.mark.parametrize("values", [False, True])
def test_slow_operations_are_logged_with_their_plan(
    serve_engine: Serve, slow_lines: list[dict[str, Any]], values: bool
) -> None:
    server = serve_engine(slow_query_seconds=1e-9, slow_query_values=values)
    with connect(server.address) as db:
        docs = db.create_collection("docs", 2)
        docs.upsert(
            ["one-id", "b"], [[0.123456, 0], [0, 1]], [{"year": 1999, "lang": "hush-hush"}, {}], ["a text", None]
        )
        docs.search([0.123456, 0], where=(col("year") >= 1999) & col("lang").isin(["hush-hush", "en"]))
        docs.search_text("private words")
        docs.count(col("lang") == "hush-hush")
        assert [r.id for r in docs.scan(page_size=1)] == ["one-id", "b"]
        docs.bulk_upsert([{"id": "c", "vector": [1, 1]}], progress=False)
        with pytest.raises(errors.DimensionMismatch):
            docs._backend.search("docs", _bad_search())
        docs.delete(["one-id"])
        assert docs.delete(["b"], erase=True) == 1
        docs.optimize(erase=True)
    by_operation = {line["operation"]: line for line in slow_lines}
    assert set(by_operation) == {"create_collection", "upsert", "search", "count", "scan", "delete", "erase"}
    erasures = [line for line in slow_lines if line["operation"] == "erase"]
    assert [(line["rows"], line.get("ids")) for line in erasures] == [(1, 1), (0, None)]
    search = next(line for line in slow_lines if line.get("filter"))
    assert search["filter"] == "year >= ? and lang in ?x2"
    assert search["plan"][0]["segment"] == "tail"
    assert (search["rows"], search["limit"], search["queries"], search["collection"]) == (1, 10, 1, "docs")
    assert search["seconds"] > 0 <= search["queue_seconds"]
    assert {line["outcome"] for line in slow_lines if "outcome" in line} == {"DimensionMismatch"}
    assert [line["rows"] for line in slow_lines if line["operation"] == "upsert"] == [2, 1]
    assert all(line["request_id"] for line in slow_lines)
    told = json.dumps(slow_lines)
    assert ("hush-hush" in told) is values
    assert not any(secret in told for secret in ("one-id", "0.123456", "private", "a text"))


def _bad_search() -> Any:
    from vectordb.requests import SearchRequest

    return SearchRequest(np.zeros((1, 3), np.float32))


def test_fast_operations_are_not_logged_and_slow_ones_not_all(slow_lines: list[dict[str, Any]]) -> None:
    log = SlowLog(1.0)
    log(Done("count", "docs", time.perf_counter(), 0.5, None, 3, None))
    assert slow_lines == []
    for _ in range(100):
        log(Done("count", "docs", time.perf_counter(), 1.5, None, 3, None))
    assert 20 <= len(slow_lines) <= 60
    log._second = 0
    log(Done("count", "docs", time.perf_counter(), 1.5, None, 3, None))
    assert sum(line.get("left_out", 0) for line in slow_lines) == 101 - len(slow_lines)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (col("a") == 1, "a == ?"),
        (col("a").is_null() | ~col("b.c").between(1, 2), "a is_null or not (b.c between ?x2)"),
        ((col("a") == 1) & ((col("b") == 2) | (col("c") == [1, 2])), "a == ? and (b == ? or c == ?x2)"),
        (col("a").startswith("x") & col("t").contains("y"), "a starts_with ? and t contains ?"),
    ],
)
def test_shapes(where: Filter, told: str) -> None:
    assert shape(where) == told


# Spans


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a server with ``tracing`` exports, and a tracer for the client's side."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda name, *_: provider.get_tracer(name))
    exporter.tracer = provider.get_tracer("test")
    return exporter


def server_spans(spans: Any, number: int) -> list[Any]:
    end = time.monotonic() + 10
    while len(found := [s for s in spans.get_finished_spans() if s.kind.name == "SERVER"]) < number:
        assert time.monotonic() < end, f"{len(found)} of {number} spans"
        time.sleep(0.01)
    return found


def test_spans_follow_the_clients(serve_engine: Serve, spans: Any) -> None:
    address = serve_engine(tracing=True).address
    with connect(address) as db:
        docs = db.create_collection("docs", 2)
        with spans.tracer.start_as_current_span("mine") as mine:
            docs.upsert(["a"], [[1, 0]], [{"lang": "hush-hush"}])
            docs.search([1, 0], where=col("lang") == "hush-hush")
            docs.bulk_upsert([{"id": "b", "vector": [0, 1]}], progress=False)
        with pytest.raises(errors.CollectionNotFound):
            db["missing"]
    found = {s.name.rpartition("/")[2]: s for s in server_spans(spans, 5)}
    assert set(found) == {"CreateCollection", "Write", "Search", "BulkWrite", "GetCollection"}
    for name in ("Write", "Search", "BulkWrite"):
        assert found[name].context.trace_id == mine.get_span_context().trace_id
        assert found[name].parent.span_id == mine.get_span_context().span_id
    assert found["CreateCollection"].parent is None
    search = dict(found["Search"].attributes)
    assert search["db.collection.name"] == "docs"
    assert search["db.response.returned_rows"] == 1
    assert search["vectordb.plan.strategies"] == ("exact_filtered",)
    assert search["rpc.grpc.status_code"] == 0
    assert found["BulkWrite"].attributes["db.response.returned_rows"] == 1
    assert found["GetCollection"].attributes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert found["GetCollection"].status.is_ok or found["GetCollection"].status.is_unset
    assert "hush-hush" not in str([dict(s.attributes) for s in found.values()])


async def _asynchronous(address: str) -> None:
    async with await connect_async(address) as db:
        assert await db.list_collections() == []


def test_spans_of_asynchronous_clients(serve_engine: Serve, spans: Any) -> None:
    import asyncio

    address = serve_engine(tracing=True).address
    with spans.tracer.start_as_current_span("mine") as mine:
        asyncio.run(_asynchronous(address))
    (span,) = server_spans(spans, 1)
    assert span.parent.span_id == mine.get_span_context().span_id


def test_tracing_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(errors.FailedPrecondition, match=r"vectordb-engine\[telemetry\]"):
        Server(lambda: Engine(":memory:"), load({"listen": "127.0.0.1:0", "tracing": True}, environment={}))


# Recall


def test_an_observer_that_fails_changes_no_answer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, serve_engine: Serve
) -> None:
    def fails(self: SlowLog, done: Done) -> None:
        raise RuntimeError(f"no room to note {done.operation}")

    monkeypatch.setattr(SlowLog, "__call__", fails)
    with connect(serve_engine(slow_query_seconds=60).address) as db:
        docs = db.create_collection("docs", 2)
        assert docs.upsert(["a"], [[1, 0]]).count == 1
        assert [hit.id for hit in docs.search([1, 0])] == ["a"]
        with pytest.raises(errors.CollectionNotFound):
            db.delete_collection("none")
    assert caplog.text.count("no room to note upsert") == 1


def test_served_searches_are_sampled(serve_engine: Serve) -> None:
    rng = np.random.default_rng(5)
    server = serve_engine(metrics_listen="127.0.0.1:0")
    with connect(server.address) as db:
        docs = db.create_collection("docs", 16, index={"kind": "hnsw", "m": 4, "ef_construction": 16}, index_bytes=1)
        docs.upsert([str(i) for i in range(3000)], rng.standard_normal((3000, 16)))
        docs.optimize()
        sampler = server._recall
        assert sampler is not None
        docs.search(rng.standard_normal(16), exact=True)
        assert not sampler.sample()
        for _ in range(3):
            docs.search_batch(rng.standard_normal((2, 16)), limit=5, params={"ef": 8})
            assert sampler.sample()
        assert not sampler.sample()
        found = sampler.found()
        assert found["docs"].samples == 3
        assert 0.2 < found["docs"].estimate <= 1
        docs.search(rng.standard_normal(16))
        db.delete_collection("docs")
        assert sampler.sample()
