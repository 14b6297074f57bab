"""``vectordb repair``: makes a damaged folder sound again. What cannot be read is moved aside, never deleted.

Where only caches are damaged (segments, indexes, texts), they are moved into ``quarantine/`` and made anew from
storage.
Where storage itself is damaged, what can be read of it is written into a fresh store (``salvage.py``), which takes the
old one's place in steps that survive a kill:

    1. the fresh store is written beside the old one, synced
    2. MAINTENANCE says what is going on: from here on nobody opens the folder, and the next repair goes on
    3. segments, ACKED and rocksdb are renamed into quarantine, the fresh store is renamed to rocksdb
    4. MAINTENANCE is removed
    5. the database is opened, which makes segments and indexes anew
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import vectordb
from vectordb import arguments, failpoints
from vectordb.engine.care.damaged import DamagedStore
from vectordb.engine.care.erase import QUARANTINE
from vectordb.engine.care.salvage import Salvage
from vectordb.engine.care.verify import verify
from vectordb.engine.database import Engine
from vectordb.engine.locking import DirectoryLock
from vectordb.errors import Corruption, FailedPrecondition, os_errors_told
from vectordb.metric import Metric
from vectordb.reports import Lost, Problem, RepairReport
from vectordb.requests import OptimizeRequest
from vectordb.segments.files import sync_directory
from vectordb.segments.info import SEGMENT_FILE, read_segment_info
from vectordb.storage.acked import read_acked
from vectordb.storage.format import (
    FORMAT_FILE,
    MARKER,
    check_format,
    read_format,
    read_marker,
    remove_marker,
    write_format,
    write_marker,
)
from vectordb.storage.keys import FORMAT_VERSION
from vectordb.storage.rocks_errors import holds_data

_FRESH = "rocksdb.fresh"
_REPLACED = ("segments", "ACKED", "rocksdb")
_COMMAND = "repair"


@dataclass(frozen=True, slots=True)
class _Findings:
    """What is wrong, and whether storage itself has to be written anew."""

    problems: tuple[Problem, ...]
    is_storage: bool


def repair_folder(path: Path, *, dry_run: bool = False, accept_loss: bool = False) -> RepairReport:
    """Repairs a database folder that nobody has open.

    Args:
        dry_run: Only say what would be done and what would be lost.
        accept_loss: Go on although records are lost. Without it, where that is so, nothing is done and the report is
            that of a dry run.

    Raises:
        DirectoryLocked: Somebody has it open. FailedPrecondition: There is no database, or one of another format.
        Corruption: Nothing can be read.
    """
    folder = arguments.folder(path)
    with os_errors_told(f"folder {folder} cannot be opened", path=str(folder)):
        _check_is_database(folder)
    lock = DirectoryLock(folder)
    try:
        done, format_lost = _finish(folder, dry_run), _format_is_lost(folder)
        aside = f"{QUARANTINE}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"
        if format_lost and not dry_run:
            done += _new_format(folder, aside)
    finally:
        lock.release()
    if format_lost and dry_run:
        problem = Problem("format", "the FORMAT file cannot be read; it is written anew, then all else can be checked")
        return RepairReport(str(folder), True, ("FORMAT",), problems=(problem,))
    findings = _find(folder)
    lock = DirectoryLock(folder)
    try:
        if findings.is_storage:
            report = _repair_storage(folder, aside, findings, dry_run=dry_run, accept_loss=accept_loss)
        else:
            report = _repair_caches(folder, aside, findings, dry_run=dry_run, accept_loss=accept_loss)
    finally:
        lock.release()
    if report.dry_run:
        return report
    rebuilt = [*done, *report.rebuilt]
    if findings.problems:
        rebuilt += _open(folder, accept_loss)
    left = _find(folder).problems if rebuilt else findings.problems
    return RepairReport(str(folder), False, tuple(rebuilt), report.quarantined, report.lost, left)


def _check_is_database(folder: Path) -> None:
    if (folder / MARKER).exists() or holds_data(folder / "rocksdb"):
        if (folder / FORMAT_FILE).exists():
            try:
                version = read_format(folder)
            except Corruption:
                return
            if version != FORMAT_VERSION:
                check_format(folder, create=False)
        return
    if folder.is_dir() and (folder / "rocksdb").is_dir():
        raise Corruption(f"nothing is left in '{folder / 'rocksdb'}'; restore it from a backup", path=str(folder))
    check_format(folder, create=False)


def _find(folder: Path) -> _Findings:
    """What a full check finds."""
    try:
        report = verify(folder, 0)
    except Corruption as error:
        return _Findings((Problem("storage", error.message),), True)
    truth = [p for p in report.problems if p.is_loss and p.kind != "acknowledged"]
    return _Findings(report.problems, bool(truth))


def _format_is_lost(folder: Path) -> bool:
    try:
        read_format(folder)
    except (Corruption, FailedPrecondition):
        return True
    return False


def _new_format(folder: Path, aside: str) -> list[str]:
    if (folder / FORMAT_FILE).exists():
        _move(folder, FORMAT_FILE, aside)
    failpoints.hit("repair.format")
    write_format(folder, vectordb.__version__)
    return ["FORMAT"]


def _repair_caches(folder: Path, aside: str, findings: _Findings, *, dry_run: bool, accept_loss: bool) -> RepairReport:
    """Moves what is damaged aside; opening makes it anew."""
    lost = tuple(Lost("versions", p.message) for p in findings.problems if p.kind == "acknowledged")
    subjects = sorted({p.subject for p in findings.problems if p.subject is not None})
    # What lies in a segment's folder goes with it.
    whole = [s for s in subjects if "/" not in s or s.partition("/")[0] not in subjects]
    there = [f"segments/{ref}" for ref in whole if (folder / "segments" / ref).exists()]
    if dry_run or (lost and not accept_loss):
        told = tuple(f"segments/{ref}" for ref in whole)
        return RepairReport(str(folder), True, told, tuple(there), lost, findings.problems)
    for name in there:
        _move(folder, name, aside)
    return RepairReport(str(folder), False, (), tuple(f"{aside}/{name}" for name in there), lost)


def _repair_storage(folder: Path, aside: str, findings: _Findings, *, dry_run: bool, accept_loss: bool) -> RepairReport:
    """Puts a fresh store with all that can be read in the damaged one's place."""
    with DamagedStore(folder / "rocksdb", folder) as store:
        salvage = Salvage(store, _metrics(folder))
        lost = [*salvage.lost, *_lost_versions(folder, salvage)]
        if dry_run or (lost and not accept_loss):
            moved = tuple(name for name in _REPLACED if (folder / name).exists())
            return RepairReport(str(folder), True, ("rocksdb", "segments"), moved, tuple(lost), findings.problems)
        place = folder / aside
        place.mkdir(parents=True, mode=0o700)
        salvage.write(place / _FRESH)
    for path in (place / _FRESH, place, folder / QUARANTINE, folder):
        sync_directory(path)
    failpoints.hit("repair.written")
    write_marker(folder, {"command": _COMMAND, "aside": aside})
    failpoints.hit("repair.marked")
    _finish(folder, dry_run=False)
    moved = tuple(f"{aside}/{name}" for name in _REPLACED if (place / name).exists())
    return RepairReport(str(folder), False, ("rocksdb",), moved, tuple(lost))


