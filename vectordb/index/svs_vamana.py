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
- The file has SVS's graph and configuration, and of its data only the head: the rows are made again from the
  segment's vectors on loading.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.errors import Internal, ResourceExhausted
from vectordb.index import envelope
from vectordb.index.base import BuildCancelled, BuildOptions, Capabilities, Effort, Neighbours, Parameter, Params
from vectordb.index.duplicates import Groups, Rows, grouped
from vectordb.index.extras import library
from vectordb.index.hnsw_storage import Storage, choose_storage, largest_component
from vectordb.index.scaling import Scaling, nothing, widened
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KIND = "vamana"
svs = library(_KIND, "svs", "svs")

_SPACE = {Metric.COSINE: "L2", Metric.L2: "L2", Metric.DOT: "MIP"}
_ALPHA = {"L2": 1.2, "MIP": 0.95}
"""How much longer a detour may be before a link is dropped, as SVS and the paper recommend."""
_BASE_WINDOW = {Metric.COSINE: 64, Metric.L2: 64, Metric.DOT: 64}
_WINDOW_ROWS = 20_000
_WINDOW_GROWTH = 0.12
_LIMIT_FACTOR = 1.5
_LIMIT_EXTRA = 48
_MAX_WINDOW = 65_536
_FILES = {
    "config": "config/svs_config.toml",
    "graph_config": "graph/svs_config.toml",
    "graph": "graph/graph_0.svs",
    "data_config": "data/svs_config.toml",
}
_Files = Mapping[str, memoryview | bytes]
_DATA = "data/data_0.svs"
_HEAD = 1_024
"""Bytes before the rows in SVS's file of data."""
_TOP = 127.0

EFFORT = Effort(factor=55.0, exponent=0.72, dimension=55.0 / (1_098 * 384), call=15.0)
"""Rows compared by window as by the beam of other graphs: 64 takes 70 us, 256 takes 225, at half precision."""


def _window(default: int) -> Parameter:
    text = "candidates that a search keeps: more finds more and costs more; the default grows slowly with the rows"
    return Parameter(int, default, 1, _MAX_WINDOW, text)


class _Form(NamedTuple):
    """How rows are stored: float32, float16 or int8, multiplied by ``factor`` (a power of two but for int8)."""

    dtype: str
    factor: float
    scaling: Scaling

    def rows(self, block: NDArray[np.float32]) -> NDArray[Any]:
        """Rows as they are stored."""
        return self._stored(block, self.factor, self.dtype)

    def queries(self, queries: NDArray[np.float32], dim: int, metric: Metric) -> NDArray[Any] | None:
        """Queries as they are compared; None where they cannot be ranked."""
        checked = self.scaling.queries(queries, dim, metric)
        if checked is None or not len(checked):
            return None
        dtype = "int8" if self.dtype == "int8" else "float32"
        if metric is not Metric.DOT:
            return self._stored(checked, self.factor * math.ldexp(1.0, -self.scaling.exponent), dtype)
        if dtype == "float32":
            return checked
        # By itself: of a query only the direction matters.
        most = np.abs(checked).max(axis=1, keepdims=True)
        return self._stored(checked / np.maximum(most, np.finfo(np.float32).tiny), _TOP, dtype)

    @staticmethod
    def _stored(block: NDArray[np.float32], factor: float, dtype: str) -> NDArray[Any]:
        scaled: NDArray[Any] = np.ascontiguousarray(block)
        if factor != 1.0:
            scaled = np.multiply(block, factor, dtype=np.float64)
        if dtype == "int8":
            scaled = np.clip(np.rint(scaled), -_TOP, _TOP)
        return scaled.astype(dtype, copy=False)


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
        files: _Files,
        form: _Form,
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
        if self._groups is not None:
            sections["starts"] = self._groups.starts.astype("<u4").tobytes()
            sections["rows"] = self._groups.rows.astype("<u4").tobytes()
        envelope.write_sections(path, _KIND, self._shape, self._metric, sections, facts)

    def memory_bytes(self) -> int:
        """Rows and links."""
        row = self._shape[1] * np.dtype(self._form.dtype).itemsize
        groups = 0 if self._groups is None else self._groups.nbytes()
        return self._nodes * row + len(self._files.get("graph", b"")) + groups


