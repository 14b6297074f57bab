"""RocksDB behind the storage seam. Only this file, ``rocks_options.py`` and ``rocks_threads.py`` import rocksdict.

Facts that shape it (rocksdict 0.3.29):

* ``write`` holds the GIL, through write stalls too; ``flush_wal``, list-``get``, ``compact_range`` and ``close``
  release it. So a batch is written with ``no_slowdown`` and retried from Python while RocksDB stalls.
* A refused batch is consumed: the recorded calls are replayed into a new one.
* The LOCK file stays while any iterator lives, and closing beside a running list-get raises ``Already borrowed``: every
  native call runs inside a :class:`Gate`, and closing frees the open iterators first.
* ``items()`` ends silently at a damaged block; only ``iter()`` has a ``status()`` to ask.
* ``set_iterate_lower_bound`` sets the *upper* bound, so reverse scans compare keys themselves.
* An iterator does not keep its ``ReadOptions`` alive: once they are freed its upper bound is any memory, and it ends
  early without an error. A cursor holds both.
* Atomic flush keeps the families at one common point: what is lost with a damaged WAL is always a suffix of the
  writes, never one family's part of them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import rocksdict

from vectordb import failpoints
from vectordb.errors import FailedPrecondition, Internal, VectorDBError, os_errors_told
from vectordb.storage import forked, rocks_threads
from vectordb.storage.base import Batch, Family
from vectordb.storage.batch import Delete, DeleteRange, Put, PutMany, RecordedBatch
from vectordb.storage.cursor import Cursor
from vectordb.storage.gate import Gate
from vectordb.storage.log_records import disarm
from vectordb.storage.rocks_errors import holds_data, no_more_writes, threads_missing, translated
from vectordb.storage.rocks_options import DEFAULT_CACHE_BYTES, WRITE_BUFFER_BYTES, common, family_options
from vectordb.storage.stall import Stall

_FIRST_CHUNK, _LAST_CHUNK = 16, 256
_STALLED = "Write stall"


class RocksStorage:
    """Implements :class:`vectordb.storage.base.Storage` on a RocksDB folder. Thread-safe.

    Args:
        path: The folder; created (with its last component) when it holds no RocksDB data.
        read_only: Opens without changing anything on disk but what RocksDB would not come back from
            (``log_records``); writing calls raise ``FailedPrecondition``.
        cache_bytes: Bound of the block cache that all families share.
        buffer_bytes: Bound of all memtables together.
        rescue: Takes what lies before the damage of a log; otherwise only a torn last record is passed over.
        lenient: For salvage: the same, and opens in spite of damaged tables.

    Raises:
        Corruption: The folder is damaged; the message has its path and RocksDB's words.
        DirectoryLocked: It is open already, here or in another process.
        FailedPrecondition: ``read_only`` and there is nothing to open.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        read_only: bool = False,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        buffer_bytes: int = WRITE_BUFFER_BYTES,
        rescue: bool = False,
        lenient: bool = False,
    ) -> None:
        self.path = Path(path)
        self.read_only = read_only
        if self.path.exists() and not self.path.is_dir():
            raise FailedPrecondition(f"'{self.path}' is a file where a folder is needed", path=str(self.path))
        create = not holds_data(self.path)
        if read_only and create:
            raise FailedPrecondition(f"'{self.path}' holds no RocksDB data to read", path=str(self.path))
        access = rocksdict.AccessType.read_only(False) if read_only else rocksdict.AccessType.read_write()
        self._cache = rocksdict.Cache(cache_bytes)
        options = family_options(Family.META, self._cache, create, buffer_bytes)
        if rescue or lenient:
            options.set_wal_recovery_mode(rocksdict.DBRecoveryMode.point_in_time())
        if lenient:
            options.set_paranoid_checks(False)
        environment = rocksdict.Env()
        environment.lower_thread_pool_cpu_priority()  # compactions run behind searches
        options.set_env(environment)
        disarm(self.path)
        others = {f.value: family_options(f, self._cache, create, buffer_bytes) for f in Family if f is not Family.META}
        try:
            if create:
                self.path.mkdir(exist_ok=True)
            self._db = rocks_threads.opened(lambda: rocksdict.Rdict(str(self.path), options, others, access))
            self._families: dict[Family, Any] = {
                f: self._db if f is Family.META else self._db.get_column_family(f.value) for f in Family
            }
            self._handles: dict[Family, Any] = {f: self._db.get_column_family_handle(f.value) for f in Family}
        except Exception as error:
            raise translated(error, self.path) from error
        self.failure: str | None = None
        self._impatient = rocksdict.WriteOptions()
        self._impatient.no_slowdown = True
        self._gate = Gate(f"the storage at '{self.path}'")
        self._closing = threading.Lock()
        self._hurried = False
        self._open_lock = threading.Lock()
        self._cursors: weakref.WeakSet[Cursor] = weakref.WeakSet()  # guarded by self._open_lock
        self._compacting = 0  # guarded by self._open_lock
        _OPEN.add(self)

    # -- writing -------------------------------------------------------------------------------------------------

    def batch(self) -> RecordedBatch:
        """See :meth:`Storage.batch`."""
        return RecordedBatch()

    def write(self, batch: Batch) -> None:
        """See :meth:`Storage.write`. While RocksDB stalls, waits outside the GIL and the gate (``stall.py``)."""
        if not isinstance(batch, RecordedBatch):
            raise Internal(f"a batch of another kind was given: {type(batch).__name__}")
        stall: Stall | None = None
        while True:
            with self._gate:
                if self.failure is not None:
                    raise no_more_writes(self.failure, self.path)
                try:
                    if not self._stalled() or (stall is not None and stall.is_to_be_tried()):
                        failpoints.hit("storage.write")
                        self._db.write(self._native(batch), self._impatient)
                        failpoints.hit("storage.written")
                        return
                except Exception as error:
                    if _STALLED not in str(error):
                        raise self._failed(error) from error
            if rocks_threads.are_missing():
                raise self._failed(threads_missing(self.path))
            stall = stall or Stall(self.path, lambda: self._hurried)
            stall.pause()

    def _stalled(self) -> bool:
        return bool(self._db.property_int_value("rocksdb.is-write-stopped"))

    def _native(self, batch: RecordedBatch) -> Any:
        native = rocksdict.WriteBatch(raw_mode=True)
        put, handles = native.put, self._handles
        for change in batch.changes:
            handle = handles[change.family]
            if isinstance(change, Put):
                put(change.key, change.value, handle)
            elif isinstance(change, PutMany):
                deque(map(put, change.keys, change.values, repeat(handle)), maxlen=0)
            elif isinstance(change, Delete):
                native.delete(change.key, handle)
            elif isinstance(change, DeleteRange):
                native.delete_range(change.start, change.end, handle)
        return native

    def sync(self) -> int:
        """See :meth:`Storage.sync`."""
        with self._gate:
            if self.failure is not None:
                raise no_more_writes(self.failure, self.path)
            try:
                sequence: int = self._db.latest_sequence_number()
                failpoints.hit("storage.sync")
                self._db.flush_wal(True)
                failpoints.hit("storage.synced")
            except Exception as error:
                raise self._failed(error) from error
            return sequence

    def _failed(self, error: Exception) -> VectorDBError:
        """What to raise for a write or sync that failed; there is none after it."""
        told = translated(error, self.path)
        self.failure = self.failure or told.message
        return told

    # -- reading -------------------------------------------------------------------------------------------------

    def get(self, family: Family, key: bytes) -> bytes | None:
        """See :meth:`Storage.get`. Holds the GIL."""
        with self._gate:
            try:
                value: bytes | None = self._families[family].get(key)
            except Exception as error:
                raise translated(error, self.path) from error
            return value

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """See :meth:`Storage.get_many`."""
        with self._gate:
            try:
                values: list[bytes | None] = self._families[family].get(keys if isinstance(keys, list) else list(keys))
            except Exception as error:
                raise translated(error, self.path) from error
            return values

    def scan(
        self, family: Family, start: bytes, end: bytes, *, reverse: bool = False
    ) -> Generator[tuple[bytes, bytes], None, None]:
        """See :meth:`Storage.scan`."""
        with self._gate:
            try:
                # Here and not in the generator: the view must be the one of this call.
                cursor = self._cursor(family, start, end, reverse) if start < end else None
            except Exception as error:
                raise translated(error, self.path) from error
            if cursor is not None:
                with self._open_lock:
                    self._cursors.add(cursor)
        return self._walk(cursor)

    def _cursor(self, family: Family, start: bytes, end: bytes, reverse: bool) -> Cursor:
        options = rocksdict.ReadOptions()
        options.set_iterate_upper_bound(end)
        options.fill_cache(False)  # a long scan must not evict what point reads use
        return Cursor(self._families[family].iter(options), (start, end), reverse, keep=options)

    def _walk(self, cursor: Cursor | None) -> Generator[tuple[bytes, bytes], None, None]:
        if cursor is None:
            return
        gate, limit = self._gate, _FIRST_CHUNK
        while True:
            with gate:
                try:
                    chunk = cursor.read(limit)
                except Exception as error:
                    raise translated(error, self.path) from error
            if not chunk:
                return
            for pair in chunk:
                if gate.shut:
                    raise gate.closed()
                yield pair
            limit = min(limit * 2, _LAST_CHUNK)

    # -- figures and upkeep --------------------------------------------------------------------------------------

    def sequence(self) -> int:
        """See :meth:`Storage.sequence`."""
        with self._gate:
            number: int = self._db.latest_sequence_number()
            return number

    def compact(self, family: Family, start: bytes, end: bytes) -> None:
        """See :meth:`Storage.compact`. Given up silently when the storage is closed meanwhile."""
        rocks_threads.need(self.path)
        options = rocksdict.CompactOptions()
        options.set_exclusive_manual_compaction(False)
        options.set_bottommost_level_compaction(rocksdict.BottommostLevelCompaction.force_optimized())
        with self._gate:
            with self._open_lock:
                self._compacting += 1
            try:
                self._families[family].compact_range(start, end, options)
            except Exception as error:
                if not self._gate.shut:
                    raise translated(error, self.path) from error
            finally:
                with self._open_lock:
                    self._compacting -= 1

    def checkpoint(self, path: Path | str) -> None:
        """Makes an openable copy as of now at ``path`` (must not exist; hard links where it can). Holds the GIL."""
        rocks_threads.need(self.path, self._families.values())
        with self._gate:
            try:
                rocksdict.Checkpoint(self._db).create_checkpoint(str(path))
            except Exception as error:
                raise translated(error, self.path) from error

    def flush(self) -> None:
        """Writes what is only in memory and in the log to tables, so that the log begins anew. Releases the GIL."""
        rocks_threads.need(self.path, self._families.values())
        with self._gate:
            try:
                for rdict in self._families.values():
                    rdict.flush(True)
            except Exception as error:
                raise translated(error, self.path) from error

    def tables(self) -> list[dict[str, Any]]:
        """RocksDB's files of all families: ``name``, ``start_key``, ``end_key``, ``num_deletions`` and more."""
        with self._gate:
            return [{**f, "name": f["name"].lstrip("/")} for f in self._db.live_files()]

    def disk_bytes(self) -> int:
        """See :meth:`Storage.disk_bytes`."""
        with self._gate:
            total = 0
            with os_errors_told(f"the files of '{self.path}' cannot be counted", path=str(self.path)):
                for entry in os.scandir(self.path):
                    try:
                        total += entry.stat().st_size
                    except FileNotFoundError:  # a compaction removed it meanwhile
                        continue
            return total

    def memory_bytes(self) -> int:
        """See :meth:`Storage.memory_bytes`."""
        with self._gate:
            total: int = self._cache.get_usage()
            for rdict in self._families.values():
                # Those that were flushed and that a scan still reads are among them.
                for name in ("rocksdb.size-all-mem-tables", "rocksdb.estimate-table-readers-mem"):
                    total += rdict.property_int_value(name) or 0
            return total

    # -- the end -------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """See :meth:`Storage.hurry`."""
        self._hurried = True

    def close(self) -> None:
        """See :meth:`Storage.close`. Open scans raise ``Closed`` at their next step."""
        with self._closing:
            self._gate.refuse()
            with self._open_lock:
                compacting = self._compacting
            if compacting and not self.read_only:
                self._db.cancel_all_background(False)
            self._gate.close()
            if self._db is None:
                return
            _OPEN.discard(self)
            with self._open_lock:
                for cursor in list(self._cursors):
                    cursor.free()
            self._close_native(interrupted=bool(compacting))

    def _close_native(self, interrupted: bool) -> None:
        db, families = self._db, list(self._families.values())
        self._db, self._families = None, {}
        failure: Exception | None = None
        steps: list[Callable[[], object]] = [] if self.read_only else [lambda: db.flush_wal(True)]
        if steps and rocks_threads.would_wait(families):
            # The synced log holds it all. Without the lock file others can open the folder.
            forked.keep((db, families, self._handles, self._cache))
            steps.append((self.path / "LOCK").unlink)
        else:
            steps += [*(rdict.close for rdict in families if rdict is not db), db.close]
        self._handles = {}
        # Each of them, whatever became of the others: a handle left open would keep the folder locked.
        for step in steps:
            try:
                step()
            except Exception as error:
                failure = failure or error
        rocks_threads.closed()
        # Where background work was cancelled, closing cannot flush the memtables, which the synced WAL holds as well.
        if failure is not None and not interrupted:
            raise translated(failure, self.path) from failure

    def _abandon(self) -> None:
        """In a forked child: never touches the parent's files again, not even by freeing its handles."""
        forked.keep((self._db, self._families, self._handles, list(self._cursors), self._cache))
        self._gate.abandon()
        self._closing = threading.Lock()
        self._open_lock = threading.Lock()
        self._db = None
        self._families, self._handles, self._cursors = {}, {}, weakref.WeakSet()


def rebuild_catalogue(path: Path) -> None:
    """Makes the manifest of a folder anew from the tables and logs that can be read (RocksDB's ``RepairDB``).

    Raises:
        Corruption: It cannot be done.
    """
    try:
        rocksdict.Rdict.repair(str(path), common(True, WRITE_BUFFER_BYTES))
    except Exception as error:
        raise translated(error, path) from error


_OPEN: weakref.WeakSet[RocksStorage] = weakref.WeakSet()


def _abandon_all() -> None:
    if _OPEN:
        forked.skip_exit_handlers()
    for storage in list(_OPEN):
        storage._abandon()
    _OPEN.clear()


os.register_at_fork(after_in_child=_abandon_all)
