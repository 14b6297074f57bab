"""Kind ``scann``: clusters of rows compressed with the loss that matters for inner products, by Google's ScaNN.

Source: Guo et al. 2020, "Accelerating Large-Scale Inference with Anisotropic Vector Quantization"; Sun et al. 2023,
"SOAR: Improved Indexing for Approximate Nearest Neighbor Search" (each row lies in a second cluster as well, chosen for
queries that the first serves badly).

It cannot grow and takes no filter. Only its codes are kept, half a byte for two dimensions and cluster: the engine
scores its candidates from the full vectors.

Measured, 20,000 real text embeddings of 384 dimensions, 141 clusters, recall of 10 / microseconds of ScaNN alone:

    clusters read        20           30           40           60
    cosine, SOAR         .983 / 92    .991 / 119   .995 / 140   .998 / 200
    cosine, no SOAR      .940         .964         .976         .989
    10 of 14, 24, 34, 54 candidates at 20 with SOAR: .935, .983, .987, .987; with ScaNN's own reordering by full vectors
    instead of ours .987 too, at nine times the memory

ScaNN writes a folder; its files are sections of one here (:mod:`~vectordb.index.envelope`), and are laid out again for
as long as it takes to load them. It needs Python below 3.14.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import Internal, ResourceExhausted
from vectordb.index import envelope
from vectordb.index.base import BuildCancelled, BuildOptions, Capabilities, Effort, Neighbours, Parameter, Params
from vectordb.index.duplicates import Rows
from vectordb.index.extras import library
from vectordb.index.flat import FLAT
from vectordb.index.plain import Plain
from vectordb.index.scaling import Scaling, nothing
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KIND = "scann"
scann = library(_KIND, "scann.scann_ops.py.scann_ops_pybind", "scann")

_SPACE = {Metric.COSINE: "dot_product", Metric.DOT: "dot_product", Metric.L2: "squared_l2"}
_LEAST = 1_000
"""Up to so many rows there is nothing to learn from them, and comparing them all takes as long."""
_TRAINED = 100_000
"""Rows that clusters and codes are learned from, drawn by ScaNN."""
_ANISOTROPY = 0.2
_SOAR = 1.5
_FEW = 128
"""Up to so many dimensions each has a code of its own: half as many were too coarse for 32."""
_MOST_LEAVES = 65_536
_ROWS = 20_000
_WIDTH = {Metric.COSINE: 20, Metric.DOT: 45, Metric.L2: 50}
_WIDTH_GROWTH = 0.3
_ROW_WIDTH = 0.15
"""Clusters for one more neighbour among 20,000 rows: 20 find 0.967 of 100, 30 find 0.984."""
_LIMIT_FACTOR, _LIMIT_EXTRA = 1.5, 48
_OVERSAMPLING = {Metric.COSINE: 3.0, Metric.L2: 3.0, Metric.DOT: 10.0}
"""Rows of many lengths share one set of codes: 34 candidates hold 0.91 of 10, 104 hold 0.96."""


def _leaves(default: int) -> Parameter:
    text = "clusters that a search reads: more finds more and costs more; the default grows slowly with the rows"
    return Parameter(int, default, 1, _MOST_LEAVES, text)


def _effort(rows: int, leaves: int, metric: Metric) -> Effort:
    """20 of 141 clusters of 20,000 rows, each row in two of them, take 50 us: 5,700 codes at 96 bytes."""
    copies = 1.0 if metric is Metric.L2 else 2.0
    return Effort(factor=copies * rows / max(1, leaves), compared=leaves, dimension=0.006 / 384, row=0.001, call=15.0)


class ScannIndex:
    """Clusters of codes. Searches from many threads at once; never changes.

    Args:
        native: ScaNN's searcher.
        files: What it serialises to.
        leaves: How many clusters.
        shape: (n, d) of the matrix that it is over.
        metric: The metric.
        scaling: How rows and queries are scaled.
    """

    def __init__(
        self,
        native: Any,
        files: dict[str, memoryview | bytes],
        leaves: int,
        shape: tuple[int, ...],
        metric: Metric,
        scaling: Scaling,
    ) -> None:
        # Straight to the C++ method, which gives up the GIL.
        self._search = native.searcher.search
        self._native = native
        self._files = files
        self._leaves = leaves
        self._shape = shape
        self._metric = metric
        self._scaling = scaling
        growth = shape[0] / _ROWS
        self._width = min(leaves, math.ceil(_WIDTH[metric] * growth**_WIDTH_GROWTH))
        self._row_width = _ROW_WIDTH * math.sqrt(1.0 / growth)
        self._effort = _effort(shape[0], leaves, metric)
        self._capabilities = replace(
            SCANN.capabilities,
            search_params={"leaves_to_search": _leaves(self._width)},
            width_per_row=self._row_width,
            oversampling=_OVERSAMPLING[metric],
            effort=self._effort,
        )

    @property
    def capabilities(self) -> Capabilities:
        """Those of the kind, with the defaults and the effort of this very index."""
        return self._capabilities

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`. ``scored`` is an estimate of the codes
        compared: ScaNN does not count.

        Raises:
            DimensionMismatch: Queries of another dimension.
        """
        if allowed is not None:
            raise Internal("index kind 'scann' was given a filter, which it says that it cannot take")
        scaled = self._scaling.queries(queries, self._shape[1], self._metric)
        if scaled is None or not len(scaled):
            return nothing(len(queries), limit)
        spanning = math.ceil(self._row_width * (_LIMIT_FACTOR * limit + _LIMIT_EXTRA))
        width = int((params or {}).get("leaves_to_search", max(self._width, spanning)))
        # Of a row that lies in two clusters, ScaNN drops the second after it has counted both.
        k = min(limit if self._metric is Metric.L2 else 2 * limit, self._shape[0])
        rows = np.full((len(scaled), limit), -1, np.int64)
        distances = np.full((len(scaled), limit), np.inf, np.float32)
        for i, query in enumerate(scaled):
            found, far = self._search(query, k, k, min(width, self._leaves))
            count = min(limit, len(found))
            rows[i, :count], distances[i, :count] = found[:count], far[:count]
        if self._metric is not Metric.L2:
            np.negative(distances, out=distances, where=rows >= 0)
        read = self._effort.compared + self._effort.factor * min(width, self._leaves)
        return Neighbours(rows, distances, math.ceil(read) * len(scaled))

    def save(self, path: Path) -> None:
        """See :meth:`vectordb.index.base.VectorIndex.save`."""
        facts = {"leaves": self._leaves, "exponent": self._scaling.exponent, "largest": self._scaling.largest}
        envelope.write_sections(path, _KIND, self._shape, self._metric, self._files, facts)

    def memory_bytes(self) -> int:
        """Codes, clusters and lists of rows."""
        rows, dim = self._shape
        copies = 1 if self._metric is Metric.L2 else 2
        return int(copies * rows * (math.ceil(dim / 4) + 4) + self._leaves * dim * 8)


