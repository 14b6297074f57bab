"""``vectordb verify``: reads every byte of a database and cross-checks what it says. Nothing is changed.

    storage      every block of every table and the log, by reading all entries
    records      ids, rows, tombstones and vectors agree (``verify_records.py``)
    segments     every checksum; columns, postings and texts agree with storage (``verify_segments.py``)
    searches     exact ones equal brute force over storage, the others' recall is measured (``verify_searches.py``)

A closed folder is looked at as opening would leave it. Of an open database its files as of one moment are linked into a
temporary folder, as for a backup, and looked at there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vectordb import arguments
from vectordb.engine.care.unfinished import Settled
from vectordb.engine.care.verify_records import Records, check_records
from vectordb.engine.care.verify_searches import check_searches
from vectordb.engine.care.verify_segments import Looked, check_segments
from vectordb.engine.catalogue import Catalogue
from vectordb.engine.locking import DirectoryLock
from vectordb.errors import Corruption, ResourceExhausted, VectorDBError, os_errors_told
from vectordb.reports import CheckedCollection, Problem, VerifyReport
from vectordb.requests import SAMPLE_SEARCHES
from vectordb.segments.store import SegmentStore, split
from vectordb.storage import codec, keys
from vectordb.storage.acked import Acked, lost, read_acked
from vectordb.storage.base import Family, Storage
from vectordb.storage.catalogue import decode_manifest
from vectordb.storage.format import check_format
from vectordb.storage.keys import Kind
from vectordb.storage.rocks import RocksStorage

_END = b"\xff" * 8


def verify(path: Path, searches: int = SAMPLE_SEARCHES) -> VerifyReport:
    """Checks a database folder that nobody has open.

    Args:
        searches: Sample searches of each collection.

    Raises:
        DirectoryLocked: Somebody has it open. FailedPrecondition: It is not a database of this format.
        Corruption: Storage cannot be opened at all. ResourceExhausted: There are no files or memory to look with.
    """
    folder = arguments.folder(path)
    check_format(folder, create=False)
    acked = read_acked(folder / "ACKED")
    with _owned(folder), _opened(folder, acked) as (storage, damage):
        check = Check(folder, storage, searches)
        for loss in lost(acked, storage.sequence(), check.catalogue.versions(), check.catalogue.next_number()):
            check.problems.append(Problem("acknowledged", str(loss)))
        if damage is not None:
            told = "writes behind the last acknowledged one are damaged, and opening leaves them out"
            note = told if not check.problems else f"the log is damaged: {damage.message}"
            check.notes.append(note)
        if not acked.known:
            check.notes.append(f"whether acknowledged data is missing cannot be told: {acked.problem}")
        return check.run()


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    lock = DirectoryLock(folder)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _opened(folder: Path, acked: Acked) -> Iterator[tuple[RocksStorage, VectorDBError | None]]:
    """The storage, and the damage of its log behind which nothing was read; see :func:`~.opening.open_storage`."""
    damage: VectorDBError | None = None
    try:
        with os_errors_told(f"folder {folder} cannot be opened", path=str(folder)):
            storage = RocksStorage(folder / "rocksdb", read_only=True)
    except Corruption as error:
        if not acked.known:
            raise
        damage = error
        try:
            storage = RocksStorage(folder / "rocksdb", read_only=True, rescue=True)
        except VectorDBError:
            raise error from None
    try:
        yield storage, damage
    finally:
        storage.close()


class Check:
    """One run over a folder that does not change meanwhile.

    Args:
        folder: The database's folder, or its staged files.
        storage: Its storage, opened read-only. shown: The path for the report.
    """

    def __init__(self, folder: Path, storage: Storage, searches: int, shown: str = "") -> None:
        self._shown = shown or str(folder)
        self._searches = searches
        self._stored = storage
        # As storage is: the catalogue has no unfinished changes.
        self.catalogue = Catalogue(storage)
        self._storage = Settled(storage, self.catalogue.numbers().values())
        self._store = SegmentStore(folder / "segments") if (folder / "segments").is_dir() else None
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._files = 0
        self._bytes = 0

    def run(self) -> VerifyReport:
        names = {number: name for name, number in self.catalogue.numbers().items()}
        for number in self._storage.unfinished:
            self.notes.append(f"collection {names[number]!r}: an unfinished commit, which opening takes back")
        self._read_storage(names)
        collections = [self._collection(name) for name in sorted(self.catalogue.numbers())]
        self._look_for_garbage()
        return VerifyReport(
            self._shown, tuple(self.problems), tuple(self.notes), tuple(collections), self._files, self._bytes
        )

    def _read_storage(self, names: dict[int, str]) -> None:
        """Every block, and whose entries they are."""
        strange: dict[int, int] = {}
        for family in Family:
            try:
                for key, value in self._stored.scan(family, b"", _END):
                    self._bytes += len(key) + len(value)
                    number = keys.parse_cid(key)
                    if number and number not in names:
                        strange[number] = strange.get(number, 0) + 1
            except ResourceExhausted:
                raise  # no files or memory to look with: that is no damage
            except VectorDBError as error:
                self.problems.append(Problem("storage", error.message))
        for number, count in sorted(strange.items()):
            self.problems.append(
                Problem("catalogue", f"{count} entries are of collection number {number}, which does not exist")
            )
        for key, value in self._stored.scan(Family.META, *keys.kind_range(keys.GLOBAL, Kind.NAME)):
            name = keys.parse_tail(key).decode()
            if codec.decode_u32(value) not in names:
                self.problems.append(Problem("catalogue", "its configuration is missing from storage", name))

    def _collection(self, name: str) -> CheckedCollection:
        number, config = self.catalogue.find(name)
        checked = CheckedCollection(name, 0, 0, 0)
        try:
            state = self.catalogue.state(number)
            checked = CheckedCollection(name, state.version, state.alive, 0)
            records = Records(number, config, self._storage, state)
            before = len(self.problems)
            self.problems += (Problem("records", p, name) for p in check_records(records))
            sound = len(self.problems) == before
            manifest = self._storage.get(Family.META, keys.manifest_key(number))
            entries = decode_manifest(manifest) if manifest is not None else []
            looked = Looked(records, self._store, entries)
            before = len(self.problems)
            segments = check_segments(looked, self.problems.append)
            self._files, self._bytes = self._files + looked.files, self._bytes + looked.bytes
            checked = CheckedCollection(name, state.version, state.alive, len(entries))
            if self._searches and sound and len(self.problems) == before:
                found = check_searches(records, segments, self._searches)
                self.problems += (Problem("search", p, name) for p in found.problems)
                return CheckedCollection(name, state.version, state.alive, len(entries), found.searches, found.recall)
        except ResourceExhausted:
            raise
        except VectorDBError as error:
            self.problems.append(Problem("storage", f"it cannot be read in full: {error.message}", name))
        return checked

    def _look_for_garbage(self) -> None:
        if self._store is None:
            return
        named = set(self.catalogue.segment_refs())
        known = named | {split(ref)[0] for ref in named}
        for ref in self._store.refs():
            if ref not in known:
                self.notes.append(f"segments/{ref} belongs to no collection; opening removes it")
