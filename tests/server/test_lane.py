"""The lane as clients meet it: who is told of it, what it answers, and where calls go that it does not take."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.credentials import Authority, keys_file
from tests.server.lane_echo import (
    docs,
    named,
    searches,
)
from tests.waiting import wait_until
from vectordb.cli.process import ServerProcess
from vectordb.errors import (
    CollectionNotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from vectordb.requests import SearchRequest
from vectordb.server.config import load
from vectordb.server.transports import has_lane
from vectordb.wire import http2
from vectordb.wire.search import search_to_parts
from vectordb_client import connect
from vectordb_proto.v1 import service_pb2 as pb

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no lane on this system")


@pytest.fixture(scope="module", autouse=True)
def transport() -> str:
    return "native"


def test_a_client_is_told_of_it_and_goes_there(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    with connect(served.address) as db:
        found = db.collection("docs")
        assert searches(db)._lane == ""
        found.upsert(["a"], [[1, 2, 3]])
        lane = searches(db)._lane
        assert lane == served.server._lane.address
        assert re.fullmatch(rf"unix-abstract:vectordb-{os.getpid()}-[0-9a-f]{{16}}/[0-9a-f]{{32}}", lane)
        for _ in range(3):
            assert found.search([1, 2, 3]).ids == ["a"]
        assert [connection.lane for connection in searches(db)._open] == [lane]
        (connection,) = served.server._lane._connections.values()
        assert re.fullmatch(rf"unix:pid={os.getpid()},uid={os.geteuid()}", connection.peer)
        with pytest.raises(CollectionNotFound):
            db.collection("none").search([1, 2, 3])
        assert found.search([1, 2, 3]).ids == ["a"]
    wait_until(lambda: not served.server._lane._connections)


def test_who_does_not_ask_is_not_told(serve: Callable[..., Any]) -> None:
    served = serve()
    _, call = served.stub.ListCollections.with_call(pb.ListCollectionsRequest(), timeout=5)
    assert http2.LANE_KEY not in dict(call.trailing_metadata() or ())
    asking = ((http2.LANE_KEY, "1"),)
    _, call = served.stub.ListCollections.with_call(pb.ListCollectionsRequest(), timeout=5, metadata=asking)
    assert dict(call.trailing_metadata())[http2.LANE_KEY] == served.server._lane.address


def test_there_is_none_where_it_is_not_wanted_or_certificates_let_in(serve: Callable[..., Any], tmp_path: Path) -> None:
    served = serve(lane=False)
    docs(served)
    with connect(served.address) as db:
        db.collection("docs").search([1, 2, 3])
        assert (searches(db)._lane, served.server._lane) == ("", None)
        (connection,) = searches(db)._open
        assert connection.own == ()  # and it is not asked for again
    certificate, key = Authority(tmp_path).issue("server")
    assert has_lane(load(environment={}))
    assert not has_lane(load({"tls_cert": str(certificate), "tls_key": str(key)}, environment={}))


def test_long_calls_and_streams_are_not_answered_there(serve: Callable[..., Any]) -> None:
    paths = {path.rpartition(b"/")[2] for path in serve().server._lane.by_path}
    assert {b"Search", b"Write", b"Get", b"Count"} <= paths
    assert not paths & {b"BulkWrite", b"Optimize", b"Backup", b"Verify", b"Repair", b"Erase", b"Reindex"}


def test_keys_count_there_too(serve_engine: Callable[..., Any], tmp_path: Path) -> None:
    writes, reads = keys_file(
        tmp_path / "keys.toml",
        {"name": "writer", "role": "admin"},
        {"name": "reader", "role": "read", "collections": ["docs"]},
    )
    server = serve_engine(api_keys=str(tmp_path / "keys.toml"))
    with connect(server.address, api_key=writes) as db, connect(server.address, api_key=reads) as reader:
        db.create_collection("docs", 3).upsert(["a"], [[1, 2, 3]])
        for _ in range(2):
            assert reader.collection("docs").search([1, 2, 3]).ids == ["a"]
        assert searches(reader)._lane
        with pytest.raises(PermissionDenied):
            reader.collection("docs").upsert(["b"], [[1, 2, 3]])
        searches(reader)  # from now on with a key that nobody has
        reader._backend._metadata = (("authorization", "Bearer nobodys"),)
        with pytest.raises(Unauthenticated):
            reader.collection("docs").search([1, 2, 3])


def test_calls_over_the_caps_are_refused_with_a_time_to_come_again(serve: Callable[..., Any]) -> None:
    served = serve(max_workers=1, max_pending_calls=2)
    docs(served)
    with connect(served.address, retries=0) as db, ThreadPoolExecutor(8) as pool:
        found = db.collection("docs")
        found.search([1, 2, 3])
        served.backend.block = threading.Event()
        first = [pool.submit(found.search, [1, 2, 3]) for _ in range(6)]
        wait_until(lambda: sum(call.done() for call in first) >= 4)
        served.backend.block.set()
        outcomes = [call.exception(10) for call in first]
    refused = [error for error in outcomes if error is not None]
    assert len(refused) == 4
    assert all(isinstance(error, ResourceExhausted) and error.retry_after > 0 for error in refused)
    admission = served.server._admission
    wait_until(lambda: (admission.running, admission.waiting, admission.arrivals.crowd) == (0, 0, 0))


def test_messages_that_are_too_long_are_refused_by_name(serve: Callable[..., Any]) -> None:
    served = serve(max_message_bytes=1 << 20)
    docs(served)
    with connect(served.address, retries=0) as db:
        found = db.collection("docs")
        found.search([1, 2, 3])
        for rows in (100_000, 3_000_000):  # of less than a frame, and of several
            with pytest.raises(ResourceExhausted, match="max_message_bytes = 1048576"):
                found.search_batch(np.ones((rows, 3), np.float32))
        assert found.search([1, 2, 3]).ids == []
        assert len(served.server._lane._connections) == 1


def test_a_server_that_stops_answers_what_runs_and_refuses_the_rest(serve: Callable[..., Any]) -> None:
    served = serve(drain_seconds=5.0)
    docs(served)
    with connect(served.address, retries=0) as db, ThreadPoolExecutor(2) as pool:
        found = db.collection("docs")
        found.upsert(["a"], [[1, 2, 3]])
        list(pool.map(lambda _: found.search([1, 2, 3]), range(20)))
        served.backend.block = threading.Event()
        running = pool.submit(found.search, [1, 2, 3])
        assert served.backend.entered.acquire(timeout=5)
        wait_until(lambda: served.server._admission.running == 1)
        lane, stopping = served.server._lane, pool.submit(served.server.stop)
        wait_until(lambda: lane.address == "")
        with pytest.raises(Unavailable):
            found.search([1, 2, 3])
        served.backend.block.set()
        assert running.result(10).ids == ["a"]
        stopping.result(10)
        assert not lane._connections


def test_a_server_that_is_killed_and_started_again_has_another(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, connect(server.address) as db:
        db.create_collection("docs", 3).upsert(["a"], [[1, 2, 3]])
        before = searches(db)._lane
        assert before
        server.kill()
        names = Path("/proc/net/unix").read_text()
        assert named(before)[1:] not in names
        with ServerProcess(tmp_path) as again:
            # As a client has it whose server came back to its port.
            searches(db)._address = again.address
            searches(db)._paused_until = 0.0
            calls = searches(db)
            search = search_to_parts("docs", SearchRequest(np.ones((1, 3), np.float32)))
            for _ in range(2):
                assert calls.call("/vectordb.v1.VectorDBService/Search", search, 5.0, ())
            assert calls._lane not in ("", before)


def test_where_it_has_no_room_a_client_uses_the_address_that_it_was_given(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    served.server._lane._most_calls = 0
    with connect(served.address) as db:
        found = db.collection("docs")
        for _ in range(4):
            assert found.search([1, 2, 3]).ids == []
        calls = searches(db)
        assert (calls._lane, calls._unreachable) == ("", served.server._lane.address)
        assert [connection.lane for connection in calls._open] == [""]


def test_what_could_not_be_used_is_tried_again_after_a_while(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    most, served.server._lane._most_calls = served.server._lane._most_calls, 0
    with connect(served.address) as db:
        found, calls = db.collection("docs"), searches(db)
        for _ in range(3):
            found.search([1, 2, 3])
        assert calls._unreachable == served.server._lane.address
        served.server._lane._most_calls = most
        calls._avoided_until = time.monotonic()
        for _ in range(2):
            found.search([1, 2, 3])
        assert [connection.lane for connection in calls._open] == [served.server._lane.address]


def test_where_it_has_no_more_room_a_client_keeps_the_connections_that_it_has(serve: Callable[..., Any]) -> None:
    served = serve()
    docs(served)
    served.server._lane._most_calls = 2
    with connect(served.address) as db, ThreadPoolExecutor(3) as pool:
        found = db.collection("docs")
        found.search([1, 2, 3])
        lane = searches(db)._lane
        for _ in range(2):
            served.backend.block = threading.Event()
            calls = list[Any]()
            for number in range(3):
                calls.append(pool.submit(found.search, [1, 2, 3]))
                wait_until(lambda number=number: served.server._admission.running == number + 1)  # type: ignore[misc]
            served.backend.block.set()
            assert [call.result(10).ids for call in calls] == [[]] * 3
            wait_until(lambda: served.server._admission.running == 0)
        lanes = [connection.lane for connection in searches(db)._open]
        assert lanes.count(lane) == 2
