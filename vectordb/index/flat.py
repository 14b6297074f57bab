"""Kind ``flat``: no structure at all. Every vector is compared, for every metric; the measure of all other kinds.

Under a quantization its codes are compared instead (``compressed``): a small and fast scan, but no longer exact.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectordb.errors import Corruption
from vectordb.index import compressed
from vectordb.index.base import BuildCancelled, BuildOptions, Capabilities, Neighbours, Params
from vectordb.index.codes import Codec
from vectordb.index.compressed import CodeIndex, CodeScan
from vectordb.index.exact import Candidates, exact_candidates, largest_norm, merged
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = struct.Struct("<8sQII")
_MAGIC = b"VDBFLAT1"
_METRICS = tuple(Metric)
_SLICE_BYTES = 8 << 20


class FlatIndex:
    """Exact search over one matrix. Thread-safe; keeps the matrix that it was given and nothing else.

    Args:
        vectors: float32[n, d], prepared, C-contiguous; may be memory-mapped.
        metric: The metric.
        max_norm: At least the greatest Euclidean length of a row.
    """

    def __init__(self, vectors: NDArray[np.float32], metric: Metric, max_norm: float) -> None:
        self._vectors = vectors
        self._metric = metric
        self._max_norm = max_norm
        self._slice = max(1, _SLICE_BYTES // (4 * max(1, vectors.shape[1])))

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`. Rows of equal distance ascend by position."""
        del params  # there are none
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        parts = list(self._parts(queries, limit, allowed))
        rows = np.full((len(queries), limit), -1, np.int64)
        distances = np.full((len(queries), limit), np.inf, np.float32)
        if not parts or not len(queries):
            return Neighbours(rows, distances, 0)
        best = merged(parts, limit)
        width = min(limit, best.rows.shape[1])
        rows[:, :width] = best.rows[:, :width]
        distances[:, :width] = best.distances[:, :width]
        return Neighbours(rows, distances, best.scored)

    def _parts(self, queries: NDArray[np.float32], limit: int, allowed: NDArray[np.uint8] | None) -> list[Candidates]:
        """Candidates slice by slice, so that nothing native runs for long; their rows numbered as in the matrix."""
        count = len(self._vectors)
        positions = None
        if allowed is not None:
            positions = np.flatnonzero(np.unpackbits(allowed, count=count, bitorder="little"))
            count = len(positions)
        parts = []
        for start in range(0, count, self._slice):
            if positions is None:
                block = self._vectors[start : start + self._slice]
            else:
                block = self._vectors[positions[start : start + self._slice]]
            found = exact_candidates(queries, block, limit, self._metric, max_norm=self._max_norm)
            if positions is None:
                found.rows[found.rows >= 0] += start
            else:
                # -1 reads some row here and is put back after.
                np.copyto(found.rows, positions[found.rows + start], where=found.rows >= 0)
            parts.append(found)
        return parts

    def extended(self, vectors: NDArray[np.float32], build: BuildOptions) -> FlatIndex:
        """See :meth:`vectordb.index.base.GrowingIndex.extended`. Reads the new rows once."""
        longest = _longest(vectors[len(self._vectors) :], build)
        return FlatIndex(vectors, self._metric, max(self._max_norm, longest))

    def save(self, path: Path) -> None:
        """Writes the shape, metric and greatest length; the vectors are the segment's own file."""
        count, dim = self._vectors.shape
        header = _FILE.pack(_MAGIC, count, dim, _METRICS.index(self._metric))
        path.write_bytes(header + struct.pack("<d", self._max_norm))

    def memory_bytes(self) -> int:
        """Nothing beside the vectors, which the segment owns."""
        return 0


class FlatKind:
    """The kind ``flat``."""

    name = "flat"
    capabilities = Capabilities(
        maps=True,
        family="exact",
        metrics=frozenset(Metric),
        filtered=True,
        extends=True,
        exact=True,
        min_filtered_selectivity=0.0,
        quantizations={
            **dict.fromkeys(("fp16", "sq8", "pq", "rabitq"), frozenset({Metric.COSINE, Metric.DOT, Metric.L2})),
            # Signs estimate angles; vectors of different length under dot and l2 are ordered otherwise.
            "binary": frozenset({Metric.COSINE}),
        },
    )

    def build(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> FlatIndex | CodeIndex:
        """Measures the greatest length in slices, keeping a reference to ``vectors``; or encodes them."""
        scan = self._scan(vectors, options)
        if scan is not None:
            return compressed.build(scan, vectors, metric, options)
        return FlatIndex(vectors, metric, _longest(vectors, options))

    def load(
        self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions
    ) -> FlatIndex | CodeIndex:
        """See :meth:`vectordb.index.base.IndexKind.load`.

        Raises:
            Corruption: The file is not of this kind, or belongs to another matrix or metric.
        """
        scan = self._scan(vectors, options)
        if scan is not None:
            return compressed.load(scan, path, vectors, metric)
        data = path.read_bytes()
        if len(data) != _FILE.size + 8 or data[:8] != _MAGIC:
            raise Corruption(f"'{path}' is not a flat index file; delete it to have it rebuilt", path=str(path))
        _, count, dim, code = _FILE.unpack_from(data)
        if (count, dim) != vectors.shape or code != _METRICS.index(metric):
            raise Corruption(
                f"'{path}' is for {count} rows of dim {dim}, its segment has {len(vectors)} of dim "
                f"{vectors.shape[1]} under {metric}; delete it to have it rebuilt",
                path=str(path),
            )
        (max_norm,) = struct.unpack_from("<d", data, _FILE.size)
        return FlatIndex(vectors, metric, max_norm)

    def _scan(self, vectors: NDArray[np.float32], options: BuildOptions) -> CodeScan | None:
        spec = options.quantization
        if spec is None:
            return None
        codec = Codec.of(spec, vectors.shape[1])
        return CodeScan(self.name, self.capabilities, codec, float(spec.params["oversampling"]))


FLAT = FlatKind()
"""What the entry point ``flat`` names."""


def _longest(vectors: NDArray[np.float32], options: BuildOptions) -> float:
    """At least the greatest Euclidean length of a row."""
    step = max(1, _SLICE_BYTES // (4 * max(1, vectors.shape[1])))
    longest = 0.0
    for start in range(0, len(vectors), step):
        if options.cancelled():
            raise BuildCancelled
        longest = max(longest, largest_norm(np.ascontiguousarray(vectors[start : start + step])))
        options.progress(start / len(vectors))
    if options.cancelled():
        raise BuildCancelled
    options.progress(1.0)
    return longest
