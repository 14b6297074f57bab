"""The transport to a folder that another process owns: through the owner's door, and in its place when it goes.

``connect(folder)`` opens the engine in this process where it can. Where another process owns the folder, it knocks at
that process's door (a Unix socket named in the LOCK file, ``vectordb/server/sharing.py``) and speaks gRPC with it. When
the owner goes, killed or closed, whichever process asks first becomes the owner, and the others go through *its* door.

Nothing is lost or done twice on the way: acknowledged writes are on disk, and a write carries an idempotency key whose
result the next owner knows, so that it may simply be repeated.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from vectordb.errors import Closed, DirectoryLocked, FailedPrecondition, Unavailable, VectorDBError
from vectordb_client.transport.base import ForkGuarded, closed, forked
from vectordb_client.transport.local import LocalBackend, open_local
from vectordb_client.transport.retry import is_repeatable

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
    from vectordb_client.transport.grpc import GrpcBackend

T = TypeVar("T")
_PAUSE = 0.05
_KNOCK_SECONDS = 10.0
_NAMELESS_SECONDS = 2.0
"""How long a lock whose owner has not written its name is waited for: it is being taken, or given up."""


def open_folder(folder: str, options: Mapping[str, Any], timeout: float | None) -> LocalBackend | FolderBackend:
    """A backend on a folder: its engine where this process can own it, else a way through the owner's door.

    Args:
        options: Of the engine; ``shared=False`` refuses the door, as host and as guest.
        timeout: Seconds of point calls, and to wait for an owner that is just coming or going.

    Raises:
        DirectoryLocked: Another process owns the folder and has no door, or ``shared`` is false.
        FailedPrecondition: Another process owns it, and options were given, which are the owner's to choose.
    """
    options = {"shared": True, **options}
    if not options["shared"]:
        return open_local(folder, options)
    inner = _opened(folder, options, time.monotonic() + (30.0 if timeout is None else timeout), timeout)
    return inner if isinstance(inner, LocalBackend) else FolderBackend(folder, options, timeout, inner)


def _opened(folder: str, options: Mapping[str, Any], end: float, timeout: float | None) -> LocalBackend | GrpcBackend:
    """The engine, or a channel to its owner; tries until ``end`` while one owner goes and the next one comes."""
    nameless: float | None = None
    while True:
        try:
            return open_local(folder, options)
        except DirectoryLocked as locked:
            error: VectorDBError = locked
            door = locked.fields.get("door")
            if locked.fields.get("pid") is None:
                # From when it was seen so: what came before (imports, owners that came and went) may have taken long.
                nameless = time.monotonic() if nameless is None else nameless
                waiting = time.monotonic() < nameless + _NAMELESS_SECONDS
            else:
                nameless = None
                waiting = door is not None and locked.fields.get("host") == socket.gethostname()
        if not waiting:
            raise error
        if door:
            own = [name for name, value in options.items() if name != "shared" and value is not None]
            if own:
                raise FailedPrecondition(
                    f"folder {folder!r} is open in process {error.fields.get('pid')}, whose options apply; connect "
                    f"without {own[0]}=",
                    path=folder,
                    option=own[0],
                ) from None
            address = _knock(door)
            if address is not None:
                return _through(address, timeout)
        if time.monotonic() >= end:
            raise error
        time.sleep(_PAUSE)


def _knock(door: str) -> str | None:
    """The address of the server behind a door; None where nobody answers (any more)."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocker:
            knocker.settimeout(_KNOCK_SECONDS)
            knocker.connect(door)
            with knocker.makefile("rb") as answer:
                return str(json.loads(answer.readline(4096))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _through(address: str, timeout: float | None) -> GrpcBackend:
    from vectordb_client.transport.channel import ServerOptions
    from vectordb_client.transport.grpc import GrpcBackend

    # Repeating is this module's affair: the next attempt may have to go elsewhere.
    return GrpcBackend(ServerOptions(address, None, None, timeout, 0))


class FolderBackend(ForkGuarded):
    """A folder that another process owned when it was opened: a ``vectordb.requests.Backend``. Thread-safe."""

    def __init__(self, folder: str, options: Mapping[str, Any], timeout: float | None, inner: GrpcBackend) -> None:
        self._folder = folder
        self._options = options
        self._timeout = timeout
        self._lock = threading.Lock()
        self._inner: LocalBackend | GrpcBackend = inner  # changed under self._lock
        self._gone: Callable[[str], Closed] | None = None
        super().__init__()

    def _call(self, call: Callable[[Backend], T], timeout: float | None, *, repeatable: bool = True) -> T:
        """Makes a call, again through the next owner where one went away.

        Raises:
            Unavailable: The owner went away during a call that may not be repeated, or no other one came in time.
        """
        end = time.monotonic() + (30.0 if timeout is None else timeout)
        while True:
            if self._gone is not None:
                raise self._gone(self._folder)
            inner = self._inner
            try:
                return call(inner)
            except (Unavailable, Closed) as error:
                if self._gone is not None:
                    raise self._gone(self._folder) from None
                if isinstance(inner, LocalBackend):
                    raise
                self._follow(inner, end)
                unsent = isinstance(error, Closed) or error.fields.get("sent") is False
                if not repeatable and not unsent:
                    raise
                if time.monotonic() >= end:
                    raise

    def _follow(self, left: LocalBackend | GrpcBackend, end: float) -> None:
        """Finds the present owner, or becomes it. Left to one thread; the others wait for it."""
        with self._lock:
            if self._inner is not left or self._gone is not None:
                return
            self._inner = _opened(self._folder, self._options, end, self._timeout)
        left.close()

    def create_collection(self, request: CreateRequest) -> CollectionConfig:
        repeatable = is_repeatable("create_collection", harmless=bool(request.exist_ok))
        return self._call(lambda b: b.create_collection(request), request.timeout, repeatable=repeatable)

    def collection_config(self, name: str) -> CollectionConfig:
        return self._call(lambda b: b.collection_config(name), self._timeout)

    def list_collections(self) -> list[str]:
        return self._call(lambda b: b.list_collections(), self._timeout)

    def delete_collection(self, name: str) -> None:
        self._call(lambda b: b.delete_collection(name), self._timeout, repeatable=is_repeatable("delete_collection"))

    def info(self) -> DatabaseInfo:
        return self._call(lambda b: b.info(), self._timeout)

    def write(self, collection: str, request: WriteRequest) -> WriteResult:
        _keyed(request)
        return self._call(lambda b: b.write(collection, request), request.timeout)

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int:
        _keyed(request)
        return self._call(lambda b: b.update_metadata(collection, request), request.timeout)

    def delete(self, collection: str, request: DeleteRequest) -> int:
        _keyed(request)
        return self._call(lambda b: b.delete(collection, request), request.timeout)

    def get(self, collection: str, request: GetRequest) -> list[Record]:
        return self._call(lambda b: b.get(collection, request), request.timeout)

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int:
        return self._call(lambda b: b.count(collection, where, timeout), timeout)

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        """A scan belongs to the owner that began it: once pages were read it cannot go on with another."""
        return self._call(lambda b: _begun(b.scan(collection, request)), self._timeout)

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        return self._call(lambda b: b.search(collection, request), request.timeout)

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan:
        return self._call(lambda b: b.explain(collection, request, analyze), request.timeout)

    def optimize(self, collection: str, request: OptimizeRequest) -> None:
        self._call(lambda b: b.optimize(collection, request), request.timeout or self._timeout)

    def reindex(self, collection: str, request: ReindexRequest) -> CollectionConfig:
        return self._call(lambda b: b.reindex(collection, request), self._timeout)

    def cancel_reindex(self, collection: str) -> bool:
        repeatable = is_repeatable("cancel_reindex")
        return self._call(lambda b: b.cancel_reindex(collection), self._timeout, repeatable=repeatable)

    def stats(self, collection: str) -> CollectionStats:
        return self._call(lambda b: b.stats(collection), self._timeout)

    def backup(self, destination: str) -> BackupInfo:
        # Another process may work in another folder.
        place = destination if "://" in destination or not destination else os.path.abspath(destination)
        return self._call(lambda b: b.backup(place), self._timeout)

    def verify(self, searches: int) -> VerifyReport:
        return self._call(lambda b: b.verify(searches), self._timeout)

    def repair(self, dry_run: bool) -> RepairReport:
        repeatable = is_repeatable("repair", harmless=bool(dry_run))
        return self._call(lambda b: b.repair(dry_run), self._timeout, repeatable=repeatable)

    def erase(self, collection: str, request: EraseRequest) -> Erasure:
        if request.delete is not None:
            _keyed(request.delete)
        return self._call(lambda b: b.erase(collection, request), self._timeout)

    def with_policy(self, policy: Filter) -> FolderBackend:
        """This handle within a row policy, whoever owns the folder; closing it leaves this one open."""
        return _Narrowed(self, policy)

    def close(self) -> None:
        """Closes the channel, or the engine where this process became the owner. Idempotent."""
        with self._lock:
            if self._gone is not None:
                return
            self._gone = closed
        self._inner.close()

    def _abandon(self) -> None:
        self._lock = threading.Lock()
        self._gone = forked


class _Narrowed(FolderBackend):
    """A folder within a row policy: each call goes through the whole handle, narrowed at whatever answers it."""

    def __init__(self, whole: FolderBackend, policy: Filter) -> None:
        self._whole = whole
        self._policy = policy
        self._timeout = whole._timeout
        self._last: tuple[Backend, Backend] | None = None

    def _call(self, call: Callable[[Backend], T], timeout: float | None, *, repeatable: bool = True) -> T:
        return self._whole._call(lambda b: call(self._narrowed(b)), timeout, repeatable=repeatable)

    def _narrowed(self, backend: Backend) -> Backend:
        """What answers, narrowed; kept until another answers, since the folder's owner went."""
        last = self._last
        if last is None or last[0] is not backend:
            # One assignment: of threads that come here at once any may win.
            last = self._last = (backend, backend.with_policy(self._policy))
        return last[1]

    def with_policy(self, policy: Filter) -> FolderBackend:
        return _Narrowed(self._whole, self._policy & policy)

    def close(self) -> None:
        """Leaves the folder open."""


def _keyed(request: WriteRequest | UpdateMetadataRequest | DeleteRequest) -> None:
    """Gives a write the key by which the next owner knows it, if it has none."""
    if request.idempotency_key is None:
        request.idempotency_key = uuid.uuid4().hex


def _begun(pages: Iterator[list[Record]]) -> Iterator[list[Record]]:
    """The same pages with the first one read, so that a scan whose owner is gone fails at once."""
    first = next(pages, None)

    def all_pages() -> Iterator[list[Record]]:
        try:
            if first is not None:
                yield first
                yield from pages
        finally:
            close = getattr(pages, "close", None)
            if close is not None:
                close()

    return all_pages()
