"""LanceDB in process: IVF_HNSW_SQ, its index of the best recall a time, with refinement by full vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import lancedb
import numpy as np
import pyarrow as pa

from bench.compare.arena import Rows, Where
from bench.compare.peers.base import EF_CONSTRUCTION, Ground, M, Peer, Search, condition


class LanceDB(Peer):
    """One table of one partition; the filter comes before the search (its default)."""

    widths = (30, 2_048)  # At least the limit times the refinement.
    durable = "no: files are written, not synced"
    build: ClassVar[dict[str, Any]] = {
        "index": "IVF_HNSW_SQ", "num_partitions": 1, "m": M, "ef_construction": EF_CONSTRUCTION, "refine_factor": 3,
    }  # fmt: skip

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._table: Any = None
        self._metric = {"cosine": "cosine", "dot": "dot", "l2": "l2"}[ground.metric]

    def _schema(self) -> Any:
        kinds = {"int": pa.int64(), "str": pa.string()}
        fields = [pa.field(name, kinds[kind]) for name, kind in self.ground.columns.items()]
        vector = pa.field("vector", pa.list_(pa.float32(), self.ground.dim))
        return pa.schema([pa.field("id", pa.int64()), vector, *fields])

    def create(self) -> None:
        self._table = lancedb.connect(self.ground.folder).create_table("bench", schema=self._schema())

    def reopen(self) -> None:
        self._table = lancedb.connect(self.ground.folder).open_table("bench")

    def write(self, rows: Rows) -> None:
        flat = pa.array(np.ascontiguousarray(rows.vectors).reshape(-1))
        arrays = [
            pa.array(rows.numbers, pa.int64()),
            pa.FixedSizeListArray.from_arrays(flat, self.ground.dim),
            *(pa.array([row[name] for row in rows.metadata]) for name in self.ground.columns),
        ]
        self._table.add(pa.Table.from_arrays(arrays, schema=self._schema()))

    def finish(self) -> None:
        self._table.optimize()
        self._table.create_index(
            metric=self._metric, vector_column_name="vector", index_type="IVF_HNSW_SQ", num_partitions=1, m=M,
            ef_construction=EF_CONSTRUCTION,
        )  # fmt: skip
        self._table.create_scalar_index("id")
        for name in self.ground.filterable:
            index = "BTREE" if self.ground.columns[name] == "int" else "BITMAP"
            self._table.create_scalar_index(name, index_type=index)
        self._table.optimize()

    def filter(self, where: Where, mask: Any) -> Any:
        return condition(where)

    def search(self, search: Search) -> Any:
        query = self._table.search(search.vector, vector_column_name="vector").distance_type(self._metric)
        query = query.ef(search.width).refine_factor(3).limit(self.ground.limit).select(["id", "_distance"])
        if search.where is not None:
            query = query.where(search.where, prefilter=True)
        return query.to_arrow()

    def rows(self, answer: Any) -> list[int]:
        found: list[int] = answer["id"].to_pylist()
        return found

    def delete(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), 5_000):
            some = ", ".join(map(str, numbers[start : start + 5_000]))
            self._table.delete(f"id IN ({some})")

    def close(self) -> None:
        self._table = None
