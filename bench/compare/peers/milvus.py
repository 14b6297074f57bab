"""Milvus Lite through pymilvus: a server in a process that the client starts."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from pymilvus import DataType, MilvusClient

from bench.compare import processes
from bench.compare.arena import Rows, Where
from bench.compare.peers.base import EF_CONSTRUCTION, Ground, M, Peer, Search


class MilvusLite(Peer):
    """One collection with an HNSW index; ids and scores only."""

    durable = "not documented: as shipped"
    build: ClassVar[dict[str, Any]] = {"index": "HNSW", "M": M, "efConstruction": EF_CONSTRUCTION}

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._client: Any = None
        self._metric = {"cosine": "COSINE", "dot": "IP", "l2": "L2"}[ground.metric]

    def _connect(self) -> None:
        self.ground.folder.mkdir(parents=True, exist_ok=True)
        self._client = MilvusClient(str(self.ground.folder / "bench.db"))

    def create(self) -> None:
        self._connect()
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.ground.dim)
        for name, kind in self.ground.columns.items():
            if kind == "int":
                schema.add_field(name, DataType.INT64)
            else:
                schema.add_field(name, DataType.VARCHAR, max_length=512)
        indexes = MilvusClient.prepare_index_params()
        graph = {"M": M, "efConstruction": EF_CONSTRUCTION}
        indexes.add_index("vector", index_type="HNSW", metric_type=self._metric, params=graph)
        self._client.create_collection("bench", schema=schema, index_params=indexes)

    def reopen(self) -> None:
        self._connect()
        self._client.load_collection("bench")

    def write(self, rows: Rows) -> None:
        data = [
            {"id": number, "vector": vector, **row}
            for number, vector, row in zip(rows.numbers, rows.vectors, rows.metadata, strict=True)
        ]
        self._client.insert("bench", data)

    def finish(self) -> None:
        self._client.flush("bench")
        # Segments are merged and indexed in the background, and nothing tells when that has ended: it has when the
        # processor rests.
        quiet = 0
        while quiet < 3:
            pids = processes.tree(os.getpid())
            before = processes.cpu(pids)
            time.sleep(0.3)
            quiet = quiet + 1 if processes.cpu(pids) - before < 0.03 else 0
        self._client.load_collection("bench")

    def filter(self, where: Where, mask: Any) -> Any:
        return f"{where.field} {where.op} {where.value!r}"

    def _search(self, vectors: list[Any], search: Search) -> Any:
        return self._client.search(
            "bench", data=vectors, limit=self.ground.limit, filter=search.where or "", anns_field="vector",
            search_params={"metric_type": self._metric, "params": {"ef": search.width}},
        )  # fmt: skip

    def search(self, search: Search) -> Any:
        return self._search([search.vector], search)[0]

    def search_batch(self, searches: Sequence[Search]) -> Any:
        return self._search([search.vector for search in searches], searches[0])

    def rows(self, answer: Any) -> list[int]:
        return [hit["id"] for hit in answer]

    def delete(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), 5_000):
            self._client.delete("bench", ids=list(numbers[start : start + 5_000]))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
