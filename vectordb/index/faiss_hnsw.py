"""Kind ``hnsw``: a navigable small-world graph, by faiss.

Source: Malkov & Yashunin 2018, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs"; faiss's variant keeps one beam for candidates and results and fills ``2 m`` links on the ground
level.

What is stored, by measurement:

- cosine: unit vectors under *Euclidean* distance. It ranks like the cosine, but tells rows apart that lie close
  together (copies, overlapping chunks), where float arithmetic on the inner product, all near 1, sees only noise.
- dot: the inner product itself. Turning it into a Euclidean problem by one more coordinate (Bachrach et al. 2014) was
  tried and found less than a fifth of the neighbours at the same effort.
- l2, l1: themselves.
- at int8 or half precision where it measurably does no harm (``hnsw_storage``), never under l1.
- under a quantization its codes (``hnsw_codes``); ``fp16`` is half precision whatever it loses, scaled so that every
  finite value fits.
- equal rows once, where there are many (``duplicates``).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import DimensionMismatch, InvalidArgument
from vectordb.index import codes, hnsw_build, hnsw_codes, hnsw_file, hnsw_storage
from vectordb.index.base import BuildOptions, Capabilities, Effort, Neighbours, Parameter, Params, SingleSearch
from vectordb.index.codes import Codec
from vectordb.index.envelope import corrupt
from vectordb.index.hnsw_file import Graph
from vectordb.index.hnsw_storage import Precision
from vectordb.index.native import faiss, single_threaded
from vectordb.index.rotation import rotation
from vectordb.index.scaling import NORMAL, each_in_range, nothing, widened
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BASE_BEAM = {Metric.COSINE: 64, Metric.DOT: 112, Metric.L2: 64, Metric.L1: 64}
"""Beam widths that find 0.985 and more of 10 neighbours among 20,000 real text embeddings; inner products need more."""
_MIN_SELECTIVITY = {Metric.COSINE: 0.15, Metric.DOT: 0.2, Metric.L2: 0.15, Metric.L1: 0.15}
"""Least share of matching rows: inner products at 16 % find 0.94 of 10 neighbours in a tenth of the rows."""
_BEAM_ROWS = 20_000
_BEAM_GROWTH = 0.12
_LIMIT_FACTOR = 1.5
_LIMIT_EXTRA = 48
"""Wide limits need a beam somewhat wider than themselves: 198 finds 0.99 of 100 neighbours."""
_FILTER_GROWTH = 0.3
_MAX_BEAM = 65_536
_QUERY_RANGE = 2.0**24
"""Beyond it times the data's own range, float32 distances to all rows are the same number."""
_CACHED_PARAMS = 64

EFFORT = Effort(factor=55.0, exponent=0.72, dimension=134.0 / (1_077 * 384), square=4e-4)
"""Rows compared by beam (m 16: 404 at ef 16, 1,077 at 64, 3,016 at 256, 7,624 at 1,000; neighbourhoods overlap the
more, the wider the beam is, hence the exponent), at random access: ef 64 takes 134 us. Finding the best of ``ef``
candidates is linear in ``ef``, and done ``ef`` times: unnoticed at 100, 40 ms at 10,000. 116,659 real 384-d embeddings.
"""


_BYTE_SHARE = 0.8
"""What comparing a row at int8 costs of what it does at half precision: ef 30 to 64, 100,000 text embeddings."""
_CODE_SHARE = {"sq8": 0.75, "pq": 0.65, "rabitq": 0.6}
"""What comparing a code costs of what a row at half precision does, in a graph: ef 64, 20,000 text embeddings."""


def _ef(default: int) -> Parameter:
    text = "beam width of a search: wider finds more and costs more; the default grows slowly with the rows"
    return Parameter(int, default, 1, _MAX_BEAM, text)


class _Comparisons:
    """How many rows were compared, by a counter that faiss keeps for the whole process.

    Each call takes what no other has taken: of calls that run side by side, such as the parts of a batch, one may take
    another's (a share may even be negative), but together they take just what there was, until callers bound it.
    """

    def __init__(self) -> None:
        self._stats = faiss.cvar.hnsw_stats
        self._taken = 0

    def since_last(self) -> int:
        now: int = self._stats.ndis
        taken, self._taken = self._taken, now
        return now - taken


