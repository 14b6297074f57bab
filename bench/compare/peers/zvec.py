"""zvec: Alibaba's in-process vector database, by ``Collection.query`` (its internal-id path is for read-only use)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import zvec as zvec_module

from bench.compare.arena import Rows, Where
from bench.compare.peers.base import EF_CONSTRUCTION, Ground, M, Peer, Search, condition

zvec: Any = zvec_module


class Zvec(Peer):
    """One collection; filtered fields have an inverted index."""

    durable = "yes: flush() after each batch"
    synced = True
    build: ClassVar[dict[str, Any]] = {"m": M, "ef_construction": EF_CONSTRUCTION, "precision": "f32"}

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._collection: Any = None
        zvec.init(query_threads=ground.threads, optimize_threads=ground.threads)

    def create(self) -> None:
        metrics = {"cosine": zvec.MetricType.COSINE, "dot": zvec.MetricType.IP, "l2": zvec.MetricType.L2}
        kinds = {"int": zvec.DataType.INT64, "str": zvec.DataType.STRING}
        fields = []
        for name, kind in self.ground.columns.items():
            index = {"index_param": zvec.InvertIndexParam()} if name in self.ground.filterable else {}
            fields.append(zvec.FieldSchema(name, kinds[kind], **index))
        graph = zvec.HnswIndexParam(metric_type=metrics[self.ground.metric], m=M, ef_construction=EF_CONSTRUCTION)
        vector = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, self.ground.dim, index_param=graph)
        schema = zvec.CollectionSchema(name="bench", fields=fields, vectors=[vector])
        self._collection = zvec.create_and_open(path=str(self.ground.folder), schema=schema)

    def reopen(self) -> None:
        self._collection = zvec.open(str(self.ground.folder))

    def write(self, rows: Rows) -> None:
        documents = [
            zvec.Doc(id=str(number), vectors={"vector": vector}, fields=fields)
            for number, vector, fields in zip(rows.numbers, rows.vectors, rows.metadata, strict=True)
        ]
        statuses = self._collection.upsert(documents)
        if not all(status.ok() for status in statuses):
            raise RuntimeError(f"zvec refused rows: {statuses[0]}")
        self._collection.flush()

    def finish(self) -> None:
        self._collection.optimize()

    def filter(self, where: Where, mask: Any) -> Any:
        return condition(where)

    def search(self, search: Search) -> Any:
        query = zvec.Query(field_name="vector", vector=search.vector, param=zvec.HnswQueryParam(ef=search.width))
        return self._collection.query(query, topk=self.ground.limit, filter=search.where, output_fields=[])

    def rows(self, answer: Any) -> list[int]:
        return [int(document.id) for document in answer]

    def delete(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), 1_000):
            self._collection.delete([str(number) for number in numbers[start : start + 1_000]])
        self._collection.flush()

    def close(self) -> None:
        if self._collection is not None:
            self._collection.close()
