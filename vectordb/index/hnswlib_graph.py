"""Kind ``hnswlib``: a navigable small-world graph, by the library of its inventors.

Source: Malkov & Yashunin 2018, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs".

Beside ``hnsw`` (faiss) it stores single precision only and needs a compiler to install, but keeps its recall under
selective filters: it walks on until it has enough *allowed* rows, where faiss's beam of all rows runs out of them.

How it is used, by measurement (20,000 real text embeddings of 384 dimensions):

- Its beam width ``ef`` is a setting of the whole index, so it is left at 1: hnswlib takes ``max(ef, k)``, and asking
  for as many candidates as the beam is wide is the same search (recall .967, .989, .995, .998 at 32, 64, 96, 128 either
  way, and the time is equal), without a lock.
- A filter is called for every row met, with the GIL: a bytes object's own ``__getitem__`` costs 0.12 us a call, a
  Python function 0.75.
- The width counts rows spanned, allowed or not: under a filter ``width * selectivity`` allowed ones are asked for.
- It is built apart: hnswlib is compiled for the processor that it is installed on, and pip's cache carries it to
  others, where it ends the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import InvalidArgument
from vectordb.index import hnswlib_file
from vectordb.index.base import (
    BuildCancelled,
    BuildOptions,
    CannotExtend,
    Capabilities,
    Effort,
    Neighbours,
    Parameter,
    Params,
)
from vectordb.index.duplicates import Rows, grouped, regrouped
from vectordb.index.grouping import distinct
from vectordb.index.hnswlib_file import Graph
from vectordb.index.scaling import Scaling, nothing, widened
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BASE_BEAM = {Metric.COSINE: 64, Metric.L2: 64, Metric.DOT: 96}
"""Beam widths that find 0.985 and more of 10 neighbours among 20,000 real text embeddings."""
_BEAM_ROWS = 20_000
_BEAM_GROWTH = 0.12
_LIMIT_FACTOR = 1.5
_LIMIT_EXTRA = 48
"""As for faiss's graph: wide limits need a beam somewhat wider than themselves."""
_MAX_BEAM = 65_536
_ALLOWED_LEAST = 1.5
"""Allowed rows asked for over those wanted, whatever the selectivity: 10 of 10 at 3 % find 0.983, 16 of 10 0.995."""
_SLICE_WORK = 128 * 384 * 200
"""Rows x dims x ef_construction of one uninterruptible add: about 0.1 s of one thread."""

EFFORT = Effort(factor=55.0, exponent=0.72, dimension=110.0 / (1_098 * 384), filtered=0.12)
"""Rows compared by beam as on faiss's graph, which is the same one; at single precision a comparison costs more."""


def _ef(default: int) -> Parameter:
    text = "beam width of a search: wider finds more and costs more; the default grows slowly with the rows"
    return Parameter(int, default, 1, _MAX_BEAM, text)


