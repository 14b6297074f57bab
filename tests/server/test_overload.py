"""More calls than can be carried out: who is answered, who is refused and how, and that nobody hangs."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.server.halfway import Halfway
from tests.waiting import wait_until
from vectordb.cli.process import ServerProcess
from vectordb.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from vectordb.requests import CreateRequest, Rows, SearchRequest, WriteMode, WriteRequest
from vectordb.types import CollectionConfig
from vectordb.wire import requests
from vectordb_client import connect
from vectordb_proto.v1 import service_pb2 as pb

SECONDS = float(os.environ.get("VECTORDB_OVERLOAD_SECONDS", "1800"))


def prepared(served: Any) -> Any:
    served.backend.create_collection(CreateRequest(CollectionConfig("docs", 3)))
    rows = Rows([f"r{i}" for i in range(10)], np.ones((10, 3), np.float32))
    served.stub.Write(requests.write_to_message("docs", WriteRequest(WriteMode.UPSERT, rows)))
    return served


def slowed(served: Any, seconds: float) -> list[int]:
    """Makes searches take so long; the list gets the most that ran at a time."""
    most, running, lock = [0], [0], threading.Lock()
    inner = served.backend.search

    def search(collection: str, request: SearchRequest) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        try:
            time.sleep(seconds)
            return inner(collection, request)
        finally:
            with lock:
                running[0] -= 1

    served.backend.search = search
    return most


def a_search(**options: Any) -> pb.SearchRequest:
    return requests.search_to_message("docs", SearchRequest(np.ones((1, 3), np.float32), **options))


def retry_delay(error: grpc.RpcError) -> float | None:
    """What the refusal's RetryInfo says, in seconds."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            return info.retry_delay.ToNanoseconds() / 1e9
    return None


