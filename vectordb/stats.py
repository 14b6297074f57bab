"""What a database and its collections tell of themselves: sizes, segments, and what goes on in the background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vectordb.types import Durability, IndexSpec, QuantizationSpec, Readable


@dataclass(frozen=True, slots=True)
class SegmentStats(Readable):
    """One sealed segment: its name, rows (dead ones included), dead rows, index kind, and sizes in bytes.

    Attributes:
        quantization: The codes that its index searches, or ``None``: also ``sq8`` where the collection has none and
            ``memory_limit`` did not suffice to build it in full.
    """

    name: str
    rows: int
    deleted: int
    index: str
    memory_bytes: int
    disk_bytes: int
    quantization: str | None = None


@dataclass(frozen=True, slots=True)
class OptimizerStats(Readable):
    """What goes on in the background: ``idle``, ``sealing``, ``indexing``, ``merging``, ``reindexing``, ``failed``.

    Attributes:
        progress: Fraction of the running job, 0 to 1.
        pending_bytes: Raw vector bytes that still wait for their segment or index.
        error: The last failure's message, or ``None``.
    """

    state: str
    progress: float = 1.0
    pending_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ScrubStats(Readable):
    """What the background check of a collection's files found since the database was opened.

    Attributes:
        passes: Times that everything was read.
        bytes: Bytes read.
        damaged: Segments and indexes that did not meet their checksum; ``rebuilt``: those made anew from storage.
        error: The last damage that could not be mended, or ``None``.
    """

    passes: int = 0
    bytes: int = 0
    damaged: int = 0
    rebuilt: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class CollectionStats(Readable):
    """The state of one collection; ``stats["rows"]`` works too.

    Attributes:
        rows: Live records.
        deleted: Dead rows not yet merged away.
        indexed_rows: Rows (dead ones included) under an approximate index.
        tail_rows: Rows not yet sealed.
        version: The last committed version.
        disk_bytes: Of its segments, and of the whole storage below, which all collections of a database share.
        index, quantization: What searches use now; during a reindex the old form.
        scrub: What the background check of its files found.
        memory: ``memory_bytes`` by kind: ``tail``, ``segments`` (what the system cannot drop: changes, cached filters,
            indexes that are not mapped) and ``mapped`` (files that it reads in and drops as it likes).
    """

    rows: int
    deleted: int
    indexed_rows: int
    tail_rows: int
    version: int
    memory_bytes: int
    disk_bytes: int
    index: IndexSpec
    segments: tuple[SegmentStats, ...]
    optimizer: OptimizerStats
    quantization: QuantizationSpec | None = None
    scrub: ScrubStats = ScrubStats()
    memory: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BackupInfo(Readable):
    """One backup of a database.

    Attributes:
        id: Names it at its destination; ids sort by age.
        created: UTC, ISO 8601.
        collections: By name the version that each collection had, ``Collection.stats().version``; not its rows.
        files: How many files it has.
        total_bytes: Their size.
        new_bytes: Of these, what the destination did not have yet.
    """

    id: str
    created: str
    collections: Mapping[str, int]
    files: int
    total_bytes: int
    new_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DatabaseInfo(Readable):
    """What a database is: release and format versions, its folder (or ``":memory:"``), its collections.

    Within a row policy without folder and memory (empty).

    Attributes:
        memory: Bytes that count against ``memory_limit``, by kind, over all open collections: ``storage``, ``tail``,
            ``segments``, ``builds``, ``writes``.
        memory_limit: The limit in bytes, or ``None``.
    """

    version: str
    format_version: int
    path: str
    collections: tuple[str, ...]
    durability: Durability
    read_only_reason: str | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    memory_limit: int | None = None
