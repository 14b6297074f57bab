"""The file of an hnswlib graph, and graphs made from it.

hnswlib's own ``load_index`` takes any bytes and crashes later; its ``save_index`` says nothing of a full disk. So the
arrays that it gives out for pickling are written here, in sections of an :mod:`~vectordb.index.envelope`, and what is
read is checked before it gets them: every count and every link that a walk would follow.

    section      type          what
    level0       bytes[n, s]   a node: uint32 number of links, 2 m links (uint32), dim float32, uint64 label;
                               nodes stand in the order in which they were added, labels are numbers of distinct rows
    levels       int32[n]      how many upper levels a node is on
    upper        bytes         for each of them: uint32 number of links, m links (uint32)
    starts, rows uint32        ``duplicates.Groups``, where equal rows are grouped
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.index import envelope, grouping
from vectordb.index.duplicates import Groups
from vectordb.index.extras import library
from vectordb.index.scaling import Scaling
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND = "hnswlib"
hnswlib = library(KIND, "hnswlib", "hnswlib")

SPACE = {Metric.COSINE: "l2", Metric.L2: "l2", Metric.DOT: "ip"}
"""Cosine by Euclidean distance of unit vectors: it ranks alike, and tells rows apart that lie close together."""
_FACTS = ("m", "ef_construction", "nodes", "max_level", "entry")
_BLOCK = 1 << 16


class Graph(NamedTuple):
    """An index of hnswlib, which rows of the matrix share its nodes (None: none do), and how rows are scaled."""

    native: Any
    groups: Groups | None
    scaling: Scaling


def empty(dim: int, metric: Metric, capacity: int, m: int, ef_construction: int) -> Any:
    """An index without rows, with room for ``capacity``."""
    native = hnswlib.Index(SPACE[metric], dim)
    native.init_index(max(1, capacity), M=m, ef_construction=ef_construction, random_seed=1)
    return native


def grown(native: Any, dim: int, metric: Metric, capacity: int) -> Any:
    """A copy with room for more rows: hnswlib's own ``resize_index`` moves what searches are reading."""
    state = native.__getstate__()[0]
    return _restored(state, state, dim, metric, capacity)


def write(path: Path, graph: Graph, shape: tuple[int, ...], metric: Metric) -> None:
    """Writes a graph; the caller syncs.

    Raises:
        ResourceExhausted: The disk is full or refuses the file.
    """
    state = graph.native.__getstate__()[0]
    nodes = int(state["cur_element_count"])
    facts = {
        "m": int(state["M"]),
        "ef_construction": int(state["ef_construction"]),
        "nodes": nodes,
        "max_level": int(state["max_level"]),
        "entry": int(state["enterpoint_node"]),
        "exponent": graph.scaling.exponent,
        "largest": graph.scaling.largest,
    }
    sections = {
        "level0": state["data_level0"].data,
        "levels": state["element_levels"][:nodes].data,
        "upper": state["link_lists"].data,
    }
    sections |= grouping.sections(graph.groups)
    envelope.write_sections(path, KIND, shape, metric, sections, facts)


def read(path: Path, shape: tuple[int, ...], metric: Metric) -> Graph:
    """Reads a graph over a matrix of this shape, into memory.

    Raises:
        Corruption: Not such a file, cut short, over another matrix or metric, or not a graph.
    """
    facts, sections = envelope.read_sections(path, KIND, shape, metric)
    try:
        m, ef_construction, nodes, max_level, entry = (int(facts[name]) for name in _FACTS)
        scaling = Scaling(int(facts["exponent"]), float(facts["largest"]))
        state = {
            "data_level0": np.frombuffer(sections["level0"], np.int8),
            "element_levels": np.frombuffer(sections["levels"], "<i4"),
            "link_lists": np.frombuffer(sections["upper"], np.int8),
        }
        groups = grouping.read(sections, shape[0], nodes)
    except (KeyError, TypeError, ValueError) as error:
        raise envelope.corrupt(path, f"lacks a part of a graph: {error}") from error
    if nodes == 0:
        return Graph(empty(shape[1], metric, 1, m, ef_construction), groups, scaling)
    problem = _problem(state, nodes, shape[1], m, (max_level, entry))
    if problem:
        raise envelope.corrupt(path, problem)
    # Labels are inside the nodes.
    size = len(state["data_level0"]) // nodes
    labels = _strided(state["data_level0"], nodes, size, size - 8, "<u8", 1)[:, 0]
    state["label_lookup_external"] = np.ascontiguousarray(labels)
    state["label_lookup_internal"] = np.arange(nodes, dtype=np.uint32)
    numbers = {"cur_element_count": nodes, "max_level": max_level, "enterpoint_node": entry}
    like = empty(shape[1], metric, 1, m, ef_construction).__getstate__()[0]
    return Graph(_restored(like, {**state, **numbers}, shape[1], metric, nodes), groups, scaling)


def _restored(like: dict[str, Any], state: dict[str, Any], dim: int, metric: Metric, capacity: int) -> Any:
    """A new index with the arrays of ``state``, set up like ``like``."""
    params = {**like, **state}
    params |= {"space": SPACE[metric], "dim": dim, "max_elements": capacity, "ep_added": True, "index_inited": True}
    params["element_levels"] = params["element_levels"][: params["cur_element_count"]]
    return hnswlib.Index(params=params)


def _problem(state: dict[str, NDArray[Any]], nodes: int, dim: int, m: int, top: tuple[int, int]) -> str | None:
    """What keeps arrays from being a graph that can be walked."""
    level0, levels, upper = state["data_level0"], state["element_levels"], state["link_lists"]
    size, above = 4 + 8 * m + 4 * dim + 8, 4 + 4 * m
    if len(level0) != nodes * size or len(levels) != nodes:
        return f"does not hold {nodes} nodes of {size} bytes"
    if (levels < 0).any() or len(upper) != int(levels.sum(dtype=np.int64)) * above:
        return "has other upper levels than its nodes say"
    if top[0] != int(levels.max()) or not 0 <= top[1] < nodes or int(levels[top[1]]) != top[0]:
        return "enters at no node of its highest level"
    labels = _strided(level0, nodes, size, size - 8, "<u8", 1)[:, 0]
    if (labels >= nodes).any() or not (np.bincount(labels.astype(np.int64), minlength=nodes) == 1).all():
        return "does not label each node once"
    if not (_sound(level0, nodes, size, 2 * m, nodes) and _sound(upper, len(upper) // above, above, m, nodes)):
        return "has links to nodes that are not there"
    return None


def _sound(data: NDArray[Any], lists: int, size: int, most: int, nodes: int) -> bool:
    """Whether every list of links has at most ``most``, all to nodes that there are."""
    for start in range(0, lists, _BLOCK):
        block = data[start * size :]
        count = min(_BLOCK, lists - start)
        # The upper half of the number is hnswlib's mark of deletion: there is none here.
        used = _strided(block, count, size, 0, "<u4", 1)
        links = _strided(block, count, size, 4, "<u4", most)
        if (used > most).any() or ((links >= nodes) & (np.arange(most) < used)).any():
            return False
    return True


def _strided(data: NDArray[Any], count: int, size: int, offset: int, dtype: str, width: int) -> NDArray[Any]:
    """One field of ``count`` records of ``size`` bytes: [count, width], without a copy."""
    kind = np.dtype(dtype)
    if count == 0:
        return np.empty((0, width), kind)
    return np.ndarray((count, width), kind, data.data, offset, (size, kind.itemsize))
