"""This engine as a client of VectorDBBench (2.x): lay this file into ``vectordb_bench/backend/clients``.

``db_config`` is ``{"target": ...}`` as ``vectordb_client.connect`` takes it: a server for its concurrent cases, since
each of its processes opens a connection of its own; a folder for the serial ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vectordb_client import VectorDBError, connect

try:
    from vectordb_bench.backend.clients.api import VectorDB
    from vectordb_bench.backend.filter import FilterOp
except ImportError:  # Outside VectorDBBench: the same protocol with nothing beneath it.
    VectorDB, FilterOp = object, None

_METRICS = {"COSINE": "cosine", "IP": "dot", "DP": "dot", "L2": "l2"}


class VectorDBEngineClient(VectorDB):  # type: ignore[misc, valid-type]
    """One collection; rows carry the integer ``id`` and, in label cases, ``labels``.

    Args:
        db_case_config: Its ``index_param()`` may hold ``metric_type``, ``m``, ``ef_construction`` and ``quantization``,
            its ``search_param()`` ``ef``; None for the engine's own defaults.
        drop_old: A collection of that name is deleted first.
    """

    supported_filter_types = [] if FilterOp is None else [FilterOp.NonFilter, FilterOp.NumGE, FilterOp.StrEqual]
    thread_safe = True
    name = "vectordb-engine"

    def __init__(
        self,
        dim: int,
        db_config: dict[str, Any],
        db_case_config: Any = None,
        collection_name: str = "VectorDBBench",
        drop_old: bool = False,
        with_scalar_labels: bool = False,
        **_: Any,
    ) -> None:
        build = {} if db_case_config is None else db_case_config.index_param()
        found = {} if db_case_config is None else db_case_config.search_param()
        self._config = dict(db_config)
        self._name = collection_name
        self._labels = with_scalar_labels
        self._params = {"ef": found["ef"]} if found.get("ef") else None
        self._where: dict[str, Any] | None = None
        self._collection: Any = None
        metric = _METRICS[getattr(build.get("metric_type"), "value", build.get("metric_type")) or "COSINE"]
        graph = {"kind": "hnsw", "m": build.get("m", 16), "ef_construction": build.get("ef_construction", 200)}
        with connect(**self._config) as db:
            if drop_old and collection_name in db.list_collections():
                db.delete_collection(collection_name)
            db.create_collection(
                collection_name, dim, metric=metric, index=graph, quantization=build.get("quantization"), exist_ok=True
            )

    @contextmanager
    def init(self) -> Iterator[None]:
        """Connects; everything else is called within."""
        with connect(**self._config) as db:
            self._collection = db.collection(self._name)
            try:
                yield
            finally:
                self._collection = None

    def insert_embeddings(
        self,
        embeddings: list[list[float]],
        metadata: list[int],
        labels_data: list[str] | None = None,
        tenant_labels_data: list[str] | None = None,
        **_: Any,
    ) -> tuple[int, Exception | None]:
        """Rows with the ids ``metadata``: how many were written, and why not the others."""
        rows: list[dict[str, Any]] = [{"id": number} for number in metadata]
        if self._labels and labels_data is not None:
            for row, label in zip(rows, labels_data, strict=True):
                row["labels"] = label
        try:
            self._collection.upsert([str(number) for number in metadata], embeddings, metadata=rows)
        except VectorDBError as error:
            return 0, error
        return len(metadata), None

    def optimize(self, data_size: int | None = None) -> None:
        """Returns when everything is indexed."""
        self._collection.optimize()

    def prepare_filter(self, filters: Any) -> None:
        """Takes the filter of a case, for all its searches."""
        kind = str(getattr(filters.type, "value", filters.type))
        if kind == "NumGE":
            self._where = {"field": filters.int_field, "op": ">=", "value": filters.int_value}
        elif kind == "Label":
            self._where = {"field": filters.label_field, "op": "==", "value": filters.label_value}
        else:
            self._where = None

    def search_embedding(self, query: list[float], k: int = 100, **_: Any) -> list[int]:
        """Ids of the nearest rows, best first."""
        found = self._collection.search(query, k, where=self._where, params=self._params, include=())
        return [int(hit.id) for hit in found]
