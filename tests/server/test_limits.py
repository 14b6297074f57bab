"""Caps, sizes, deadlines, and what happens to clients that fall silent."""

from __future__ import annotations

import asyncio
import threading
import time

import grpc
import numpy as np
import pytest

from tests.waiting import wait_until
from vectordb.engine import jobs
from vectordb.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, ResourceExhausted
from vectordb.requests import CreateRequest, GetRequest, Rows, ScanRequest, SearchRequest, WriteMode, WriteRequest
from vectordb.types import CollectionConfig
from vectordb.wire import requests
from vectordb_client import connect, connect_async
from vectordb_proto.v1 import service_pb2 as pb
from vectordb_proto.v1 import service_pb2_grpc


def prepared(served, rows=10):
    served.backend.create_collection(CreateRequest(CollectionConfig("docs", 3)))
    served.stub.Write(a_write(rows))
    return served


def a_write(rows, text=None):
    texts = None if text is None else [text] * rows
    data = Rows([f"r{i}" for i in range(rows)], np.ones((rows, 3), np.float32), texts=texts)
    return requests.write_to_message("docs", WriteRequest(WriteMode.UPSERT, data))


def a_search(**options):
    return requests.search_to_message("docs", SearchRequest(np.ones((1, 3), np.float32), **options))


def a_scan(size=2):
    return requests.scan_to_message("docs", ScanRequest(page_size=size))


def test_a_message_over_the_limit_is_refused_and_the_connection_lives(serve):
    served = prepared(serve(max_message_bytes=1 << 20))
    error = served.error(lambda: served.stub.Write(a_write(3, "x" * (1 << 20)), timeout=20))
    assert type(error) is ResourceExhausted
    assert served.stub.Count(requests.count_to_message("docs")).count == 10


