"""k-means in slices: what trains centroids of clusters and codewords of product quantization.

Lloyd's algorithm (Lloyd 1982, "Least Squares Quantization in PCM"), not faiss's ``Clustering``: that one runs for
seconds inside one call, and a build has to be cancellable every half second. Assignment, which is nearly all of the
work, is done by faiss, a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from vectordb.index.base import BuildCancelled
from vectordb.index.native import faiss, native_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLICE_WORK = 4_000_000_000
"""Multiplications of one uninterruptible assignment: about 0.1 s of one thread."""
_WORTH_THREADS = 500_000_000
_SEED = 0x5EED
_SPLIT = 1.0 / 1024.0
"""How far the halves of a split cluster are moved apart, as faiss does it."""


def kmeans(
    sample: NDArray[np.float32], k: int, iterations: int, cancelled: Callable[[], bool], threads: int = 1
) -> NDArray[np.float32]:
    """Centroids float32[k, d] of float32[n, d] under Euclidean distance.

    Fewer than ``k`` rows are centroids themselves, some of them more than once; of no rows all are zero.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    count, dim = sample.shape
    if count == 0:
        return np.zeros((k, dim), np.float32)
    if count <= k:
        return np.ascontiguousarray(sample[np.arange(k) % count], np.float32)
    rng = np.random.default_rng(_SEED)
    centroids = np.ascontiguousarray(sample[np.sort(rng.choice(count, k, replace=False))], np.float32)
    for _ in range(iterations):
        sums, sizes = np.zeros((k, dim)), np.zeros(k, np.int64)
        for start, labels in assignments(sample, centroids, cancelled, threads):
            order = np.argsort(labels, kind="stable")
            near, first = np.unique(labels[order], return_index=True)
            sums[near] += np.add.reduceat(sample[start : start + len(labels)][order], first, axis=0)
            sizes += np.bincount(labels, minlength=k)
        full = sizes > 0
        centroids[full] = sums[full] / sizes[full, None]
        _split(centroids, sizes, rng)
    return centroids


def assignments(
    rows: NDArray[np.float32], centroids: NDArray[np.float32], cancelled: Callable[[], bool], threads: int = 1
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The nearest centroid of each row by Euclidean distance: pairs of a block's first row and int64[m].

    Raises:
        BuildCancelled: ``cancelled()``, asked before each block, turned true.
    """
    step = max(32, _SLICE_WORK * max(1, threads) // max(1, centroids.size))
    for start in range(0, len(rows), step):
        if cancelled():
            raise BuildCancelled
        # Two threads on a little work cost more than they save, on busy processors a hundred times.
        with native_threads(threads if centroids.size * min(step, len(rows)) > _WORTH_THREADS else 1):
            block = np.ascontiguousarray(rows[start : start + step], np.float32)
            _, labels = faiss.knn(block, centroids, 1, faiss.METRIC_L2)
        yield start, np.maximum(labels[:, 0], 0)


def _split(centroids: NDArray[np.float32], sizes: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Gives each empty cluster a part of a large one, in place."""
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        large = rng.choice(len(sizes), len(empty), p=sizes / sizes.sum())
        apart = np.where(np.arange(centroids.shape[1]) % 2 == 0, _SPLIT, -_SPLIT).astype(np.float32)
        centroids[empty] = centroids[large] * (1.0 + apart)
        centroids[large] = centroids[large] * (1.0 - apart)