def _lost_versions(folder: Path, salvage: Salvage) -> list[Lost]:
    """Commits that were acknowledged and are not there."""
    acked = read_acked(folder / "ACKED")
    found = []
    for collection in salvage.collections:
        version = acked.versions.get(collection.number, 0)
        if version > collection.state.version:
            told = f"acknowledged versions {collection.state.version + 1} to {version} are lost"
            found.append(Lost("versions", told, collection.config.name, version - collection.state.version))
    return found


def _metrics(folder: Path) -> dict[int, Metric]:
    """What the segments say of the metric of their collections, by number."""
    found: dict[int, Metric] = {}
    for path in (folder / "segments").glob(f"*/{SEGMENT_FILE}"):
        try:
            info = read_segment_info(path)[0]
        except Corruption:
            continue
        found[info.collection] = info.metric
    return found


def _finish(folder: Path, dry_run: bool) -> list[str]:
    """Does what is left to do of a repair whose fresh store is whole."""
    marker = read_marker(folder)
    if marker is None or dry_run:
        return []
    if marker.get("command") != _COMMAND:
        check_format(folder, create=False)
    aside = str(marker["aside"])
    fresh = folder / aside / _FRESH
    if fresh.exists():
        for name in _REPLACED:
            if (folder / name).exists():
                _move(folder, name, aside)
        fresh.rename(folder / "rocksdb")
        failpoints.hit("repair.replaced")
        sync_directory(folder)
    remove_marker(folder)
    failpoints.hit("repair.unmarked")
    return ["rocksdb"]


def _move(folder: Path, name: str, aside: str) -> None:
    target = folder / aside / name
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / name).rename(target)
    failpoints.hit("repair.moved")
    sync_directory(target.parent)
    sync_directory((folder / name).parent)


def _open(folder: Path, accept_loss: bool) -> list[str]:
    """Opens everything, which makes what is missing anew, and waits for the indexes."""
    engine = Engine(folder, accept_loss=accept_loss, scrub_bytes_per_second=0)
    try:
        names = engine.list_collections()
        for name in names:
            engine.optimize(name, OptimizeRequest())
        return [f"segments of collection {name!r}" for name in names]
    finally:
        engine.close()
