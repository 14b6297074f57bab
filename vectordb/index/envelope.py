"""The frame around the files of libraries that check nothing: what a file is for, and that it is whole.

    part      type         what
    block     64 bytes     b"VDBINDEX" | kind, 16 bytes of ASCII padded with zeros | uint64 rows |
                           uint64 size of the file | uint32 dim | uint32 metric (its place in ``Metric``) |
                           uint64 a number of the kind's own | uint32 version | uint32 CRC-32 of the 60 bytes before
    the rest               the kind's own business; or, of :func:`write_sections`:
    facts     JSON         {"facts": {...}, "sections": {name: length, ...}}; its length is the block's own number
    sections               one after the other, each at a multiple of 64 bytes

All little-endian. A truncated file, a file of another kind, matrix or metric is told before a loader sees it. That no
byte was changed is the segment store's business, which checksums every file.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vectordb.errors import Corruption, ResourceExhausted
from vectordb.metric import Metric

_BLOCK = struct.Struct("<8s16sQQIIQI")
_CRC = struct.Struct("<I")
BLOCK_BYTES = _BLOCK.size + _CRC.size
_MAGIC = b"VDBINDEX"
_VERSION = 1
_METRICS = tuple(Metric)
_ALIGN = 64


class Sections(NamedTuple):
    """What :func:`read_sections` found: the kind's facts, and its sections as views of the mapped file."""

    facts: dict[str, Any]
    sections: dict[str, memoryview]


def block(kind: str, shape: tuple[int, ...], metric: Metric, size: int, own: int = 0) -> bytes:
    """The 64 bytes at the front of a file of ``size`` bytes, over a matrix of this shape."""
    code = _METRICS.index(metric)
    head = _BLOCK.pack(_MAGIC, kind.encode(), shape[0], size, shape[1], code, own, _VERSION)
    return head + _CRC.pack(zlib.crc32(head))


def check(path: Path, kind: str, shape: tuple[int, ...], metric: Metric) -> int:
    """The kind's own number in a file's block, which must be of this kind, matrix and metric.

    Raises:
        Corruption: It is not, or the file is cut short or cannot be read.
    """
    try:
        size = os.path.getsize(path)
        with path.open("rb") as file:
            data = file.read(BLOCK_BYTES)
    except OSError as error:
        raise corrupt(path, f"cannot be read: {error}") from error
    head, tail = data[: _BLOCK.size], data[_BLOCK.size :]
    if len(data) != BLOCK_BYTES or head[:8] != _MAGIC or _CRC.unpack(tail)[0] != zlib.crc32(head):
        raise corrupt(path, f"is not a {kind} index file")
    _, name, rows, whole, dim, code, own, version = _BLOCK.unpack(head)
    found = name.rstrip(b"\0").decode(errors="replace")
    if found != kind or version != _VERSION:
        raise corrupt(path, f"is a {found} index file of version {version}, not a {kind} one of version {_VERSION}")
    if whole != size:
        raise corrupt(path, f"has {size} bytes instead of {whole}")
    if (rows, dim) != tuple(shape) or code != _METRICS.index(metric):
        name_of = _METRICS[code].value if code < len(_METRICS) else "an unknown metric"
        raise corrupt(
            path,
            f"is for {rows} rows of dim {dim} under {name_of}, its segment has {shape[0]} of dim {shape[1]} under "
            f"{metric.value}",
        )
    return int(own)


def write_sections(
    path: Path,
    kind: str,
    shape: tuple[int, ...],
    metric: Metric,
    sections: Mapping[str, memoryview | bytes],
    facts: Mapping[str, Any],
) -> None:
    """Writes a file of sections; the caller syncs.

    Raises:
        ResourceExhausted: The disk is full or refuses the file.
    """
    lengths = {name: memoryview(data).nbytes for name, data in sections.items()}
    table = json.dumps({"facts": dict(facts), "sections": lengths}).encode()
    size = BLOCK_BYTES + len(table)
    for length in lengths.values():
        size += -size % _ALIGN + length
    try:
        with path.open("wb") as file:
            file.write(block(kind, shape, metric, size, len(table)))
            file.write(table)
            for data in sections.values():
                file.write(bytes(-file.tell() % _ALIGN))
                file.write(memoryview(data).cast("B") if memoryview(data).nbytes else b"")
    except OSError as error:
        raise ResourceExhausted(f"cannot write index file '{path}': {error}", path=str(path)) from error


def read_sections(path: Path, kind: str, shape: tuple[int, ...], metric: Metric) -> Sections:
    """Maps a file of sections.

    Raises:
        Corruption: See :func:`check`; or the sections do not fill the file.
    """
    length = check(path, kind, shape, metric)
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        table = json.loads(bytes(mapped[BLOCK_BYTES : BLOCK_BYTES + length]))
        at = BLOCK_BYTES + length
        sections = {}
        for name, count in table["sections"].items():
            at += -at % _ALIGN
            sections[name] = mapped[at : at + count]
            at += count
        facts = dict(table["facts"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise corrupt(path, f"has an unreadable table of sections: {error}") from error
    if at != len(mapped):
        raise corrupt(path, "is not filled by its sections")
    return Sections(facts, sections)


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Facts that are missing or make no sense are damage.

    Raises:
        Corruption: In the place of what reading them raised.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise corrupt(path, f"has facts that make no sense: {error!r:.100}") from error


def corrupt(path: Path, what: str) -> Corruption:
    """The error for a file of which ``what`` is wrong."""
    return Corruption(f"index file '{path}' {what}; delete it to have it rebuilt", path=str(path))
