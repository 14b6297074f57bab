"""The transport to an engine in this process: the only importer of the engine.

Each ``connect`` gets a handle of its own, and all handles on one folder share one engine, which closes with the last
of them. Handles are told apart from folders by the folder's lock file: its inode cannot be reused while the engine
holds it open, whatever path or link leads to it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from vectordb import arguments
from vectordb.errors import Closed, FailedPrecondition, InvalidArgument
from vectordb.row_policy import PolicyBackend
from vectordb_client.targets import MEMORY
from vectordb_client.transport.base import ForkGuarded, closed, forked

if TYPE_CHECKING:
    from vectordb.filter import Filter
    from vectordb.reports import Erasure, RepairReport, VerifyReport
    from vectordb.requests import (
        Backend,
        CreateRequest,
        DeleteRequest,
        EraseRequest,
        GetRequest,
        OptimizeRequest,
        ReindexRequest,
        ScanRequest,
        SearchRequest,
        UpdateMetadataRequest,
        WriteRequest,
    )
    from vectordb.results import Plan, SearchResult
    from vectordb.stats import BackupInfo, CollectionStats, DatabaseInfo
    from vectordb.types import CollectionConfig, Record, WriteResult

    Opener = Callable[[str, Mapping[str, Any]], Backend]


class _Shared:
    """One open engine and the number of handles on it. Guarded by the registry's lock."""

    __slots__ = ("engine", "handles", "key", "options", "path")

    def __init__(self, engine: Backend, path: str, key: tuple[int, int] | None, options: Mapping[str, Any]) -> None:
        self.engine = engine
        self.path = path
        self.key = key
        self.options = dict(options)
        self.handles = 1


class EngineRegistry(ForkGuarded):
    """The engines that this process has open, one a folder. Thread-safe; a child process starts with an empty one.

    Args:
        opener: Opens an engine on a folder (or ``":memory:"``) with the options of ``connect``.
        defaults: What those options are unless given.
    """

    def __init__(self, opener: Opener, defaults: Callable[[], Mapping[str, Any]] = dict) -> None:
        super().__init__()
        self._opener = opener
        self._defaults = defaults
        self._changed = threading.Condition()
        self._open: dict[tuple[int, int], _Shared] = {}  # guarded by self._changed
        # Guarded by self._changed: folders whose engine opens or closes, by path and, where they are known by it, by
        # lock file. Either may take long, after a crash say: only who wants the same folder waits.
        self._busy: set[str | tuple[int, int]] = set()

    def acquire(self, folder: str, options: Mapping[str, Any]) -> _Shared:
        """The folder's engine, opened if this process has not got it open; ``release`` it once.

        Raises:
            FailedPrecondition: It is open with other options. DirectoryLocked: Another process owns it.
        """
        if folder == MEMORY:
            return _Shared(self._opener(folder, options), folder, None, options)
        path = os.path.realpath(folder)
        with self._changed:
            self._changed.wait_for(lambda: self._busy.isdisjoint((path, _lock_file(folder))))
            key = _lock_file(folder)
            shared = None if key is None else self._open.get(key)
            if shared is not None:
                _check_same_options(folder, shared.options, options)
                shared.handles += 1
                return shared
            self._busy.add(path)
        try:
            engine = self._opener(folder, options)
            key = _lock_file(folder)
            shared = _Shared(engine, path, key, {**self._defaults(), **options})
            if key is not None:
                with self._changed:
                    self._open[key] = shared
            return shared
        finally:
            self._done({path})

    def release(self, shared: _Shared) -> None:
        """Gives one handle back; the last one closes the engine."""
        if shared.key is None:
            shared.engine.close()
            return
        with self._changed:
            shared.handles -= 1
            if shared.handles:
                return
            # Before closing: afterwards the inode may belong to another folder.
            self._open.pop(shared.key, None)
            closing: set[str | tuple[int, int]] = {shared.path, shared.key}
            self._busy |= closing
        try:
            shared.engine.close()
        finally:
            self._done(closing)

    def _done(self, folders: set[str | tuple[int, int]]) -> None:
        with self._changed:
            self._busy -= folders
            self._changed.notify_all()

    def _abandon(self) -> None:
        # Another thread of the parent may have held the lock, or been about to open or close.
        self._changed = threading.Condition()
        self._busy = set()
        _orphans.extend(self._open.values())
        self._open = {}


_orphans: list[_Shared] = []
"""The parent's engines in a child process: never closed nor freed here."""


