"""Open scans, read page by page: between two pages a scan holds a snapshot but no thread.

A cursor is ``<scan>.<page>``. Asking again for the page just given gives it again, so that a client whose answer was
lost can repeat its call. Only who began a scan can read on: others are told that it is not open.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import TypeAlias

from vectordb.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from vectordb.types import Record

Page = list[Record]
Owner: TypeAlias = Hashable
"""Who began a scan; equal for calls that may go on with it."""
_KEPT_ENDS = 64
_KEPT_BYTES = 64 << 20
"""Of the last pages of scans that were read to their end, together; the newest one is kept whatever its size."""


class _Scan:
    """One scan. ``lock`` guards everything else."""

    __slots__ = ("ahead", "given", "last", "last_bytes", "lock", "owner", "page_size", "pages", "used")

    def __init__(self, page_size: int, owner: Owner) -> None:
        self.owner = owner
        self.lock = threading.Lock()
        self.pages: Iterator[Page] | None = None
        self.page_size = page_size
        self.ahead: Page | None = None
        self.given = 0
        self.last: tuple[Page, bool] = ([], True)
        self.last_bytes = 0  # told when the scan ends
        self.used = time.monotonic()

    def advance(self) -> tuple[Page, bool]:
        """The next page, and whether more may follow."""
        assert self.pages is not None
        page = self.ahead if self.ahead is not None else next(self.pages, None)
        self.ahead = None
        if page is not None and len(page) < self.page_size:
            # A short page is probably the last: looking ahead now spares the client a call for nothing.
            self.ahead = next(self.pages, None)
            more = self.ahead is not None
        else:
            more = page is not None
        self.given += 1
        self.last = (page or [], more)
        return self.last

    def release(self) -> None:
        """Lets go of the snapshot."""
        pages, self.pages, self.ahead = self.pages, None, None
        close = getattr(pages, "close", None)
        if close is not None:
            close()


class Scans:
    """The scans that are open. Thread-safe.

    Args:
        limit: At most so many at a time.
        idle_seconds: One that nobody asks for so long is released by :meth:`expire`.
    """

    def __init__(self, limit: int, idle_seconds: float) -> None:
        self._limit = limit
        self._idle = idle_seconds
        self._lock = threading.Lock()
        self._open: dict[str, _Scan] = {}  # guarded by self._lock
        # Scans read to their end, kept for clients that lost the last page. Guarded by self._lock.
        self._ended: OrderedDict[str, _Scan] = OrderedDict()

    def __len__(self) -> int:
        """Scans that hold a snapshot."""
        return len(self._open)

    def start(self, begin: Callable[[], Iterator[Page]], page_size: int, owner: Owner = None) -> tuple[Page, str]:
        """The first page of the scan that ``begin`` begins, and the cursor of the next; empty after the last.

        Raises:
            ResourceExhausted: Too many scans are open.
        """
        scan, key = _Scan(page_size, owner), secrets.token_urlsafe(12)
        with self._lock:
            if len(self._open) >= self._limit:
                raise ResourceExhausted(
                    f"{self._limit} scans are open, as many as max_scans allows; read one to its end, or close it",
                    limit=self._limit,
                    retry_after=1.0,
                )
            self._open[key] = scan
        with scan.lock:
            try:
                scan.pages = begin()
            except BaseException:
                self._forget(key)
                raise
            return self._step(key, scan)

    def resume(self, cursor: str, owner: Owner = None) -> tuple[Page, str]:
        """The page at a cursor, and the cursor of the next.

        Raises:
            FailedPrecondition: The scan is not open any more.
            InvalidArgument: The cursor is none of its last two.
        """
        key, _, number = cursor.rpartition(".")
        with self._lock:
            scan = self._open.get(key) or self._ended.get(key)
        if scan is None or scan.owner != owner:
            raise self._gone()
        with scan.lock:
            scan.used = time.monotonic()
            if number == str(scan.given - 1):
                page, more = scan.last
                return page, f"{key}.{scan.given}" if more else ""
            if number != str(scan.given):
                raise InvalidArgument(f"cursor {cursor!r:.60} is no page that this scan can give now", field="cursor")
            if scan.pages is None:
                raise self._gone()
            return self._step(key, scan)

    def close(self, cursor: str, owner: Owner = None) -> None:
        """Releases a scan; nothing happens where it is not open."""
        key = cursor.rpartition(".")[0]
        with self._lock:
            scan = self._open.get(key) or self._ended.get(key)
            if scan is not None and scan.owner != owner:
                return
            scan = self._open.pop(key, None)
            self._ended.pop(key, None)
        if scan is not None:
            with scan.lock:
                scan.release()

    def expire(self) -> None:
        """Releases the scans that have been idle for too long."""
        before = time.monotonic() - self._idle
        with self._lock:
            for key, scan in list(self._ended.items()):
                if scan.used < before:
                    del self._ended[key]
            idle = [key for key, scan in self._open.items() if scan.used < before]
        for key in idle:
            self._expire(key, before)

    def close_all(self) -> None:
        """Releases every scan."""
        with self._lock:
            scans = list(self._open.values())
            self._open.clear()
            self._ended.clear()
        for scan in scans:
            with scan.lock:
                scan.release()

    def _expire(self, key: str, before: float) -> None:
        scan = self._open.get(key)
        # A scan that is being read is not idle.
        if scan is None or not scan.lock.acquire(blocking=False):
            return
        try:
            if scan.used < before:
                self._forget(key)
                scan.release()
        finally:
            scan.lock.release()

    def _step(self, key: str, scan: _Scan) -> tuple[Page, str]:
        """Reads the next page; the caller holds ``scan.lock``."""
        try:
            page, more = scan.advance()
        except BaseException:
            self._forget(key)
            scan.release()
            raise
        scan.used = time.monotonic()
        if more:
            return page, f"{key}.{scan.given}"
        scan.release()
        scan.last_bytes = sum(map(_bytes_of, page))
        with self._lock:
            if self._open.pop(key, None) is not None and scan.given > 1:
                self._ended[key] = scan
                kept = sum(ended.last_bytes for ended in self._ended.values())
                while len(self._ended) > _KEPT_ENDS or (kept > _KEPT_BYTES and len(self._ended) > 1):
                    kept -= self._ended.popitem(last=False)[1].last_bytes
        return page, ""

    def _forget(self, key: str) -> None:
        with self._lock:
            self._open.pop(key, None)

    def _gone(self) -> FailedPrecondition:
        return FailedPrecondition(
            f"the scan is not open any more: it was idle for more than {self._idle:g} s, closed, or read to its end; "
            "start it again",
            idle_seconds=self._idle,
        )


def _bytes_of(record: Record) -> int:
    """About the memory of a record as the engine gives it to a server."""
    vector, text, metadata = record.vector, record.text, record.metadata
    size = len(record.id) + (0 if vector is None else vector.nbytes) + (0 if text is None else len(text))
    return size + (len(metadata) if isinstance(metadata, bytes) else 0)
