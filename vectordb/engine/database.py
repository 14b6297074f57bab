"""The engine of one folder: opening and closing it, its catalogue of collections, and the ``Backend`` operations."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import vectordb
from vectordb import arguments, failpoints
from vectordb.api.database import Database as _Face
from vectordb.engine import checks, reads, writes
from vectordb.engine.capacity.resources import Resources, settled
from vectordb.engine.care.care import MEMORY, Care
from vectordb.engine.care.scrub import DEFAULT_RATE, Scrubber, check_rate
from vectordb.engine.catalogue import Catalogue
from vectordb.engine.live import LiveCollection
from vectordb.engine.locking import DirectoryLock
from vectordb.engine.opening import check_loss, open_storage
from vectordb.engine.optimizer import Optimizer
from vectordb.engine.recovery import open_collection
from vectordb.engine.reindexer import Reindexer
from vectordb.engine.report import build_lag, collection_stats
from vectordb.engine.results import fingerprint_of_change, fingerprint_of_rows
from vectordb.engine.writer import Call, Committer, Syncs, outcome_unknown
from vectordb.errors import Closed, FailedPrecondition, InvalidArgument, VectorDBError, os_errors_told
from vectordb.filter import Filter
from vectordb.query.deadline import Deadline
from vectordb.requests import (
    CreateRequest,
    DeleteRequest,
    GetRequest,
    OptimizeRequest,
    ReindexRequest,
    ScanRequest,
    SearchRequest,
    UpdateMetadataRequest,
    WriteRequest,
)
from vectordb.results import Plan, SearchResult
from vectordb.row_policy import PolicyBackend
from vectordb.segments.store import SegmentStore
from vectordb.stats import CollectionStats, DatabaseInfo
from vectordb.storage.acked import AckedPage
from vectordb.storage.base import Storage
from vectordb.storage.format import check_format, open_format
from vectordb.storage.keys import FORMAT_VERSION
from vectordb.storage.memory import MemoryStorage
from vectordb.storage.rocks_options import DEFAULT_CACHE_BYTES, Sizes
from vectordb.types import CollectionConfig, Durability, Record, WriteResult

_log = logging.getLogger("vectordb.engine")


class Engine(Care):
    """Runs every request of :class:`vectordb.requests.Backend` on one folder. Thread-safe.

    Args:
        path: The folder, created when missing, or ``":memory:"``.
        durability: ``"sync"``: acknowledged writes survive a power loss; ``"async"``: the end of the process.
        cache_bytes: Bound of RocksDB's block cache.
        accept_loss: Open although acknowledged data is known to be lost, and go on with what is left.
        shared: A door follows by which other processes may use the folder (``server/sharing.py``).
        scrub_bytes_per_second: How fast files are checked in the background; 0: not at all.
        **limits: ``memory_limit``, ``own_process``, ``min_free_disk`` (:class:`~.capacity.resources.Demands`) and the
            caps of :class:`vectordb.limits.Limits`.

    Raises:
        DirectoryLocked: Another process, or engine, owns the folder; the message says which.
        FailedPrecondition: The folder is of a newer format, or not a database. Corruption: It is damaged, or
            acknowledged data is missing. ResourceExhausted: Its disk is full.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: str | Durability = Durability.SYNC,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        accept_loss: bool = False,
        shared: bool = False,
        scrub_bytes_per_second: int = DEFAULT_RATE,
        **limits: Any,
    ) -> None:
        try:
            self._durability = Durability(durability)
        except ValueError:
            raise InvalidArgument(
                f"durability {durability!r} is unknown; 'sync' or 'async'", field="durability"
            ) from None
        check_rate(scrub_bytes_per_second)
        cache_bytes, accept_loss = checks.check_opening(cache_bytes, accept_loss)
        demands, self._limits = settled(limits)
        self._lock = threading.RLock()
        self._lives: dict[str, LiveCollection] = {}  # changed under self._lock; read without
        self._closed: str | None = None
        self._closing: list[Callable[[], None]] = []
        self._shared = shared
        self._folder: Path | None = None
        self._directory_lock: DirectoryLock | None = None
        self._acked: AckedPage | None = None
        self._segments: SegmentStore | None = None
        if str(path) == MEMORY:
            self._storage: Storage = MemoryStorage()
            self._catalogue = Catalogue(self._storage)
        else:
            self._folder = arguments.folder(path)
            with os_errors_told(f"folder {self._folder} cannot be opened", path=str(self._folder)):
                self._open_folder(self._folder, demands.storage_sizes(cache_bytes), accept_loss)
        self.resources = Resources(demands, self._folder, self._storage, self._lives)
        self._committer = Committer(self._storage, self._acked, self._durability)
        self._optimizer = Optimizer(self._storage, self._segments, self.resources)
        self.resources.relief = self._optimizer.relieve
        self._reindexer = Reindexer(
            self._storage, self._segments, self._catalogue, self.resources, self._optimizer.wake
        )
        self._scrubber = self._new_scrubber(scrub_bytes_per_second)
        _ENGINES.add(self)

    def _new_scrubber(self, rate: int) -> Scrubber | None:
        store = self._segments
        return None if store is None else Scrubber(self._storage, store, lambda: list(self._lives.values()), rate)

    def _open_folder(self, folder: Path, sizes: Sizes, accept_loss: bool) -> None:
        check_format(folder, create=True)
        with os_errors_told(f"cannot create folder {folder}", path=str(folder)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory_lock = DirectoryLock(folder, shared=self._shared)
        try:
            failpoints.hit("open.locked")
            open_format(folder, release=vectordb.__version__)
            self._storage = open_storage(folder, sizes, accept_loss)
            try:
                failpoints.hit("open.storage")
                self._catalogue = Catalogue(self._storage)
                self._acked = AckedPage(folder / "ACKED")
                check_loss(folder, self._acked, self._storage, self._catalogue, accept_loss)
                self._segments = SegmentStore(folder / "segments")
                self._segments.collect_garbage(self._catalogue.segment_refs())
                failpoints.hit("open.done")
            except BaseException:
                self._storage.close()
                raise
        except BaseException:
            self._directory_lock.release()
            raise

    # Catalogue

    def create_collection(self, request: CreateRequest) -> CollectionConfig:
        checks.check_config(request.config, self._limits)
        with self.resources.write(0, frees=False), self._lock:
            self._check_writable()
            if request.config.name not in self._catalogue.numbers():
                self._limits.check_count("max_collections", len(self._catalogue.numbers()) + 1, "collections")
            with outcome_unknown(f"creating collection {request.config.name!r}"):
                config, made = self._catalogue.create(request.config, request.exist_ok)
                failpoints.hit("create.synced")
                if made is not None and self._acked is not None:
                    self._acked.store(made[1], {made[0]: 0})
            return config

    def collection_config(self, name: str) -> CollectionConfig:
        return self._live(name).config

    def list_collections(self) -> list[str]:
        self._check_open()
        return sorted(self._catalogue.numbers())

    def delete_collection(self, name: str) -> None:
        with self._lock:
            self._check_writable()
            # It is not opened for that: what cannot be opened could not be deleted.
            number, live = self._catalogue.find(name)[0], self._lives.get(name)
            with nullcontext() if live is None else live.deleting(), outcome_unknown(f"deleting collection {name!r}"):
                segments = self._catalogue.segments_of(number)
                sequence = self._catalogue.delete(name)
                failpoints.hit("delete.synced")
                if self._acked is not None:
                    self._acked.drop(sequence, number)
            self._lives.pop(name, None)
            self.resources.share()
            failpoints.hit("delete.acked")
            if self._segments is not None:
                for segment in segments:
                    self._segments.remove(segment)

    def info(self) -> DatabaseInfo:
        return DatabaseInfo(
            version=vectordb.__version__,
            format_version=FORMAT_VERSION,
            path=MEMORY if self._folder is None else str(self._folder),
            collections=tuple(self.list_collections()),
            durability=self._durability,
            read_only_reason=self._committer.read_only_reason or self.resources.read_only_reason,
            memory=self.resources.memory.by_kind(),
            memory_limit=self.resources.memory.limit,
        )

    # Writing

    def write(self, collection: str, request: WriteRequest) -> WriteResult:
        started, live = time.monotonic(), self._live(collection)
        checks.check_timeout(request.timeout)
        # Before they are checked, for which they are copied.
        size = request.rows.size()
        with self.resources.write(size, frees=False, timeout=request.timeout):
            rows, operation = writes.rows_written(live, request, size)
            key = writes.key_of(request, lambda: fingerprint_of_rows(request.mode, rows))
            count, version = self._submit(Call(live, operation, key, rows.size), request.timeout, started)
        return WriteResult(count, version, rows.ids)

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int:
        started, live = time.monotonic(), self._live(collection)
        checks.check_timeout(request.timeout)
        operation, size = writes.metadata_updated(live, request), len(request.set or b"")
        key = writes.key_of(request, lambda: fingerprint_of_change(request, "set", (request.set, tuple(request.unset))))
        with self.resources.write(size, frees=False, timeout=request.timeout):
            return self._submit(Call(live, operation, key, size), request.timeout, started)[0]

    def delete(self, collection: str, request: DeleteRequest) -> int:
        started, live = time.monotonic(), self._live(collection)
        checks.check_timeout(request.timeout)
        operation = writes.rows_deleted(live, request)
        key = writes.key_of(request, lambda: fingerprint_of_change(request, "delete", ()))
        with self.resources.write(0, frees=True):
            return self._submit(Call(live, operation, key, 0), request.timeout, started)[0]

    def _submit(self, call: Call, timeout: float | None, started: float) -> tuple[int, int]:
        """Commits a call of a request that began at ``started``: what it waited for memory is of its time."""
        self._optimizer.slow_down(call.collection, None if timeout is None else timeout - (time.monotonic() - started))
        return self._committer.submit(call, timeout, time.monotonic() - started)

    # Reading

    def get(self, collection: str, request: GetRequest) -> list[Record]:
        return reads.get(self._live(collection), request)

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int:
        return reads.count(self._live(collection), where, timeout)

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        return reads.scan(self._live(collection), request)

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        return reads.search(self._live(collection), request)

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan:
        return reads.explain_search(self._live(collection), request, analyze)

    def with_policy(self, policy: Filter) -> PolicyBackend:
        """This engine for a caller who may see and write only rows that match."""
        return PolicyBackend(self, policy)

    # Care

    def optimize(self, collection: str, request: OptimizeRequest) -> None:
        live = self._live(collection)
        checks.check_timeout(request.timeout)
        deadline = Deadline.after(request.timeout, lambda: not request.wanted())
        self._optimizer.request(live, request.wait, remaining=deadline.remaining)

    def reindex(self, collection: str, request: ReindexRequest) -> CollectionConfig:
        live = self._live(collection)
        choice = checks.check_reindex(live.config, request)
        self._check_writable()
        target = self._reindexer.begin(live, choice)
        if request.wait and target is not None:
            self._reindexer.wait(live, target, request.wanted)
        return live.config

    def cancel_reindex(self, collection: str) -> bool:
        return self._reindexer.cancel(self._live(collection))

    def stats(self, collection: str) -> CollectionStats:
        live = self._live(collection)
        return collection_stats(live, self._reindexer.stats(live, self._optimizer.stats(live)))

    @property
    def syncs(self) -> Syncs:
        """How often the log was synced, and how long that took."""
        return self._committer.syncs

    def build_lags(self) -> dict[str, float]:
        """By open collection, the seconds that its longest waiting segment has been due for an index."""
        return {name: build_lag(live) for name, live in list(self._lives.items())}

    def announce(self, address: str | None = None, door: str | None = None) -> None:
        """Notes in the folder's LOCK file where the owner serves, and at which door other processes may knock."""
        if self._directory_lock is not None:
            self._directory_lock.announce(address=address, door=door)

    def at_close(self, step: Callable[[], None]) -> None:
        """Has ``step`` done first when the engine closes."""
        self._closing.append(step)

    def close(self) -> None:
        """Finishes queued writes, stops background work and releases the folder; within seconds. Idempotent."""
        # First: whoever waits for a disk that takes nothing may hold the lock.
        self._storage.hurry()
        with self._lock:
            steps, self._closing = self._closing, []
        for step in steps:
            step()
        with self._lock:
            if self._closed is not None:
                return
            self._closed = "the database is closed; open it again"
        if self._scrubber is not None:
            self._scrubber.close()
        self._reindexer.close()
        self._optimizer.close()
        self._committer.close()
        with self._lock:
            for live in self._lives.values():
                live.end("closed")
            self._lives.clear()
        if self._acked is not None:
            self._acked.close()
        try:
            self._storage.close()
        except VectorDBError as error:
            # After a failed write it is expected to fail once more; callers were told when it did.
            if self._committer.read_only_reason is None:
                raise
            _log.warning("the storage did not close cleanly: %s", error)
        finally:
            if self._directory_lock is not None:
                self._directory_lock.release()

    def _live(self, name: str) -> LiveCollection:
        live = self._lives.get(name)
        return live if live is not None else self._open_live(name)

    def _open_live(self, name: str) -> LiveCollection:
        with self._lock:
            self._check_open()
            live = self._lives.get(name)
            if live is None:
                number, config = self._catalogue.find(name)
                live = open_collection(number, config, self._storage, self._segments, self.resources.may_load)
                live.limits = self._limits
                # Watched before others can find it: they may ask the optimizer about it at once.
                self._optimizer.watch(live)
                self._reindexer.watch(live)
                self._lives[name] = live
                self.resources.adopt(live)
            return live

    def _check_open(self) -> None:
        if self._closed is not None:
            raise Closed(self._closed)

    def _check_writable(self) -> None:
        self._check_open()
        reason = self._committer.read_only_reason
        if reason is not None:
            raise FailedPrecondition(f"the database is read-only ({reason}); open it again", reason=reason)

    def _abandon(self) -> None:
        """In a forked child: the threads and the files belong to the parent."""
        self._closed = "this database was opened before the process was forked; open it in the child itself"
        self._lives = {}
        self._lock = threading.RLock()
        if self._directory_lock is not None:
            self._directory_lock.abandon()


class Database(_Face):
    """The engine in this process, on a folder or in memory.

    Args:
        path: The folder, created when missing, or ``":memory:"``.
        timeout: Default in seconds for point calls.
        **options: See :class:`Engine`.

    Raises:
        DirectoryLocked: The folder is open already, also in this process. ``vectordb_client.connect`` shares it.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float | None = None, **options: Any) -> None:
        super().__init__(Engine(path, **options), timeout=timeout)


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _abandon_all() -> None:
    for engine in list(_ENGINES):
        engine._abandon()
    _ENGINES.clear()


os.register_at_fork(after_in_child=_abandon_all)
