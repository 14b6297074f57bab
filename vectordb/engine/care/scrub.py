"""Scrubbing: the files of open collections are read again and again, slowly: damage is found while it can be mended.

Opening trusts a segment whose files have not changed since they were checked; what a disk spoils silently is found
here.
A damaged segment is made anew from storage, a damaged index is built again (``rebuild.py``). Of storage itself every
block is read, which checks RocksDB's own checksums; damage there can only be told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vectordb.engine.capacity.processors import lower_priority
from vectordb.engine.care.rebuild import drop_index, drop_shadow, rebuild_segment
from vectordb.errors import Closed, CollectionNotFound, InvalidArgument, ResourceExhausted, VectorDBError, described
from vectordb.index.base import BuildCancelled
from vectordb.segments.store import text_ref
from vectordb.storage import keys
from vectordb.storage.base import Family

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.segments.segment import Segment
    from vectordb.segments.store import SegmentStore
    from vectordb.storage.base import Storage

_log = logging.getLogger("vectordb.engine")

DEFAULT_RATE = 8 << 20
"""Bytes a second."""
_FIRST_PAUSE = 30.0
_PASS_SECONDS = 3600.0
"""A pass begins at the earliest so long after the one before began."""
_LEAST_PAUSE = 1.0
_CHUNK = 1 << 20
_SCANNED = 64 << 10
"""Bytes of storage that are read at a time: for as long as its entries become Python's objects, searches wait for the
interpreter. With 1 MiB one search in a thousand took 6 ms, with this 2 ms, as many as without."""
_LEAST_ENTRY = 512
"""Bytes that an entry of storage counts at least: small ones cost time for their number."""


def check_rate(rate: int) -> None:
    """Raises: InvalidArgument: It is no number of bytes a second."""
    if type(rate) is not int or rate < 0:
        raise InvalidArgument(
            f"scrub_bytes_per_second is a whole number from 0, got {rate!r}", field="scrub_bytes_per_second"
        )


class Scrubber:
    """Checks segments, indexes and storage of open collections. Thread-safe.

    Args:
        lives: The collections that are open now.
        rate: Bytes a second; 0 starts no thread, so that only :meth:`scrub` and :meth:`mend` do anything.
    """

    def __init__(
        self, storage: Storage, store: SegmentStore, lives: Callable[[], list[LiveCollection]], rate: int
    ) -> None:
        self._storage = storage
        self._store = store
        self._lives = lives
        self._rate = rate
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if rate:
            self._thread = threading.Thread(target=self._run, name="vectordb-scrubber", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends the thread, in the middle of a file if need be."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        lower_priority()
        pause = _FIRST_PAUSE
        while not self._stop.wait(pause):
            began = time.monotonic()
            self._pass()
            pause = max(_LEAST_PAUSE, _PASS_SECONDS - (time.monotonic() - began))

    def _pass(self) -> None:
        # A frame of its own: a waiting thread must not keep a deleted collection alive.
        for live in self._lives():
            self._attempt(live)

    def _attempt(self, live: LiveCollection) -> None:
        try:
            self.scrub(live)
        except (InterruptedError, Closed, CollectionNotFound):
            return
        except ResourceExhausted as error:
            # No files or memory to look with: that says nothing of what is looked at.
            _log.warning("collection %r is checked in the next pass: %s", live.name, error.message)
        except Exception as error:
            if self._stop.is_set() or live.is_gone:
                return
            _log.exception("checking collection %r failed", live.name)
            self._note(live, error=described(error))

    def scrub(self, live: LiveCollection) -> list[str]:
        """One pass over a collection; returns what was damaged.

        Raises:
            InterruptedError: The database closes or the collection is deleted.
        """
        pace = _Pace(self._rate, lambda: self._is_over(live), self._stop)
        found: list[str] = []
        for segment in live.segments:
            found += self._check(live, segment, pace)
        with live.lock:
            shadows = list(live.shadows.values())
        for shadow in shadows:
            problems = self._store.verify(shadow.ref, pace.chunk)
            if problems and live.shadows.get(shadow.name) is shadow:
                found += problems
                self._mended(live, problems, partial(drop_shadow, live, self._storage, self._store, shadow))
        found += self._check_storage(live, pace)
        self._note(live, passes=1, bytes=pace.total)
        return found

    def _check(self, live: LiveCollection, segment: Segment, pace: _Pace) -> list[str]:
        refs = [segment.name]
        if segment.data.info.documents != 0:
            refs.append(text_ref(segment.name))
        problems = [problem for ref in refs for problem in self._store.verify(ref, pace.chunk)]
        index = self._store.verify(segment.ref, pace.chunk) if segment.names_index and not problems else []
        if not (problems or index):
            return []
        # What serves in its place now: nothing where it was merged away meanwhile, and so is missing by right; itself
        # with another index where one was built, and the old one is.
        now = next((s for s in live.segments if s.name == segment.name), None)
        if now is None or (not problems and now.ref != segment.ref):
            return []
        self.mend(live, now, problems, index)
        return problems + index

    def mend(self, live: LiveCollection, segment: Segment, problems: list[str], index: list[str]) -> bool:
        """Makes what is damaged of a segment anew.

        Args:
            problems: What is wrong with its columns or its texts; ``index``: with its index alone.

        Returns:
            Whether it is done.
        """
        if problems:
            rebuild = partial(rebuild_segment, live, self._storage, self._store, segment, lambda: self._is_over(live))
            return self._mended(live, problems, rebuild)
        return self._mended(live, index, lambda: drop_index(live, self._storage, self._store, segment))

    def _is_over(self, live: LiveCollection) -> bool:
        return self._stop.is_set() or live.is_gone

    def _mended(self, live: LiveCollection, problems: list[str], mend: Callable[[], None]) -> bool:
        for problem in problems:
            _log.error("collection %r: %s", live.name, problem)
        self._note(live, damaged=1)
        try:
            mend()
        except BuildCancelled:
            # A merge or a reindex has it in hand; what it makes of it is checked in its turn.
            return False
        except VectorDBError as error:
            _log.exception("collection %r: the damage cannot be mended", live.name)
            self._note(live, error=error.message)
            return False
        self._note(live, rebuilt=1)
        return True

    def _check_storage(self, live: LiveCollection, pace: _Pace) -> list[str]:
        found: list[str] = []
        for family in Family:
            try:
                for size in read_all(self._storage, family, *keys.collection_range(live.number)):
                    if pace.spent(size):
                        raise InterruptedError("checking storage was cancelled")
            except VectorDBError as error:
                if isinstance(error, Closed | ResourceExhausted):
                    raise
                found.append(error.message)
                _log.error("collection %r: storage is damaged: %s", live.name, error.message)
                self._note(live, damaged=1, error=error.message)
        return found

    def _note(self, live: LiveCollection, *, error: str | None = None, **more: int) -> None:
        """Adds to a collection's figures."""
        with live.lock:
            old = live.scrub
            sums = {name: getattr(old, name) + count for name, count in more.items()}
            live.scrub = replace(old, error=error or old.error, **sums)


