"""A real server on a loopback port around a small backend that can be told to fail, wait or count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from tests.server.lane_echo import Echo
from vectordb.encoding import decode_metadata
from vectordb.engine.database import Engine
from vectordb.errors import AlreadyExists, CollectionNotFound, DeadlineExceeded, VectorDBError
from vectordb.filter import Filter, matches
from vectordb.requests import (
    CreateRequest,
    DeleteRequest,
    GetRequest,
    OptimizeRequest,
    ScanRequest,
    SearchRequest,
    UpdateMetadataRequest,
    WriteRequest,
)
from vectordb.results import Hit, Plan, SearchResult, SegmentPlan
from vectordb.server import transports
from vectordb.server.app import Server
from vectordb.server.config import Config, load
from vectordb.stats import CollectionStats, DatabaseInfo, OptimizerStats
from vectordb.types import CollectionConfig, Durability, IndexSpec, Record, WriteResult
from vectordb.wire.errors import error_from_status
from vectordb_proto.v1 import service_pb2_grpc

Collection = dict[str, Record]


class FakeBackend:
    """Dicts of records. ``fail`` is raised by every call; ``block`` holds searches and optimize until set."""

    def __init__(self) -> None:
        self.configs: dict[str, CollectionConfig] = {}
        self.rows: dict[str, Collection] = {}
        self.version = 0
        self.fail: BaseException | None = None
        self.block: threading.Event | None = None
        self.timeouts: list[float | None] = []
        self.open_scans = 0
        self.entered = threading.Semaphore(0)
        self.closed = threading.Event()
        self.address = ""

    def announce(self, address: str) -> None:
        self.address = address

    def _collection(self, name: str) -> Collection:
        if self.fail is not None:
            raise self.fail
        if name not in self.rows:
            raise CollectionNotFound(f"collection {name!r} does not exist", collection=name)
        return self.rows[name]

    def _wait(self, timeout: float | None) -> None:
        self.timeouts.append(timeout)
        self.entered.release()
        if self.block is not None and not self.block.wait(timeout):
            raise DeadlineExceeded(f"not complete within {timeout} s", timeout=timeout)

    def create_collection(self, request: CreateRequest) -> CollectionConfig:
        if request.config.name in self.configs and not request.exist_ok:
            raise AlreadyExists(f"collection {request.config.name!r} exists", collection=request.config.name)
        self.rows.setdefault(request.config.name, {})
        return self.configs.setdefault(request.config.name, request.config)

    def collection_config(self, name: str) -> CollectionConfig:
        self._collection(name)
        return self.configs[name]

    def list_collections(self) -> list[str]:
        return sorted(self.configs)

    def delete_collection(self, name: str) -> None:
        self._collection(name)
        del self.rows[name], self.configs[name]

    def info(self) -> DatabaseInfo:
        return DatabaseInfo("0", 1, ":memory:", tuple(self.list_collections()), Durability.ASYNC, "it is a fake")

    def write(self, collection: str, request: WriteRequest) -> WriteResult:
        rows, found = request.rows, self._collection(collection)
        self.version += 1
        self.timeouts.append(request.timeout)
        for i, key in enumerate(rows.ids):
            has = rows.vectors is not None and (rows.has_vector is None or rows.has_vector[i])
            found[key] = Record(
                key,
                rows.vectors[i].copy() if has and rows.vectors is not None else None,
                decode_metadata(rows.metadata[i]) if rows.metadata else {},
                rows.texts[i] if rows.texts else None,
                self.version,
            )
        return WriteResult(len(rows), self.version, rows.ids)

    def _chosen(self, collection: str, ids: list[str] | None, where: Filter | None) -> list[str]:
        found = self._collection(collection)
        return [
            key
            for key, record in found.items()
            if (ids is None or key in ids) and (where is None or matches(where, record.metadata or {}))
        ]

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int:
        chosen = self._chosen(collection, request.ids, request.where)
        for key in chosen:
            old = self.rows[collection][key]
            metadata = {**(old.metadata or {}), **decode_metadata(request.set or b"")}
            for path in request.unset:
                metadata.pop(path, None)
            self.rows[collection][key] = Record(key, old.vector, metadata, old.text, old.version)
        return len(chosen)

    def delete(self, collection: str, request: DeleteRequest) -> int:
        chosen = self._chosen(collection, request.ids, request.where)
        for key in chosen:
            del self.rows[collection][key]
        return len(chosen)

    def get(self, collection: str, request: GetRequest) -> list[Record]:
        found = self._collection(collection)
        return [_included(found[key], request.include) for key in request.ids if key in found]

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int:
        return len(self._chosen(collection, None, where))

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        chosen = self._chosen(collection, None, request.where)
        records = [_included(self.rows[collection][key], request.include) for key in chosen]
        self.open_scans += 1
        return self._pages(records, request.page_size)

    def _pages(self, records: list[Record], size: int) -> Iterator[list[Record]]:
        try:
            for start in range(0, len(records), size):
                yield records[start : start + size]
        finally:
            self.open_scans -= 1

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        chosen = self._chosen(collection, None, request.where)
        self._wait(request.timeout)
        plan = Plan((SegmentPlan("tail", "exact", len(chosen), len(chosen), params={"ef": 64}),), version=self.version)
        records = [self.rows[collection][key] for key in chosen if self.rows[collection][key].vector is not None]
        results = []
        for query in request.vectors:
            scored = sorted((-float(np.float32(query @ record.vector)), record.id) for record in records)
            hits = [
                Hit(key, -score, *_parts(self.rows[collection][key], request.include))
                for score, key in scored[: request.limit]
            ]
            results.append(SearchResult(hits, plan, 0.5, "deadline" if request.allow_partial else None, 0.5))
        return results

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan:
        return self.search(collection, request)[0].plan

    def optimize(self, collection: str, request: OptimizeRequest) -> None:
        self._collection(collection)
        self._wait(request.timeout)

    def stats(self, collection: str) -> CollectionStats:
        n = len(self._collection(collection))
        return CollectionStats(n, 0, 0, n, self.version, 1, 2, IndexSpec("flat"), (), OptimizerStats("idle"))

    def close(self) -> None:
        self.closed.set()
        if self.block is not None:
            self.block.set()


def _parts(record: Record, include: Any) -> tuple[Any, Any, Any]:
    return (
        record.metadata if "metadata" in include else None,
        record.text if "text" in include else None,
        record.vector if "vector" in include else None,
    )


def _included(record: Record, include: Any) -> Record:
    metadata, text, vector = _parts(record, include)
    return Record(record.id, vector, metadata, text, record.version)


class Served:
    """A running server, its backend, and a stub on a channel of its own."""

    def __init__(self, config: Config) -> None:
        self.backend = FakeBackend()
        self.server = Server(lambda: self.backend, config)  # type: ignore[arg-type,return-value]
        self.transport = self.server.transport
        self.address = self.server.start()
        self.channel = grpc.insecure_channel(
            self.address,
            [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        self.stub = service_pb2_grpc.VectorDBServiceStub(self.channel)

    def error(self, call: Callable[[], Any]) -> VectorDBError:
        """The typed error that a call ends with."""
        with pytest.raises(grpc.RpcError) as caught:
            call()
        return self.typed(caught.value)

    @staticmethod
    def typed(error: Any) -> VectorDBError:
        """What a client would raise for a failed call."""
        trailing = dict(error.trailing_metadata() or ())
        return error_from_status(error.code().name, error.details(), trailing.get("grpc-status-details-bin"))

    def close(self) -> None:
        self.channel.close()
        if self.backend.block is not None:
            self.backend.block.set()
        self.server.stop()


@pytest.fixture(scope="module", autouse=True, params=["grpcio", "native"])
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test over each transport: the one that ``auto`` takes where the settings allow it, with the lane for this
    library's clients, and the plain one without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transports, "PREFERRED", (request.param, "grpcio"))
        # For servers in processes of their own.
        patch.setenv("VECTORDB_TRANSPORT", "auto" if request.param == "native" else request.param)
        patch.setenv("VECTORDB_LANE", "1" if request.param == "native" else "0")
        yield request.param


@pytest.fixture
def serve(request: pytest.FixtureRequest, transport: str) -> Callable[..., Served]:
    """Starts a server with these settings on a free port; stopped at the end of the test."""

    def start(**flags: Any) -> Served:
        usual = {"listen": "127.0.0.1:0", "drain_seconds": 0.5, "lane": transport == "native"}
        served = Served(load({**usual, **flags}, environment={}))
        request.addfinalizer(served.close)
        assert served.transport == transport
        return served

    return start


@pytest.fixture
def serve_engine(request: pytest.FixtureRequest) -> Callable[..., Server]:
    """As ``serve``, but over an engine in memory."""

    def start(**settings: Any) -> Server:
        server = Server(lambda: Engine(":memory:"), load({"listen": "127.0.0.1:0", **settings}, environment={}))
        request.addfinalizer(server.stop)
        server.start()
        return server

    return start


@pytest.fixture(scope="module")
def shared(transport: str) -> Iterator[Served]:
    """One server with default settings for the tests of a module, with the collection ``docs`` of dim 3."""
    served = Served(load({"listen": "127.0.0.1:0", "drain_seconds": 0.5}, environment={}))
    assert served.transport == transport
    served.backend.create_collection(CreateRequest(CollectionConfig("docs", 3)))
    yield served
    served.close()


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    """The shared server, its backend as new."""
    shared.backend.fail = None
    shared.backend.rows["docs"].clear()
    shared.backend.timeouts.clear()
    yield shared
    shared.backend.fail = None


class Handlers:
    """A service of one handler that a test gives, on the transport under test."""

    def __init__(self, transport: str, **flags: Any) -> None:
        self.handle: Callable[[bytes, grpc.ServicerContext], bytes] = lambda data, _: data
        config = load({"listen": "127.0.0.1:0", **flags}, environment={})
        self.pool = ThreadPoolExecutor(config.max_workers)
        server = grpc.server(self.pool, maximum_concurrent_rpcs=config.max_pending_calls)
        handlers = {"Do": grpc.unary_unary_rpc_method_handler(lambda data, context: self.handle(data, context))}
        server.add_registered_method_handlers("test.Test", handlers)
        self.server: Any = server
        if transport == "native":
            bounds = transports.CallBounds(config.max_workers, config.max_pending_calls)
            self.server = transports.native({"/test.Test/Do": handlers["Do"]}, server, bounds, config)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()
        self.channel = grpc.insecure_channel(self.address, [("grpc.max_receive_message_length", -1)])
        self.call = self.channel.unary_unary("/test.Test/Do")

    def failure(self, data: bytes = b"", **options: Any) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(data, **{"timeout": 10, **options})
        return caught.value

    def close(self) -> None:
        self.channel.close()
        self.server.stop(0).wait()
        self.pool.shutdown()


@pytest.fixture
def handlers(request: pytest.FixtureRequest, transport: str) -> Callable[..., Handlers]:
    def start(**flags: Any) -> Handlers:
        made = Handlers(transport, **flags)
        request.addfinalizer(made.close)
        return made

    return start


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    assert made.lane.stop(5.0).wait(10)