class HnswlibIndex:
    """A built graph. Searches from many threads at once; never changes."""

    def __init__(self, graph: Graph, shape: tuple[int, ...], metric: Metric) -> None:
        self._graph = graph
        self._shape = shape
        self._metric = metric
        self._nodes = int(graph.native.get_current_count())
        graph.native.set_ef(1)
        growth = max(1.0, self._nodes / _BEAM_ROWS) ** _BEAM_GROWTH
        self._default_beam = math.ceil(_BASE_BEAM[metric] * growth)
        self._capabilities = replace(HNSWLIB.capabilities, search_params={"ef": _ef(self._default_beam)})

    @property
    def capabilities(self) -> Capabilities:
        """Those of the kind, with the default ``ef`` that suits this graph's rows and metric."""
        return self._capabilities

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`. ``scored`` is an estimate: hnswlib does not count.

        Raises:
            DimensionMismatch: Queries of another dimension.
            InvalidArgument: ``allowed`` is too short.
        """
        scaled = self._graph.scaling.queries(queries, self._shape[1], self._metric)
        if scaled is None or not len(scaled) or not self._nodes:
            return nothing(len(queries), limit)
        width = self._default_beam if params is None else int(params.get("ef", 0))
        if not width or params is None:
            width = max(self._default_beam, math.ceil(_LIMIT_FACTOR * limit + _LIMIT_EXTRA))
        most, accepts = self._nodes, None
        if allowed is not None:
            if len(allowed) * 8 < self._shape[0]:
                raise InvalidArgument(f"allowed has {len(allowed) * 8} bits, the index {self._shape[0]} rows")
            bits = allowed if self._graph.groups is None else self._graph.groups.allowed(allowed)
            mask = np.unpackbits(bits, count=self._nodes, bitorder="little")
            most = int(mask.sum())
            if most == 0:
                return nothing(len(queries), limit)
            accepts = mask.tobytes().__getitem__
            width = max(math.ceil(_ALLOWED_LEAST * limit), math.ceil(width * most / self._nodes))
        beam = max(min(width, most), min(limit, most))
        found, distances = self._nearest(scaled, beam, accepts)
        visited = math.ceil(EFFORT.factor * (beam * self._nodes / most) ** EFFORT.exponent)
        if self._graph.groups is not None:
            found, distances = self._graph.groups.spread(found, distances, limit, allowed)
        else:
            found, distances = widened(found, distances, limit)
        return Neighbours(found, distances, min(visited, self._nodes) * len(scaled))

    def extended(self, vectors: NDArray[np.float32], build: BuildOptions) -> HnswlibIndex:
        """See :meth:`vectordb.index.base.GrowingIndex.extended`. Costs a copy of the graph, and the adding.

        Raises:
            CannotExtend: The new rows leave the range of the stored ones.
            BuildCancelled: ``build.cancelled()`` turned true.
        """
        count, dim = self._shape
        if count == 0:
            raise CannotExtend("the graph is empty")
        groups, fresh = regrouped(vectors, count, self._graph.groups, build.cancelled)
        rows = Rows(vectors[count:]) if fresh is None else Rows(vectors, fresh)
        scaling = self._graph.scaling
        if not scaling.fits(rows, self._metric, build.cancelled):
            raise CannotExtend("the new rows exceed the range of the stored ones")
        native = hnswlib_file.grown(self._graph.native, dim, self._metric, self._nodes + rows.count)
        _add(native, rows, self._nodes, scaling, build)
        return HnswlibIndex(Graph(native, groups, scaling), vectors.shape, self._metric)

    def save(self, path: Path) -> None:
        """See :meth:`vectordb.index.base.VectorIndex.save`; the format is in ``hnswlib_file``."""
        hnswlib_file.write(path, self._graph, self._shape, self._metric)

    def memory_bytes(self) -> int:
        """Rows, links, labels and locks; all of it is in memory."""
        native, groups = self._graph.native, self._graph.groups
        node = 4 * self._shape[1] + 8 * int(native.M) + 12  # vector, links of the ground level, label
        other = 4 + 8 + 48 + 40 + 4 * int(native.M) // 15  # level, pointer, look-up by label, lock, upper levels
        return self._nodes * (node + other) + (0 if groups is None else groups.nbytes())

    def _nearest(
        self, queries: NDArray[np.float32], beam: int, accepts: Callable[[int], int] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nearest nodes by a beam that holds so many, each query ascending and padded where fewer were reached."""
        try:
            labels, distances = self._graph.native.knn_query(queries, k=beam, num_threads=1, filter=accepts)
            return labels.view(np.int64), distances
        except RuntimeError:
            # Some query reached fewer than asked for; hnswlib then gives nothing at all.
            found = np.full((len(queries), beam), -1, np.int64)
            far = np.full((len(queries), beam), np.inf, np.float32)
        for i in range(len(queries)):
            k = beam
            while k:
                try:
                    labels, distances = self._graph.native.knn_query(
                        queries[i : i + 1], k=k, num_threads=1, filter=accepts
                    )
                except RuntimeError:
                    k //= 2
                    continue
                found[i, :k], far[i, :k] = labels[0].view(np.int64), distances[0]
                break
        return found, far


class HnswlibKind:
    """The kind ``hnswlib``."""

    name = hnswlib_file.KIND
    capabilities = Capabilities(
        family="graph",
        metrics=frozenset(hnswlib_file.SPACE),
        filtered=True,
        extends=True,
        build_params={
            "m": Parameter(int, 16, 2, 128, "links a row and level (twice as many on the ground level)"),
            "ef_construction": Parameter(int, 200, 8, 4096, "beam width while building: slower, better graphs"),
        },
        search_params={"ef": _ef(_BASE_BEAM[Metric.COSINE])},
        width="ef",
        effort=EFFORT,
        min_filtered_selectivity=0.01,
        builds_apart=True,
    )

    def build(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> HnswlibIndex:
        """See :meth:`vectordb.index.base.IndexKind.build`. With one thread the same input gives the same graph."""
        params: dict[str, Any] = {name: p.default for name, p in self.capabilities.build_params.items()}
        params |= dict(options.params)
        groups = grouped(vectors, options.cancelled)
        rows = distinct(vectors, groups)
        scaling = Scaling.of(rows, metric, options.cancelled)
        native = hnswlib_file.empty(rows.dim, metric, rows.count, params["m"], params["ef_construction"])
        _add(native, rows, 0, scaling, options)
        return HnswlibIndex(Graph(native, groups, scaling), vectors.shape, metric)

    def load(self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> HnswlibIndex:
        """See :meth:`vectordb.index.base.IndexKind.load`. Reads the file into memory.

        Raises:
            Corruption: The file is damaged, or belongs to another matrix or metric.
        """
        del options
        return HnswlibIndex(hnswlib_file.read(path, vectors.shape, metric), vectors.shape, metric)


HNSWLIB = HnswlibKind()
"""What the entry point ``hnswlib`` names."""


def _add(native: Any, rows: Rows, first: int, scaling: Scaling, options: BuildOptions) -> None:
    """Adds rows, labelled from ``first`` on, in slices that can be cancelled between."""
    threads = max(1, options.threads)
    step = threads * max(16, min(2048, _SLICE_WORK // (rows.dim * int(native.ef_construction))))
    for start in range(0, rows.count, step):
        if options.cancelled():
            raise BuildCancelled
        block = scaling.rows(rows.block(start, start + step))
        labels = np.arange(first + start, first + start + len(block), dtype=np.uint64)
        native.add_items(block, labels, num_threads=threads)
        options.progress(min(1.0, (start + step) / rows.count))
    if options.cancelled():
        raise BuildCancelled
    options.progress(1.0)
