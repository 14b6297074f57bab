"""Building and extending lists of clusters, in slices that can be cancelled between."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.errors import Corruption
from vectordb.index import codes, faiss_file
from vectordb.index.base import BuildOptions, CannotExtend, Capabilities
from vectordb.index.codes import Codec
from vectordb.index.duplicates import Rows
from vectordb.index.kmeans import assignments, kmeans
from vectordb.index.native import faiss
from vectordb.index.native_index import Parts, in_memory, restored
from vectordb.index.space import Space
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS_PER_LIST = 64
"""Rows of the sample for each centroid."""
_MOST_SAMPLE_BYTES = 1 << 30
_ITERATIONS = 10
_LIST_FACTOR = 4.0
_LEAST_ROWS = 8
"""A list wants at least so many rows."""
_GROWTH = 2.0
"""Lists are kept until so many times more, or fewer, would be chosen for the rows that there are."""
_SLICE_WORK = 4_000_000_000


class Lists(NamedTuple):
    """What makes one kind of clusters: its kind's name and capabilities, how rows are kept, the oversampling, and the
    number of lists (0: by the rows)."""

    kind: str
    capabilities: Capabilities
    codec: Codec
    oversampling: float
    nlist: int

    @property
    def inner(self) -> bool:
        """Whether cosine is searched by inner product."""
        return self.codec.name != "none"

    def count(self, rows: int) -> int:
        """How many lists to make for so many rows."""
        wanted = self.nlist or round(_LIST_FACTOR * math.sqrt(rows))
        return max(1, min(wanted, rows if self.nlist else rows // _LEAST_ROWS))


def build(lists: Lists, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> Parts:
    """Puts prepared rows float32[n, d] into lists; takes over what ``options.trained`` has learned where it fits.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    parts = _taken_over(lists, vectors, metric, options)
    if parts is None:
        rotated = lists.codec.rotates
        space = Space.of(vectors, metric, options.cancelled, rotated=rotated, inner=lists.inner)
        parts = _trained(lists, space, vectors, options)
    _add(parts, vectors, options)
    return parts