class ScannKind:
    """The kind ``scann``. Up to 1,000 rows, its index is an exact one."""

    name = _KIND
    capabilities = Capabilities(
        family="compressed",
        metrics=frozenset(_SPACE),
        build_params={
            "leaves": Parameter(int, 0, 0, _MOST_LEAVES, "clusters; 0 chooses the square root of the rows"),
            "block": Parameter(int, 0, 0, 8, "dimensions that share half a byte: more are coarser; 0 chooses"),
        },
        search_params={"leaves_to_search": _leaves(_WIDTH[Metric.COSINE])},
        width="leaves_to_search",
        width_per_row=_ROW_WIDTH,
        oversampling=_OVERSAMPLING[Metric.COSINE],
        effort=_effort(_ROWS, math.isqrt(_ROWS), Metric.COSINE),
        compressed=True,
        builds_apart=True,
    )

    def build(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> ScannIndex | Plain:
        """See :meth:`vectordb.index.base.IndexKind.build`. The training itself cannot be cancelled."""
        count, dim = vectors.shape
        if count <= _LEAST:
            return Plain(_KIND, FLAT.build(vectors, metric, options), vectors.shape, metric)
        params: dict[str, Any] = {name: p.default for name, p in self.capabilities.build_params.items()}
        params |= dict(options.params)
        scaling = Scaling.of(Rows(vectors), metric, options.cancelled)
        data = np.empty(vectors.shape, np.float32)
        for start, block in Rows(vectors).blocks(options.cancelled):
            data[start : start + len(block)] = scaling.rows(block)
        if options.cancelled():
            raise BuildCancelled
        leaves = min(params["leaves"] or math.isqrt(count), count)
        inner = metric is not Metric.L2
        native = (
            scann.builder(data, 10, _SPACE[metric])
            .tree(
                num_leaves=leaves,
                num_leaves_to_search=min(leaves, _WIDTH[metric]),
                training_sample_size=min(count, _TRAINED),
                **({"soar_lambda": _SOAR} if inner else {}),
            )
            .score_ah(
                min(dim, params["block"] or (1 if dim <= _FEW else 2)),
                training_sample_size=min(count, _TRAINED),
                **({"anisotropic_quantization_threshold": _ANISOTROPY} if metric is Metric.COSINE else {}),
            )
            .set_n_training_threads(max(1, options.threads))
            .build()
        )
        if options.cancelled():
            raise BuildCancelled
        with TemporaryDirectory(prefix="vectordb-") as folder:
            native.serialize(folder, relative_path=True)
            files: dict[str, memoryview | bytes] = {
                path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())
            }
        options.progress(1.0)
        return ScannIndex(native, files, leaves, vectors.shape, metric, scaling)

    def load(
        self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions
    ) -> ScannIndex | Plain:
        """See :meth:`vectordb.index.base.IndexKind.load`. Reads the codes into memory.

        Raises:
            Corruption: The file is damaged, or belongs to another matrix or metric.
            ResourceExhausted: The folder for temporary files is full.
        """
        if envelope.check(path, _KIND, vectors.shape, metric) == 0:
            return Plain(_KIND, FLAT.build(vectors, metric, options), vectors.shape, metric)
        facts, sections = envelope.read_sections(path, _KIND, vectors.shape, metric)
        try:
            leaves = int(facts["leaves"])
            scaling = Scaling(int(facts["exponent"]), float(facts["largest"]))
            with TemporaryDirectory(prefix="vectordb-") as folder:
                for name, data in sections.items():
                    (Path(folder) / Path(name).name).write_bytes(data)
                native = scann.load_searcher(folder, assets_backcompat_shim=False)
        except OSError as error:
            raise ResourceExhausted(
                f"cannot write temporary files to load '{path}': {error}; free space, or name another folder in TMPDIR",
                limit="disk",
            ) from error
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise envelope.corrupt(path, f"cannot be loaded by scann: {error}") from error
        if native.size() != len(vectors):
            raise envelope.corrupt(path, f"holds {native.size()} rows, its frame says {len(vectors)}")
        return ScannIndex(native, dict(sections), leaves, vectors.shape, metric, scaling)


SCANN = ScannKind()
"""What the entry point ``scann`` names."""
