"""The only door to faiss: threads, blocks of distances, top-k over a block.

Everything here releases the GIL while it computes and keeps no state but the thread setting. Matrices are float32 and
C-contiguous; distances are turned so that smaller is closer (``vectordb.metric``).

faiss counts OpenMP threads per calling thread. One query spread over two threads burns several times the CPU of one,
so every thread that searches is set to one thread (:func:`single_threaded`), and only a builder raises that, for as
long as it builds (:func:`native_threads`).
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import faiss as _faiss
import numpy as np

from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FAISS_METRIC",
    "block_distances",
    "faiss",
    "inner_products",
    "native_threads",
    "nearest",
    "picked_distances",
    "prefer_large_pages",
    "single_threaded",
    "squared_norms",
]

faiss: Any = _faiss
"""The library; untyped, since the stubs that it ships contradict it."""

FAISS_METRIC: dict[Metric, int] = {
    Metric.COSINE: faiss.METRIC_INNER_PRODUCT,
    Metric.DOT: faiss.METRIC_INNER_PRODUCT,
    Metric.L2: faiss.METRIC_L2,
    Metric.L1: faiss.METRIC_L1,
}
"""How faiss names what ranks prepared vectors under each metric."""

_thread = threading.local()
_LARGE_PAGE = 2 << 20
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
"""For pages to come, and for those that are there already (Linux 6.1); from ``asm-generic/mman-common.h``."""


def single_threaded() -> None:
    """Makes faiss calls of the calling thread use that thread alone. Sets it once a thread; then it is a look-up."""
    if not hasattr(_thread, "single"):
        faiss.omp_set_num_threads(1)
        _thread.single = True


@contextmanager
def native_threads(count: int) -> Iterator[None]:
    """Lets faiss calls of the calling thread use ``count`` threads inside the ``with`` block, then one again."""
    faiss.omp_set_num_threads(max(1, count))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(1)
        _thread.single = True


def prefer_large_pages(address: int, size: int) -> None:
    """Has the system keep a stretch of this process's private memory in large pages, where it can: as if nothing had
    been said where it cannot."""
    first = -(-address // _LARGE_PAGE) * _LARGE_PAGE
    length = (address + size) // _LARGE_PAGE * _LARGE_PAGE - first
    if length <= 0 or not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
        library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), advice)


def squared_norms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared Euclidean lengths of float32[n, d]: float32[n]; they may overflow to infinity."""
    count, dim = vectors.shape
    out = np.empty(count, np.float32)
    faiss.fvec_norms_L2sqr(faiss.swig_ptr(out), faiss.swig_ptr(vectors), dim, count)
    return out


def nearest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], count: int, metric: Metric
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ``count`` nearest rows of float32[n, d] for each query float32[q, d], by directly summed distances.

    Returns:
        Distances float32[q, count], ascending, and positions int64[q, count]. A row whose distance is NaN or
        infinite is left out; positions are -1 where too few rows remain.
    """
    single_threaded()
    distances, positions = faiss.knn(queries, vectors, count, FAISS_METRIC[metric])
    if metric.higher_is_better:
        np.negative(distances, out=distances)
    return distances, positions


def block_distances(query: NDArray[np.float32], vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Directly summed distances of one query float32[d] to every row of float32[n, d]: float32[n]."""
    single_threaded()
    count, dim = vectors.shape
    if metric is Metric.L1:
        matrix: NDArray[np.float32] = faiss.pairwise_distances(query[None], vectors, faiss.METRIC_L1)
        row: NDArray[np.float32] = matrix[0]
        return row
    out = np.empty(count, np.float32)
    kernel = faiss.fvec_L2sqr_ny if metric is Metric.L2 else faiss.fvec_inner_products_ny
    kernel(faiss.swig_ptr(out), faiss.swig_ptr(query), faiss.swig_ptr(vectors), dim, count)
    if metric is not Metric.L2:
        np.negative(out, out=out)
    return out


def picked_distances(
    query: NDArray[np.float32], vectors: NDArray[np.float32], positions: NDArray[np.int64], metric: Metric
) -> NDArray[np.float32]:
    """Directly summed distances of one query float32[d] to some rows of float32[n, d], read in place: float32[k].

    A third of the time that copying those rows out takes. Not for l1, which has no such kernel.

    Args:
        positions: int64[k], each at least 0 and less than n: nothing checks it.
    """
    single_threaded()
    out = np.empty(len(positions), np.float32)
    kernel = faiss.fvec_L2sqr_by_idx if metric is Metric.L2 else faiss.fvec_inner_products_by_idx
    pointers = [faiss.swig_ptr(array) for array in (out, query, vectors, positions)]
    kernel(*pointers, vectors.shape[1], 1, len(positions))
    if metric is not Metric.L2:
        np.negative(out, out=out)
    return out


def inner_products(queries: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """All inner products of float32[q, d] with float32[n, d], by one matrix product on this thread: float32[q, n].

    Not numpy's ``@``: its BLAS wakes a pool of threads that spin on, while faiss's obeys :func:`single_threaded`. A
    linear transform is faiss's way to that matrix product; three times as fast as direct sums for a hundred queries.
    """
    single_threaded()
    count, dim = vectors.shape
    product = faiss.LinearTransform(dim, len(queries), False)
    faiss.copy_array_to_vector(np.ascontiguousarray(queries).ravel(), product.A)
    product.is_trained = True
    out = np.empty((count, len(queries)), np.float32)
    product.apply_noalloc(count, faiss.swig_ptr(vectors), faiss.swig_ptr(out))
    return np.ascontiguousarray(out.T)
