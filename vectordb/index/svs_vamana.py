"""Kind ``vamana``: the graph of DiskANN, by Intel's Scalable Vector Search.

Source: Subramanya et al. 2019, "DiskANN: Fast Accurate Billion-point Nearest Neighbor Search on a Single Node";
Aguerrebere et al. 2023, "Similarity search in the blink of an eye with compressed indices" (SVS).

SVS runs on x86-64 only, is closed source under a licence of its own, and holds the GIL while it builds and searches:
it is built apart, and each query is a call by itself. Its own compression (LVQ, LeanVec) refuses processors that are
not Intel's and is left out. It cannot grow and takes no filter.

How it is used, by measurement (20,000 real text embeddings of 384 dimensions):

- The window of a search is a setting of the whole index, so it is left at 1: asking for as many candidates as the
  window is wide is the same search (recall .976, .987, .993, .998 at 32, 48, 64, 100), without a lock.
- Rows are stored at half precision where that loses nothing (``hnsw_storage``), as bytes under ``sq8``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import Internal, ResourceExhausted
from vectordb.index import envelope, grouping
from vectordb.index.base import BuildCancelled, BuildOptions, Capabilities, Effort, Neighbours, Parameter, Params
from vectordb.index.duplicates import Groups, grouped
from vectordb.index.scaling import Scaling, nothing, widened
from vectordb.index.svs_file import FILES, KIND, SPACE, Files, Form, check_graph, choose_form, loaded, saved, svs
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALPHA = {"L2": 1.2, "MIP": 0.95}
"""How much longer a detour may be before a link is dropped, as SVS and the paper recommend."""
_BASE_WINDOW = {Metric.COSINE: 64, Metric.L2: 64, Metric.DOT: 64}
_WINDOW_ROWS = 20_000
_WINDOW_GROWTH = 0.12
_LIMIT_FACTOR = 1.5
_LIMIT_EXTRA = 48
_MAX_WINDOW = 65_536

EFFORT = Effort(factor=55.0, exponent=0.72, dimension=55.0 / (1_098 * 384), call=15.0)
"""Rows compared by window as by the beam of other graphs: 64 takes 70 us, 256 takes 225, at half precision."""


def _window(default: int) -> Parameter:
    text = "candidates that a search keeps: more finds more and costs more; the default grows slowly with the rows"
    return Parameter(int, default, 1, _MAX_WINDOW, text)


class VamanaIndex:
    """A built graph. Searches from many threads, one at a time: SVS holds the GIL. Never changes.

    Args:
        native: SVS's index.
        files: Its sections, as they are saved.
        form: How rows are stored.
        groups: Which rows share a node; None: none do.
        shape: (n, d) of the matrix that it is over.
        metric: The metric.
    """

    def __init__(
        self,
        native: Any,
        files: Files,
        form: Form,
        groups: Groups | None,
        shape: tuple[int, ...],
        metric: Metric,
    ) -> None:
        self._native = native
        self._files = files
        self._form = form
        self._groups = groups
        self._shape = shape
        self._metric = metric
        self._nodes = shape[0] if groups is None else groups.distinct
        self._distance_sign = -1.0 if metric is Metric.DOT else 1.0
        growth = max(1.0, self._nodes / _WINDOW_ROWS) ** _WINDOW_GROWTH
        self._default = math.ceil(_BASE_WINDOW[metric] * growth)
        self._capabilities = replace(VAMANA.capabilities, search_params={"window": _window(self._default)})
        if native is not None:
            native.search_parameters = svs.VamanaSearchParameters(svs.SearchBufferConfig(1))

    @property
    def dtype(self) -> str:
        """Type of the stored numbers."""
        return self._form.dtype

    @property
    def capabilities(self) -> Capabilities:
        """Those of the kind, with the default ``window`` that suits this graph's rows and metric."""
        return self._capabilities

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`, but that the GIL is held, for one query at a time.

        ``scored`` is an estimate: SVS does not count.

        Raises:
            DimensionMismatch: Queries of another dimension.
        """
        if allowed is not None:
            raise Internal("index kind 'vamana' was given a filter, which it says that it cannot take")
        stored = self._form.queries(queries, self._shape[1], self._metric)
        if stored is None or self._native is None:
            return nothing(len(queries), limit)
        window = int((params or {}).get("window", max(self._default, math.ceil(_LIMIT_FACTOR * limit + _LIMIT_EXTRA))))
        k = min(self._nodes, max(window, limit))
        rows = np.empty((len(stored), k), np.int64)
        distances = np.empty((len(stored), k), np.float32)
        for i in range(len(stored)):
            found, far = self._native.search(stored[i : i + 1], k)
            rows[i], distances[i] = found[0], far[0]
        if self._distance_sign < 0:
            np.negative(distances, out=distances)
        self._mark_unreached(rows, distances)
        if self._groups is not None:
            rows, distances = self._groups.spread(rows, distances, limit, None)
        else:
            rows, distances = widened(rows, distances, limit)
        visited = math.ceil(EFFORT.factor * k**EFFORT.exponent)
        return Neighbours(rows, distances, min(visited, self._nodes) * len(stored))

    def _mark_unreached(self, rows: NDArray[np.int64], distances: NDArray[np.float32]) -> None:
        """SVS leaves zeros where a search reached fewer rows than asked for: where the row 0 was already, or the
        order breaks."""
        tail = (rows == 0) & (distances == 0.0)
        if not tail[:, -1].any():
            return
        for i in np.flatnonzero(tail[:, -1]).tolist():
            start = rows.shape[1] - int(np.argmin(tail[i, ::-1])) if not tail[i].all() else 0
            known = bool((rows[i, :start] == 0).any()) or (start > 0 and distances[i, start - 1] > 0.0)
            start += 0 if known else 1
            rows[i, start:], distances[i, start:] = -1, np.inf

    def save(self, path: Path) -> None:
        """See :meth:`vectordb.index.base.VectorIndex.save`."""
        facts = {
            "dtype": self._form.dtype,
            "factor": self._form.factor,
            "exponent": self._form.scaling.exponent,
            "largest": self._form.scaling.largest,
            "nodes": self._nodes,
        }
        sections: dict[str, memoryview | bytes] = dict(self._files)
        sections |= grouping.sections(self._groups)
        envelope.write_sections(path, KIND, self._shape, self._metric, sections, facts)

    def memory_bytes(self) -> int:
        """Rows and links."""
        row = self._shape[1] * np.dtype(self._form.dtype).itemsize
        groups = 0 if self._groups is None else self._groups.nbytes()
        return self._nodes * row + len(self._files.get("graph", b"")) + groups


class VamanaKind:
    """The kind ``vamana``."""

    name = KIND
    capabilities = Capabilities(
        family="graph",
        metrics=frozenset(SPACE),
        quantizations={"fp16": frozenset(SPACE), "sq8": frozenset(SPACE)},
        build_params={
            "degree": Parameter(int, 32, 4, 256, "links a row at most"),
            "build_window": Parameter(int, 100, 8, 4_096, "candidates kept while building: slower, better graphs"),
        },
        search_params={"window": _window(_BASE_WINDOW[Metric.COSINE])},
        width="window",
        effort=EFFORT,
        max_dim=16_384,  # squares of bytes are summed in 32 bits
        builds_apart=True,
    )

    def build(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> VamanaIndex:
        """See :meth:`vectordb.index.base.IndexKind.build`. The graph itself cannot be cancelled."""
        params: dict[str, Any] = {name: p.default for name, p in self.capabilities.build_params.items()}
        params |= dict(options.params)
        groups = grouped(vectors, options.cancelled)
        rows = grouping.distinct(vectors, groups)
        form = choose_form(rows, metric, options)
        data = np.empty((rows.count, rows.dim), form.dtype)
        for start, block in rows.blocks(options.cancelled):
            data[start : start + len(block)] = form.rows(block)
        if options.cancelled():
            raise BuildCancelled
        if not rows.count:
            options.progress(1.0)
            return VamanaIndex(None, {}, form, groups, vectors.shape, metric)
        space, degree = SPACE[metric], params["degree"]
        settings = svs.VamanaBuildParameters(
            alpha=_ALPHA[space], graph_max_degree=degree, window_size=max(params["build_window"], degree)
        )
        native = svs.Vamana.build(settings, data, getattr(svs.DistanceType, space), num_threads=max(1, options.threads))
        if options.cancelled():
            raise BuildCancelled
        files = saved(native)
        options.progress(1.0)
        return VamanaIndex(native, files, form, groups, vectors.shape, metric)

    def load(self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> VamanaIndex:
        """See :meth:`vectordb.index.base.IndexKind.load`. Reads graph and vectors into memory.

        Raises:
            Corruption: The file is damaged, or belongs to another matrix or metric.
            ResourceExhausted: The folder for temporary files is full.
        """
        facts, sections = envelope.read_sections(path, KIND, vectors.shape, metric)
        try:
            form = Form(
                str(facts["dtype"]), float(facts["factor"]), Scaling(int(facts["exponent"]), float(facts["largest"]))
            )
            groups = grouping.read(sections, len(vectors), int(facts["nodes"]))
            rows = grouping.distinct(vectors, groups)
            if form.dtype not in ("float32", "float16", "int8"):
                raise ValueError(f"rows of type {form.dtype}")
            files = {name: sections[name] for name in (*FILES, "head") if rows.count}
            check_graph(files, rows.count)
        except (KeyError, TypeError, ValueError) as error:
            raise envelope.corrupt(path, f"lacks a part of a graph: {error}") from error
        native = None
        if rows.count:
            try:
                native = loaded(files, rows, form, metric, options.cancelled)
            except OSError as error:
                raise ResourceExhausted(
                    f"cannot write temporary files to load '{path}': {error}; free space, or name another folder in "
                    "TMPDIR",
                    limit="disk",
                ) from error
            except RuntimeError as error:
                raise envelope.corrupt(path, f"cannot be loaded by svs: {error}") from error
        return VamanaIndex(native, files, form, groups, vectors.shape, metric)


VAMANA = VamanaKind()
"""What the entry point ``vamana`` names."""
