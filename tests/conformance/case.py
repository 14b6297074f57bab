"""An index kind under one metric and quantization, over data of which the true answers are known."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vectordb.index import registry
from vectordb.index.base import BuildOptions, VectorIndex, capabilities_of
from vectordb.index.quantization import resolve
from vectordb.metric import Metric, distances, prepared, scores
from vectordb.types import QuantizationSpec

Floats = NDArray[np.float32]

ROWS, DIM, QUERIES, LIMIT = 1500, 64, 40, 10
SLACK = 4


class Case:
    """One kind under one metric and quantization, over clustered data.

    Attributes:
        index: Over ``base``.
        polled: This thread's processor time when ``index`` began to be built, whenever it then asked whether it was
            cancelled, and in the end.
        progress: What that build told.
    """

    def __init__(self, name: str, metric: Metric, quantization: str | None, data: ModuleType) -> None:
        self.kind, self.metric, self.quantization = registry.get_kind(name), metric, quantization
        base, _ = data.clustered(ROWS, DIM, 60, seed=11)
        queries, _ = data.clustered(QUERIES, DIM, 60, seed=12)
        # Of several lengths, which cosine forgets.
        lengths = np.random.default_rng(13).uniform(0.5, 2.0, (ROWS, 1))
        self.base = prepared(np.ascontiguousarray(base * lengths, np.float32), metric)
        self.queries = prepared(queries, metric)
        self.truth = data.brute_force(
            self.queries, self.base, LIMIT, metric="dot" if metric is Metric.COSINE else metric.value
        )
        self.polled = [time.thread_time()]
        self.progress: list[float] = []
        self.index = self.built(self.base, cancelled=self._poll, progress=self.progress.append)
        self._poll()
        self.able = capabilities_of(self.index, self.kind)

    def _poll(self) -> bool:
        self.polled.append(time.thread_time())
        return False

    def options(self, dim: int, **options: Any) -> BuildOptions:
        spec = None
        if self.quantization is not None:
            # Four dimensions a byte: what suits hundreds of dimensions is too little for these few.
            params = {"m": dim // 4 if dim <= DIM else dim // 8} if self.quantization == "pq" else {}
            spec = resolve(QuantizationSpec(self.quantization, params), dim)
        params = {"m": dim // 2} if self.kind.name == "ivfpq" and dim <= DIM else {}
        return BuildOptions(params=params, quantization=spec, **options)

    def built(self, vectors: Floats, **options: Any) -> VectorIndex:
        return self.kind.build(vectors, self.metric, self.options(vectors.shape[1], **options))

    def loaded(self, index: VectorIndex, vectors: Floats, path: Path) -> VectorIndex:
        index.save(path)
        return self.kind.load(path, vectors, self.metric, self.options(vectors.shape[1]))

    def best(
        self, index: VectorIndex, queries: Floats, limit: int, vectors: Floats, **options: Any
    ) -> NDArray[np.int64]:
        """The rows that a search ends with: candidates as many as the index needs, ordered by their true scores."""
        if not self.able.compressed and self.able.oversampling <= 1.0:
            return index.search(queries, limit, **options).rows
        wide = min(len(vectors), math.ceil(limit * self.able.oversampling) + SLACK)
        found = index.search(queries, wide, **options).rows
        out = np.full((len(queries), limit), -1, np.int64)
        for query, rows, row in zip(queries, found, out, strict=True):
            near = rows[rows >= 0]
            order = np.argsort(distances(scores(query, vectors[near], self.metric), self.metric), kind="stable")
            row[: len(order[:limit])] = near[order[:limit]]
        return out

    def recall(self, found: NDArray[np.int64], truth: NDArray[np.int64] | None = None) -> float:
        truth = self.truth if truth is None else truth
        shared = [len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
        return sum(shared) / truth.size
