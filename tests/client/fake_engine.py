"""A small engine in a dict: a ``vectordb.requests.Backend`` for tests of what lies between it and the user."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from vectordb.encoding import decode_metadata
from vectordb.errors import AlreadyExists, Closed, CollectionNotFound, NotFound
from vectordb.filter import matches
from vectordb.metric import scores
from vectordb.requests import WriteMode
from vectordb.results import Hit, Plan, SearchResult, SegmentPlan
from vectordb.stats import BackupInfo, CollectionStats, DatabaseInfo, OptimizerStats
from vectordb.types import Durability, Record, WriteResult


class FakeEngine:
    """A ``Backend`` over dicts: exact search, no files. ``log`` holds the calls; ``hooks[method]`` runs before one."""

    def __init__(self, path: str = ":memory:") -> None:
        self.path = path
        self.configs: dict[str, Any] = {}
        self.rows: dict[str, dict[str, Record]] = {}
        self.version = 0
        self.keys: dict[str, Any] = {}
        self.log: list[tuple[str, Any]] = []
        self.hooks: dict[str, Callable[[Any], None]] = {}
        self.open_scans = 0
        self.closed = 0
        self._lock = threading.RLock()

    def _enter(self, method: str, request: Any, collection: str | None = None) -> None:
        with self._lock:
            self.log.append((method, request))
        if method in self.hooks:
            self.hooks[method](request)
        if self.closed:
            raise Closed("the engine is closed")
        if collection is not None and collection not in self.configs:
            raise CollectionNotFound(f"no collection {collection!r}", collection=collection)

    def create_collection(self, request: Any) -> Any:
        self._enter("create_collection", request)
        name = request.config.name
        if name in self.configs and not request.exist_ok:
            raise AlreadyExists(f"collection {name!r} exists; use exist_ok=True", collection=name)
        self.rows.setdefault(name, {})
        return self.configs.setdefault(name, request.config)

    def collection_config(self, name: str) -> Any:
        self._enter("collection_config", name, name)
        return self.configs[name]

    def list_collections(self) -> list[str]:
        self._enter("list_collections", None)
        return sorted(self.configs)

    def delete_collection(self, name: str) -> None:
        self._enter("delete_collection", name, name)
        del self.configs[name], self.rows[name]

    def info(self) -> DatabaseInfo:
        self._enter("info", None)
        return DatabaseInfo("0.1.0", 1, self.path, tuple(sorted(self.configs)), Durability.SYNC)

    def write(self, collection: str, request: Any) -> WriteResult:
        self._enter("write", request, collection)
        with self._lock:
            return self._once(request.idempotency_key, lambda: self._write(self.rows[collection], request))

    def _write(self, stored: dict[str, Record], request: Any) -> WriteResult:
        rows = request.rows
        there = [i for i in rows.ids if i in stored]
        if request.mode is WriteMode.INSERT and there:
            raise AlreadyExists(f"ids {there} exist; use upsert to replace them", ids=there)
        if request.mode is WriteMode.UPDATE and len(there) < len(rows):
            missing = [i for i in rows.ids if i not in stored]
            raise NotFound(f"ids {missing} do not exist; use upsert", ids=missing)
        self.version += 1
        for n, i in enumerate(rows.ids):
            has = rows.vectors is not None and (rows.has_vector is None or rows.has_vector[n])
            stored[i] = Record(
                i,
                rows.vectors[n].copy() if has else None,
                decode_metadata(rows.metadata[n]) if rows.metadata else {},
                rows.texts[n] if rows.texts else None,
                self.version,
            )
        return WriteResult(len(rows), self.version, list(rows.ids))

    def _once(self, key: str | None, work: Callable[[], Any]) -> Any:
        if key is None:
            return work()
        if key not in self.keys:
            self.keys[key] = work()
        return self.keys[key]

    def _selected(self, collection: str, ids: Any, where: Any) -> list[Record]:
        found = self.rows[collection].values()
        return [r for r in found if (ids is None or r.id in ids) and (where is None or matches(where, r.metadata))]

    def update_metadata(self, collection: str, request: Any) -> int:
        self._enter("update_metadata", request, collection)

        def work() -> int:
            chosen = self._selected(collection, request.ids, request.where)
            for r in chosen:
                metadata = {**r.metadata, **decode_metadata(request.set or b"")}
                kept = {k: v for k, v in metadata.items() if k not in request.unset}
                self.rows[collection][r.id] = replace(r, metadata=kept)
            return len(chosen)

        return self._once(request.idempotency_key, work)

    def delete(self, collection: str, request: Any) -> int:
        self._enter("delete", request, collection)

        def work() -> int:
            chosen = self._selected(collection, request.ids, request.where)
            for r in chosen:
                del self.rows[collection][r.id]
            return len(chosen)

        return self._once(request.idempotency_key, work)

    def get(self, collection: str, request: Any) -> list[Record]:
        self._enter("get", request, collection)
        stored = self.rows[collection]
        return [_shown(stored[i], request.include) for i in request.ids if i in stored]

    def count(self, collection: str, where: Any, timeout: float | None = None) -> int:
        self._enter("count", timeout, collection)
        return len(self._selected(collection, None, where))

    def scan(self, collection: str, request: Any) -> Iterator[list[Record]]:
        self._enter("scan", request, collection)
        rows = [_shown(r, request.include) for r in self._selected(collection, None, request.where)]
        return self._pages(rows, request.page_size)

    def _pages(self, rows: list[Record], size: int) -> Iterator[list[Record]]:
        self.open_scans += 1
        try:
            for start in range(0, len(rows), size):
                if "page" in self.hooks:
                    self.hooks["page"](start)
                yield rows[start : start + size]
        finally:
            self.open_scans -= 1

    def search(self, collection: str, request: Any) -> list[SearchResult]:
        self._enter("search", request, collection)
        metric = self.configs[collection].metric
        rows = [r for r in self._selected(collection, None, request.where) if r.vector is not None]
        results = []
        for query in request.vectors:
            found = scores(query, np.array([r.vector for r in rows]).reshape(len(rows), -1), metric) if rows else []
            sign = -1 if metric.higher_is_better else 1
            order = sorted(range(len(rows)), key=lambda n: (sign * found[n], rows[n].id))[: request.limit]
            shown = [(_shown(rows[n], request.include), float(found[n])) for n in order]
            hits = [Hit(r.id, score, r.metadata, r.text, r.vector) for r, score in shown]
            results.append(SearchResult(hits, Plan((SegmentPlan("tail", "exact", len(rows), len(rows)),)), 0.1))
        return results

    def explain(self, collection: str, request: Any, analyze: bool) -> Plan:
        return self.search(collection, request)[0].plan

    def optimize(self, collection: str, request: Any) -> None:
        self._enter("optimize", request, collection)

    def reindex(self, collection: str, request: Any) -> Any:
        self._enter("reindex", request, collection)
        old = self.configs[collection]
        self.configs[collection] = replace(old, index=request.index or old.index)
        return self.configs[collection]

    def cancel_reindex(self, collection: str) -> bool:
        self._enter("cancel_reindex", None, collection)
        return False

    def stats(self, collection: str) -> CollectionStats:
        self._enter("stats", None, collection)
        n = len(self.rows[collection])
        config = self.configs[collection]
        optimizer = OptimizerStats("idle")
        return CollectionStats(n, 0, 0, n, self.version, 0, 0, config.index, (), optimizer, config.quantization)

    def backup(self, destination: str) -> BackupInfo:
        self._enter("backup", destination)
        return BackupInfo("b1", "2026-01-31T12:00:00+00:00", dict.fromkeys(self.configs, 1), 3, 4096, 1024)

    def close(self) -> None:
        self.closed += 1


def _shown(r: Record, include: Any) -> Record:
    return Record(
        r.id,
        r.vector if "vector" in include else None,
        r.metadata if "metadata" in include else None,
        r.text if "text" in include else None,
        r.version,
    )
