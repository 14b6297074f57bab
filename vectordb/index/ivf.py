"""Kinds ``ivf`` and ``ivfpq``: rows in lists by their nearest centroid, by faiss; a search reads the nearest lists.

Source: Sivic & Zisserman 2003, "Video Google"; with product quantization Jégou et al. 2011, "Product Quantization for
Nearest Neighbor Search"; four-bit codes are scanned in registers (André et al. 2017). ``ivf`` keeps full vectors in its
lists, or what the quantization says; ``ivfpq`` is ``ivf`` under ``pq``, with parameters of its own.

By measurement:

- Rows go to the centroid that is nearest by distance under every metric but l1; a search under dot goes to the lists
  whose centroids have the largest products. Both by product, four of five rows went to a tenth of the lists.
- Codes of ``pq`` are of what is left after the centroid where that costs nothing (cosine, dot: one table for all
  lists); under l2 each list would need its own table, 150 us more a query, for 0.005 less recall.
- 4 n ** 0.5 lists, of which 20 times the fourth root of their number are read: 0.98 of the 10 nearest of 20,000 and
  100,000 text embeddings. Neighbourhoods of real text spread over many lists.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.index import codes, envelope, faiss_file, ivf_build
from vectordb.index.base import BuildOptions, Capabilities, Effort, Parameter, Params
from vectordb.index.codes import Codec
from vectordb.index.compressed import OVERSAMPLING, oversampling
from vectordb.index.faiss_file import Owner
from vectordb.index.ivf_build import Lists
from vectordb.index.native import faiss
from vectordb.index.native_index import Found, NativeIndex, Parts, restored
from vectordb.index.quantization import subspaces
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_LISTS = 65_536
_PROBE_FACTOR = 20.0
_PROBE_EXPONENT = 0.25
_DOT_PROBES = 2.0
"""Lists with large products are short ones: twice as many hold half as many rows."""
_FILTER_GROWTH = 0.3
"""Where a share s of the rows match, the nearest ones are spread over s ** -0.3 times the lists: twice as many lists
hold the 100 nearest as the 10 nearest."""
_CACHED_PARAMS = 64
_PQ_OVERSAMPLING = 10.0
_PQ_DOT_OVERSAMPLING = 16.0
"""Codes of four bits miss more where vectors differ in length: 0.95 of the true 10 among 84, 0.98 among 164."""
_UNEVEN = 1.3
"""Lists that a search reads are longer than the mean: 1.25 to 1.35 times with text embeddings."""
_NPROBE = "lists to read: more find more and cost more; the default grows with the lists"
_NLIST = Parameter(int, 0, 0, _MOST_LISTS, "lists; 0 is 4 times the square root of the rows")
_ALL = frozenset(Metric)
_PLAIN = frozenset({Metric.COSINE, Metric.DOT, Metric.L2})


_CENTROID = 5e-5
_DIMENSION = {"none": 1.2e-4, "fp16": 7e-5, "sq8": 7e-5}
_ROW = {"pq": 0.02, "fast": 0.009, "rabitq": 0.018}
"""Microseconds of one thread to compare a dimension of a centroid, one of a row in the lists that a search reads, or a
code there; 20,000 and 100,000 text embeddings of 384 dimensions in 566 and 1,265 lists."""
_CALL = {"pq": 22.0, "rabitq": 28.0}
_USUAL_CALL = 16.0


def _nprobe(default: int) -> Parameter:
    return Parameter(int, default, 1, _MOST_LISTS, _NPROBE)


def usual_probes(lists: int, metric: Metric) -> int:
    """How many lists a search reads by default: at most half of them."""
    probes: float = _PROBE_FACTOR * lists**_PROBE_EXPONENT * (_DOT_PROBES if metric is Metric.DOT else 1.0)
    return min(-(-lists // 2), math.ceil(probes))


class IvfIndex(NativeIndex):
    """Rows of one matrix in lists."""

    def __init__(self, lists: Lists, parts: Parts) -> None:
        self._lists = lists
        native, codec = parts.native, parts.codec
        self._nlist = int(native.nlist)
        self._default = usual_probes(self._nlist, parts.space.metric)
        self._plain: dict[int, Any] = {}
        search_params = {"nprobe": _nprobe(self._default)}
        rescored = lists.oversampling > 1.0 or lists.codec.name != "none"
        if rescored:
            search_params[OVERSAMPLING] = oversampling(lists.oversampling)
        capabilities = replace(
            lists.capabilities,
            search_params=search_params,
            oversampling=lists.oversampling,
            width_per_row=_width_per_row(self._nlist),
            effort=_effort(codec, int(native.ntotal), self._nlist, parts.space.dim),
            compressed=codec.name != "none",
        )
        super().__init__(lists.kind, parts, capabilities)

    def memory_bytes(self) -> int:
        """See :meth:`vectordb.index.base.VectorIndex.memory_bytes`: codes, row numbers of 8 bytes, centroids."""
        codec, dim = self._parts.codec, self._space.dim
        row = codes.row_bytes(codec, dim)
        # Four-bit codes come in blocks of 32, the last of each list half empty.
        padding = 16 * row * self._nlist if codec.fast else 0
        return self.rows * (row + 8) + 4 * self._nlist * dim + codes.learned_bytes(codec, dim) + padding

    def _find(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.uint8] | None, params: Params) -> Found:
        probes = min(self._nlist, int(params.get("nprobe", self._default)))
        if allowed is not None:
            bits = np.ascontiguousarray(allowed, np.uint8)
            if "nprobe" not in params:
                share = max(1, int(np.bitwise_count(bits).sum())) / self.rows
                probes = min(self._nlist, math.ceil(probes * max(1.0, share**-_FILTER_GROWTH)))
            settings = faiss.SearchParametersIVF(nprobe=probes, sel=faiss.IDSelectorBitmap(bits))
        else:
            settings = self._settings(probes)
        # What faiss counts is one number for the whole process, and misses four-bit codes: by the mean.
        compared = self._nlist + min(self.rows, math.ceil(_UNEVEN * self.rows * probes / self._nlist))
        return self._native_search(queries, k, settings)._replace(scored=len(queries) * compared)

    def _settings(self, probes: int) -> Any:
        settings = self._plain.get(probes)
        if settings is None:
            if len(self._plain) >= _CACHED_PARAMS:
                self._plain.clear()
            settings = self._plain[probes] = faiss.SearchParametersIVF(nprobe=probes)
        return settings

    def extended(self, vectors: NDArray[np.float32], build: BuildOptions) -> IvfIndex:
        """See :meth:`vectordb.index.base.GrowingIndex.extended`. Costs a copy of the lists, and the adding.

        Raises:
            CannotExtend: Centroids or codes do not fit the new rows, or there are too few lists for so many.
            BuildCancelled: ``build.cancelled()`` turned true.
        """
        return IvfIndex(self._lists, ivf_build.extend(self._lists, self._parts, vectors, build))


class IvfKind:
    """The kind ``ivf``."""

    name = "ivf"
    capabilities = Capabilities(
        maps=True,
        family="clusters",
        metrics=_ALL,
        quantizations=dict.fromkeys(("fp16", "sq8", "pq", "rabitq"), _PLAIN),
        filtered=True,
        extends=True,
        build_params={"nlist": _NLIST},
        search_params={"nprobe": _nprobe(64)},
        width="nprobe",
        min_filtered_selectivity=0.01,
    )

    def build(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> IvfIndex:
        """See :meth:`vectordb.index.base.IndexKind.build`."""
        lists = self._lists(vectors, metric, options)
        return IvfIndex(lists, ivf_build.build(lists, vectors, metric, options))

    def load(self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> IvfIndex:
        """See :meth:`vectordb.index.base.IndexKind.load`. Maps the file; it must stay as it is meanwhile.

        Raises:
            Corruption: The file is damaged, or belongs to another matrix, metric or codec.
        """
        lists = self._lists(vectors, metric, options)
        stored = faiss_file.read(path, Owner(self.name, vectors.shape, metric), mapped=True)
        parts = restored(path, stored, metric, inner=lists.inner, mapped=True)
        if parts.codec != lists.codec:
            raise envelope.corrupt(path, f"keeps rows as {tuple(parts.codec)}, not as {tuple(lists.codec)}")
        return IvfIndex(lists, parts)

    def _lists(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> Lists:
        del metric
        codec = Codec.of(options.quantization, vectors.shape[1])
        factor = 1.0 if options.quantization is None else float(options.quantization.params["oversampling"])
        return Lists(self.name, self.capabilities, codec, factor, int(options.params.get("nlist", 0)))


class IvfPqKind(IvfKind):
    """The kind ``ivfpq``."""

    name = "ivfpq"
    capabilities = replace(
        IvfKind.capabilities,
        metrics=_PLAIN,
        quantizations={},
        build_params={
            "nlist": _NLIST,
            "m": Parameter(int, 0, 0, 65_536, "subspaces, a divisor of dim; 0 is one for 4 dimensions (at 8 bits 8)"),
            "nbits": Parameter(int, 4, 4, 8, "bits a subspace: 4 (scanned in registers) or 8"),
        },
        search_params={"nprobe": _nprobe(64), OVERSAMPLING: oversampling(_PQ_OVERSAMPLING)},
        oversampling=_PQ_OVERSAMPLING,
        compressed=True,
    )

    def check(self, params: Params, dim: int) -> None:
        """See :class:`vectordb.index.base.IndexKind`.

        Raises:
            InvalidArgument: ``m`` does not divide the dimension, or ``nbits`` is neither 4 nor 8.
        """
        subspaces(int(params["m"]), dim, int(params["nbits"]))

    def _lists(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> Lists:
        params = options.params
        nbits = int(params.get("nbits", 4))
        m = subspaces(int(params.get("m", 0)), vectors.shape[1], nbits)
        factor = _PQ_DOT_OVERSAMPLING if metric is Metric.DOT else _PQ_OVERSAMPLING
        return Lists(self.name, self.capabilities, Codec("pq", m, nbits), factor, int(params.get("nlist", 0)))


def _width_per_row(lists: int) -> float:
    """Lists to read for one more of the nearest rows: the 100 nearest of 20,000 lie in 64 of 128 lists, 185 of 512."""
    return 0.8 * math.pow(min(1.0, lists / 512), 0.75)


def _effort(codec: Codec, rows: int, lists: int, dim: int) -> Effort:
    name = "fast" if codec.fast else codec.name
    dimension, row = _DIMENSION.get(name, 0.0), _ROW.get(name, 0.0)
    centroids = lists * dim * _CENTROID
    return Effort(
        factor=_UNEVEN * rows / max(1, lists),
        dimension=dimension,
        row=row,
        call=_CALL.get(name, _USUAL_CALL) + centroids,
    )


IVF = IvfKind()
"""What the entry point ``ivf`` names."""
IVFPQ = IvfPqKind()
"""What the entry point ``ivfpq`` names."""
