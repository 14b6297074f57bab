"""The vocabulary shared by engine, server and client, without what searches give: that is in ``results``.

No I/O, no heavy imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from vectordb.metric import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scalar = str | int | float | bool | datetime | None
Metadata = Mapping[str, Any]
"""A JSON-like dict of ``str, int, float, bool, datetime, None``, lists of them, and nested dicts."""


class Readable:
    """Lets a dataclass be read like a mapping too: ``stats["rows"]`` is ``stats.rows``."""

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except (AttributeError, TypeError):
            raise KeyError(name) from None

    def keys(self) -> list[str]:
        return [f.name for f in fields(self)]  # type: ignore[arg-type]


class FilterMode(StrEnum):
    """When a filter is applied: before, inside or after the search."""

    AUTO = "auto"
    PRE = "pre"
    IN = "in"
    POST = "post"


class FieldType(StrEnum):
    """The declared type of a metadata field."""

    KEYWORD = "keyword"
    TEXT = "text"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    DATETIME = "datetime"


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """How one metadata field is typed and whether filters may use it."""

    type: FieldType
    indexed: bool = True


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """An index kind and its parameters; ``auto`` is exact while small, then ``hnsw``."""

    kind: str = "auto"
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QuantizationSpec:
    """A compression of the vectors that an index searches; kinds and parameters: ``index/quantization.py``."""

    kind: str
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)


class Durability(StrEnum):
    """What an acknowledged write has survived: ``sync`` a power loss, ``async`` the end of the process."""

    SYNC = "sync"
    ASYNC = "async"


@dataclass(frozen=True, slots=True)
class Tuning:
    """Thresholds of one collection, all in bytes of raw vectors (4 * dim a row) unless said otherwise.

    Attributes:
        seal_bytes: The tail is sealed into a segment from this size on.
        index_bytes: A segment from this size on gets an approximate index under ``index="auto"``; smaller ones are
            searched exactly.
        max_segment_bytes: Merging stops at segments of this size.
        max_unindexed_bytes: Writers are slowed while more than this waits for its index.
        max_write_bytes: The largest single write call (ids + vectors + metadata + texts).
        merge_factor: So many segments of one size class are merged into one (a number, at least 2).
        build_threads: Threads of the index builder; 0 is all processors but one, at least one.
        durability: ``None`` takes the database's.
    """

    seal_bytes: int = 16 << 20
    index_bytes: int = 16 << 20
    max_segment_bytes: int = 8 << 30
    max_unindexed_bytes: int = 1 << 30
    max_write_bytes: int = 256 << 20
    merge_factor: int = 4
    build_threads: int = 0
    durability: Durability | None = None


@dataclass(frozen=True, slots=True)
class CollectionConfig:
    """Everything that is fixed when a collection is created, and index and quantization, which ``reindex`` changes.

    ``analyzer``: how its texts become words for keyword search: ``standard``, or a language whose stems are searched.
    """

    name: str
    dim: int
    metric: Metric = Metric.COSINE
    index: IndexSpec = IndexSpec()
    quantization: QuantizationSpec | None = None
    fields: Mapping[str, FieldSpec] | None = None
    tuning: Tuning = Tuning()
    analyzer: str = "standard"


@dataclass(frozen=True, slots=True)
class Record:
    """One stored record. On writes ``vector``, ``metadata`` and ``text`` may be left out; ``version`` is ignored."""

    id: str
    vector: NDArray[np.float32] | None = None
    metadata: Metadata | None = None
    text: str | None = None
    version: int = 0

    def __eq__(self, other: object) -> bool:
        """Equal fields; vectors are equal where all their numbers are."""
        if not isinstance(other, Record):
            return NotImplemented
        if (self.id, self.metadata, self.text, self.version) != (other.id, other.metadata, other.text, other.version):
            return False
        if self.vector is None or other.vector is None:
            return self.vector is other.vector
        import numpy as np

        return np.array_equal(self.vector, other.vector)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class WriteResult(Readable):
    """What a write did: rows written, the collection's version that wrote them, and their ids in the given order."""

    count: int
    version: int
    ids: list[str]
