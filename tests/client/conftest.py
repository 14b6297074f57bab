"""A small server that speaks the real protocol over an engine in a dict, with faults on order."""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.client.fake_engine import FakeEngine
from vectordb.errors import FailedPrecondition, VectorDBError
from vectordb.types import Record
from vectordb.wire import requests as wire
from vectordb.wire.answer import answer_to_bytes
from vectordb.wire.config import config_to_message
from vectordb.wire.errors import DETAILS_KEY, error_to_status
from vectordb.wire.results import records_to_message, write_result_to_message
from vectordb.wire.stats import info_to_message, plan_to_message, stats_to_message
from vectordb_proto.v1 import service_pb2
from vectordb_proto.v1.service_pb2_grpc import VectorDBServiceServicer, add_VectorDBServiceServicer_to_server


class FakeServicer(VectorDBServiceServicer):
    """The service over a ``Backend``. ``before[rpc]`` / ``after[rpc]`` are lists of faults, one a call, then none.

    A fault is a ``VectorDBError``, a ``(grpc.StatusCode, text)``, or a function of the context.
    """

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.before: dict[str, list[Any]] = defaultdict(list)
        self.after: dict[str, list[Any]] = defaultdict(list)
        self.calls: list[tuple[str, Any]] = []
        self.remaining: list[float | None] = []
        self.metadata: list[dict[str, Any]] = []
        self._scans: dict[str, tuple[Iterator[list[Record]], list[Record] | None]] = {}
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def _rpc(self, rpc: str, message: Any, context: Any) -> Iterator[None]:
        # A copy: the client may shorten a message's timeout, but only its own.
        self.calls.append((rpc, message))
        self.remaining.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        _act(self.before[rpc], context)
        try:
            yield
        except VectorDBError as error:
            _abort(context, error)
        _act(self.after[rpc], context)

    def CreateCollection(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.CreateCollectionResponse()
        with self._rpc("CreateCollection", message, context):
            config_to_message(self.backend.create_collection(wire.create_from_message(message)), answer.config)
        return answer

    def GetCollection(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.GetCollectionResponse()
        with self._rpc("GetCollection", message, context):
            config_to_message(self.backend.collection_config(message.collection), answer.config)
        return answer

    def ListCollections(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("ListCollections", message, context):
            return service_pb2.ListCollectionsResponse(names=self.backend.list_collections())

    def DeleteCollection(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("DeleteCollection", message, context):
            self.backend.delete_collection(message.collection)
        return service_pb2.DeleteCollectionResponse()

    def GetInfo(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.GetInfoResponse()
        with self._rpc("GetInfo", message, context):
            info_to_message(self.backend.info(), answer.info)
        return answer

    def Write(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.WriteResponse()
        with self._rpc("Write", message, context):
            result = self.backend.write(message.collection, wire.write_from_message(message))
            write_result_to_message(result, message.rows.ids, answer.result)
        return answer

    def BulkWrite(self, messages: Any, context: Any) -> Any:  # noqa: N802
        for message in messages:
            answer = service_pb2.BulkWriteResponse()
            with self._rpc("BulkWrite", message, context):
                result = self.backend.write(message.write.collection, wire.write_from_message(message.write))
                write_result_to_message(result, message.write.rows.ids, answer.result)
            yield answer

    def UpdateMetadata(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("UpdateMetadata", message, context):
            n = self.backend.update_metadata(message.collection, wire.update_metadata_from_message(message))
        return service_pb2.UpdateMetadataResponse(count=n)

    def Delete(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("Delete", message, context):
            n = self.backend.delete(message.collection, wire.delete_from_message(message))
        return service_pb2.DeleteResponse(count=n)

    def Get(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.GetResponse()
        with self._rpc("Get", message, context):
            records_to_message(self.backend.get(message.collection, wire.get_from_message(message)), answer.records)
        return answer

    def Count(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("Count", message, context):
            n = self.backend.count(message.collection, *wire.count_from_message(message))
        return service_pb2.CountResponse(count=n)

    def Scan(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.ScanResponse()
        with self._rpc("Scan", message, context):
            if message.cursor:
                if message.cursor not in self._scans:
                    raise FailedPrecondition("the scan was released after 60 s without a call; begin it again")
                pages, page = self._scans[message.cursor]
            else:
                pages = self.backend.scan(message.collection, wire.scan_from_message(message))
                page = next(pages, None)
            following = next(pages, None)
            if following is not None:
                answer.next_cursor = f"scan-{next(self._numbers)}"
                self._scans[answer.next_cursor] = (pages, following)
            records_to_message(page or [], answer.records)
        return answer

    def CloseScan(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("CloseScan", message, context):
            self.release(message.cursor)
        return service_pb2.CloseScanResponse()

    def release(self, cursor: str | None = None) -> None:
        for key in [cursor] if cursor else list(self._scans):
            if key in self._scans:
                self._scans.pop(key)[0].close()  # type: ignore[attr-defined]

    def Search(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("Search", message, context):
            found = self.backend.search(message.collection, wire.search_from_message(message))
        return service_pb2.SearchResponse.FromString(answer_to_bytes(found, message.include))

    def Explain(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.ExplainResponse()
        with self._rpc("Explain", message, context):
            request = wire.search_from_message(message.search)
            plan_to_message(self.backend.explain(message.search.collection, request, message.analyze), answer.plan)
        return answer

    def Optimize(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("Optimize", message, context):
            self.backend.optimize(message.collection, wire.optimize_from_message(message))
        return service_pb2.OptimizeResponse()

    def Reindex(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.ReindexResponse()
        with self._rpc("Reindex", message, context):
            config_to_message(
                self.backend.reindex(message.collection, wire.reindex_from_message(message)), answer.config
            )
        return answer

    def CancelReindex(self, message: Any, context: Any) -> Any:  # noqa: N802
        with self._rpc("CancelReindex", message, context):
            return service_pb2.CancelReindexResponse(cancelled=self.backend.cancel_reindex(message.collection))

    def GetStats(self, message: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.GetStatsResponse()
        with self._rpc("GetStats", message, context):
            stats_to_message(self.backend.stats(message.collection), answer.stats)
        return answer

    def count_of(self, rpc: str) -> int:
        return sum(name == rpc for name, _ in self.calls)


def _act(faults: list[Any], context: Any) -> None:
    if not faults:
        return
    fault = faults.pop(0)
    if isinstance(fault, VectorDBError):
        _abort(context, fault)
    elif isinstance(fault, tuple):
        context.abort(*fault)
    elif fault is not None:
        fault(context)


def _abort(context: Any, error: VectorDBError) -> None:
    code, text, details = error_to_status(error)
    context.set_trailing_metadata(((DETAILS_KEY, details),))
    context.abort(grpc.StatusCode[code], text)


class FakeServer:
    """A running server on a port of its own; ``stop`` and ``start`` again on the same port."""

    def __init__(self, max_message_bytes: int = -1, address: str = "127.0.0.1:0") -> None:
        self.engine = FakeEngine()
        self.servicer = FakeServicer(self.engine)
        self._max = max_message_bytes
        self._port = 0
        self._wanted = address
        self._server: Any = None
        self.start()

    @property
    def address(self) -> str:
        return self._wanted if self._wanted.startswith("unix:") else f"127.0.0.1:{self._port}"

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(16)
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", self._max))
        self._server = grpc.server(self._pool, options=options)
        add_VectorDBServiceServicer_to_server(self.servicer, self._server)
        self._port = self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown(wait=True)


@pytest.fixture
def fake_engine() -> Any:
    """The class ``FakeEngine``, a ``Backend`` over dicts."""
    return FakeEngine


@pytest.fixture
def make_server() -> Iterator[Callable[..., FakeServer]]:
    """Starts servers; stops them all after the test."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> FakeServer:
            server = FakeServer(**options)
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture
def server(make_server: Callable[..., FakeServer]) -> FakeServer:
    """A running server."""
    return make_server()