def test_ten_times_too_many_are_answered_or_refused_with_a_time_to_come_again(serve: Any) -> None:
    served = prepared(serve(max_workers=2))
    most = slowed(served, 0.01)
    outcomes: Counter[str] = Counter()
    faults: list[object] = []
    end = time.monotonic() + 1.5

    def client() -> None:
        while time.monotonic() < end:
            try:
                found = served.stub.Search(a_search(limit=1), timeout=20)
                outcomes["answered"] += 1
                if list(found.results[0].hits.ids) != ["r0"]:
                    faults.append(found)
            except grpc.RpcError as error:
                delay = retry_delay(error)
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or delay is None:
                    faults.append(error)
                    return
                outcomes["refused"] += 1
                time.sleep(delay)

    clients = [threading.Thread(target=client) for _ in range(40)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(30)
    assert not any(thread.is_alive() for thread in clients)
    assert faults == []
    assert most[0] <= 2
    assert outcomes["answered"] >= 20
    assert outcomes["refused"] >= 10
    admission = served.server._admission
    assert (admission.running, admission.waiting) == (0, 0)
    assert served.stub.Search(a_search(limit=1), timeout=5).results


def test_clients_that_honour_it_are_all_served(serve: Any) -> None:
    served = prepared(serve(max_workers=2, max_pending_calls=4))
    slowed(served, 0.005)
    faults: list[BaseException] = []

    def client() -> None:
        try:
            with connect(served.address) as db:
                docs = db.collection("docs")
                for _ in range(5):
                    assert docs.search([1, 1, 1], limit=1)[0].id == "r0"
        except BaseException as error:
            faults.append(error)

    clients = [threading.Thread(target=client) for _ in range(20)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    assert not any(thread.is_alive() for thread in clients)
    assert faults == []
    assert served.server._admission.shed["calls"] > 0


def test_light_calls_and_health_are_answered_while_all_places_are_taken(serve: Any) -> None:
    served = prepared(serve(max_workers=1, max_pending_calls=8))
    served.backend.block = threading.Event()
    waiting = [served.stub.Search.future(a_search()) for _ in range(4)]
    assert served.backend.entered.acquire(timeout=5)
    assert list(served.stub.ListCollections(pb.ListCollectionsRequest(), timeout=5).names) == ["docs"]
    assert served.stub.Get(pb.GetRequest(collection="docs", ids=["r1"]), timeout=5).records.rows.ids == ["r1"]
    health = health_pb2_grpc.HealthStub(served.channel)
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING
    served.backend.block.set()
    assert all(call.result(timeout=5) for call in waiting)


def test_a_call_that_waits_all_its_time_is_told_so_and_never_begun(serve: Any) -> None:
    served = prepared(serve(max_workers=1))
    served.backend.block = threading.Event()
    first = served.stub.Search.future(a_search())
    assert served.backend.entered.acquire(timeout=5)
    error = served.error(lambda: served.stub.Search(a_search(), timeout=0.3))
    assert type(error) is DeadlineExceeded
    time.sleep(0.2)  # the server's clock of the call may be a little behind the client's
    served.backend.block.set()
    assert first.result(timeout=5)
    assert len(served.backend.timeouts) == 2  # of the write and of the first search


def test_a_cancelled_call_is_not_begun(serve: Any) -> None:
    served = prepared(serve(max_workers=1))
    served.backend.block = threading.Event()
    first = served.stub.Search.future(a_search())
    assert served.backend.entered.acquire(timeout=5)
    second = served.stub.Search.future(a_search())
    wait_until(lambda: served.server._admission.waiting == 1)
    second.cancel()
    time.sleep(0.2)
    served.backend.block.set()
    assert first.result(timeout=5)
    wait_until(lambda: served.server._admission.waiting == served.server._admission.running == 0)
    assert len(served.backend.timeouts) == 2


def test_half_messages_take_no_place(serve: Any) -> None:
    served = prepared(serve(max_workers=1))
    stalled = [Halfway(served.address) for _ in range(50)]
    try:
        for connection in stalled:
            connection.call("Search", bytes(1000), sent=500)
        # Until their messages are missed they count as a crowd, for a moment: who is refused then comes again.
        with connect(served.address, timeout=10) as db:
            for _ in range(20):
                assert db.collection("docs").search([1, 1, 1], limit=1)[0].id == "r0"
        assert served.server._admission.running == 0
    finally:
        for connection in stalled:
            connection.close()


def test_more_stalled_clients_than_threads_leave_no_silence(serve: Any, transport: str) -> None:
    served = prepared(serve(max_workers=1, max_pending_calls=4, max_streams=1))
    stalled = [Halfway(served.address) for _ in range(60)]
    try:
        for connection in stalled:
            connection.call("Search", bytes(1000), sent=500)
        time.sleep(0.5)
        if transport == "native":  # threads are for whole messages
            with connect(served.address, retries=0) as db:
                assert db.info()
            return
        with connect(served.address, retries=0) as db, pytest.raises((ResourceExhausted, Unavailable)) as caught:
            db.info()
        assert caught.value.retry_after == 1.0
    finally:
        for connection in stalled:
            connection.close()


def resident(pid: int) -> int:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def test_idle_and_stalled_clients_cost_little_and_the_others_are_served(tmp_path: Path) -> None:
    with (
        ServerProcess(tmp_path) as server,
        connect(server.address, retries=0) as db,
        ThreadPoolExecutor(8) as others,
    ):
        docs = db.create_collection("docs", 64)
        rows = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)
        docs.upsert([str(i) for i in range(2000)], rows)

        def searched() -> list[str]:
            """By eight at a time, none of whom asks twice."""
            return list(others.map(lambda row: docs.search(row, limit=1)[0].id, rows[:400]))

        right = [str(i) for i in range(400)]
        # As often as beside the silent ones: what searches alone take does not count.
        for _ in range(3):
            assert searched() == right
        before = resident(server.pid)
        silent = [Halfway(server.address) for _ in range(550)]
        try:
            for connection in silent[:50]:
                connection.call("Search", bytes(10_000), sent=5_000)
            # Each has the server's first frame: it is a connection of HTTP/2, and not one that waits to be taken.
            assert all(len(connection.socket.recv(9)) == 9 for connection in silent)
            for _ in range(3):
                assert searched() == right
                time.sleep(0.3)
            assert resident(server.pid) < 1.1 * before
            # None was got rid of: nothing but frames of the connection came, and no end.
            for connection in silent:
                connection.socket.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    assert connection.socket.recv(1)
        finally:
            for connection in silent:
                connection.close()


@pytest.mark.slow
def test_overload_for_long(tmp_path: Path) -> None:
    """80 clients against two places, for half an hour: nothing but answers and refusals, and memory stays flat."""
    wrong: list[object] = []
    outcomes: Counter[str] = Counter()
    with ServerProcess(tmp_path, environment={"VECTORDB_MAX_WORKERS": "2"}) as server, connect(server.address) as db:
        docs = db.create_collection("docs", 256)
        rows = np.random.default_rng(0).standard_normal((20_000, 256)).astype(np.float32)
        docs.bulk_upsert(({"id": str(i), "vector": row} for i, row in enumerate(rows)), progress=False)
        docs.optimize()
        end = time.monotonic() + SECONDS

        def client(seed: int) -> None:
            rng = np.random.default_rng(seed)
            with connect(server.address) as mine:
                found = mine.collection("docs")
                while time.monotonic() < end:
                    i = int(rng.integers(len(rows)))
                    try:
                        if found.search(rows[i], limit=1, exact=True)[0].id != str(i):
                            wrong.append(i)
                        outcomes["answered"] += 1
                    except ResourceExhausted as error:
                        outcomes["refused"] += 1
                        time.sleep(error.retry_after)
                    except Exception as error:
                        wrong.append(error)

        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(80)]
        for thread in clients:
            thread.start()
        seen = []
        while any(thread.is_alive() for thread in clients):
            time.sleep(min(5.0, SECONDS / 20))
            seen.append(resident(server.pid))
        assert wrong == []
        assert outcomes["answered"] > 100
        settled = seen[len(seen) // 4 :]
        slope = float(np.polyfit(np.linspace(0, 0.75 * SECONDS / 60, len(settled)), settled, 1)[0])
        print(f"{dict(outcomes)}; memory grew by {slope / 2**20:+.3f} MiB a minute at {max(settled) / 2**20:.0f} MiB")
        assert max(settled) < 1.1 * min(settled)


def test_a_system_without_further_threads_keeps_calls_waiting_and_no_longer_than_that(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = prepared(serve())
    slowed(served, 0.01)
    start, scarce = threading.Thread.start, [True]

    def started(thread: threading.Thread) -> None:
        if scarce[0] and thread.name.startswith("vectordb-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    for scarce[0] in (True, False):
        calls = [served.stub.Search.future(a_search(), timeout=20) for _ in range(8)]
        calls += [served.stub.ListCollections.future(pb.ListCollectionsRequest(), timeout=20) for _ in range(8)]
        calls += [served.stub.Optimize.future(pb.OptimizeRequest(collection="docs"), timeout=20) for _ in range(3)]
        for call in calls:
            call.result()
