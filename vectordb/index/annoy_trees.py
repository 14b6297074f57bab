"""Kind ``annoy``: a forest of random-projection trees, by Spotify's Annoy.

Source: Bernhardsson 2013-, "Annoy: Approximate Nearest Neighbors Oh Yeah"; each tree splits the rows by hyperplanes
half-way between two of them (Dasgupta & Freund 2008, "Random projection trees and low dimensional manifolds"). A search
walks all trees at once, nearest margins first, until it has collected ``search_k`` rows, and compares those.

Its file is mapped, so several processes share it and memory can do without it. It cannot grow and takes no filter.

The file is Annoy's own, which it maps from its first byte to its last, so that nothing can be put around it. The frame
(:mod:`~vectordb.index.envelope`) lies *in* it: the first few item numbers are left out, Annoy keeps their places, never
looks at them, and they are as long as the frame. Equal rows share an item, since trees cannot part them: which do is
found again on loading, by hashing all rows, where there are many.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import Internal, ResourceExhausted
from vectordb.index import envelope
from vectordb.index.base import BuildCancelled, BuildOptions, Capabilities, Effort, Neighbours, Parameter, Params
from vectordb.index.duplicates import Groups, grouped
from vectordb.index.extras import library
from vectordb.index.flat import FLAT
from vectordb.index.grouping import distinct
from vectordb.index.plain import Plain
from vectordb.index.scaling import Scaling, nothing
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KIND = "annoy"
annoy = library(_KIND, "annoy", "annoy")

_SPACE = {Metric.COSINE: "angular", Metric.DOT: "dot", Metric.L2: "euclidean", Metric.L1: "manhattan"}
_LEAF = 64
"""Annoy puts up to about ``dim`` rows into one leaf; up to ``dim + 64`` rows there is no tree to speak of."""
_SEED = 1
_GROUPED = 1 << 16
"""In the frame's own number: bits 0 to 15 the exponent of the scaling, then this flag, then from bit 32 the trees."""
_MOST = 10_000_000
_WIDTH = {Metric.COSINE: 8_000, Metric.DOT: 24_000, Metric.L2: 8_000, Metric.L1: 8_000}
"""Rows to collect that find 0.96 of 10 neighbours among 20,000 real text embeddings; inner products of rows of many
lengths are one more coordinate to Annoy, and need more."""
_WIDTH_ROWS = 20_000
_WIDTH_GROWTH = 0.5
"""4,000 find as much among 5,000 rows, 16,000 among 100,000."""
_ROW_WIDTH = 80.0
"""Rows to collect for one more neighbour among 20,000: 16,000 find 0.96 of 100."""
_LIMIT_FACTOR, _LIMIT_EXTRA = 1.5, 48

EFFORT = Effort(factor=1.0, dimension=0.05 / 384, row=0.03, call=60.0)
"""A row collected costs its place in two sorts as well as its comparison: 8,000 of 384 dimensions take 640 us."""


def _search_k(default: int) -> Parameter:
    text = "rows collected from all trees together and compared: more finds more; the default grows with the rows"
    return Parameter(int, default, 1, _MOST, text)


