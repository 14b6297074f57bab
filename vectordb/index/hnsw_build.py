"""Building and extending graphs, in slices that can be cancelled between."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.index import hnsw_codes, hnsw_file
from vectordb.index.base import BuildCancelled, BuildOptions, CannotExtend
from vectordb.index.codes import Codec
from vectordb.index.duplicates import Rows, grouped, regrouped
from vectordb.index.hnsw_file import Graph
from vectordb.index.hnsw_storage import (
    Precision,
    Storage,
    choose_exponent,
    choose_storage,
    largest_component,
)
from vectordb.index.native import FAISS_METRIC, faiss, native_threads, prefer_large_pages
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLICE_WORK = 1_024 * 512 * 200
"""Rows x (dims + _ROW_WORK) x ef_construction of an uninterruptible add by one thread: about 0.3 s; half as long again
by several.

faiss links the rows of an add in batches of 1, 1, 2, 4, ... up to 2 % of the graph, and in the small ones threads wait
for each other.
"""
_ROW_WORK = 128
"""Dimensions that cost as much as all else that is done with a row."""


_KEPT = {
    Precision.HALF: faiss.ScalarQuantizer.QT_fp16,
    Precision.BYTE: faiss.ScalarQuantizer.QT_8bit_direct_signed,
}


class Shape(NamedTuple):
    """What a graph is to be: links a row, beam width while building, and how rows are kept in the end."""

    m: int
    ef_construction: int
    codec: Codec = Codec()


def build(vectors: NDArray[np.float32], metric: Metric, options: BuildOptions, shape: Shape) -> Graph:
    """A new graph over prepared vectors float32[n, d].

    Under a quantization the graph is built over rows as they are, at half precision where that is harmless, and the
    codes put in their place when it stands: links made by what codes say would be worse ones. A lean build links the
    codes of ``sq8``.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    groups = grouped(vectors, options.cancelled)
    rows = Rows(vectors) if groups is None else Rows(vectors, groups.rows[groups.starts[:-1]].astype(np.int64))
    if options.lean and shape.codec.name == hnsw_codes.LEAN and rows.count:
        made = hnsw_codes.lean((shape.m, shape.ef_construction), vectors, rows, metric, options)
        _add(made.native, rows, made.storage, options)
        return made._replace(groups=groups)
    if shape.codec.name == "fp16":
        exponent = choose_exponent(largest_component(rows, options.cancelled))
        storage = Storage.floats(Precision.HALF, exponent)
    else:
        # Where a row has many copies, a hit more or less is a whole island of them: no place for a blurred order.
        lowest = Precision.BYTE if shape.codec == Codec() and groups is None else Precision.HALF
        storage = choose_storage(rows, metric, options.cancelled, lowest)
    native = _empty(rows.dim, metric, storage, shape.m)
    native.hnsw.efConstruction = shape.ef_construction
    _add(native, rows, storage, options)
    graph = Graph(native, storage, groups, shape.codec)
    return hnsw_codes.encoded(graph, vectors, rows, metric, options) if hnsw_codes.has_codes(graph) else graph


