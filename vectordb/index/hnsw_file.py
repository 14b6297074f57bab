"""The file of a graph: what faiss writes, then what faiss does not know. It can be memory-mapped as a whole.

    part      type            what
    graph     faiss's own     levels, links and stored rows; faiss reads from the front and ignores the rest
    padding                   to a multiple of 8 bytes
    starts    uint32[u + 1]   only where equal rows are grouped (``duplicates.Groups``)
    rows      uint32[n]       likewise
    trailer   56 bytes        b"VDBHNSW1" | uint64 rows n | uint64 distinct rows u | uint32 dim | uint32 metric (its
                              place in ``Metric``) | uint32 flags (1: half precision, 2: grouped) | int32 exponent
                              (stored rows are multiplied by 2 ** exponent) | uint64 length of the graph part |
                              b"VDBHNSW1"

All little-endian.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vectordb.errors import Corruption, ResourceExhausted
from vectordb.index.duplicates import Groups
from vectordb.index.hnsw_storage import Storage
from vectordb.index.native import faiss
from vectordb.metric import Metric

_TRAILER = struct.Struct("<8sQQIIIiQ8s")
_MAGIC = b"VDBHNSW1"
_METRICS = tuple(Metric)
_HALF, _GROUPED = 1, 2


class Graph(NamedTuple):
    """A faiss index, how it stores its rows, and which rows of the matrix share one of its nodes (None: none do)."""

    native: Any
    storage: Storage
    groups: Groups | None


def write(path: Path, graph: Graph, metric: Metric) -> None:
    """Writes a graph; the caller syncs.

    Raises:
        ResourceExhausted: The disk is full or refuses the file.
    """
    native, storage, groups = graph
    rows = native.ntotal if groups is None else len(groups.rows)
    flags = _HALF * storage.half + _GROUPED * (groups is not None)
    try:
        faiss.write_index(native, str(path))
        length = os.path.getsize(path)
        code = _METRICS.index(metric)
        with path.open("ab") as file:
            if groups is not None:
                file.write(bytes(-length % 8))
                file.write(groups.starts.astype("<u4").tobytes())
                file.write(groups.rows.astype("<u4").tobytes())
            file.write(
                _TRAILER.pack(_MAGIC, rows, native.ntotal, native.d, code, flags, storage.exponent, length, _MAGIC)
            )
    except (OSError, RuntimeError) as error:
        raise ResourceExhausted(f"cannot write index file '{path}': {error}", path=str(path)) from error


def read(path: Path, shape: tuple[int, ...], metric: Metric, *, mapped: bool) -> Graph:
    """Reads a graph over a matrix of the given shape.

    A mapped graph must never be added to: faiss ends the process.

    Raises:
        Corruption: Not such a file, cut short, or over another matrix or metric.
    """
    try:
        size = os.path.getsize(path)
        with path.open("rb") as file:
            file.seek(max(0, size - _TRAILER.size))
            data = file.read()
    except OSError as error:
        raise _corrupt(path, f"cannot be read: {error}") from error
    if len(data) != _TRAILER.size:
        raise _corrupt(path, "is cut short")
    head, rows, distinct, dim, code, flags, exponent, length, tail = _TRAILER.unpack(data)
    grouped = bool(flags & _GROUPED)
    extra = (-length % 8) + 4 * (distinct + 1 + rows) if grouped else 0
    if head != _MAGIC or tail != _MAGIC or length + extra + _TRAILER.size != size:
        raise _corrupt(path, "is not a complete hnsw index file")
    if (rows, dim) != shape or code != _METRICS.index(metric):
        found = f"{shape[0]} of dim {shape[1]} under {metric}"
        raise _corrupt(path, f"is for {rows} rows of dim {dim}, its segment has {found}")
    try:
        native = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise _corrupt(path, f"cannot be read by faiss: {error}") from error
    if (native.ntotal, native.d) != (distinct, dim) or not hasattr(native, "hnsw"):
        raise _corrupt(path, "holds another faiss index than its trailer says")
    groups = _groups(path, length + (-length % 8), distinct, rows) if grouped else None
    return Graph(native, Storage(bool(flags & _HALF), exponent), groups)


def _groups(path: Path, offset: int, distinct: int, rows: int) -> Groups:
    both = np.memmap(path, "<u4", "r", offset=offset, shape=(distinct + 1 + rows,)).view(np.ndarray)
    starts, positions = both[: distinct + 1], both[distinct + 1 :]
    if starts[0] != 0 or starts[-1] != rows or (starts[1:] <= starts[:-1]).any() or (positions >= rows).any():
        raise _corrupt(path, "has impossible groups of equal rows")
    return Groups(starts, positions)


def _corrupt(path: Path, what: str) -> Corruption:
    return Corruption(f"index file '{path}' {what}; delete it to have it rebuilt", path=str(path))