def read_all(storage: Storage, family: Family, start: bytes, end: bytes) -> Iterator[int]:
    """Reads all entries of a range, in short scans that keep no old file alive for long; gives the bytes of each scan.

    Raises:
        Corruption: A block does not meet its checksum.
    """
    while True:
        size, last = 0, None
        with closing(storage.scan(family, start, end)) as pairs:  # type: ignore[type-var]
            for key, value in pairs:
                size += max(_LEAST_ENTRY, len(key) + len(value))
                last = key
                if size >= _SCANNED:
                    break
        yield size
        if size < _SCANNED or last is None:
            return
        start = last + b"\0"


class _Pace:
    """Holds a reader to so many bytes a second."""

    def __init__(self, rate: int, cancelled: Callable[[], bool], stop: threading.Event) -> None:
        self._rate = rate
        self._cancelled = cancelled
        self._stop = stop
        self._began = time.monotonic()
        self.total = 0

    def chunk(self) -> bool:
        """To be asked before each further chunk of a file: waits; whether to give up."""
        return self.spent(_CHUNK)

    def spent(self, size: int) -> bool:
        """Waits until so many bytes were due; whether to give up."""
        self.total += size
        if self._rate:
            early = self.total / self._rate - (time.monotonic() - self._began)
            if early > 0:
                self._stop.wait(early)
        return self._cancelled()