def test_an_answer_over_the_limit_is_refused_by_name(serve):
    served = prepared(serve(max_message_bytes=1 << 20))
    for i in range(3):
        served.stub.Write(a_write(i + 1, "x" * (900_000 // (i + 1))))
    served.backend.rows["docs"]["big"] = served.backend.rows["docs"]["r0"].__class__("big", None, {}, "y" * (1 << 20))
    error = served.error(lambda: served.stub.Get(requests.get_to_message("docs", GetRequest(["big"]))))
    assert type(error) is ResourceExhausted
    assert error.limit == 1 << 20
    assert error.got > error.limit


def test_the_deadline_stops_the_work(serve):
    served = prepared(serve())
    served.backend.block = threading.Event()
    began = time.monotonic()
    error = served.error(lambda: served.stub.Search(a_search(), timeout=0.5))
    assert type(error) is DeadlineExceeded
    assert 0.3 < time.monotonic() - began < 2
    timeout = served.backend.timeouts[-1]
    assert timeout is not None
    assert timeout < 0.5


def test_a_timeout_shorter_than_the_deadline_is_answered_in_full(serve):
    served = prepared(serve())
    served.backend.block = threading.Event()
    error = served.error(lambda: served.stub.Search(a_search(timeout=0.1), timeout=10))
    assert type(error) is DeadlineExceeded
    assert error.timeout == 0.1


def test_long_calls_are_capped_and_leave_short_ones_alone(serve):
    served = prepared(serve(max_streams=2, max_workers=1))
    served.backend.block = threading.Event()
    waiting = [served.stub.Optimize.future(pb.OptimizeRequest(collection="docs", wait=True)) for _ in range(2)]
    for _ in waiting:
        assert served.backend.entered.acquire(timeout=5)
    error = served.error(lambda: served.stub.Optimize(pb.OptimizeRequest(collection="docs", wait=True), timeout=5))
    assert type(error) is ResourceExhausted
    assert (error.limit, error.retry_after) == (2, 1.0)
    error = served.error(lambda: next(served.stub.BulkWrite(iter([]), timeout=5)))
    assert type(error) is ResourceExhausted
    # The single worker for short calls is free.
    assert served.stub.Count(requests.count_to_message("docs"), timeout=5).count == 10
    served.backend.block.set()
    assert all(call.result(timeout=5) is not None for call in waiting)


def test_a_client_that_went_away_while_it_waited_for_a_merge_holds_no_place(serve_engine, monkeypatch):
    seal, go = jobs.seal, threading.Event()

    def held(*arguments, **options):
        assert go.wait(60)
        return seal(*arguments, **options)

    monkeypatch.setattr(jobs, "seal", held)
    server = serve_engine(max_streams=1, drain_seconds=0.5)
    with connect(server.address) as db, grpc.insecure_channel(server.address) as channel:
        try:
            docs = db.create_collection("docs", 2)
            docs.upsert(["a"], [[1, 0]])
            optimize = service_pb2_grpc.VectorDBServiceStub(channel).Optimize
            call = optimize.future(pb.OptimizeRequest(collection="docs", wait=True))
            wait_until(lambda: len(server._streams) == 1)
            call.cancel()
            wait_until(lambda: len(server._streams) == 0)
            assert docs.stats().tail_rows == 1
        finally:
            go.set()
        docs.optimize()
        assert docs.stats().tail_rows == 0


def test_a_silent_bulk_write_is_cancelled(serve):
    served = prepared(serve(scan_idle_seconds=0.2, max_streams=1))
    hold = threading.Event()

    def batches():
        yield pb.BulkWriteRequest(write=a_write(1))
        hold.wait(10)

    call = served.stub.BulkWrite(batches())
    assert next(call).result.count == 1
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    hold.set()
    wait_until(lambda: not served.server._streams)
    assert len(list(served.stub.BulkWrite(iter([pb.BulkWriteRequest(write=a_write(1))])))) == 1


def test_a_cancelled_bulk_write_gives_its_place_back(serve):
    served = prepared(serve(max_streams=1))
    hold = threading.Event()

    def batches():
        yield pb.BulkWriteRequest(write=a_write(1))
        hold.wait(10)

    call = served.stub.BulkWrite(batches())
    next(call)
    call.cancel()
    hold.set()
    wait_until(lambda: not served.server._streams)


def test_an_idle_scan_is_released_and_says_so(serve):
    served = prepared(serve(scan_idle_seconds=0.2))
    cursor = served.stub.Scan(a_scan()).next_cursor
    assert served.backend.open_scans == 1
    wait_until(lambda: served.backend.open_scans == 0)
    error = served.error(lambda: served.stub.Scan(requests.next_page_message(cursor)))
    assert type(error) is FailedPrecondition
    assert "idle" in error.message
    assert error.idle_seconds == 0.2


def test_a_scan_that_is_read_is_not_idle(serve):
    served = prepared(serve(scan_idle_seconds=0.4), rows=12)
    answer = served.stub.Scan(a_scan())
    count = len(answer.records.rows.ids)
    while answer.next_cursor:
        time.sleep(0.1)
        answer = served.stub.Scan(requests.next_page_message(answer.next_cursor))
        count += len(answer.records.rows.ids)
    assert count == 12


def test_open_scans_are_capped(serve):
    served = prepared(serve(max_scans=2))
    cursors = [served.stub.Scan(a_scan()).next_cursor for _ in range(2)]
    error = served.error(lambda: served.stub.Scan(a_scan()))
    assert type(error) is ResourceExhausted
    assert error.limit == 2
    served.stub.CloseScan(pb.CloseScanRequest(cursor=cursors[0]))
    assert served.backend.open_scans == 1
    assert served.stub.Scan(a_scan()).next_cursor
    error = served.error(lambda: served.stub.Scan(requests.next_page_message(cursors[0])))
    assert type(error) is FailedPrecondition


def test_a_strange_cursor_is_refused(serve):
    served = prepared(serve())
    cursor = served.stub.Scan(a_scan()).next_cursor
    stem = cursor.rpartition(".")[0]
    assert type(served.error(lambda: served.stub.Scan(requests.next_page_message(stem + ".7")))) is InvalidArgument
    assert type(served.error(lambda: served.stub.Scan(requests.next_page_message("nonsense")))) is FailedPrecondition


def test_too_many_calls_at_once_are_refused(serve):
    served = prepared(serve(max_workers=1, max_pending_calls=2))
    served.backend.block = threading.Event()
    calls = [served.stub.Search.future(a_search()) for _ in range(2)]
    assert served.backend.entered.acquire(timeout=5)
    time.sleep(0.1)
    assert type(served.error(lambda: served.stub.Search(a_search(), timeout=5))) is ResourceExhausted
    served.backend.block.set()
    assert all(call.result(timeout=5) is not None for call in calls)


def test_scans_whose_page_is_too_large_keep_no_place(serve_engine):
    """Of a first page that does not arrive nobody has the cursor with which to end the scan."""
    server = serve_engine(max_message_bytes=1 << 20, max_scans=2)
    with connect(server.address, retries=0) as db:
        docs = db.create_collection("docs", 2)
        for number, (name, text) in enumerate({"a": "short", "b": "x" * 700_000, "c": "y" * 700_000}.items()):
            docs.upsert([name], texts=[text], metadata=[{"n": number}])
        for _ in range(3):
            with pytest.raises(ResourceExhausted, match="max_message_bytes"):
                next(docs.scan(page_size=3))
        assert len(server._scans) == 0
        assert [record.id for record in docs.scan(page_size=1)] == ["a", "b", "c"]

    async def read():
        async with await connect_async(server.address, retries=0) as adb:
            docs = await adb["docs"]
            await docs.upsert(["a2"], texts=["short"], metadata=[{"n": 0}])
            for _ in range(3):
                with pytest.raises(ResourceExhausted, match="max_message_bytes"):
                    # Two short ones and then the long ones.
                    async for _ in docs.scan(order_by="n", page_size=2):
                        pass

    asyncio.run(read())
    assert len(server._scans) == 0
