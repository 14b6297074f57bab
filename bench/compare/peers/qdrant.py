"""Qdrant Edge: Qdrant's shard as a library. The server's binary is on no Python registry, so it is not compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import qdrant_edge as qdrant

from bench.compare.arena import Rows, Where
from bench.compare.peers.base import EF_CONSTRUCTION, Ground, M, Peer, Search


class QdrantEdge(Peer):
    """One shard. ``default_segment_number=1`` lets ``optimize`` merge all rows into one graph, its fastest form."""

    width = "hnsw_ef"
    durable = "yes: flush() after each batch"
    synced = True
    build: ClassVar[dict[str, Any]] = {"m": M, "ef_construct": EF_CONSTRUCTION, "precision": "f32", "segments": 1}

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._shard: Any = None

    def create(self) -> None:
        distances = {"cosine": qdrant.Distance.Cosine, "dot": qdrant.Distance.Dot, "l2": qdrant.Distance.Euclid}
        threads = self.ground.threads
        config = qdrant.EdgeConfig(
            vectors=qdrant.EdgeVectorParams(size=self.ground.dim, distance=distances[self.ground.metric]),
            hnsw_config=qdrant.HnswIndexConfig(
                m=M, ef_construct=EF_CONSTRUCTION, full_scan_threshold=10_000, max_indexing_threads=threads
            ),
            optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1_000),
            max_search_threads=threads,
        )
        self.ground.folder.mkdir(parents=True)
        self._shard = qdrant.EdgeShard.create(str(self.ground.folder), config)
        for name in self.ground.filterable:
            kind = qdrant.PayloadSchemaType
            kind = kind.Integer if self.ground.columns[name] == "int" else kind.Keyword
            self._shard.update(qdrant.UpdateOperation.create_field_index(name, kind))

    def reopen(self) -> None:
        self._shard = qdrant.EdgeShard.load(str(self.ground.folder))

    def write(self, rows: Rows) -> None:
        points = [
            qdrant.Point(id=number, vector=vector, payload=payload)
            for number, vector, payload in zip(rows.numbers, rows.vectors, rows.metadata, strict=True)
        ]
        self._shard.update(qdrant.UpdateOperation.upsert_points(points))
        self._shard.flush()

    def finish(self) -> None:
        self._shard.optimize()
        self._shard.flush()

    def filter(self, where: Where, mask: Any) -> Any:
        if where.op == "<":
            condition = qdrant.FieldCondition(key=where.field, range=qdrant.RangeFloat(lt=float(where.value)))
        else:
            condition = qdrant.FieldCondition(key=where.field, match=qdrant.MatchValue(where.value))
        return qdrant.Filter(must=[condition])

    def _request(self, search: Search) -> Any:
        return qdrant.QueryRequest(
            query=qdrant.Query.Nearest(search.vector),
            limit=self.ground.limit,
            filter=search.where,
            params=qdrant.SearchParams(hnsw_ef=search.width),
            with_payload=False,
            with_vector=False,
        )

    def search(self, search: Search) -> Any:
        return self._shard.query(self._request(search))

    def search_batch(self, searches: Sequence[Search]) -> Any:
        # A batch runs on one thread: two halves side by side use two.
        half = -(-len(searches) // self.ground.threads)
        parts = [searches[start : start + half] for start in range(0, len(searches), half)]
        found = self._pool.map(
            lambda part: self._shard.query_batch(qdrant.QueryBatchRequest([self._request(one) for one in part])), parts
        )
        return [answer for part in found for answer in part]

    def rows(self, answer: Any) -> list[int]:
        return [point.id for point in answer]

    def delete(self, numbers: Sequence[int]) -> None:
        self._shard.update(qdrant.UpdateOperation.delete_points(list(numbers)))
        self._shard.flush()

    def close(self) -> None:
        if self._shard is not None:
            self._shard.close()
