"""Bare faiss: an HNSW graph in memory, called as directly as Python can. The floor under the engine's searches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import faiss as faiss_module
import numpy as np
from numpy.typing import NDArray

from bench.datasets import Condition, Dataset
from bench.systems.base import Graph, Query

faiss: Any = faiss_module  # Its type stubs lag behind its classes.

_PRECISIONS = {"fp16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit_direct_signed}
_TOP = 127.0


class RawFaiss:
    """One graph, one thread; filters as ready-made bitmaps, whose making is not timed. At ``int8`` it ranks by the
    products of bytes and rescores nothing."""

    name = "raw faiss"

    def __init__(self, graph: Graph, threads: int = 1) -> None:
        self._graph = graph
        self._threads = threads
        self._index: Any = None
        self._scale = np.float32(1.0)
        self._parameters: dict[tuple[int, str | None], tuple[Any, Any]] = {}

    def load(self, data: Dataset) -> dict[str, float]:
        metric = faiss.METRIC_L2 if data.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        dim, m = data.base.shape[1], self._graph.m
        if self._graph.precision == "f32":
            self._index = faiss.IndexHNSWFlat(dim, m, metric)
        else:
            self._index = faiss.IndexHNSWSQ(dim, _PRECISIONS[self._graph.precision], m, metric)
        self._index.hnsw.efConstruction = self._graph.ef_construction
        faiss.omp_set_num_threads(self._threads)
        started = time.perf_counter()
        rows = self._as_kept(data.base)
        self._index.train(rows)
        self._index.add(rows)
        seconds = time.perf_counter() - started
        faiss.omp_set_num_threads(1)
        return {"build_s": seconds}

    def save(self, path: Path) -> None:
        """Writes the graph to a file."""
        faiss.write_index(self._index, str(path))

    def search(self, query: Query) -> Any:
        parameters = self._search_parameters(query.ef, query.condition)
        return self._index.search(self.asked(query.vector)[None, :], query.limit, params=parameters)[1]

    def asked(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A query float32[d] as faiss is to be given it: it compares bytes with bytes, and cuts fractions off."""
        return vector if self._scale == 1.0 else np.rint(vector * self._scale)

    def rows(self, answer: Any) -> list[int]:
        return [int(row) for row in answer[0] if row >= 0]

    def cpu(self) -> float:
        return time.process_time()

    def close(self) -> None:
        self._index = None

    def _as_kept(self, base: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows as faiss is to be given them; unit vectors keep their order at any scale."""
        if self._graph.precision != "int8":
            return base
        self._scale = np.float32(_TOP / np.abs(base).max())
        return np.rint(base * self._scale)

    def _search_parameters(self, ef: int, condition: Condition | None) -> Any:
        key = (ef, None if condition is None else condition.name)
        if key not in self._parameters:
            parameters, bits = faiss.SearchParametersHNSW(efSearch=ef), None
            if condition is not None:
                bits = np.packbits(condition.mask, bitorder="little")
                parameters.sel = faiss.IDSelectorBitmap(len(condition.mask), faiss.swig_ptr(bits))
            # The selector points into `bits`: it must live as long.
            self._parameters[key] = (parameters, bits)
        return self._parameters[key][0]
