"""Backing up a live database, and restoring one.

A backup is the database as of one moment: a RocksDB checkpoint and the segments that its manifests name, hard-linked
into a staging folder within moments and copied from there while reads and writes go on. Restoring makes a folder like
any other: opened, it recovers as after a crash at that moment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import vectordb
from vectordb import arguments, failpoints
from vectordb.backup import archive
from vectordb.backup.archive import Listing
from vectordb.backup.places import Place, place_of
from vectordb.engine.catalogue import Catalogue
from vectordb.errors import AlreadyExists, FailedPrecondition, VectorDBError, os_errors_told
from vectordb.segments.files import TEMPORARY, sync_directory
from vectordb.segments.store import split, text_ref
from vectordb.stats import BackupInfo
from vectordb.storage.acked import AckedPage
from vectordb.storage.format import FORMAT_FILE
from vectordb.storage.keys import FORMAT_VERSION
from vectordb.storage.rocks import RocksStorage

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.segments.store import SegmentStore


_CACHE_BYTES = 8 << 20


def stage(
    folder: Path, storage: RocksStorage, store: SegmentStore, catalogue: Catalogue, lives: Sequence[LiveCollection]
) -> tuple[Path, dict[str, int]]:
    """Links the database as of now into a temporary folder, which the caller removes.

    Called under the engine's lock, so that no collection is opened, made or deleted meanwhile; commits go on.

    Returns:
        The folder, and the committed version of each collection by name.

    Raises:
        ResourceExhausted: No space is left. FailedPrecondition: The files cannot be linked. Nothing is left behind.
        VectorDBError: What storage says of a failing disk; likewise.
    """
    staging = store.root / f"{TEMPORARY}{uuid4().hex}"  # garbage at the next opening, if this process dies
    with os_errors_told(f"the files of '{folder}' cannot be linked for a backup or a check"):
        staging.mkdir()
        try:
            return staging, _linked(staging, folder, storage, (store, catalogue, lives))
        except BaseException:
            # Else erasures would wait for it, and its links keep what was removed on the disk.
            discard(staging, store)
            raise


def _linked(
    staging: Path,
    folder: Path,
    storage: RocksStorage,
    contents: tuple[SegmentStore, Catalogue, Sequence[LiveCollection]],
) -> dict[str, int]:
    """Links all there is into the staging folder; gives the versions."""
    store, catalogue, lives = contents
    with ExitStack() as stack:
        for live in lives:
            # No manifest changes and no segment is removed until all are linked.
            stack.enter_context(live.manifest_lock)
        storage.sync()
        storage.checkpoint(staging / "rocksdb")
        failpoints.hit("backup.checkpointed")
        refs = catalogue.segment_refs()
        # A reference with an index stands for its segment, too, and a segment for the index over its texts.
        segments = {split(ref)[0] for ref in refs}
        texts = {ref for ref in map(text_ref, segments) if store.path(ref).is_dir()}
        for ref in {*refs, *segments, *texts}:
            _link(store.path(ref), staging / "segments" / ref)
        versions = {name: catalogue.state(number).version for name, number in catalogue.numbers().items()}
    os.link(folder / FORMAT_FILE, staging / FORMAT_FILE)
    failpoints.hit("backup.staged")
    return versions


def _link(source: Path, target: Path) -> None:
    """Hard-links the files of one segment or index; of a segment not those of its indexes, which are named apart.

    One whose folder is missing is left out: a check finds that, and opening a restored folder makes it anew.
    """
    if not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file():
            os.link(path, target / path.name)


def save(staging: Path, versions: dict[str, int], place: Place, destination: str) -> BackupInfo:
    """Writes a staged database to a place; ``destination`` is its name."""
    now = datetime.now(UTC)
    files = {path.relative_to(staging).as_posix(): path for path in staging.rglob("*") if path.is_file()}
    facts = Listing(
        id=f"{now:%Y%m%dT%H%M%S.%fZ}-{uuid4().hex[:6]}",
        created=now.isoformat(timespec="seconds"),
        release=vectordb.__version__,
        format_version=FORMAT_VERSION,
        collections=_versions_in(staging, versions),
    )
    with os_errors_told(f"a backup cannot be written to {destination!r}", destination=destination):
        return archive.store(place, facts, files, lambda count: None)


def _versions_in(staging: Path, later: dict[str, int]) -> dict[str, int]:
    """The version of each collection that was linked: what was committed meanwhile (``later``) is not in the backup."""
    # What is damaged is saved as it is, and what the database says of itself has to do.
    with contextlib.suppress(VectorDBError):
        storage = RocksStorage(staging / "rocksdb", read_only=True, cache_bytes=_CACHE_BYTES)
        try:
            catalogue = Catalogue(storage)
            return {name: catalogue.state(number).version for name, number in catalogue.numbers().items()}
        finally:
            storage.close()
    return later


def discard(staging: Path, store: SegmentStore) -> None:
    """Removes a staging folder. The stamps of what was linked there hold again afterwards."""
    root = staging / "segments"
    refs = [path.relative_to(root).as_posix() for path in root.glob("**/") if path != root]
    shutil.rmtree(staging, ignore_errors=True)
    for ref in refs:
        store.restamp(ref)


def restore(
    destination: str, folder: Path, backup: str | None = None, progress: Callable[[int], None] = lambda count: None
) -> BackupInfo:
    """Makes a database folder from a backup: whole, or not at all.

    Args:
        destination: Where the backups lie.
        folder: Must not exist, or be empty.
        backup: Its id; the newest without one.
        progress: Told the bytes done.

    Raises:
        NotFound: There is no such backup. AlreadyExists: The folder holds something.
        Corruption: The backup is damaged; nothing is left behind. FailedPrecondition: It is of a newer format, or the
            system refuses the folder. ResourceExhausted: The disk is full; likewise.
    """
    folder = arguments.folder(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists(
            f"'{folder}' exists and is not empty; restore into a new folder, or move it away", path=str(folder)
        )
    place = place_of(destination)
    listing = archive.load(place, backup)
    if listing.format_version > FORMAT_VERSION:
        raise FailedPrecondition(
            f"backup {listing.id!r} has format {listing.format_version}, this release reads up to {FORMAT_VERSION}; "
            "upgrade it",
            backup=listing.id,
        )
    with os_errors_told(f"backup {listing.id!r} cannot be restored into '{folder}'", path=str(folder)):
        _fetch_into(folder, place, listing, progress)
    return listing.info()


def _fetch_into(folder: Path, place: Place, listing: Listing, progress: Callable[[int], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{uuid4().hex}")
    fresh.mkdir(mode=0o700)
    try:
        archive.fetch(place, listing, fresh, progress)
        (fresh / "segments").mkdir(exist_ok=True)
        _note_acked(fresh)
        for path in [*(p for p in fresh.rglob("*") if p.is_dir()), fresh]:
            sync_directory(path)
        failpoints.hit("restore.fetched")
        if folder.exists():
            folder.rmdir()
        fresh.rename(folder)
        sync_directory(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _note_acked(folder: Path) -> None:
    """Gives a restored folder its ACKED page: all that is there was acknowledged, and checks can tell from now on."""
    # What a damaged database was backed up to is restored as it was.
    with contextlib.suppress(VectorDBError):
        storage = RocksStorage(folder / "rocksdb", read_only=True)
        try:
            versions, sequence = Catalogue(storage).versions(), storage.sequence()
        finally:
            storage.close()
        page = AckedPage(folder / "ACKED")
        page.store(sequence, versions)
        page.close()
