"""Scans over gRPC: an iterator of pages, and the release of scans that are left early."""

from __future__ import annotations

import queue
import threading
import weakref
from typing import TYPE_CHECKING, Any

import grpc

from vectordb_client.transport import calls

if TYPE_CHECKING:
    from vectordb.requests import ScanRequest
    from vectordb.types import Record
    from vectordb_client.transport.channel import Metadata
    from vectordb_client.transport.grpc import GrpcBackend


class Releaser:
    """Gives scans back in a thread of its own, which starts with the first one.

    An iterator is often dropped rather than closed, and a destructor may run inside any lock, grpc's too: it must not
    make a call. ``SimpleQueue.put`` is made for destructors. The thread ends with ``owner`` or with :meth:`stop`.
    """

    def __init__(self, owner: object, stub: Any, metadata: Metadata) -> None:
        self._stub = stub
        self._metadata = metadata
        self._cursors: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # guarded by self._lock
        weakref.finalize(owner, self._cursors.put, None).atexit = False

    def start(self) -> None:
        """Makes sure that the thread runs. Not for destructors."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    work = (self._cursors, self._stub, self._metadata)
                    self._thread = threading.Thread(
                        target=_release_all, args=work, name="vectordb-release", daemon=True
                    )
                    self._thread.start()

    def release(self, cursor: str) -> None:
        """Has a scan released, soon. Never blocks."""
        self._cursors.put(cursor)

    def stop(self) -> None:
        """Releases what was handed in, then ends the thread."""
        self._cursors.put(None)
        if self._thread is not None:
            self._thread.join(calls.RELEASE_TIMEOUT)


def _release_all(cursors: queue.SimpleQueue[str | None], stub: Any, metadata: Metadata) -> None:
    while (cursor := cursors.get()) is not None:
        try:
            stub.CloseScan(calls.close_scan(cursor).message, timeout=calls.RELEASE_TIMEOUT, metadata=metadata)
        except (grpc.RpcError, ValueError):
            # The server releases it by itself after a minute; ValueError: the channel is closed.
            continue


class Pages:
    """Pages of one scan. The snapshot is taken, and the first page read, when this is made. Not thread-safe.

    Raises:
        FailedPrecondition: From ``next``: nothing was read for a minute, so the server released the scan.
    """

    def __init__(self, backend: GrpcBackend, collection: str, request: ScanRequest) -> None:
        self._cursor = ""
        self._backend = backend
        self._collection = collection
        self._request = request
        self._first: list[Record] | None = self._fetch()
        if self._cursor:
            backend.releaser.start()

    def __iter__(self) -> Pages:
        return self

    def __next__(self) -> list[Record]:
        page, self._first = self._first, None
        if page is None:
            if not self._cursor:
                raise StopIteration
            page = self._fetch()
        if not page and not self._cursor:
            raise StopIteration
        return page

    def _fetch(self) -> list[Record]:
        page, self._cursor = self._backend.call(calls.scan(self._collection, self._request, self._cursor))
        return page

    def close(self) -> None:
        """Releases the server's snapshot. Idempotent; done by the destructor too."""
        cursor, self._cursor = self._cursor, ""
        self._first = None
        if cursor:
            self._backend.releaser.release(cursor)

    def __del__(self) -> None:
        self.close()
