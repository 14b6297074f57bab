"""The graph of SVS as one file, and how it stores rows.

SVS saves an index as three folders and loads nothing else. The file has its graph and configuration, and of its data
only the head, in sections of an :mod:`~vectordb.index.envelope`: the rows are made again from the segment's vectors on
loading, when the folders are laid out for as long as SVS reads them.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.index.base import BuildOptions
from vectordb.index.duplicates import Rows
from vectordb.index.extras import library
from vectordb.index.hnsw_storage import Precision, choose_storage, largest_component
from vectordb.index.scaling import Scaling
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND = "vamana"
svs = library(KIND, "svs", "svs")

SPACE = {Metric.COSINE: "L2", Metric.L2: "L2", Metric.DOT: "MIP"}
FILES = {
    "config": "config/svs_config.toml",
    "graph_config": "graph/svs_config.toml",
    "graph": "graph/graph_0.svs",
    "data_config": "data/svs_config.toml",
}
Files = Mapping[str, memoryview | bytes]
_DATA = "data/data_0.svs"
_HEAD = 1_024
"""Bytes before the rows in SVS's file of data."""
_TOP = 127.0


class Form(NamedTuple):
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


def choose_form(rows: Rows, metric: Metric, options: BuildOptions) -> Form:
    """How to store rows, by what was asked for, or at half precision where that loses nothing."""
    storage = choose_storage(rows, metric, options.cancelled)
    largest = largest_component(rows, options.cancelled)
    scaling = Scaling.of(rows, metric, options.cancelled)
    quantization = None if options.quantization is None else options.quantization.kind
    if quantization == "sq8":
        return Form("int8", _TOP / largest if largest > 0.0 else 1.0, scaling)
    half = quantization == "fp16" or storage.precision is Precision.HALF
    scale = storage.scale if half else math.ldexp(1.0, scaling.exponent)
    return Form("float16" if half else "float32", scale, scaling)


def saved(native: Any) -> Files:
    """What SVS writes, but for the rows."""
    files: dict[str, memoryview | bytes] = {}
    with TemporaryDirectory(prefix="vectordb-") as folder:
        native.save(*(f"{folder}/{name}" for name in ("config", "graph", "data")))
        for name, path in FILES.items():
            files[name] = (Path(folder) / path).read_bytes()
        with (Path(folder) / _DATA).open("rb") as data:
            files["head"] = data.read(_HEAD)
    return files


def loaded(files: Files, rows: Rows, form: Form, metric: Metric, cancelled: Callable[[], bool]) -> Any:
    """SVS loads folders and nothing else: they are laid out for it, with the rows, and removed again."""
    with TemporaryDirectory(prefix="vectordb-") as folder:
        for part in ("config", "graph", "data"):
            (Path(folder) / part).mkdir()
        for name, path in FILES.items():
            (Path(folder) / path).write_bytes(files[name])
        with (Path(folder) / _DATA).open("wb") as data:
            data.write(files["head"])
            for _, block in rows.blocks(cancelled):
                data.write(form.rows(block).tobytes())
        return svs.Vamana(
            f"{folder}/config",
            svs.GraphLoader(f"{folder}/graph"),
            svs.VectorDataLoader(f"{folder}/data"),
            getattr(svs.DistanceType, SPACE[metric]),
            query_type=svs.DataType.int8 if form.dtype == "int8" else svs.DataType.float32,
            num_threads=1,
        )


def check_graph(files: Files, nodes: int) -> None:
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
