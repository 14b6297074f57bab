"""Starting, stopping, addresses."""

from __future__ import annotations

import os
import socket
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.waiting import wait_until
from vectordb.errors import DirectoryLocked, FailedPrecondition, Unavailable
from vectordb.requests import CreateRequest, SearchRequest
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb.types import CollectionConfig
from vectordb.wire import requests
from vectordb_client import connect
from vectordb_proto.v1 import service_pb2 as pb
from vectordb_proto.v1 import service_pb2_grpc


def settings(listen, **flags):
    return load({"listen": listen, **flags}, environment={})


def a_search():
    return requests.search_to_message("docs", SearchRequest(np.ones((1, 3), np.float32)))


def test_port_0_picks_one_and_the_backend_is_told(serve):
    served = serve()
    host, _, port = served.address.rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert served.backend.address == served.address


def test_a_taken_port_is_an_error_that_names_it(serve):
    first = serve()
    opened = []
    second = Server(lambda: opened.append(1), settings(first.address))
    with pytest.raises(FailedPrecondition, match=first.address) as caught:
        second.start()
    assert "in use" in caught.value.message
    assert caught.value.address == first.address
    assert not opened, "nothing is opened before the address is ours"
    assert first.stub.ListCollections(pb.ListCollectionsRequest()) is not None


def test_a_port_taken_by_somebody_else_is_too():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(FailedPrecondition, match=address):
            Server(lambda: None, settings(address)).start()


def test_unix_sockets(serve, tmp_path):
    listen = f"unix:{tmp_path / 'db.sock'}"
    served = serve(listen=listen)
    assert served.address == listen
    assert list(served.stub.ListCollections(pb.ListCollectionsRequest()).names) == []
    with pytest.raises(FailedPrecondition, match="another server listens"):
        Server(lambda: None, settings(listen)).start()
    assert list(served.stub.ListCollections(pb.ListCollectionsRequest()).names) == []


def test_a_socket_file_left_by_a_crash_is_replaced(serve, tmp_path):
    path = tmp_path / "db.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    served = serve(listen=f"unix:{path}")
    assert list(served.stub.ListCollections(pb.ListCollectionsRequest()).names) == []


def test_a_backend_that_does_not_open_leaves_nothing_listening():
    def locked():
        raise DirectoryLocked("process 1 owns the folder", pid=1)

    server = Server(locked, settings("127.0.0.1:0"))
    with pytest.raises(DirectoryLocked):
        server.start()
    host, _, port = server.address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5).close()


def test_a_start_that_fails_leaves_neither_metrics_nor_the_audit_log_open(serve, tmp_path):
    backend = serve().backend

    def announce(address):
        raise FailedPrecondition("the address cannot be noted")

    backend.announce, audit = announce, tmp_path / "audit.jsonl"
    flags = {"metrics_listen": "127.0.0.1:0", "audit_log": str(audit)}
    server = Server(lambda: backend, settings("127.0.0.1:0", **flags))
    with pytest.raises(FailedPrecondition, match="cannot be noted"):
        server.start()
    host, _, port = server._metrics.address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5).close()
    assert str(audit) not in open_files()
    taken = Server(lambda: backend, settings(serve().address, **flags))
    assert str(audit) in open_files()
    with pytest.raises(FailedPrecondition, match="cannot listen"):
        taken.start()
    assert str(audit) not in open_files()


def open_files():
    return {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}


def test_while_it_opens_it_is_not_serving(serve):
    opening, go = threading.Event(), threading.Event()
    backend = serve().backend

    def slow():
        opening.set()
        assert go.wait(10)
        return backend

    server = Server(slow, settings("127.0.0.1:0"))
    thread = threading.Thread(target=server.start)
    thread.start()
    try:
        assert opening.wait(5)
        with grpc.insecure_channel(server.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            stub = service_pb2_grpc.VectorDBServiceStub(channel)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ListCollections(pb.ListCollectionsRequest())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            go.set()
            wait_until(lambda: check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING)
            assert stub.ListCollections(pb.ListCollectionsRequest()) is not None
    finally:
        go.set()
        thread.join()
        server.stop()


def held_call(served):
    """A search that runs until ``served.backend.block`` is set."""
    served.backend.create_collection(CreateRequest(CollectionConfig("docs", 3)))
    served.backend.block = threading.Event()
    call = served.stub.Search.future(a_search())
    assert served.backend.entered.acquire(timeout=5)
    return call


def test_running_calls_finish_and_then_the_backend_closes(serve):
    served = serve(drain_seconds=5)
    call = held_call(served)
    stopper = threading.Thread(target=served.server.stop)
    stopper.start()
    time.sleep(0.2)
    assert not served.backend.closed.is_set()
    assert type(served.error(lambda: served.stub.Search(a_search(), timeout=5))) is Unavailable
    served.backend.block.set()
    assert call.result(timeout=5) is not None
    stopper.join(5)
    assert served.backend.closed.is_set()


def test_a_call_that_does_not_finish_holds_nothing_up(serve):
    served = serve(drain_seconds=0.3)
    call = held_call(served)
    began = time.monotonic()
    served.server.stop()
    assert time.monotonic() - began < 3
    assert served.backend.closed.is_set()
    with pytest.raises(grpc.RpcError):
        call.result(timeout=5)
    served.server.stop()


LONG = 20.0
"""A time to drain that no test waits for."""


def test_an_idle_client_holds_nothing_up(serve_engine):
    server = serve_engine(drain_seconds=LONG)
    with connect(server.address) as db, grpc.insecure_channel(server.address) as channel:
        docs = db.create_collection("docs", 3)
        docs.upsert(["a"], [[1, 0, 0]])
        assert docs.search([1, 0, 0]).ids == ["a"]
        # One who watches never ends by himself.
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < LONG / 2


def test_the_grace_ends_with_the_last_running_call(serve):
    served = serve(drain_seconds=LONG)
    call = held_call(served)
    stopper = threading.Thread(target=served.server.stop)
    stopper.start()
    # Longer than the linger after the last call: only calls that run hold the server.
    stopper.join(0.5)
    assert stopper.is_alive()
    assert not served.backend.closed.is_set()
    served.backend.block.set()
    assert call.result(timeout=5) is not None
    stopper.join(LONG / 2)
    assert not stopper.is_alive()


def test_a_stream_that_does_not_end_has_the_grace_and_no_more(serve):
    served = serve(drain_seconds=1.0)
    served.backend.create_collection(CreateRequest(CollectionConfig("docs", 3)))
    ended, sent = threading.Event(), threading.Event()

    def requests_without_end():
        sent.set()
        ended.wait(LONG)
        yield from ()

    stream = served.stub.BulkWrite(requests_without_end())
    try:
        assert sent.wait(5)
        wait_until(lambda: len(served.server._streams) == 1)
        began = time.monotonic()
        served.server.stop()
        assert 0.9 < time.monotonic() - began < LONG / 2
        with pytest.raises(grpc.RpcError):
            next(stream)
    finally:
        ended.set()