def extend(
    graph: Graph,
    path: Path | None,
    shape: tuple[int, ...],
    vectors: NDArray[np.float32],
    metric: Metric,
    options: BuildOptions,
) -> Graph:
    """A new graph over float32[n + m, d], whose first n rows ``graph`` holds.

    Args:
        graph: Left as it is.
        path: The file that it is mapped from, or None if it is in memory.
        shape: (n, d), what ``graph`` is over.
        vectors: float32[n + m, d], prepared.
        metric: The metric.
        options: Threads, cancellation, progress.

    Raises:
        CannotExtend: The new rows leave the range of the stored ones, need more than their precision, or do not fit
            the codes.
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    if shape[0] == 0:
        raise CannotExtend("the graph is empty")
    groups, fresh = regrouped(vectors, shape[0], graph.groups, options.cancelled)
    rows = Rows(vectors[shape[0] :]) if fresh is None else Rows(vectors, fresh)
    if not graph.storage.fits(rows, options.cancelled):
        raise CannotExtend("the new rows exceed the range of the stored ones")
    if graph.codec.name != "fp16":
        graph.storage.require_fit(rows, metric, options.cancelled)
    if path is None:
        native = faiss.clone_index(graph.native)
    else:
        # A mapped graph cannot grow, nor can a copy of it.
        native = hnsw_file.read(path, shape, metric, mapped=False).native
    grown = graph._replace(native=native, groups=groups)
    if not hnsw_codes.has_codes(graph):
        _add(native, rows, graph.storage, options)
        return grown
    hnsw_codes.require_fit(graph, vectors[shape[0] :], metric, len(vectors))
    if options.lean and graph.codec.name == hnsw_codes.LEAN:
        _add(native, rows, graph.storage, options)
        return grown
    held = vectors[: shape[0]]
    nodes = (
        Rows(held) if graph.groups is None else Rows(held, graph.groups.rows[graph.groups.starts[:-1]].astype(np.int64))
    )
    with hnsw_codes.full_rows(grown, nodes, metric, options) as store:
        _add(native, rows, graph.storage, options)
        hnsw_codes.add(store, grown, rows, metric, options)
    return grown


def _empty(dim: int, metric: Metric, storage: Storage, m: int) -> Any:
    native_metric = FAISS_METRIC[Metric.L2 if metric is Metric.COSINE else metric]
    if storage.precision is Precision.SINGLE:
        return faiss.IndexHNSWFlat(dim, m, native_metric)
    native = faiss.IndexHNSWSQ(dim, _KEPT[storage.precision], m, native_metric)
    native.train(np.zeros((1, dim), np.float32))  # neither has anything to learn; faiss wants the call
    return native


def _add(native: Any, rows: Rows, storage: Storage, options: BuildOptions) -> None:
    """Adds rows in slices whose size depends on no clock, so that builds with one thread repeat.

    They are added in random order, and renumbered in the end: rows that lie together often come together too, and a
    graph that grows from one corner to the next has worse long links (116,659 embedded WordNet glosses in the
    dictionary's order: a recall of 0.99 takes a beam of 106, in random order one of 80). Those of the upper levels come
    first, as faiss does it within one add.
    """
    held = int(native.ntotal)
    rng = np.random.default_rng(rows.count)
    order = rng.permutation(rows.count)
    shuffled = Rows(rows.vectors, order if rows.picked is None else rows.picked[order])
    levels = _levels(native, rows.count, rng)
    _reserve(native, levels)
    start = 0
    while start < rows.count:
        if options.cancelled():
            raise BuildCancelled
        threads = options.threads + options.more_threads()
        stop = min(rows.count, start + _slice(native, threads))
        block = storage.stored(shuffled.block(start, stop))
        # Levels that are there already faiss takes over.
        faiss.copy_array_to_vector(levels[: held + stop], native.hnsw.levels)
        with native_threads(threads):
            native.add_c(len(block), faiss.swig_ptr(block))
        options.progress(stop / rows.count)
        start = stop
    if options.cancelled():
        raise BuildCancelled
    places = np.arange(held + rows.count)
    places[held:] = held + np.argsort(order)
    native.permute_entries(places)
    options.progress(1.0)


def _slice(native: Any, threads: int) -> int:
    """Rows of the next add."""
    step = max(16, min(4_096, _SLICE_WORK // ((int(native.d) + _ROW_WORK) * int(native.hnsw.efConstruction))))
    if threads == 1:
        return step
    # Batches of up to 100 rows are linked by one thread: 128 rows of each level of an add, and all while 2 % of the
    # graph are no more than that. But rows of one batch do not see each other: larger slices find a little less.
    step = 3 * step * threads // 2
    return step if native.ntotal else 2 * step


def _levels(native: Any, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Of the rows that are held and of as many new ones, drawn as faiss does, the highest first: 1 for the ground."""
    chances = faiss.vector_to_array(native.hnsw.assign_probas)
    drawn = np.searchsorted(np.cumsum(chances), rng.random(count), side="right")
    drawn = np.sort(np.minimum(drawn, len(chances) - 1))[::-1] + 1
    return np.concatenate([faiss.vector_to_array(native.hnsw.levels), drawn.astype(np.int32)])


def _reserve(native: Any, levels: NDArray[np.int32]) -> None:
    """Gives a graph the memory for all its rows and links at once, in large pages where the system has them.

    A walk reads rows and links at random: in small pages it also waits for their places to be looked up.
    """
    if not len(levels):
        return
    hnsw, store = native.hnsw, faiss.downcast_index(native.storage)
    links = np.array([hnsw.cum_nb_neighbors(level) for level in range(int(levels.max()) + 1)])[levels]
    for array, size, width in (
        (store.codes, len(levels) * int(store.code_size), 1),
        (hnsw.neighbors, int(links.sum()), 4),
    ):
        held = array.size()
        array.resize(size)
        prefer_large_pages(int(array.data()), size * width)
        array.resize(held)