def _lock_file(folder: str) -> tuple[int, int] | None:
    try:
        found = os.stat(os.path.join(folder, "LOCK"))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_same_options(folder: str, opened: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        # Whether other processes may enter is up to whoever opened it; handles of this process are no guests.
        if name != "shared" and value is not None and opened.get(name) != value:
            raise FailedPrecondition(
                f"folder {folder!r} is already open in this process with {name}={str(opened.get(name))!r}, "
                f"asked for {str(value)!r}; close it first or use the same options",
                path=folder,
                option=name,
            )


class _Gone:
    """Stands in for the engine after ``close`` or a fork: every method raises."""

    def __init__(self, error: Callable[[str], Closed], target: str) -> None:
        self._error = error
        self._target = target

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise self._error(self._target)

        return refuse


class LocalBackend(ForkGuarded):
    """One handle on an engine of this process: a ``vectordb.requests.Backend``. Thread-safe.

    Closing it leaves the other handles on the same folder open. After ``close``, or in a child process after a fork,
    every method raises ``Closed``.
    """

    def __init__(self, registry: EngineRegistry, folder: str, options: Mapping[str, Any]) -> None:
        self._registry = registry
        self._folder = folder
        self._closing = threading.Lock()
        self._shared: _Shared | None = registry.acquire(folder, options)  # guarded by self._closing
        self._engine: Backend = self._shared.engine
        super().__init__()

    def create_collection(self, request: CreateRequest) -> CollectionConfig:
        return self._engine.create_collection(request)

    def collection_config(self, name: str) -> CollectionConfig:
        return self._engine.collection_config(name)

    def list_collections(self) -> list[str]:
        return self._engine.list_collections()

    def delete_collection(self, name: str) -> None:
        self._engine.delete_collection(name)

    def info(self) -> DatabaseInfo:
        return self._engine.info()

    def write(self, collection: str, request: WriteRequest) -> WriteResult:
        return self._engine.write(collection, request)

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int:
        return self._engine.update_metadata(collection, request)

    def delete(self, collection: str, request: DeleteRequest) -> int:
        return self._engine.delete(collection, request)

    def get(self, collection: str, request: GetRequest) -> list[Record]:
        return self._engine.get(collection, request)

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int:
        return self._engine.count(collection, where, timeout)

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        return self._engine.scan(collection, request)

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        return self._engine.search(collection, request)

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan:
        return self._engine.explain(collection, request, analyze)

    def optimize(self, collection: str, request: OptimizeRequest) -> None:
        self._engine.optimize(collection, request)

    def reindex(self, collection: str, request: ReindexRequest) -> CollectionConfig:
        return self._engine.reindex(collection, request)

    def cancel_reindex(self, collection: str) -> bool:
        return self._engine.cancel_reindex(collection)

    def stats(self, collection: str) -> CollectionStats:
        return self._engine.stats(collection)

    def backup(self, destination: str) -> BackupInfo:
        return self._engine.backup(destination)

    def verify(self, searches: int) -> VerifyReport:
        return self._engine.verify(searches)

    def repair(self, dry_run: bool) -> RepairReport:
        return self._engine.repair(dry_run)

    def erase(self, collection: str, request: EraseRequest) -> Erasure:
        return self._engine.erase(collection, request)

    def with_policy(self, policy: Filter) -> Backend:
        """This handle within a row policy."""
        return PolicyBackend(self, policy)

    def close(self) -> None:
        """Gives the handle back; the engine closes with its last handle. Idempotent."""
        with self._closing:
            shared, self._shared = self._shared, None
            self._engine = cast("Backend", _Gone(closed, self._folder))
        if shared is not None:
            self._registry.release(shared)

    def _abandon(self) -> None:
        if self._shared is not None:
            _orphans.append(self._shared)
        self._closing = threading.Lock()
        self._shared = None
        self._engine = cast("Backend", _Gone(forked, self._folder))


def _open_engine(folder: str, options: Mapping[str, Any]) -> Backend:
    from vectordb.server.sharing import open_shared

    return open_shared(folder, **options)


def _engine_options() -> dict[str, Any]:
    from vectordb.engine.options import options_of_engine

    return options_of_engine()


_registry = EngineRegistry(_open_engine, _engine_options)


def open_local(folder: str, options: Mapping[str, Any]) -> LocalBackend:
    """A handle on the engine of ``folder`` (``":memory:"``: a new one each time).

    Raises:
        InvalidArgument: An unknown option. DirectoryLocked: Another process owns the folder.
        FailedPrecondition: This process has the folder open with other options.
    """
    known = _engine_options()
    for name in options:
        if name not in known:
            raise InvalidArgument(
                f"connect has no option {name!r}; known for folders are share, "
                f"{', '.join(option for option in known if option != 'shared')}",
                field=name,
            )
    if folder != MEMORY:
        folder = str(arguments.folder(folder))
    return LocalBackend(_registry, folder, options)
