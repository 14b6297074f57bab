"""Mending a live collection: a damaged segment or index is taken out of service, and a segment made anew from storage.

Reads and writes go on. A rebuilt segment is served without an index, exactly, until the optimizer has built one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from vectordb.engine.manifest import write_manifest
from vectordb.engine.recovery import StoredRows, restore_deaths, restore_overlays, sealed_anew
from vectordb.errors import FailedPrecondition
from vectordb.index.base import BuildCancelled
from vectordb.storage import keys

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.segments.segment import Segment
    from vectordb.segments.store import SegmentStore
    from vectordb.storage.base import Storage

_log = logging.getLogger("vectordb.engine")


def rebuild_segment(
    live: LiveCollection, storage: Storage, store: SegmentStore, segment: Segment, cancelled: Callable[[], bool]
) -> None:
    """Seals a segment's rows again from storage and serves them in its place; its folder is set aside.

    Raises:
        BuildCancelled: Nothing was done: the segment is gone meanwhile, a reindex works on it, or ``cancelled``
            turned true.
        FailedPrecondition: A write failed before: storage may hold half of it.
        Corruption: Storage lacks what it needs.
    """
    with live.commit_gate:
        # Nothing is half written now: what is read is as of this version.
        if live.unsynced is not None:
            raise FailedPrecondition("a segment cannot be rebuilt since a write failed; open the database again")
        version = live.state.version
        reader = StoredRows(live.number, live.config, storage, segment.lo, segment.hi)
        rows = reader.batches(segment.lo, segment.hi)
    made: list[Segment] = []
    try:
        made.extend(sealed_anew(reader, store, (segment.lo, rows), version, cancelled))
        with live.commit_gate, live.manifest_lock:
            _put_in_place(live, storage, segment, made, reader)
    except BaseException:
        for fresh in made:
            store.remove(fresh.name)
        raise
    store.quarantine(segment.name)
    _log.warning("collection %r: segment %s was rebuilt from storage", live.name, segment.name)


def _put_in_place(
    live: LiveCollection, storage: Storage, old: Segment, made: list[Segment], reader: StoredRows
) -> None:
    target = live.target
    if live.is_gone or old not in live.segments or (target is not None and target.building == old.name):
        raise BuildCancelled
    # What happened to the rows meanwhile is read from storage too: the old segment's columns are not to be trusted.
    now = StoredRows(live.number, live.config, storage, old.lo, old.hi)
    restore_deaths(made, now.tombstones, live.sweep)
    restore_overlays(made, now)
    if target is not None:
        with live.lock:
            target.shadows.pop(old.name, None)
    folded = [keys.overlay_key(live.number, offset, version) for offset, version in reader.overlays.items()]
    write_manifest(storage, live.number, live.with_replaced([old], *made), folded, live.shadows)
    with live.lock:
        live.replace([old], *made)


def drop_index(live: LiveCollection, storage: Storage, store: SegmentStore, segment: Segment) -> None:
    """Serves a segment without its index, damaged or not wanted any more, which is set aside; the optimizer builds
    another.

    Raises:
        BuildCancelled: The segment is gone meanwhile.
    """
    with live.manifest_lock:
        if live.is_gone or segment not in live.segments:
            raise BuildCancelled
        bare = segment.without_index()
        write_manifest(storage, live.number, live.with_replaced([segment], bare), shadows=live.shadows)
        with live.lock:
            live.replace([segment], bare)
    store.quarantine(segment.ref)
    live.wake()
    _log.warning("collection %r: the index of segment %s is built anew", live.name, segment.name)


def drop_shadow(live: LiveCollection, storage: Storage, store: SegmentStore, shadow: Segment) -> None:
    """Takes back a damaged index that a running reindex has built; it builds it again."""
    with live.manifest_lock:
        target = live.target
        if live.is_gone or target is None or target.shadows.get(shadow.name) is not shadow:
            raise BuildCancelled
        with live.lock:
            del target.shadows[shadow.name]
        write_manifest(storage, live.number, live.segments, shadows=live.shadows)
    store.quarantine(shadow.ref)