class VamanaKind:
    """The kind ``vamana``."""

    name = _KIND
    capabilities = Capabilities(
        family="graph",
        metrics=frozenset(_SPACE),
        quantizations={"fp16": frozenset(_SPACE), "sq8": frozenset(_SPACE)},
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
        rows = _distinct(vectors, groups)
        form = _form(rows, metric, options)
        data = np.empty((rows.count, rows.dim), form.dtype)
        for start, block in rows.blocks(options.cancelled):
            data[start : start + len(block)] = form.rows(block)
        if options.cancelled():
            raise BuildCancelled
        if not rows.count:
            options.progress(1.0)
            return VamanaIndex(None, {}, form, groups, vectors.shape, metric)
        space, degree = _SPACE[metric], params["degree"]
        settings = svs.VamanaBuildParameters(
            alpha=_ALPHA[space], graph_max_degree=degree, window_size=max(params["build_window"], degree)
        )
        native = svs.Vamana.build(settings, data, getattr(svs.DistanceType, space), num_threads=max(1, options.threads))
        if options.cancelled():
            raise BuildCancelled
        files = _saved(native)
        options.progress(1.0)
        return VamanaIndex(native, files, form, groups, vectors.shape, metric)

    def load(self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> VamanaIndex:
        """See :meth:`vectordb.index.base.IndexKind.load`. Reads graph and vectors into memory.

        Raises:
            Corruption: The file is damaged, or belongs to another matrix or metric.
            ResourceExhausted: The folder for temporary files is full.
        """
        facts, sections = envelope.read_sections(path, _KIND, vectors.shape, metric)
        try:
            form = _Form(
                str(facts["dtype"]), float(facts["factor"]), Scaling(int(facts["exponent"]), float(facts["largest"]))
            )
            groups = _read_groups(sections, len(vectors))
            rows = _distinct(vectors, groups)
            if form.dtype not in ("float32", "float16", "int8") or rows.count != facts["nodes"]:
                raise ValueError(f"{facts['nodes']} nodes of type {form.dtype}")
            files = {name: sections[name] for name in (*_FILES, "head") if rows.count}
            _check_graph(files, rows.count)
        except (KeyError, TypeError, ValueError) as error:
            raise envelope.corrupt(path, f"lacks a part of a graph: {error}") from error
        native = None
        if rows.count:
            try:
                native = _loaded(files, rows, form, metric, options.cancelled)
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


def _distinct(vectors: NDArray[np.float32], groups: Groups | None) -> Rows:
    return Rows(vectors) if groups is None else Rows(vectors, groups.rows[groups.starts[:-1]].astype(np.int64))


def _form(rows: Rows, metric: Metric, options: BuildOptions) -> _Form:
    """How to store rows, by what was asked for, or at half precision where that loses nothing."""
    storage = choose_storage(rows, metric, options.cancelled)
    largest = largest_component(rows, options.cancelled)
    scaling = Scaling.of(rows, metric, options.cancelled)
    quantization = None if options.quantization is None else options.quantization.kind
    if quantization == "sq8":
        return _Form("int8", _TOP / largest if largest > 0.0 else 1.0, scaling)
    half = quantization == "fp16" or storage.half
    chosen = Storage(half, storage.exponent if half else scaling.exponent)
    return _Form("float16" if half else "float32", chosen.scale, scaling)


def _saved(native: Any) -> _Files:
    """What SVS writes, but for the rows."""
    files: dict[str, memoryview | bytes] = {}
    with TemporaryDirectory(prefix="vectordb-") as folder:
        native.save(*(f"{folder}/{name}" for name in ("config", "graph", "data")))
        for name, path in _FILES.items():
            files[name] = (Path(folder) / path).read_bytes()
        with (Path(folder) / _DATA).open("rb") as data:
            files["head"] = data.read(_HEAD)
    return files


def _loaded(files: _Files, rows: Rows, form: _Form, metric: Metric, cancelled: Callable[[], bool]) -> Any:
    """SVS loads folders and nothing else: they are laid out for it, with the rows, and removed again."""
    with TemporaryDirectory(prefix="vectordb-") as folder:
        for part in ("config", "graph", "data"):
            (Path(folder) / part).mkdir()
        for name, path in _FILES.items():
            (Path(folder) / path).write_bytes(files[name])
        with (Path(folder) / _DATA).open("wb") as data:
            data.write(files["head"])
            for _, block in rows.blocks(cancelled):
                data.write(form.rows(block).tobytes())
        return svs.Vamana(
            f"{folder}/config",
            svs.GraphLoader(f"{folder}/graph"),
            svs.VectorDataLoader(f"{folder}/data"),
            getattr(svs.DistanceType, _SPACE[metric]),
            query_type=svs.DataType.int8 if form.dtype == "int8" else svs.DataType.float32,
            num_threads=1,
        )


def _read_groups(sections: dict[str, memoryview], rows: int) -> Groups | None:
    if "starts" not in sections:
        return None
    starts, members = np.frombuffer(sections["starts"], "<u4"), np.frombuffer(sections["rows"], "<u4")
    if starts[0] != 0 or starts[-1] != rows or len(members) != rows:
        raise ValueError("groups of equal rows that do not fit")
    if (starts[1:] <= starts[:-1]).any() or (members >= rows).any():
        raise ValueError("impossible groups of equal rows")
    return Groups(starts, members)


def _check_graph(files: _Files, nodes: int) -> None:
    """The entry, and every count and link of the graph (uint32[n, 1 + degree] after the head): SVS follows blindly."""
    if not nodes:
        return
    entry = tomllib.loads(bytes(files["config"]).decode())["object"]["entry_point"]
    if not 0 <= entry < nodes:
        raise ValueError(f"an entry at node {entry}")
    links = np.frombuffer(files["graph"], "<u4", offset=_HEAD).reshape(nodes, -1)
    degree = links.shape[1] - 1
    used = links[:, :1]
    if (used > degree).any() or ((links[:, 1:] >= nodes) & (np.arange(degree) < used)).any():
        raise ValueError("links to nodes that are not there")
