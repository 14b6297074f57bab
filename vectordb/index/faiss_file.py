"""The file of an index made by faiss: what faiss writes, then what faiss does not know. It can be mapped as a whole.

    part      type            what
    native    faiss's own     faiss reads from the front and ignores the rest
    padding                   to a multiple of 8 bytes
    extra     uint32[]        arrays that the kind keeps beside it
    facts     JSON            kind, metric, rows, dim, nodes (rows that faiss holds), and what the kind notes
    trailer   40 bytes        b"VDBFAIS1" | uint64 length of native | uint64 of extra | uint64 of facts | b"VDBFAIS1"

All little-endian. faiss loads a file that was cut short or belongs to other vectors without a word, or ends the process
later: lengths and facts are compared before it gets to see the file.
"""

from __future__ import annotations

import json
import os
import struct
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.errors import ResourceExhausted
from vectordb.index.envelope import corrupt
from vectordb.index.native import faiss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.metric import Metric

_TRAILER = struct.Struct("<8sQQQ8s")
_MAGIC = b"VDBFAIS1"


class Stored(NamedTuple):
    """What a file holds: a faiss index, what its kind noted about it, and uint32[] beside it (empty where unused)."""

    native: Any
    facts: Mapping[str, Any]
    extra: NDArray[np.uint32]


class Owner(NamedTuple):
    """Whose index a file must be: the kind's name, the shape (n, d) of its matrix, and the metric."""

    kind: str
    shape: tuple[int, ...]
    metric: Metric


def write(path: Path, owner: Owner, stored: Stored) -> None:
    """Writes an index; the caller syncs.

    Raises:
        ResourceExhausted: The disk is full or refuses the file.
    """
    rows, dim = owner.shape
    facts = {
        **stored.facts,
        "kind": owner.kind,
        "metric": owner.metric.value,
        "rows": rows,
        "dim": dim,
        "nodes": int(stored.native.ntotal),
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    extra = stored.extra.astype("<u4").tobytes()
    try:
        faiss.write_index(stored.native, str(path))
        length = os.path.getsize(path)
        with path.open("ab") as file:
            file.write(bytes(-length % 8) + extra + text)
            file.write(_TRAILER.pack(_MAGIC, length, len(extra), len(text), _MAGIC))
    except (OSError, RuntimeError) as error:
        raise ResourceExhausted(f"cannot write index file '{path}': {error}", path=str(path)) from error


def read(path: Path, owner: Owner, *, mapped: bool) -> Stored:
    """Reads an index that belongs to ``owner``.

    A mapped index must never be added to: faiss ends the process.

    Raises:
        Corruption: Not such a file, cut short, or of another kind, matrix or metric.
    """
    facts, extra = _facts(path)
    rows, dim = owner.shape
    wanted = {"kind": owner.kind, "metric": owner.metric.value, "rows": rows, "dim": dim}
    if {name: facts.get(name) for name in wanted} != wanted:
        found = "{rows} rows of dim {dim} under {metric} (kind {kind})"
        raise corrupt(
            path,
            f"is for {found.format_map(defaultdict(lambda: '?', facts))}, its segment has {found.format_map(wanted)}",
        )
    return Stored(_native(path, facts, mapped=mapped), facts, extra)


def learned(path: Path, kind: str, metric: Metric, dim: int) -> Stored:
    """Reads an index over other rows into memory, for what it has learned from them.

    Raises:
        Corruption: Not such a file, cut short, empty, or of another kind, metric or dimension.
    """
    facts, extra = _facts(path)
    wanted = {"kind": kind, "metric": metric.value, "dim": dim}
    if {name: facts.get(name) for name in wanted} != wanted or not facts.get("rows"):
        raise corrupt(path, f"has learned nothing about {wanted}")
    return Stored(_native(path, facts, mapped=False), facts, extra)


def _facts(path: Path) -> tuple[Mapping[str, Any], NDArray[np.uint32]]:
    try:
        size = os.path.getsize(path)
        with path.open("rb") as file:
            file.seek(max(0, size - _TRAILER.size))
            data = file.read()
            if len(data) != _TRAILER.size:
                raise corrupt(path, "is cut short")
            head, length, extra, text, tail = _TRAILER.unpack(data)
            begin = length + (-length % 8)
            if head != _MAGIC or tail != _MAGIC or begin + extra + text + _TRAILER.size != size:
                raise corrupt(path, "is not a complete index file")
            file.seek(begin + extra)
            facts = json.loads(file.read(text))
            if not isinstance(facts, dict):
                raise corrupt(path, "has no facts")
    except (OSError, ValueError, OverflowError) as error:
        raise corrupt(path, f"cannot be read: {error}") from error
    if extra == 0:
        return facts, np.empty(0, np.uint32)
    return facts, np.memmap(path, "<u4", "r", offset=begin, shape=(extra // 4,)).view(np.ndarray)


def _native(path: Path, facts: Mapping[str, Any], *, mapped: bool) -> Any:
    try:
        native = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise corrupt(path, f"cannot be read by faiss: {error}") from error
    if (native.ntotal, native.d) != (facts.get("nodes"), facts.get("dim")):
        raise corrupt(path, "holds another faiss index than it says")
    return native