def extend(lists: Lists, parts: Parts, vectors: NDArray[np.float32], options: BuildOptions) -> Parts:
    """New lists over float32[n + m, d], whose first n rows ``parts`` holds; it is left as it is.

    Raises:
        CannotExtend: Centroids or codes do not fit the new rows, or there are too few lists for so many.
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    held = int(parts.native.ntotal)
    if held == 0:
        raise CannotExtend("there is nothing in the lists")
    _require_fit(lists, parts, vectors[held:], len(vectors), options)
    grown = parts._replace(native=in_memory(lists.kind, parts), path=None)
    _add(grown, vectors[held:], options)
    return grown


def centroids_of(native: Any) -> NDArray[np.float32]:
    """The centroids, as faiss sees them: float32[nlist, d]."""
    found: NDArray[np.float32] = faiss.downcast_index(native.quantizer).reconstruct_n(0, int(native.nlist))
    return found


def _trained(lists: Lists, space: Space, vectors: NDArray[np.float32], options: BuildOptions) -> Parts:
    codec, nlist = lists.codec, lists.count(len(vectors))
    most = max(nlist, _MOST_SAMPLE_BYTES // (4 * space.dim))
    # Equal rows make equal centroids, one of which has them all while a search reads the others.
    sample = space.distinct_sample(vectors, min(_ROWS_PER_LIST * nlist, most), options.cancelled)
    nlist = max(1, min(nlist, len(sample)))
    centroids = kmeans(sample, nlist, _ITERATIONS, options.cancelled, options.threads)
    quantizer = faiss.IndexFlat(space.dim, space.native_metric)
    quantizer.add(centroids)
    native = _empty(codec, space, quantizer, nlist)
    if codec.name == "sq8":
        native.sq.train(codes.ranges(space, vectors, options.cancelled))
    elif codec.name == "pq":
        words = codes.learned_codewords(codec, _residuals(native, centroids, space, vectors, options), options)
        codes.set_codewords(native.pq, words)
        native.precompute_table()
    native.is_trained = True
    parts = Parts(native, codec, space, (), len(vectors))
    return parts._replace(errors=_errors(parts, space.held_out(vectors), options))


def _empty(codec: Codec, space: Space, quantizer: Any, nlist: int) -> Any:
    dim, metric = space.dim, space.native_metric
    if codec.name == "none":
        return faiss.IndexIVFFlat(quantizer, dim, nlist, metric)
    if codec.name == "rabitq":
        return faiss.IndexIVFRaBitQ(quantizer, dim, nlist, metric)
    if codec.name == "pq":
        kind = faiss.IndexIVFPQFastScan if codec.fast else faiss.IndexIVFPQ
        native = kind(quantizer, dim, nlist, codec.m, codec.nbits, metric)
        native.by_residual = space.by_product
        return native
    of = faiss.ScalarQuantizer.QT_fp16 if codec.name == "fp16" else faiss.ScalarQuantizer.QT_8bit
    return faiss.IndexIVFScalarQuantizer(quantizer, dim, nlist, of, metric, False)


def _residuals(
    native: Any, centroids: NDArray[np.float32], space: Space, vectors: NDArray[np.float32], options: BuildOptions
) -> NDArray[np.float32]:
    """What product quantization learns from: a sample of rows, less their centroids where that is what it encodes."""
    sample = space.sample(vectors, codes.pq_sample(native.pq.nbits))
    return _less_centroids(sample, centroids, options) if native.by_residual else sample


def _less_centroids(
    rows: NDArray[np.float32], centroids: NDArray[np.float32], options: BuildOptions
) -> NDArray[np.float32]:
    out = rows.copy()
    for start, labels in assignments(rows, centroids, options.cancelled, options.threads):
        out[start : start + len(labels)] -= centroids[labels]
    return out


def _errors(parts: Parts, sample: NDArray[np.float32], options: BuildOptions) -> tuple[float, ...]:
    """How badly centroids describe rows as faiss sees them, and how badly the codes do: mean squared errors."""
    if len(sample) == 0:
        return 0.0, 0.0
    residuals = _less_centroids(sample, centroids_of(parts.native), options)
    coded = residuals if getattr(parts.native, "by_residual", False) else sample
    codec = Codec() if parts.codec.name == "rabitq" else parts.codec  # centred on the centroids
    return float(np.square(residuals).mean()), codes.error(parts.native, codec, coded)


def _add(parts: Parts, vectors: NDArray[np.float32], options: BuildOptions) -> None:
    """Adds rows to the lists of their nearest centroids."""
    native, space = parts.native, parts.space
    work = space.dim * int(native.nlist) + (space.dim << parts.codec.nbits if parts.codec.name == "pq" else 0)
    step = max(64, min(65_536, _SLICE_WORK // (4 * work))) * max(1, options.threads)
    probing = native.quantizer
    nearest_first = faiss.IndexFlat(space.dim, faiss.METRIC_L1 if space.metric is Metric.L1 else faiss.METRIC_L2)
    nearest_first.add(centroids_of(native))
    native.quantizer = nearest_first
    try:
        codes.add(native, space, Rows(vectors), options, step)
    finally:
        native.quantizer = probing


def _require_fit(lists: Lists, parts: Parts, vectors: NDArray[np.float32], rows: int, options: BuildOptions) -> None:
    """Checks that what was learned suits more rows, ``rows`` in all.

    Raises:
        CannotExtend: It does not.
    """
    nlist, wanted = int(parts.native.nlist), lists.count(rows)
    if not nlist <= _GROWTH * wanted or not wanted <= _GROWTH * nlist or (lists.nlist and nlist != wanted):
        raise CannotExtend(f"{rows} rows want {wanted} lists, there are {nlist}")
    codes.require_enough(parts.codec, rows, parts.learned)
    parts.space.require_fit(vectors, options.cancelled)
    found = _errors(parts, parts.space.held_out(vectors), options)
    codes.require_fit(Codec(), found[0], parts.errors[0])
    codes.require_fit(parts.codec, found[1], parts.errors[1])


def _taken_over(lists: Lists, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> Parts | None:
    """Empty lists that have learned what earlier ones did, or None where there are none that fit."""
    if options.trained is None or len(vectors) == 0:
        return None
    try:
        stored = faiss_file.learned(options.trained, lists.kind, metric, vectors.shape[1])
        parts = restored(options.trained, stored, metric, inner=lists.inner, mapped=False)
        if parts.codec != lists.codec:
            return None
        _require_fit(lists, parts, vectors, len(vectors), options)
    except (Corruption, CannotExtend):
        return None
    parts.native.reset()
    return parts
