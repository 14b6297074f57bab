"""Erasing: what is deleted or replaced leaves every file of the folder, and a receipt says so.

    1. rewrite   segments that hold dead rows or replaced payloads are sealed anew without them, with new indexes; what
                 other indexes learned from them (clusters, codebooks) is learned again
    2. wait      for snapshots of before: open scans, running searches
    3. sweep     the rows leave storage
    4. compact   their keys and values leave the tables, the log and the manifest of RocksDB (``rocks_erase.py``)
    5. discard   damaged folders that were kept for inspection go too, and what a backup under way has linked

What lies outside of the folder, such as backups, is not touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vectordb import failpoints
from vectordb.engine.care.rebuild import drop_index
from vectordb.errors import DeadlineExceeded, FailedPrecondition
from vectordb.index.base import BuildCancelled
from vectordb.reports import Erasure
from vectordb.storage import keys
from vectordb.storage.rocks import RocksStorage
from vectordb.storage.rocks_erase import erase_deleted

if TYPE_CHECKING:
    from pathlib import Path

    from vectordb.engine.live import LiveCollection
    from vectordb.engine.optimizer import Optimizer
    from vectordb.segments.store import SegmentStore
    from vectordb.storage.base import Storage

_SWEEP_AT_ONCE = 250
_PAUSE = 0.02
_LONG = 1e9
QUARANTINE = "quarantine"
"""Where ``vectordb repair`` puts what it cannot read, in the database's folder."""


@dataclass(frozen=True, slots=True)
class House:
    """Where a database keeps things: ``folder`` and ``store`` are None in memory."""

    folder: Path | None
    storage: Storage
    store: SegmentStore | None
    optimizer: Optimizer


def erase(
    house: House, live: LiveCollection, deleted: int, ids: Sequence[str] | None, timeout: float | None
) -> Erasure:
    """Erases everything of a collection that is dead by now.

    Args:
        deleted: Records that the call deleted before, and ``ids``: those that it named, for the receipt.
        timeout: Seconds.

    Raises:
        DeadlineExceeded: It is deleted but not erased yet; says what is in the way. FailedPrecondition: Likewise, a
            folder that cannot be removed.
    """
    end = time.monotonic() + (_LONG if timeout is None else timeout)
    started = _now()
    version, swept = live.state.version, live.sweep.removed
    before = _refs(live)

    def remaining() -> float:
        return end - time.monotonic()

    _forget_unloaded(house, live)
    house.optimizer.request(live, True, erase=True, remaining=remaining)
    failpoints.hit("erase.rewritten")
    _wait_for_snapshots(live, version, remaining)
    live.sweep.run_all(house.storage, live.oldest_version(), _SWEEP_AT_ONCE)
    failpoints.hit("erase.swept")
    gone = sorted(before - _refs(live))
    if house.store is not None:
        _check_removed(house.store, gone)
    files = [f"segments/{ref}" for ref in gone] if house.store is not None else []
    if isinstance(house.storage, RocksStorage) and house.store is not None:
        span = keys.collection_range(live.number)
        files += [f"rocksdb/{name}" for name in erase_deleted(house.storage, *span, remaining)]
        files += [f"segments/{name}" for name in house.store.discard_damaged()]
        _wait_for_backups(house.store, remaining)
        failpoints.hit("erase.discarded")
    live.check_open()
    left = house.folder is not None and (house.folder / QUARANTINE).is_dir()
    facts = {
        "collection": live.name,
        "ids": tuple(ids or ()),
        "version": version,
        "rows": live.sweep.removed - swept,
        "segments": tuple(gone),
        "files": tuple(files),
        "remaining": (QUARANTINE,) if left else (),
        "started": started,
        "finished": _now(),
    }
    return Erasure(deleted, facts)


def _refs(live: LiveCollection) -> set[str]:
    """Segments and indexes that a collection has."""
    segments = live.segments
    return {s.name for s in segments} | {s.ref for s in segments}


def _forget_unloaded(house: House, live: LiveCollection) -> None:
    """Sets aside the indexes that there was no memory to load: nobody knows what they learned from."""
    for segment in live.segments:
        if house.store is not None and segment.built is None and segment.names_index:
            with suppress(BuildCancelled):  # what was merged or indexed meanwhile does not name it any more
                drop_index(live, house.storage, house.store, segment)


def _wait_for_snapshots(live: LiveCollection, version: int, remaining: Callable[[], float]) -> None:
    while (oldest := live.oldest_version()) < version:
        live.check_open()
        if remaining() <= 0:
            raise DeadlineExceeded(
                f"the records are deleted but not erased: a scan or search of collection {live.name!r} still reads its "
                f"version {oldest}; end it, then call optimize(erase=True)",
                collection=live.name,
                version=oldest,
            )
        time.sleep(_PAUSE)


def _wait_for_backups(store: SegmentStore, remaining: Callable[[], float]) -> None:
    """A backup or a check that began before all this was done has linked files of before."""
    while store.is_staged():
        if remaining() <= 0:
            raise DeadlineExceeded(
                "the records are deleted but not erased: a backup or a check under way reads files of before; call "
                "optimize(erase=True) when it has ended"
            )
        time.sleep(_PAUSE)


def _check_removed(store: SegmentStore, gone: Sequence[str]) -> None:
    left = [ref for ref in gone if store.path(ref).exists()]
    if left:
        raise FailedPrecondition(
            f"the records are deleted but not erased: '{store.path(left[0])}' cannot be removed; see to the folder's "
            "permissions and its disk, open the database again, then call optimize(erase=True)",
            path=str(store.path(left[0])),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
