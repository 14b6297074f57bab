"""The file of a graph: what faiss writes, then a trailer of 48 bytes. faiss reads from the front and ignores the rest.

    offset from the end   type    what
    -48                   8s      b"VDBHNSW1"
    -40                   uint64  rows
    -32                   uint32  dim
    -28                   uint32  metric, by its place in ``Metric``
    -24                   uint32  1: half precision, 0: single
    -20                   int32   exponent: stored rows are multiplied by 2 ** exponent
    -16                   uint64  length of faiss's part in bytes
    -8                    8s      b"VDBHNSW1" again

All little-endian. One file, and it can still be memory-mapped.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from vectordb.errors import Corruption, ResourceExhausted
from vectordb.index.hnsw_storage import Storage
from vectordb.index.native import faiss
from vectordb.metric import Metric

_TRAILER = struct.Struct("<8sQIIIiQ8s")
_MAGIC = b"VDBHNSW1"
_METRICS = tuple(Metric)


def write(path: Path, graph: Any, storage: Storage, metric: Metric) -> None:
    """Writes a faiss graph and its trailer; the caller syncs.

    Raises:
        ResourceExhausted: The disk is full or refuses the file.
    """
    try:
        faiss.write_index(graph, str(path))
        size = os.path.getsize(path)
        code = _METRICS.index(metric)
        with path.open("ab") as file:
            file.write(_TRAILER.pack(_MAGIC, graph.ntotal, graph.d, code, storage.half, storage.exponent, size, _MAGIC))
    except (OSError, RuntimeError) as error:
        raise ResourceExhausted(f"cannot write index file '{path}': {error}", path=str(path)) from error


def read(path: Path, shape: tuple[int, ...], metric: Metric, *, mapped: bool) -> tuple[Any, Storage]:
    """Reads a graph over a matrix of the given shape: the faiss index and how it stores its rows.

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
    head, rows, dim, code, half, exponent, length, tail = _TRAILER.unpack(data)
    if head != _MAGIC or tail != _MAGIC or length + _TRAILER.size != size:
        raise _corrupt(path, "is not a complete hnsw index file")
    if (rows, dim) != shape or code != _METRICS.index(metric):
        raise _corrupt(
            path, f"is for {rows} rows of dim {dim}, its segment has {shape[0]} of {shape[1]} under {metric}"
        )
    try:
        graph = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise _corrupt(path, f"cannot be read by faiss: {error}") from error
    if (graph.ntotal, graph.d) != shape or not hasattr(graph, "hnsw"):
        raise _corrupt(path, "holds another faiss index than its trailer says")
    return graph, Storage(bool(half), exponent)


def _corrupt(path: Path, what: str) -> Corruption:
    return Corruption(f"index file '{path}' {what}; delete it to have it rebuilt", path=str(path))
