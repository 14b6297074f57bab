"""Codes in the place of a graph's rows.

A graph only asks its storage how far a query is from a row, so any codes will do that can be read one by one. Links are
made from full rows, before, but by :func:`lean`: measured on text embeddings, a graph that searches codes of 48 bytes
and has the best of 84 candidates rescored finds 0.996 of 10 neighbours (``pq``), 0.993 (``rabitq``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import Corruption, ResourceExhausted
from vectordb.index import codes, hnsw_file
from vectordb.index.base import BuildOptions, CannotExtend
from vectordb.index.codes import Codec
from vectordb.index.duplicates import Rows
from vectordb.index.hnsw_file import Graph
from vectordb.index.hnsw_storage import Precision, Storage, ceiling, choose_exponent, largest_component
from vectordb.index.native import faiss
from vectordb.index.space import Space
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 8_192


def has_codes(graph: Graph) -> bool:
    """Whether it keeps codes; half precision is a way of keeping rows."""
    return graph.codec.name not in ("none", "fp16")


def space_of(graph: Graph, metric: Metric) -> Space:
    """The space that its codes are in: distances as the graph compares them."""
    rotated = has_codes(graph) and graph.codec.rotates
    return Space(metric, int(graph.native.d), graph.storage.exponent, rotated, inner=False)


def encoded(graph: Graph, vectors: NDArray[np.float32], rows: Rows, metric: Metric, options: BuildOptions) -> Graph:
    """A graph with codes of its rows in their place, learned from them or taken over from ``options.trained``.

    Args:
        graph: Over full rows; it is changed.
        vectors: float32[n, d], prepared.
        rows: Those that its nodes stand for.
        metric: The metric.
        options: Threads, cancellation.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    space = space_of(graph, metric)
    found = _taken_over(graph, vectors, metric, options)
    if found is None:
        store = codes.flat_index(graph.codec, space, random_access=True)
        quiet = BuildOptions(threads=options.threads, cancelled=options.cancelled)
        codes.train_flat(store, graph.codec, space, vectors, quiet)
        found = store, codes.error(store, graph.codec, space.held_out(vectors)), len(vectors)
    store, error, learned = found
    add(store, graph, rows, metric, options)
    _swap(graph.native, store)
    return graph._replace(error=error, learned=learned)


LEAN = "sq8"
"""Codes so fine that links made from them find as much as those made from rows: 0.982 and 0.980 of 10 neighbours among
15,000 text embeddings at a beam of 64, for the same time of one processor."""
_LEAN_CEILING = 0.9
"""The least share of the true neighbours that an exact search over such codes must find. Rescored from twice as many
candidates, what it misses is mostly found."""


def lean(
    shape: tuple[int, int], vectors: NDArray[np.float32], rows: Rows, metric: Metric, options: BuildOptions
) -> Graph:
    """An empty graph that has learned to keep codes of its rows from the start: a quarter of what rows take.

    Args:
        shape: Links a row, beam width while building.
        vectors: float32[n, d], prepared.
        rows: Those that its nodes will stand for.

    Raises:
        ResourceExhausted: The codes cannot tell these rows apart well enough.
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    exponent = choose_exponent(largest_component(rows, options.cancelled))
    space = Space(metric, rows.dim, exponent, inner=False)
    native = faiss.IndexHNSWSQ(rows.dim, faiss.ScalarQuantizer.QT_8bit, shape[0], space.native_metric)
    native.hnsw.efConstruction = shape[1]
    native.train(codes.ranges(space, vectors, options.cancelled))
    coder = faiss.downcast_index(native.storage).sq

    def rounding(block: NDArray[np.float32]) -> NDArray[np.float32]:
        rounded: NDArray[np.float32] = coder.decode(coder.compute_codes(block))
        return rounded

    kept = ceiling(rows, metric, exponent, options.cancelled, rounding)
    if kept < _LEAN_CEILING:
        raise ResourceExhausted(
            f"codes of 8 bits, which would fit into memory, find only {kept:.2f} of the neighbours: raise memory_limit",
            resource="memory",
        )
    codec = Codec(LEAN)
    error = codes.error(faiss.downcast_index(native.storage), codec, space.held_out(vectors))
    return Graph(native, Storage.floats(Precision.SINGLE, exponent), None, codec, error=error, learned=len(vectors))


def add(store: Any, graph: Graph, rows: Rows, metric: Metric, options: BuildOptions) -> None:
    """Adds codes of rows to a store."""
    quiet = BuildOptions(threads=options.threads, cancelled=options.cancelled)
    step = codes.step_of(graph.codec, rows.dim, options.threads)
    codes.add(store, space_of(graph, metric), rows, quiet, step)


@contextmanager
def full_rows(graph: Graph, nodes: Rows, metric: Metric, options: BuildOptions) -> Iterator[Any]:
    """Puts the rows themselves back in the place of the codes, so that a graph can grow; yields the store of codes.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    native = graph.native
    space = Space(metric, nodes.dim, graph.storage.exponent, inner=False)
    if graph.storage.precision is Precision.HALF:
        full = faiss.IndexScalarQuantizer(nodes.dim, faiss.ScalarQuantizer.QT_fp16, space.native_metric)
        full.train(np.zeros((1, nodes.dim), np.float32))
    else:
        full = faiss.IndexFlat(nodes.dim, space.native_metric)
    quiet = BuildOptions(threads=options.threads, cancelled=options.cancelled)
    codes.add(full, space, nodes, quiet, _BLOCK)
    store = _swap(native, full)
    try:
        yield store
    finally:
        _swap(native, store)


def require_fit(graph: Graph, vectors: NDArray[np.float32], metric: Metric, rows: int) -> None:
    """Checks that its codes suit more rows, ``rows`` in all.

    Raises:
        CannotExtend: They do not.
    """
    codes.require_enough(graph.codec, rows, graph.learned)
    sample = space_of(graph, metric).held_out(vectors)
    error = codes.error(faiss.downcast_index(graph.native.storage), graph.codec, sample)
    codes.require_fit(graph.codec, error, graph.error)


def _swap(native: Any, store: Any) -> Any:
    """Gives a graph another store; returns the old one, now the caller's."""
    old = faiss.downcast_index(native.storage)
    native.storage = store
    store.this.disown()
    old.this.own(True)
    return old


def _taken_over(
    graph: Graph, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions
) -> tuple[Any, float, int] | None:
    """An empty store that has learned what an earlier graph's did, its error and from how many rows; or None."""
    if options.trained is None or len(vectors) == 0:
        return None
    try:
        earlier = hnsw_file.learned(options.trained, metric, vectors.shape[1])
        if (earlier.codec, earlier.storage.scale) != (graph.codec, graph.storage.scale):
            return None
        require_fit(earlier, vectors, metric, len(vectors))
    except (Corruption, CannotExtend):
        return None
    store = faiss.clone_index(faiss.downcast_index(earlier.native.storage))
    store.reset()
    return store, earlier.error, earlier.learned
