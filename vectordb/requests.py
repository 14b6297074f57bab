"""Requests as plain data, and the one seam that carries them: :class:`Backend`.

The faces that users hold (``vectordb.api``) turn their arguments into these requests and hand them to a backend. There
are three: the engine itself, the client's local transport, and the client's gRPC transport. The server unpacks a
message into the same requests and hands them to the engine. So every target validates and answers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from vectordb.reports import Erasure, RepairReport, VerifyReport
from vectordb.results import Plan, SearchResult
from vectordb.stats import BackupInfo, CollectionStats, DatabaseInfo
from vectordb.types import CollectionConfig, FilterMode, IndexSpec, QuantizationSpec, Record, WriteResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.filter import Filter

DEFAULT_INCLUDE = ("metadata",)
SAMPLE_SEARCHES = 16
"""Searches of each collection that a check compares with exact ones."""


class WriteMode(StrEnum):
    """What a write does about ids that exist: replace them, refuse them, or require them."""

    UPSERT = "upsert"
    INSERT = "insert"
    UPDATE = "update"


@dataclass(slots=True)
class Rows:
    """Rows to write, by column. All columns have the length of ``ids``.

    Attributes:
        ids: Ids as text.
        vectors: float32[n, d], C-contiguous, rows without a vector all zero; ``None`` where no row has one.
        has_vector: bool[n]; ``None`` where every row has a vector (or none has: ``vectors is None``).
        metadata: One encoded metadata map a row (``vectordb.encoding``; empty bytes for no metadata), or ``None``.
        texts: One text or ``None`` a row, or ``None``.
    """

    ids: list[str]
    vectors: NDArray[np.float32] | None = None
    has_vector: NDArray[np.bool_] | None = None
    metadata: list[bytes] | None = None
    texts: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def size(self) -> int:
        """Bytes of ids, vectors, metadata and texts, as ``max_write_bytes`` counts them."""
        total = 0 if self.vectors is None else self.vectors.nbytes
        total += sum(map(len, self.metadata or ()))
        # What UTF-8 cannot hold is refused later, by row.
        total += sum(len(i) if i.isascii() else len(i.encode(errors="replace")) for i in self.ids)
        texts = [t for t in self.texts or () if isinstance(t, str)]
        return total + sum(len(t) if t.isascii() else len(t.encode(errors="replace")) for t in texts)


@dataclass(slots=True)
class WriteRequest:
    """Writes rows, all or nothing.

    Attributes:
        if_version: Every given id must now have this version (0: must not exist), else ``FailedPrecondition``.
        idempotency_key: A repeated request with the same key gets the first one's result, another one is refused;
            kept for 10 minutes.
        timeout: Seconds to wait for the acknowledgement, or ``None``.
        vector_name: Reserved; ``""`` is the default vector.
        policy: The caller's row policy (:mod:`vectordb.row_policy`); set next to the engine, never sent.
    """

    mode: WriteMode
    rows: Rows
    if_version: int | None = None
    idempotency_key: str | None = None
    timeout: float | None = None
    vector_name: str = ""
    policy: Filter | None = field(default=None, init=False)


@dataclass(slots=True)
class UpdateMetadataRequest:
    """Sets and removes metadata fields of the rows named by ``ids`` and/or matched by ``where`` (both: intersection).

    Attributes:
        set: Encoded metadata map; each top-level key replaces that key of the record.
        unset: Field paths to remove (``"a.b"`` reaches into nested dicts).
        policy: As in :class:`WriteRequest`.
    """

    ids: list[str] | None = None
    where: Filter | None = None
    set: bytes | None = None
    unset: Sequence[str] = ()
    if_version: int | None = None
    idempotency_key: str | None = None
    timeout: float | None = None
    policy: Filter | None = field(default=None, init=False)


@dataclass(slots=True)
class DeleteRequest:
    """Deletes the rows named by ``ids`` and/or matched by ``where`` (both: intersection).

    Attributes:
        policy: As in :class:`WriteRequest`.
    """

    ids: list[str] | None = None
    where: Filter | None = None
    if_version: int | None = None
    idempotency_key: str | None = None
    timeout: float | None = None
    policy: Filter | None = field(default=None, init=False)


@dataclass(slots=True)
class EraseRequest:
    """Makes everything of a collection that is deleted or replaced leave every file.

    Attributes:
        delete: What to delete before; its ``timeout`` is not looked at.
        timeout: Seconds for all of it; past it the rows are deleted, but not erased.
    """

    delete: DeleteRequest | None = None
    timeout: float | None = None


@dataclass(slots=True)
class GetRequest:
    """Reads records by id, in the asked order; missing ids are left out.

    Attributes:
        encoded: Metadata may come back as its stored bytes (``vectordb.encoding``), for a server that passes it on.
        policy: As in :class:`WriteRequest`.
    """

    ids: list[str]
    include: Sequence[str] = ("metadata", "text")
    timeout: float | None = None
    encoded: bool = field(default=False, init=False)
    policy: Filter | None = field(default=None, init=False)


@dataclass(slots=True)
class ScanRequest:
    """Reads all matching records over one stable snapshot, page by page.

    Attributes:
        order_by: A field path, ``"-"`` before it for descending; missing last, ties by id. ``None``: in order of
            arrival.
        encoded: As in :class:`GetRequest`.
    """

    where: Filter | None = None
    order_by: str | None = None
    page_size: int = 1000
    include: Sequence[str] = ("metadata", "text")
    encoded: bool = field(default=False, init=False)


@dataclass(frozen=True, slots=True)
class Rrf:
    """Fuses both legs of a hybrid search by their ranks: the sum of ``1 / (k + rank)``."""

    k: float = 60.0


@dataclass(frozen=True, slots=True)
class Weights:
    """Fuses both legs by their scores, each scaled to 0..1 over its candidates.

    Attributes:
        weights: Of the vectors' leg and of the texts'.
    """

    weights: tuple[float, ...]


Fusion: TypeAlias = Rrf | Weights


@dataclass(slots=True)
class SearchRequest:
    """Searches the nearest rows of each query: by vector, by text, or (hybrid) by both.

    Attributes:
        vectors: Queries, float32[q, d] as given by the user (not normalised); ``None`` to search by text alone.
        limit: Hits a query.
        exact: Scan instead of using an approximate index.
        min_score: Keep hits at least this good, in the metric's own direction; of a hybrid search it bounds the
            vectors' leg, of a search by text alone the keyword score.
        params: Per-query index parameters, such as ``{"ef": 128}``.
        timeout: Seconds until ``DeadlineExceeded``, or until a partial answer where ``allow_partial``.
        texts: One text a query; empty to search by vector alone.
        fusion: How a hybrid search joins its legs; ``None`` is :class:`Rrf`.
        encoded: As in :class:`GetRequest`.
    """

    vectors: NDArray[np.float32] | None
    limit: int = 10
    where: Filter | None = None
    filter_mode: FilterMode = FilterMode.AUTO
    exact: bool = False
    min_score: float | None = None
    params: dict[str, Any] | None = None
    timeout: float | None = None
    allow_partial: bool = False
    include: Sequence[str] = DEFAULT_INCLUDE
    vector_name: str = ""
    texts: Sequence[str] = ()
    fusion: Fusion | None = None
    encoded: bool = field(default=False, init=False)


@dataclass(slots=True)
class CreateRequest:
    """Creates a collection; with ``exist_ok`` an equal one may exist already."""

    config: CollectionConfig
    exist_ok: bool = False
    timeout: float | None = field(default=None)


@dataclass(slots=True)
class OptimizeRequest:
    """Seals, indexes and merges what there is.

    Attributes:
        wait: Answer when it is done.
        timeout: Seconds to wait until ``DeadlineExceeded``; the work goes on.
        wanted: False once nobody waits for the answer any more; the work goes on.
    """

    wait: bool = True
    timeout: float | None = None
    wanted: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class ReindexRequest:
    """Gives a collection another index and/or quantization; ``None`` leaves it as it is, kind ``none`` takes the
    quantization away.

    Attributes:
        wait: Answer when it is done.
        wanted: False once nobody waits for the answer any more; the reindex goes on.
    """

    index: IndexSpec | None = None
    quantization: QuantizationSpec | None = None
    wait: bool = True
    wanted: Callable[[], bool] = lambda: True


class Backend(Protocol):
    """What can carry out requests. Thread-safe; every method raises the errors of :mod:`vectordb.errors` only."""

    def create_collection(self, request: CreateRequest) -> CollectionConfig: ...

    def collection_config(self, name: str) -> CollectionConfig:
        """Raises: CollectionNotFound."""
        ...

    def list_collections(self) -> list[str]: ...

    def delete_collection(self, name: str) -> None: ...

    def info(self) -> DatabaseInfo: ...

    def write(self, collection: str, request: WriteRequest) -> WriteResult: ...

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int: ...

    def delete(self, collection: str, request: DeleteRequest) -> int: ...

    def get(self, collection: str, request: GetRequest) -> list[Record]: ...

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int: ...

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        """Pages of records; closing the iterator releases the snapshot."""
        ...

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        """One result a query."""
        ...

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan: ...

    def optimize(self, collection: str, request: OptimizeRequest) -> None: ...

    def reindex(self, collection: str, request: ReindexRequest) -> CollectionConfig:
        """The collection's configuration after it; without ``wait`` the present one."""
        ...

    def cancel_reindex(self, collection: str) -> bool:
        """Whether one was running."""
        ...

    def stats(self, collection: str) -> CollectionStats: ...

    def backup(self, destination: str) -> BackupInfo:
        """Writes a backup of the whole database to a folder, or a URL, as the engine's process sees it."""
        ...

    def verify(self, searches: int) -> VerifyReport: ...

    def repair(self, dry_run: bool) -> RepairReport:
        """Rebuilds damaged caches; what storage itself lost is only told."""
        ...

    def erase(self, collection: str, request: EraseRequest) -> Erasure: ...

    def with_policy(self, policy: Filter) -> Backend:
        """The same, for a caller bound by a row policy (:mod:`vectordb.row_policy`); closing it closes nothing."""
        ...

    def close(self) -> None: ...
