"""The file of a graph: a ``faiss_file`` whose extra part tells which rows are equal.

extra     type            what
starts    uint32[u + 1]   only where equal rows are grouped (``duplicates.Groups``)
rows      uint32[n]       likewise
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vectordb.index import faiss_file
from vectordb.index.codes import Codec
from vectordb.index.duplicates import Groups
from vectordb.index.envelope import corrupt, understood
from vectordb.index.faiss_file import Owner, Stored
from vectordb.index.hnsw_storage import Precision, Storage
from vectordb.metric import Metric

_KIND = "hnsw"


class Graph(NamedTuple):
    """A faiss index, and how it stores its rows.

    Attributes:
        native: The index.
        storage: Precision and scale of the rows, or of what their codes are made from.
        groups: Which rows of the matrix share one of its nodes; None where none do.
        codec: Codes that stand in the place of the rows.
        error: How badly they described rows that they were not learned from.
        learned: How many rows there were when they were learned.
    """

    native: Any
    storage: Storage
    groups: Groups | None
    codec: Codec = Codec()
    error: float = 0.0
    learned: int = 0


def write(path: Path, graph: Graph, metric: Metric) -> None:
    """Writes a graph; the caller syncs.

    Raises:
        ResourceExhausted: The disk is full or refuses the file.
    """
    native, groups = graph.native, graph.groups
    rows = int(native.ntotal) if groups is None else len(groups.rows)
    facts = {
        "precision": graph.storage.precision,
        "scale": graph.storage.scale,
        "grouped": groups is not None,
        "codec": list(graph.codec),
        "error": graph.error,
        "learned": graph.learned,
    }
    extra = np.empty(0, np.uint32) if groups is None else np.concatenate([groups.starts, groups.rows])
    faiss_file.write(path, Owner(_KIND, (rows, native.d), metric), Stored(native, facts, extra))


def read(path: Path, shape: tuple[int, ...], metric: Metric, *, mapped: bool) -> Graph:
    """Reads a graph over a matrix of the given shape.

    A mapped graph must never be added to: faiss ends the process.

    Raises:
        Corruption: Not such a file, cut short, or over another matrix or metric.
    """
    native, facts, extra = faiss_file.read(path, Owner(_KIND, shape, metric), mapped=mapped)
    if not hasattr(native, "hnsw"):
        raise corrupt(path, "holds another faiss index than it says")
    with understood(path):
        groups = _groups(path, extra, int(native.ntotal), shape[0]) if facts["grouped"] else None
        storage = _storage(facts)
        return Graph(native, storage, groups, Codec(*facts["codec"]), float(facts["error"]), int(facts["learned"]))


def learned(path: Path, metric: Metric, dim: int) -> Graph:
    """Reads a graph over other rows into memory, for what its codes have learned from them.

    Raises:
        Corruption: Not such a file, cut short, empty, or of another metric or dimension.
    """
    native, facts, _ = faiss_file.learned(path, _KIND, metric, dim)
    with understood(path):
        storage = _storage(facts)
        return Graph(native, storage, None, Codec(*facts["codec"]), float(facts["error"]), int(facts["learned"]))


def _storage(facts: Mapping[str, Any]) -> Storage:
    """How rows are stored; files of the first release say it by two other words."""
    if "half" in facts:
        precision = Precision.HALF if facts["half"] else Precision.SINGLE
        return Storage.floats(precision, int(facts["exponent"]))
    return Storage(Precision(facts["precision"]), float(facts["scale"]))


def _groups(path: Path, both: np.ndarray[Any, Any], distinct: int, rows: int) -> Groups:
    starts, positions = both[: distinct + 1], both[distinct + 1 :]
    if (
        len(both) != distinct + 1 + rows
        or starts[0] != 0
        or starts[-1] != rows
        or (starts[1:] <= starts[:-1]).any()
        or (positions >= rows).any()
    ):
        raise corrupt(path, "has impossible groups of equal rows")
    return Groups(starts, positions)