class AnnoyIndex:
    """A forest. Searches from many threads at once; only :meth:`save` of a freshly built one must stand alone.

    Args:
        native: Annoy's index, built or loaded; its items are numbered from ``_gap(dim)``.
        shape: (n, d) of the matrix that it is over.
        metric: The metric.
        scaling: How rows and queries are scaled.
        groups: Which rows share an item; None: none do.
        file: The whole file, mapped; None of one that was not saved yet.
    """

    def __init__(
        self,
        native: Any,
        shape: tuple[int, ...],
        metric: Metric,
        scaling: Scaling,
        groups: Groups | None,
        file: mmap.mmap | None = None,
    ) -> None:
        self._native = native
        self._shape = shape
        self._metric = metric
        self._scaling = scaling
        self._groups = groups
        self._file = file
        self._items = shape[0] if groups is None else groups.distinct
        self._trees = int(native.get_n_trees())
        self._gap = _gap(shape[1])
        growth = (self._items / _WIDTH_ROWS) ** _WIDTH_GROWTH
        self._width = math.ceil(_WIDTH[metric] * growth)
        self._row_width = _ROW_WIDTH * growth
        self._capabilities = replace(
            ANNOY.capabilities, search_params={"search_k": _search_k(self._width)}, width_per_row=self._row_width
        )

    @property
    def capabilities(self) -> Capabilities:
        """Those of the kind, with the default ``search_k`` that suits this forest's rows and metric."""
        return self._capabilities

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`. ``scored`` is an upper bound: trees share rows.

        Raises:
            DimensionMismatch: Queries of another dimension.
        """
        if allowed is not None:
            raise Internal("index kind 'annoy' was given a filter, which it says that it cannot take")
        scaled = self._scaling.queries(queries, self._shape[1], self._metric)
        if scaled is None or not len(scaled):
            return nothing(len(queries), limit)
        spanning = math.ceil(self._row_width * (_LIMIT_FACTOR * limit + _LIMIT_EXTRA))
        width = max(limit, int((params or {}).get("search_k", max(self._width, spanning))))
        rows = np.full((len(scaled), limit), -1, np.int64)
        distances = np.full((len(scaled), limit), np.inf, np.float32)
        for i, query in enumerate(scaled.tolist()):
            found, far = self._native.get_nns_by_vector(query, limit, width, include_distances=True)
            rows[i, : len(found)] = found
            distances[i, : len(far)] = far
        real = rows >= 0
        rows[real] -= self._gap
        if self._metric is Metric.DOT:
            np.negative(distances, out=distances, where=real)
        if self._groups is not None:
            rows, distances = self._groups.spread(rows, distances, limit, None)
        return Neighbours(rows, distances, min(width, self._items) * len(scaled))

    def save(self, path: Path) -> None:
        """See :meth:`vectordb.index.base.VectorIndex.save`.

        Raises:
            ResourceExhausted: The disk is full or refuses the file.
        """
        try:
            if self._file is None:
                self._native.save(str(path))
                with path.open("r+b") as file:
                    size = file.seek(0, 2)
                    file.seek(0)
                    own = (self._scaling.exponent & 0xFFFF) | (self._trees << 32)
                    own |= 0 if self._groups is None else _GROUPED
                    file.write(envelope.block(_KIND, self._shape, self._metric, size, own))
                self._file = _mapped(path)
            else:
                path.write_bytes(self._file)
        except OSError as error:
            raise ResourceExhausted(f"cannot write index file '{path}': {error}", path=str(path)) from error

    def memory_bytes(self) -> int:
        """Rows and trees; where mapped, what they take once they are all in memory."""
        groups = 0 if self._groups is None else self._groups.nbytes()
        if self._file is not None:
            return len(self._file) + groups
        return self._items * (4 * self._shape[1] + 12 + 8 * self._trees) + groups


class AnnoyKind:
    """The kind ``annoy``. Up to one leaf of rows, its index is an exact one."""

    name = _KIND
    capabilities = Capabilities(
        maps=True,
        family="trees",
        metrics=frozenset(_SPACE),
        build_params={"n_trees": Parameter(int, 50, 1, 1_000, "trees: more find more, and take more space and time")},
        search_params={"search_k": _search_k(1_000)},
        width="search_k",
        width_per_row=_ROW_WIDTH,
        effort=EFFORT,
        builds_apart=True,
    )

    def build(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> AnnoyIndex | Plain:
        """See :meth:`vectordb.index.base.IndexKind.build`. The trees themselves cannot be cancelled."""
        groups = grouped(vectors, options.cancelled)
        rows = distinct(vectors, groups)
        count, dim = rows.count, rows.dim
        if count <= dim + _LEAF:
            return Plain(_KIND, FLAT.build(vectors, metric, options), vectors.shape, metric)
        scaling = Scaling.of(rows, metric, options.cancelled)
        native = annoy.AnnoyIndex(dim, _SPACE[metric])
        native.set_seed(_SEED)
        gap = _gap(dim)
        for start, block in rows.blocks(options.cancelled):
            for item, row in enumerate(scaling.rows(block).tolist(), gap + start):
                native.add_item(item, row)
            options.progress(0.3 * (start + len(block)) / count)
        if options.cancelled():
            raise BuildCancelled
        trees = int(options.params.get("n_trees", self.capabilities.build_params["n_trees"].default))
        native.build(trees, n_jobs=max(1, options.threads))
        if options.cancelled():
            raise BuildCancelled
        options.progress(1.0)
        return AnnoyIndex(native, vectors.shape, metric, scaling, groups)

    def load(
        self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions
    ) -> AnnoyIndex | Plain:
        """See :meth:`vectordb.index.base.IndexKind.load`. Maps the file.

        Raises:
            Corruption: The file is damaged, or belongs to another matrix or metric.
        """
        own = envelope.check(path, _KIND, vectors.shape, metric)
        if own == 0:
            return Plain(_KIND, FLAT.build(vectors, metric, options), vectors.shape, metric)
        trees = own >> 32
        exponent = int(np.uint16(own & 0xFFFF).view(np.int16))
        groups = grouped(vectors, options.cancelled) if own & _GROUPED else None
        native = annoy.AnnoyIndex(vectors.shape[1], _SPACE[metric])
        try:
            native.load(str(path))
        except OSError as error:
            raise envelope.corrupt(path, f"cannot be loaded by annoy: {error}") from error
        items = _gap(vectors.shape[1]) + (len(vectors) if groups is None else groups.distinct)
        if native.get_n_items() != items or native.get_n_trees() != trees:
            raise envelope.corrupt(path, "holds another forest than its frame says")
        largest = math.ldexp(1.0, -exponent) if exponent else 1.0
        return AnnoyIndex(native, vectors.shape, metric, Scaling(exponent, largest), groups, _mapped(path))


ANNOY = AnnoyKind()
"""What the entry point ``annoy`` names."""


def _gap(dim: int) -> int:
    """Item numbers left out, so that their places hold the frame; a place takes at least 12 bytes and the vector."""
    return -(-envelope.BLOCK_BYTES // (4 * dim + 12))


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
