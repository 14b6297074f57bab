"""What those who run a database ask of the open engine: backups, checks, repairs, erasure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vectordb.backup.places import Folder, place_of
from vectordb.engine import checks
from vectordb.engine.care import backup as backups
from vectordb.engine.care.erase import House, erase
from vectordb.engine.care.verify import Check
from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb.reports import Problem, RepairReport, VerifyReport
from vectordb.segments.store import split
from vectordb.storage.rocks import RocksStorage

if TYPE_CHECKING:
    from vectordb.engine.care.scrub import Scrubber
    from vectordb.engine.catalogue import Catalogue
    from vectordb.engine.live import LiveCollection
    from vectordb.engine.optimizer import Optimizer
    from vectordb.reports import Erasure
    from vectordb.requests import DeleteRequest, EraseRequest
    from vectordb.segments.store import SegmentStore
    from vectordb.stats import BackupInfo
    from vectordb.storage.base import Storage

MEMORY = ":memory:"
_CACHES = frozenset({"segment", "index", "text", "postings"})
_CACHE_BYTES = 8 << 20


class Care:
    """The part of :class:`vectordb.engine.database.Engine` that looks after its folder. Thread-safe."""

    _lock: threading.RLock
    _lives: dict[str, LiveCollection]
    _folder: Path | None
    _storage: Storage
    _segments: SegmentStore | None
    _catalogue: Catalogue
    _optimizer: Optimizer
    _scrubber: Scrubber | None

    if TYPE_CHECKING:
        delete: Callable[[str, DeleteRequest], int]
        _live: Callable[[str], LiveCollection]
        _check_open: Callable[[], None]
        _check_writable: Callable[[], None]

    def backup(self, destination: str) -> BackupInfo:
        place = place_of(destination)
        if self._folder is not None and isinstance(place, Folder) and place.lies_in(self._folder):
            raise InvalidArgument(
                f"the destination {place} lies in the database's own folder '{self._folder}', and would be lost with "
                "it; name a folder elsewhere",
                field="destination",
            )
        with self._staged("a database in memory has no files to back up; export its collections instead") as staged:
            staging, versions = staged
            return backups.save(staging, versions, place, destination)

    def verify(self, searches: int) -> VerifyReport:
        if type(searches) is not int or not 0 <= searches <= 1_000:
            raise InvalidArgument(f"searches is a whole number from 0 to 1000, got {searches!r}", field="searches")
        if self._folder is None:
            self._check_open()
            return VerifyReport(MEMORY, notes=("a database in memory has no files to check",))
        with self._staged("a database in memory has no files") as (staging, _):
            storage = RocksStorage(staging / "rocksdb", read_only=True, cache_bytes=_CACHE_BYTES)
            try:
                report = Check(staging, storage, searches, str(self._folder)).run()
            finally:
                storage.close()
        told = str(staging / "segments"), str(self._folder / "segments")
        return replace(report, problems=tuple(replace(p, message=p.message.replace(*told)) for p in report.problems))

    def repair(self, dry_run: bool) -> RepairReport:
        if not dry_run:
            self._check_writable()
        report = self.verify(0)
        rebuilt: list[str] = []
        left: list[Problem] = []
        by_segment: dict[tuple[str, str], list[Problem]] = {}
        for problem in report.problems:
            if problem.kind in _CACHES and problem.subject is not None and problem.collection is not None:
                by_segment.setdefault((problem.collection, split(problem.subject)[0]), []).append(problem)
            else:
                left.append(problem)
        for (collection, name), problems in by_segment.items():
            what = "the index" if all(p.kind == "index" for p in problems) else "all"
            done = dry_run or self._mended(collection, name, problems)
            if done:
                rebuilt.append(f"collection {collection!r}: {what} of segment {name}")
            if dry_run or not done:
                left.extend(problems)
        return RepairReport(report.path, dry_run, tuple(rebuilt), problems=tuple(left))

    def _mended(self, collection: str, name: str, problems: list[Problem]) -> bool:
        live = self._live(collection)
        segment = next((s for s in live.segments if s.name == name), None)
        if segment is None or self._scrubber is None:
            return segment is None
        columns = [p.message for p in problems if p.kind != "index"]
        index = [p.message for p in problems if p.kind == "index"]
        return self._scrubber.mend(live, segment, columns, index)

    def erase(self, collection: str, request: EraseRequest) -> Erasure:
        live = self._live(collection)
        checks.check_timeout(request.timeout)
        self._check_writable()
        house = House(self._folder, self._storage, self._segments, self._optimizer)
        delete = request.delete
        if delete is None:
            return erase(house, live, 0, None, request.timeout)
        started = time.monotonic()
        deleted = self.delete(collection, replace(delete, timeout=request.timeout))
        left = None if request.timeout is None else max(0.0, request.timeout - (time.monotonic() - started))
        return erase(house, live, deleted, delete.ids, left)

    @contextmanager
    def _staged(self, otherwise: str) -> Iterator[tuple[Path, dict[str, int]]]:
        """The files of this moment, linked in a temporary folder, and the version of each collection.

        Raises:
            FailedPrecondition: With ``otherwise``, in memory.
        """
        folder, store, storage = self._folder, self._segments, self._storage
        if folder is None or store is None or not isinstance(storage, RocksStorage):
            raise FailedPrecondition(otherwise)
        with self._lock:
            self._check_open()
            staged = backups.stage(folder, storage, store, self._catalogue, list(self._lives.values()))
        try:
            yield staged
        finally:
            backups.discard(staged[0], store)
