"""Full scans over codes: what ``flat`` is under a quantization, and what ``lsh`` is.

Every row's code is compared, so nothing is missed but what the codes cannot tell apart: candidates are over-fetched and
scored from the full vectors. A filter costs nothing in recall, and saves time where the codes can be picked out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.errors import Corruption
from vectordb.index import codes, envelope, faiss_file
from vectordb.index.base import BuildOptions, CannotExtend, Capabilities, Effort, Parameter, Params
from vectordb.index.codes import Codec
from vectordb.index.duplicates import Rows
from vectordb.index.faiss_file import Owner
from vectordb.index.native import faiss
from vectordb.index.native_index import Found, NativeIndex, Parts, in_memory, restored
from vectordb.index.space import Space
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

OVERSAMPLING = "oversampling"


_BYTE = {
    "fp16": 3.0e-5,
    "sq8": 6.0e-5,
    "pq": 3.3e-4,
    "fast": 1.5e-5,
    "rabitq": 1.5e-4,
    "bits": 4.5e-5,
    "planes": 2.6e-5,
}
"""Microseconds of one thread to compare a byte of a code; 20,000 and 100,000 text embeddings of 384 dimensions."""
_CALL = 45.0
"""Microseconds that a scan takes besides: turning the query, tables, choosing the best."""


class CodeScan(NamedTuple):
    """What makes one kind of scan: its kind's name and capabilities, how it keeps rows, and the oversampling."""

    kind: str
    capabilities: Capabilities
    codec: Codec
    oversampling: float


class CodeIndex(NativeIndex):
    """A scan over the codes of one matrix."""

    def __init__(self, scan: CodeScan, parts: Parts) -> None:
        self._scan = scan
        codec, rows = parts.codec, int(parts.native.ntotal)
        cost = _BYTE["fast" if codec.fast else codec.name] * codes.row_bytes(codec, parts.space.dim)
        capabilities = replace(
            scan.capabilities,
            family="hashing" if scan.kind == "lsh" else "compressed",
            exact=False,
            filtered=codec.name != "pq",
            search_params={**scan.capabilities.search_params, OVERSAMPLING: oversampling(scan.oversampling)},
            oversampling=scan.oversampling,
            effort=Effort(0.0, compared=float(rows), row=cost, call=_CALL),
            min_filtered_selectivity=0.0,
            compressed=True,
        )
        super().__init__(scan.kind, parts, capabilities)

    def memory_bytes(self) -> int:
        """See :meth:`vectordb.index.base.VectorIndex.memory_bytes`."""
        codec, dim = self._parts.codec, self._space.dim
        return self.rows * codes.row_bytes(codec, dim) + codes.learned_bytes(codec, dim)

    def _find(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.uint8] | None, params: Params) -> Found:
        del params  # there are none but the planner's
        scored = len(queries) * self.rows
        if allowed is None:
            return self._native_search(queries, k, None)._replace(scored=scored)
        if not self._parts.codec.hashes:
            settings = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.ascontiguousarray(allowed, np.uint8)))
            return self._native_search(queries, k, settings)._replace(scored=scored)
        # faiss filters no bits: those that may be returned are picked out.
        positions = np.flatnonzero(np.unpackbits(allowed, count=self.rows, bitorder="little"))
        found = Found(np.full((len(queries), k), np.inf, np.float32), np.full((len(queries), k), -1, np.int64), 0)
        width = min(k, len(positions))
        if width == 0:
            return found
        stored = faiss.rev_swig_ptr(self._native.codes.data(), self.rows * self._native.code_size)
        picked = stored.reshape(self.rows, -1)[positions]
        distances, rows = faiss.knn_hamming(self._native.sa_encode(queries), picked, width, variant="hc")
        found.distances[:, :width], found.rows[:, :width] = distances, positions[rows]
        return found._replace(scored=len(queries) * len(positions))

    def extended(self, vectors: NDArray[np.float32], build: BuildOptions) -> CodeIndex:
        """See :meth:`vectordb.index.base.GrowingIndex.extended`. Costs a copy of the codes, and the adding.

        Raises:
            CannotExtend: The codes do not fit the new rows.
            BuildCancelled: ``build.cancelled()`` turned true.
        """
        if self.rows == 0:
            raise CannotExtend("the index is empty")
        parts, new = self._parts, vectors[self.rows :]
        self._space.require_fit(new, build.cancelled)
        _require_fit(parts, new, len(vectors))
        native = in_memory(self._owner.kind, parts)
        _add(native, parts, new, build)
        return CodeIndex(self._scan, parts._replace(native=native, path=None))


def build(scan: CodeScan, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> CodeIndex:
    """Encodes prepared rows float32[n, d]; learns from them, or takes over what ``options.trained`` has learned.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    parts = _taken_over(scan, vectors, metric, options)
    if parts is None:
        space = Space.of(vectors, metric, options.cancelled, rotated=scan.codec.rotates, inner=True)
        native = codes.flat_index(scan.codec, space, random_access=False)
        codes.train_flat(native, scan.codec, space, vectors, options)
        error = codes.error(native, scan.codec, space.held_out(vectors))
        parts = Parts(native, scan.codec, space, (error,), len(vectors))
    _add(parts.native, parts, vectors, options)
    return CodeIndex(scan, parts)


def load(scan: CodeScan, path: Path, vectors: NDArray[np.float32], metric: Metric) -> CodeIndex:
    """Maps a saved index.

    Raises:
        Corruption: The file is damaged, or belongs to another matrix, metric or codec.
    """
    stored = faiss_file.read(path, Owner(scan.kind, vectors.shape, metric), mapped=True)
    parts = restored(path, stored, metric, inner=True, mapped=True)
    if parts.codec != scan.codec:
        raise envelope.corrupt(path, f"keeps rows as {tuple(parts.codec)}, not as {tuple(scan.codec)}")
    return CodeIndex(scan, parts)


def oversampling(default: float) -> Parameter:
    """The search parameter of kinds that rank by codes."""
    return Parameter(float, default, 1.0, 100.0, "candidates fetched for each row asked for")


def _add(native: Any, parts: Parts, vectors: NDArray[np.float32], options: BuildOptions) -> None:
    step = codes.step_of(parts.codec, parts.space.dim, options.threads)
    codes.add(native, parts.space, Rows(vectors), options, step)


def _require_fit(parts: Parts, vectors: NDArray[np.float32], rows: int) -> None:
    codes.require_enough(parts.codec, rows, parts.learned)
    error = codes.error(parts.native, parts.codec, parts.space.held_out(vectors))
    codes.require_fit(parts.codec, error, parts.errors[0])


def _taken_over(scan: CodeScan, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> Parts | None:
    """An empty index that has learned what an earlier one did, or None where there is none that fits."""
    if options.trained is None or len(vectors) == 0:
        return None
    try:
        stored = faiss_file.learned(options.trained, scan.kind, metric, vectors.shape[1])
        parts = restored(options.trained, stored, metric, inner=True, mapped=False)
        if parts.codec != scan.codec:
            return None
        parts.space.require_fit(vectors, options.cancelled)
        _require_fit(parts, vectors, len(vectors))
    except (Corruption, CannotExtend):
        return None
    parts.native.reset()
    return parts._replace(path=None)
