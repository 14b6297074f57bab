"""A fuzzer of the protocol: every RPC of a live server with damaged bytes of valid requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np

from tests.fuzz.mutate import Mutator
from vectordb.encoding import encode_metadata
from vectordb.engine.database import Engine
from vectordb.errors import Internal
from vectordb.filter import col
from vectordb.requests import (
    CreateRequest,
    DeleteRequest,
    GetRequest,
    OptimizeRequest,
    ReindexRequest,
    Rows,
    ScanRequest,
    SearchRequest,
    UpdateMetadataRequest,
    Weights,
    WriteMode,
    WriteRequest,
)
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb.types import CollectionConfig, IndexSpec
from vectordb.wire.errors import DETAILS_KEY, error_from_status
from vectordb.wire.filters import POLICY_KEY, policy_to_bytes
from vectordb_client.transport import calls
from vectordb_proto.v1 import service_pb2

_SERVICE = "/vectordb.v1.VectorDBService/"
_DIM = 4
_PATIENCE = 20.0
_UNTYPED = frozenset({"UNKNOWN", "INTERNAL", "UNAVAILABLE", "CANCELLED"})


class Messages:
    """One server in this process, whose threads answer while the fuzzer calls."""

    def __init__(self, folder: Path) -> None:
        settings = {"listen": "127.0.0.1:0", "backup_to": str(folder / "backups"), "max_message_bytes": "1 MiB"}
        self._server = Server(lambda: Engine(folder / "db", durability="async"), load(settings, environment={}))
        self._channel = grpc.insecure_channel(self._server.start())
        self._engine: Any = self._server._backend
        self._corpus = _corpus()
        self._policy = policy_to_bytes((col("t") == "a") | col("n").exists())
        self._cases = 0

    def case(self, mutator: Mutator) -> None:
        if self._cases % 200 == 0:
            self._reset()
        self._cases += 1
        rpc, message = mutator.random.choice(self._corpus)
        data, metadata = mutator.bytes(message), []
        if mutator.random.random() < 0.1:
            metadata.append((POLICY_KEY, mutator.bytes(self._policy)))
        try:
            if rpc == "BulkWrite":
                method = self._channel.stream_stream(_SERVICE + rpc)
                for _ in method(iter([message, data]), timeout=_PATIENCE, metadata=metadata):
                    pass
            else:
                self._channel.unary_unary(_SERVICE + rpc)(data, timeout=_PATIENCE, metadata=metadata)
        except grpc.RpcError as failed:
            _judge(rpc, failed)

    def _reset(self) -> None:
        """One small collection, whatever earlier cases made of it."""
        for name in self._engine.list_collections():
            self._engine.delete_collection(name)
        self._engine.create_collection(CreateRequest(CollectionConfig("docs", _DIM)))
        self._engine.write("docs", WriteRequest(WriteMode.UPSERT, _rows(40)))

    def close(self) -> None:
        self._channel.close()
        self._server.stop()


def _judge(rpc: str, failed: Any) -> None:
    code, trailing = failed.code().name, dict(failed.trailing_metadata() or ())
    details = trailing.get(DETAILS_KEY)
    error = error_from_status(code, failed.details(), details)
    if details is None or code in _UNTYPED or isinstance(error, Internal):
        raise AssertionError(f"{rpc} ended with {code}: {failed.details()}")


def _rows(n: int) -> Rows:
    rng = np.random.default_rng(n)
    return Rows(
        [f"id-{i}" for i in range(n)],
        rng.standard_normal((n, _DIM)).astype(np.float32),
        np.arange(n) % 5 != 3,
        [encode_metadata({"t": "ab"[i % 2], "n": i, "l": [i, None], "o": {"p": i / 3}}) for i in range(n)],
        [f"words of row {i}" if i % 2 else None for i in range(n)],
    )


def _corpus() -> list[tuple[str, bytes]]:
    """Names of RPCs and valid messages for them."""
    queries = np.ones((2, _DIM), np.float32)
    where = (col("n") >= 3) & ~col("t").isin(["b", "c"]) | (col("l") == [1, 2]) | col("o.p").between(0.5, 7)
    search = SearchRequest(queries, 5, where, params={"ef": 20}, min_score=-1.0, include=("metadata", "text", "vector"))
    hybrid = SearchRequest(queries, texts=("words row", 'phrase "of row" ro*'), fusion=Weights((0.3, 0.7)))
    words = SearchRequest(None, texts=("words -row 3",), timeout=5.0, allow_partial=True)
    config = CollectionConfig("other", 3, index=IndexSpec("hnsw", {"m": 8}))
    limits = calls.Limits()
    made = [
        calls.create_collection(CreateRequest(config, exist_ok=True, timeout=3.0)),
        calls.collection_config("docs", 5.0),
        calls.list_collections(5.0),
        calls.delete_collection("other", 5.0),
        calls.info(5.0),
        calls.write("docs", WriteRequest(WriteMode.UPSERT, _rows(6), idempotency_key="key", timeout=4.0), limits),
        calls.write("docs", WriteRequest(WriteMode.INSERT, Rows(["new"], np.ones((1, _DIM), np.float32))), limits),
        calls.write("docs", WriteRequest(WriteMode.UPDATE, Rows(["id-1"]), if_version=1), limits),
        calls.update_metadata("docs", UpdateMetadataRequest(["id-1"], where, encode_metadata({"a": {"b": 1}}), ("n",))),
        calls.delete("docs", DeleteRequest(["id-2", "id-3"], col("n") < 3)),
        calls.get("docs", GetRequest(["id-1", "id-4"], ("metadata", "text", "vector"))),
        calls.count("docs", where, 3.0),
        calls.scan("docs", ScanRequest(where, "-n", 3, ("metadata", "vector")), ""),
        calls.close_scan("abc.1"),
        calls.search("docs", search),
        calls.search("docs", hybrid),
        calls.search("docs", words),
        calls.explain("docs", search, True),
        calls.optimize("docs", OptimizeRequest(timeout=4.0), 5.0),
        calls.reindex("docs", ReindexRequest(IndexSpec("hnsw", {"m": 6}), None, wait=True), 5.0),
        calls.cancel_reindex("docs", 5.0),
        calls.stats("docs", 5.0),
        calls.backup("below"),
    ]
    corpus = [
        (call.rpc, call.whole if isinstance(call.whole, bytes) else call.whole.SerializeToString()) for call in made
    ]
    bulk = service_pb2.BulkWriteRequest(write=service_pb2.WriteRequest.FromString(made[5].whole))
    corpus += [("BulkWrite", bulk.SerializeToString())]
    known = {method.name for method in service_pb2.DESCRIPTOR.services_by_name["VectorDBService"].methods}
    missing = known - {rpc for rpc, _ in corpus}
    # A method that is added to the protocol is fuzzed from its empty message on.
    return corpus + [(rpc, b"\x0a\x04docs") for rpc in sorted(missing)]
