"""What a segment's folder says about itself: ``segment.json`` and, for what is built over it, ``index.json`` (one an
index) and ``text.json``.

All have the form ``{"checksum": ..., "body": {...}}``: the XXH3-128 of the body's canonical JSON guards the facts that
guard everything else (sizes and checksums of all other files).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import xxhash

from vectordb.errors import Corruption
from vectordb.metric import Metric
from vectordb.types import QuantizationSpec

T = TypeVar("T")
FORMAT = 1
"""Format version of segment folders; folders of a newer one are refused (and rebuilt from storage)."""

SEGMENT_FILE = "segment.json"
INDEX_FILE = "index.json"
TEXT_FILE = "text.json"


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """The facts of one segment.

    Attributes:
        name: Name of the folder, a UUID in hex.
        collection: Number of the collection.
        lo: First offset of the range that the segment covers.
        hi: End of that range (exclusive).
        rows: Rows in it, kept dead ones included; at least 1.
        dense: The rows' offsets are ``first_offset + row``; otherwise ``offsets`` is a file.
        first_offset: Offset of row 0.
        dim: Length of the vectors.
        metric: The metric the vectors were prepared for.
        vector_count: Rows that have a vector.
        covered_version: Tombstones and payload changes up to this version are folded in; later ones are not.
        dead: Dead rows that were kept (see ``build.py``).
        vector_name: The vector field; ``""`` is the default one.
        documents: Rows whose text has a word; None where it is not known (segments of before texts were indexed).
    """

    name: str
    collection: int
    lo: int
    hi: int
    rows: int
    dense: bool
    first_offset: int
    dim: int
    metric: Metric
    vector_count: int
    covered_version: int
    dead: int = 0
    vector_name: str = ""
    documents: int | None = None


@dataclass(frozen=True, slots=True)
class TextInfo:
    """The facts of the index over a segment's texts.

    Attributes:
        segment: Name of the segment.
        fingerprint: Of the analyzer that made the words.
        documents: Rows that have a word.
    """

    segment: str
    fingerprint: str
    documents: int


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """The facts of one index over a segment's vector matrix.

    Attributes:
        name: Name of the folder inside the segment's, ``index-`` and a UUID in hex.
        segment: Name of the segment.
        kind: Registered name of the index kind.
        params: Parameters it was built with.
        quantization: The quantization with its parameters, or None.
        vector_count: Rows of the matrix.
        calibration: ``Calibration.as_json``, None where it was not made; absent in folders of earlier releases.
    """

    name: str
    segment: str
    kind: str
    vector_count: int
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    quantization: QuantizationSpec | None = None
    calibration: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size in bytes and XXH3-128 (hex) of one file."""

    size: int
    checksum: str


Files = dict[str, FileEntry]
"""Every file of a folder but the JSON itself, by its path below that folder (with ``/``)."""


def write_info(path: Path, info: SegmentInfo | IndexInfo | TextInfo, files: Files) -> None:
    """Writes the JSON file (the caller syncs it)."""
    facts = {f.name: getattr(info, f.name) for f in fields(info)}
    if isinstance(info, IndexInfo):
        facts["params"] = dict(info.params)
        spec = info.quantization
        facts["quantization"] = None if spec is None else {"kind": spec.kind, "params": dict(spec.params)}
    body = {"format": FORMAT, **facts, "files": {name: asdict(entry) for name, entry in files.items()}}
    text = json.dumps({"checksum": _checksum(body), "body": body}, sort_keys=True, indent=1)
    path.write_text(text, encoding="utf-8")


def read_segment_info(path: Path) -> tuple[SegmentInfo, Files]:
    """Reads and checks ``segment.json``.

    Raises:
        Corruption: It is missing, does not meet its checksum, or has a newer format.
    """
    body, files = _read(path)
    with _understood(path):
        body["metric"] = Metric(body["metric"])
        return _checked(SegmentInfo(**body)), files


def read_index_info(path: Path) -> tuple[IndexInfo, Files]:
    """Reads and checks ``index.json``; raises as :func:`read_segment_info`."""
    body, files = _read(path)
    with _understood(path):
        if body["quantization"] is not None:
            body["quantization"] = QuantizationSpec(**body["quantization"])
        return _checked(IndexInfo(**body)), files


def read_text_info(path: Path) -> tuple[TextInfo, Files]:
    """Reads and checks ``text.json``; raises as :func:`read_segment_info`."""
    body, files = _read(path)
    with _understood(path):
        return _checked(TextInfo(**body)), files


def _read(path: Path) -> tuple[dict[str, Any], Files]:
    try:
        whole = json.loads(path.read_bytes())
        body = whole["body"]
        sound = whole["checksum"] == _checksum(body)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as err:
        raise Corruption(
            f"'{path}' is missing or unreadable ({err}); it is rebuilt from storage", path=str(path)
        ) from err
    if not sound:
        raise Corruption(f"'{path}' does not meet its checksum; it is rebuilt from storage", path=str(path))
    with _understood(path):
        if body["format"] > FORMAT:
            raise Corruption(
                f"'{path}' has format {body['format']}, this release reads up to {FORMAT}; it is rebuilt from storage",
                path=str(path),
            )
        del body["format"]
        files = {name: _checked(FileEntry(**entry)) for name, entry in body.pop("files").items()}
    return body, files


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Facts that make no sense are damage, also where somebody made their checksum fit."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise Corruption(f"'{path}' makes no sense ({err}); it is rebuilt from storage", path=str(path)) from err


def _checked(facts: T) -> T:
    """The same facts. Raises TypeError or ValueError where one has another type than it must, or is negative."""
    for name, kinds in _types(cast(Any, type(facts))).items():
        value = getattr(facts, name)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"{name} is {value!r:.50}")
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{name} is {value}")
    return facts


@cache
def _types(kind: type) -> dict[str, tuple[type, ...]]:
    """The types that each field of a dataclass may have."""
    return {
        name: tuple(get_origin(one) or one for one in get_args(hint) or (hint,))
        if isinstance(hint, UnionType)
        else (get_origin(hint) or hint,)
        for name, hint in get_type_hints(kind).items()
    }


def _checksum(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(canonical.encode())
