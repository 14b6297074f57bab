"""This engine, embedded and served: the same public calls, on a folder or on a server process of its own."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.datasets import Dataset
from bench.systems.base import WRITE_BATCH, Graph, Query, process_cpu
from vectordb.cli.process import ServerProcess
from vectordb.server.transports import GRPCIO, NATIVE
from vectordb_client import connect

COLLECTION = "bench"
LANE = "lane"


def transports() -> list[str]:
    """The ways to a server that can be had here: its transports, and the lane beside whichever it has."""
    native = [] if importlib.util.find_spec("pygrpc_native") is None else [NATIVE]
    return [GRPCIO, *native, *([LANE] if sys.platform == "linux" else [])]


class Embedded:
    """The engine in the measuring process.

    Args:
        folder: Where the database lies.
        include: What every hit carries; nothing but id and score by default.
    """

    def __init__(self, folder: Path, graph: Graph, include: Sequence[str] = ()) -> None:
        self.name = "embedded" + "".join(f" +{part}" for part in include)
        self._graph = graph
        self.include = tuple(include)
        self._db = self._connect(folder)
        self._collection: Any = None

    def _connect(self, folder: Path) -> Any:
        return connect(folder)

    def load(self, data: Dataset) -> dict[str, float]:
        if COLLECTION in self._db.list_collections():
            self._collection = self._db.collection(COLLECTION)
            return {}
        index = {"kind": "hnsw", "m": self._graph.m, "ef_construction": self._graph.ef_construction}
        self._collection = self._db.create_collection(COLLECTION, data.base.shape[1], metric=data.metric, index=index)
        ids, took = data.ids, []
        started = time.perf_counter()
        for start in range(0, len(ids), WRITE_BATCH):
            rows = slice(start, start + WRITE_BATCH)
            before = time.perf_counter()
            self._collection.upsert(ids[rows], data.base[rows], metadata=data.metadata[rows])
            took.append(time.perf_counter() - before)
        written = time.perf_counter()
        self._collection.optimize()
        took.sort()
        return {
            "rows_per_s": len(ids) / (written - started),
            "batch_p50_ms": took[len(took) // 2] * 1000,
            "batch_p99_ms": took[int(len(took) * 0.99)] * 1000,
            "optimize_s": time.perf_counter() - written,
        }

    def search(self, query: Query) -> Any:
        return self._collection.search(
            query.vector,
            limit=query.limit,
            where=None if query.condition is None else query.condition.where,
            params={"ef": query.ef},
            include=self.include,
        )

    def rows(self, answer: Any) -> list[int]:
        return [int(hit.id) for hit in answer]

    def stats(self) -> Any:
        return self._collection.stats()

    def cpu(self) -> float:
        return time.process_time()

    def close(self) -> None:
        self._db.close()


class Served(Embedded):
    """The engine behind gRPC on this machine; ``cpu`` is the server's. It shares the processors with its client.

    Args:
        transport: One of :func:`transports`; without one, as ``vectordb serve`` does by itself.
    """

    def __init__(self, folder: Path, graph: Graph, include: Sequence[str] = (), transport: str = "") -> None:
        only = {"VECTORDB_TRANSPORT": transport, "VECTORDB_LANE": "0"}
        self.server = ServerProcess(folder, environment=only if transport in (GRPCIO, NATIVE) else {})
        super().__init__(folder, graph, include)
        self.name = self.name.replace("embedded", f"served {transport}".strip())

    def _connect(self, folder: Path) -> Any:
        return connect(self.server.address)

    def cpu(self) -> float:
        return process_cpu(self.server.pid)

    def close(self) -> None:
        super().close()
        self.server.stop()
