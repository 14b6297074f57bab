"""This engine as an algorithm of ann-benchmarks: embedded, on a temporary folder, answers without metadata."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from vectordb_client import connect

try:  # Inside ann-benchmarks the base class measures memory and names results; its protocol is repeated here.
    from ann_benchmarks.algorithms.base.module import BaseANN
except ImportError:
    BaseANN = object

_METRICS = {"angular": "cosine", "euclidean": "l2"}
_BATCH = 5_000


class VectorDBEngine(BaseANN):  # type: ignore[misc, valid-type]
    """One collection; the query argument is ``ef``.

    Args:
        metric: ``angular`` or ``euclidean``.
        method_param: ``M``, ``efConstruction`` and optionally ``quantization``.
    """

    def __init__(self, metric: str, method_param: dict[str, Any]) -> None:
        self._metric = _METRICS[metric]
        self._param = method_param
        self._params: dict[str, int] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="vectordb-ann-")
        self._db = connect(self._folder.name)
        self._collection: Any = None
        self.res: Any = None
        self.name = f"vectordb-engine ({method_param})"

    def fit(self, X: Any) -> None:  # noqa: N803 - the protocol's name
        graph = {"kind": "hnsw", "m": self._param["M"], "ef_construction": self._param["efConstruction"]}
        self._collection = self._db.create_collection(
            "bench", X.shape[1], metric=self._metric, index=graph, quantization=self._param.get("quantization")
        )
        vectors = np.ascontiguousarray(X, dtype=np.float32)
        for start in range(0, len(vectors), _BATCH):
            some = vectors[start : start + _BATCH]
            self._collection.upsert([str(start + i) for i in range(len(some))], some)
        self._collection.optimize()

    def set_query_arguments(self, ef: int) -> None:
        self._params = {"ef": ef}
        self.name = f"vectordb-engine ({self._param}, ef {ef})"

    def query(self, q: Any, n: int) -> Any:
        found = self._collection.search(q, n, params=self._params, include=())
        return np.array([int(hit.id) for hit in found])

    def batch_query(self, X: Any, n: int) -> None:  # noqa: N803 - the protocol's name
        found = self._collection.search_batch(X, n, params=self._params, include=())
        self.res = [np.array([int(hit.id) for hit in one]) for one in found]

    def get_batch_results(self) -> Any:
        return self.res

    def get_additional(self) -> dict[str, Any]:
        stats = self._collection.stats()
        return {"index_memory_bytes": stats.memory_bytes, "disk_bytes": stats.disk_bytes}

    def done(self) -> None:
        self._db.close()
        self._folder.cleanup()

    def __str__(self) -> str:
        return self.name
