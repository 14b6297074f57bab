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
from vectordb.index.hnsw_links import Bytes, choose_bytes
from vectordb.index.hnsw_storage import (
    CEILING,
    Storage,
    choose_exponent,
    choose_storage,
    half_ceiling,
    largest_component,
)
from vectordb.index.native import FAISS_METRIC, faiss, native_threads
from vectordb.index.space import Space
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLICE_WORK = 1_024 * 512 * 200
"""Rows x (dims + _ROW_WORK) x ef_construction of one uninterruptible add: about 0.3 s of one thread.

faiss links the rows of an add in batches of 1, 1, 2, 4, ... up to 2 % of the graph, and in the small ones threads wait
for each other.
"""
_ROW_WORK = 128
"""Dimensions that cost as much as all else that is done with a row."""


class Shape(NamedTuple):
    """What a graph is to be: links a row, beam width while building, and how rows are kept in the end."""

    m: int
    ef_construction: int
    codec: Codec = Codec()


def build(vectors: NDArray[np.float32], metric: Metric, options: BuildOptions, shape: Shape) -> Graph:
    """A new graph over prepared vectors float32[n, d].

    Rows are linked as bytes where those rank them well enough (``hnsw_links``), else as they are stored. What the graph
    keeps is put in their place when it stands; under a quantization that is codes, which would make worse links.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    groups = grouped(vectors, options.cancelled)
    rows = Rows(vectors) if groups is None else Rows(vectors, groups.rows[groups.starts[:-1]].astype(np.int64))
    if shape.codec.name == "fp16":
        storage = Storage(True, choose_exponent(largest_component(rows, options.cancelled)))
    else:
        storage = choose_storage(rows, metric, options.cancelled)
    # Rows that need single precision are too close for bytes.
    coarse = choose_bytes(rows, metric, options.cancelled) if storage.half else None
    native = _empty(rows.dim, metric, storage, shape.m)
    native.hnsw.efConstruction = shape.ef_construction
    graph = Graph(native, storage, groups, shape.codec)
    if coarse is None:
        _add(native, rows, storage, options)
    else:
        _add_as_bytes(graph, rows, metric, coarse, options)
    return hnsw_codes.encoded(graph, vectors, rows, metric, options) if hnsw_codes.has_codes(graph) else graph


def _add_as_bytes(graph: Graph, rows: Rows, metric: Metric, coarse: Bytes, options: BuildOptions) -> None:
    """Links rows as bytes, and leaves the rows themselves in their place, but where codes are to follow."""
    native, space = graph.native, Space(metric, rows.dim, graph.storage.exponent, inner=False)
    form = faiss.ScalarQuantizer.QT_8bit_direct_signed
    kept = hnsw_codes.swap(native, hnsw_codes.scalar_store(rows.dim, form, space.native_metric))
    try:
        _add(native, rows, coarse, options)
    finally:
        # The bytes are freed before the rows come.
        hnsw_codes.swap(native, kept)
    if not hnsw_codes.has_codes(graph):
        hnsw_codes.fill(kept, space, rows, options)


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
        CannotExtend: The new rows leave the range of the stored ones, need more than their half precision, or do not
            fit the codes.
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    if shape[0] == 0:
        raise CannotExtend("the graph is empty")
    groups, fresh = regrouped(vectors, shape[0], graph.groups, options.cancelled)
    rows = Rows(vectors[shape[0] :]) if fresh is None else Rows(vectors, fresh)
    if not graph.storage.fits(rows, options.cancelled):
        raise CannotExtend("the new rows exceed the range of the stored ones")
    chosen = graph.codec.name != "fp16"
    if (
        chosen
        and graph.storage.half
        and half_ceiling(rows, metric, graph.storage.exponent, options.cancelled) < CEILING
    ):
        raise CannotExtend("the new rows need single precision")
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
    if not storage.half:
        return faiss.IndexHNSWFlat(dim, m, native_metric)
    native = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, m, native_metric)
    native.train(np.zeros((1, dim), np.float32))  # half precision has nothing to learn; faiss wants the call
    return native


def _add(native: Any, rows: Rows, form: Storage | Bytes, options: BuildOptions) -> None:
    """Adds rows in slices whose size depends on no clock, so that builds with one thread repeat.

    They are added in random order, and renumbered in the end: rows that lie together often come together too, and a
    graph that grows from one corner to the next has worse long links (116,659 embedded WordNet glosses in the
    dictionary's order: a recall of 0.99 takes a beam of 106, in random order one of 80).
    """
    held = int(native.ntotal)
    order = np.random.default_rng(rows.count).permutation(rows.count)
    shuffled = Rows(rows.vectors, order if rows.picked is None else rows.picked[order])
    step = max(16, min(4_096, _SLICE_WORK // ((rows.dim + _ROW_WORK) * int(native.hnsw.efConstruction))))
    step *= max(1, options.threads)
    for start in range(0, rows.count, step):
        if options.cancelled():
            raise BuildCancelled
        block = form.scaled(shuffled.block(start, start + step))
        with native_threads(options.threads + options.more_threads()):
            native.add_c(len(block), faiss.swig_ptr(block))
        options.progress(min(1.0, (start + step) / rows.count))
    if options.cancelled():
        raise BuildCancelled
    places = np.arange(held + rows.count)
    places[held:] = held + np.argsort(order)
    native.permute_entries(places)
    options.progress(1.0)