_comparisons = _Comparisons()


class HnswIndex:
    """A built graph. Searches from many threads at once; never changes.

    Args:
        graph: The graph.
        shape: (n, d) of the matrix that it is over.
        metric: The metric.
        path: The file that the graph is mapped from, or None if it is in memory.
        oversampling: Candidates for each row wanted, where a quantization sets it.
    """

    def __init__(
        self,
        graph: Graph,
        shape: tuple[int, ...],
        metric: Metric,
        path: Path | None = None,
        oversampling: float | None = None,
    ) -> None:
        self._graph = graph
        self._search_c = graph.native.search_c
        self._storage, self._groups = graph.storage, graph.groups
        self._shape = shape
        self._metric = metric
        self._path = path
        self._rows, self._dim = shape
        self._nodes = int(graph.native.ntotal)
        self._plain: dict[int, Any] = {}
        growth = max(1.0, self._nodes / _BEAM_ROWS) ** _BEAM_GROWTH
        self._default_beam = math.ceil(_BASE_BEAM[metric] * growth)
        self._capabilities = replace(
            HNSW.capabilities,
            search_params={"ef": _ef(self._default_beam)},
            min_filtered_selectivity=_MIN_SELECTIVITY[metric],
        )
        self._oversampling = oversampling
        if graph.storage.precision is Precision.BYTE:
            self._capabilities = _at_bytes(self._capabilities)
        if oversampling is not None:
            self._capabilities = _quantized(self._capabilities, graph.codec, oversampling)
        self._turned = rotation(self._dim) if hnsw_codes.space_of(graph, metric).rotated else None

    @property
    def precision(self) -> Precision:
        """At which precision rows are stored."""
        return self._storage.precision

    @property
    def capabilities(self) -> Capabilities:
        """Those of the kind, with the default ``ef`` that suits this graph's rows and metric."""
        return self._capabilities

    def beam(self, limit: int, params: Params | None = None, selectivity: float = 1.0) -> int:
        """The beam width of a search: the ``ef`` that was asked for, at least ``limit``, or what suits.

        Under a filter only matching rows enter the result while the beam walks over all, so a narrower filter needs a
        wider beam: by selectivity ** -0.3, measured on text embeddings down to 10 % of the rows.

        Args:
            limit: k.
            params: The search's parameters.
            selectivity: Fraction of the rows that are allowed.
        """
        if params and "ef" in params:
            return max(int(params["ef"]), limit)
        width = max(float(self._default_beam), _LIMIT_FACTOR * limit + _LIMIT_EXTRA)
        width *= float(max(selectivity, 1e-6) ** -_FILTER_GROWTH)
        return min(math.ceil(width), max(_MAX_BEAM, limit))

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`. Distances rank a query's rows and mean nothing else.

        A row -1 among fewer than ``limit`` allowed rows says that the graph could not find enough (also: that a query
        is so far off that float32 cannot rank the rows); exact search can. Beside other searches ``scored`` may
        include some of theirs, or leave some of its own to them.

        Raises:
            DimensionMismatch: Queries of another dimension.
            InvalidArgument: ``allowed`` is too short.
        """
        single_threaded()
        if queries.dtype != np.float32 or not queries.flags.c_contiguous:
            queries = np.ascontiguousarray(queries, dtype=np.float32)
        count, got = queries.shape
        if got != self._dim:
            raise DimensionMismatch(f"this index has dim {self._dim}, got {got}", expected=self._dim, got=got)
        k = min(limit, self._nodes)
        if k == 0 or count == 0:
            return nothing(count, limit)
        kept = self._kept(queries)
        if kept is None:
            return nothing(count, limit)
        settings = self._settings(limit, allowed, params)
        if settings is None:
            return nothing(count, limit)
        distances = np.empty((count, k), np.float32)
        rows = np.empty((count, k), np.int64)
        # Straight to the C++ method: faiss's Python wrapper costs 5 us more.
        self._search_c(count, faiss.swig_ptr(kept), k, faiss.swig_ptr(distances), faiss.swig_ptr(rows), settings)
        scored = min(_comparisons.since_last(), count * self._nodes)
        if self._metric is Metric.DOT:
            np.negative(distances, out=distances)
        # Missing rows stand at the end of each query, with a distance of no meaning.
        if (rows[0, -1] if count == 1 else rows[:, -1].min()) < 0:
            distances[rows < 0] = np.inf
        if self._groups is not None:
            rows, distances = self._groups.spread(rows, distances, limit, allowed)
        elif k < limit:
            rows, distances = widened(rows, distances, limit)
        return Neighbours(rows, distances, scored)

    def single(self, limit: int, params: Params | None) -> SingleSearch | None:
        """See :meth:`vectordb.index.base.RepeatingIndex.single`."""
        if limit > self._nodes or self._groups is not None:
            return None
        settings = self._settings(limit, None, params)
        search_c, kept_of, nodes, pointer = self._search_c, self._kept, self._nodes, faiss.swig_ptr

        def search(query: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
            single_threaded()
            kept = kept_of(query)
            if kept is None:
                return np.full(limit, -1, np.int64), 0
            # By name, all three: a pointer keeps nothing alive.
            distances, rows = np.empty(limit, np.float32), np.empty(limit, np.int64)
            search_c(1, pointer(kept), limit, pointer(distances), pointer(rows), settings)
            return rows, min(_comparisons.since_last(), nodes)

        return search

    def extended(self, vectors: NDArray[np.float32], build: BuildOptions) -> HnswIndex:
        """See :meth:`vectordb.index.base.GrowingIndex.extended`. Costs a copy of the graph, and the adding.

        Raises:
            CannotExtend: The new rows leave the range of the stored ones, need more than their precision, or do not
                fit the codes.
            BuildCancelled: ``build.cancelled()`` turned true.
        """
        graph = hnsw_build.extend(self._graph, self._path, self._shape, vectors, self._metric, build)
        return HnswIndex(graph, vectors.shape, self._metric, None, self._oversampling)

    def save(self, path: Path) -> None:
        """See :meth:`vectordb.index.base.VectorIndex.save`; the format is in ``hnsw_file``."""
        hnsw_file.write(path, self._graph, self._metric)

    def memory_bytes(self) -> int:
        """Rows, links and levels; where mapped, what they take once they are all in memory."""
        graph = self._graph
        kept = codes.row_bytes(graph.codec, self._dim) if hnsw_codes.has_codes(graph) else self._stored_bytes()
        row = kept + 8 + 4
        groups = 0 if self._groups is None else self._groups.nbytes()
        links = int(self._graph.native.hnsw.neighbors.size())
        return int(self._nodes * row + 4 * links + groups + codes.learned_bytes(graph.codec, self._dim))

    def _stored_bytes(self) -> int:
        return self._dim * self._storage.precision.bytes

    def _settings(self, limit: int, allowed: NDArray[np.uint8] | None, params: Params | None) -> Any:
        """faiss's search parameters, or None where nothing is allowed. They own the selector, it the bitmap."""
        if allowed is not None:
            if len(allowed) * 8 < self._rows:
                raise InvalidArgument(f"allowed has {len(allowed) * 8} bits, the index {self._rows} rows")
            allowed = np.ascontiguousarray(allowed if self._groups is None else self._groups.allowed(allowed), np.uint8)
            selectivity = 1.0
            if not params or "ef" not in params:
                selectivity = int(np.bitwise_count(allowed).sum()) / self._nodes
                if selectivity == 0.0:
                    return None
            beam = self.beam(limit, params, min(selectivity, 1.0))
            return faiss.SearchParametersHNSW(efSearch=beam, sel=faiss.IDSelectorBitmap(allowed))
        beam = self.beam(limit, params)
        settings = self._plain.get(beam)
        if settings is None:
            if len(self._plain) >= _CACHED_PARAMS:
                self._plain.clear()
            settings = self._plain[beam] = faiss.SearchParametersHNSW(efSearch=beam)
        return settings

    def _kept(self, queries: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Queries in the form of the stored rows; None where the graph cannot rank them."""
        if self._storage.precision is Precision.BYTE:
            kept = self._storage.query(queries, self._metric)
        else:
            kept = queries if self._metric is Metric.COSINE else self._in_range(queries)
        return kept if kept is None or self._turned is None else self._turned.apply(kept)

    def _in_range(self, queries: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Queries as the graph compares them; None where it cannot rank them."""
        if self._metric is Metric.DOT:
            return each_in_range(queries, NORMAL)
        largest = float(np.abs(queries).max())
        if largest * self._storage.scale > _QUERY_RANGE * 2.0**9:
            return None
        return self._storage.scaled(queries)


class HnswKind:
    """The kind ``hnsw``."""

    name = "hnsw"
    capabilities = Capabilities(
        maps=True,
        family="graph",
        metrics=frozenset(Metric),
        # faiss has no codes under l1: asking for them ends the process.
        quantizations=dict.fromkeys(("fp16", "sq8", "pq", "rabitq"), frozenset({Metric.COSINE, Metric.DOT, Metric.L2})),
        filtered=True,
        extends=True,
        lean=hnsw_codes.LEAN,
        build_params={
            "m": Parameter(int, 16, 2, 128, "links a row and level (twice as many on the ground level)"),
            "ef_construction": Parameter(int, 200, 8, 4096, "beam width while building: slower, better graphs"),
        },
        search_params={"ef": _ef(_BASE_BEAM[Metric.COSINE])},
        width="ef",
        effort=EFFORT,
        min_filtered_selectivity=0.15,
    )

    def build(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> HnswIndex:
        """See :meth:`vectordb.index.base.IndexKind.build`. With one thread the same input gives the same graph."""
        params = {name: p.default for name, p in self.capabilities.build_params.items()} | dict(options.params)
        codec = Codec.of(options.quantization, vectors.shape[1])
        shape = hnsw_build.Shape(int(params["m"]), int(params["ef_construction"]), codec)
        graph = hnsw_build.build(vectors, metric, options, shape)
        return HnswIndex(graph, vectors.shape, metric, None, _oversampling(options))

    def load(self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> HnswIndex:
        """See :meth:`vectordb.index.base.IndexKind.load`. Maps the file; it must stay as it is meanwhile.

        Raises:
            Corruption: The file is damaged, or belongs to another matrix, metric or quantization.
        """
        graph = hnsw_file.read(path, vectors.shape, metric, mapped=True)
        codec = Codec.of(options.quantization, vectors.shape[1])
        if graph.codec != codec:
            raise corrupt(path, f"keeps rows as {tuple(graph.codec)}, not as {tuple(codec)}")
        return HnswIndex(graph, vectors.shape, metric, path, _oversampling(options))


HNSW = HnswKind()
"""What the entry point ``hnsw`` names."""


def _oversampling(options: BuildOptions) -> float | None:
    return None if options.quantization is None else float(options.quantization.params["oversampling"])


def _at_bytes(able: Capabilities) -> Capabilities:
    """What a graph can do whose rows are kept at int8."""
    assert able.effort is not None
    effort = replace(able.effort, dimension=_BYTE_SHARE * able.effort.dimension)
    return replace(able, oversampling=hnsw_storage.OVERSAMPLING, effort=effort)


def _quantized(able: Capabilities, codec: Codec, oversampling: float) -> Capabilities:
    """What a graph can do whose rows are kept as codes."""
    assert able.effort is not None
    share = _CODE_SHARE.get(codec.name, 1.0)
    text = "candidates fetched for each row asked for"
    return replace(
        able,
        search_params={**able.search_params, "oversampling": Parameter(float, oversampling, 1.0, 100.0, text)},
        oversampling=oversampling,
        effort=replace(able.effort, dimension=share * able.effort.dimension),
        compressed=True,
    )
