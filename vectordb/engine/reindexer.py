"""Giving a live collection another form: index and quantization change beside the serving ones, which swap at the end.

A third thread of the database, there only while something is reindexed, so that the tail is sealed and new segments
are merged and indexed in the serving form as ever. What is durable, and when:

    begin   the target stands in the configuration's record            one synced batch each
    build   each finished index is named in the manifest beside the serving one
    swap    the record has the new configuration, the manifest the new indexes alone
    end     after a failure or a cancellation: record and manifest as before the beginning

So a reindex goes on where it was after a restart, and no crash shows half of it. A release that does not know of it
serves the old form, and drops what was built.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from vectordb import failpoints
from vectordb.engine.capacity.processors import build_threads, lower_priority
from vectordb.engine.form import Target
from vectordb.engine.jobs import trained_file
from vectordb.engine.manifest import put_manifest, write_manifest
from vectordb.errors import Closed, FailedPrecondition, VectorDBError, anew, kept
from vectordb.index.base import BuildCancelled, BuildOptions
from vectordb.query.calibrate import calibrate
from vectordb.segments.build import build_index

if TYPE_CHECKING:
    from vectordb.engine.capacity.resources import Resources
    from vectordb.engine.catalogue import Catalogue
    from vectordb.engine.live import LiveCollection
    from vectordb.segments.segment import Segment
    from vectordb.segments.store import SegmentStore
    from vectordb.stats import OptimizerStats
    from vectordb.storage.base import Storage
    from vectordb.storage.catalogue import Choice

_log = logging.getLogger("vectordb.engine")
_POLL_SECONDS = 0.1


class Reindexer:
    """All running reindexes of one database. All methods are thread-safe.

    Args:
        changed: Called when one ended: work that waited for it can go on.
    """

    def __init__(
        self,
        storage: Storage,
        store: SegmentStore | None,
        catalogue: Catalogue,
        resources: Resources,
        changed: Callable[[], None],
    ) -> None:
        self._resources = resources
        self._storage = storage
        self._store = store
        self._catalogue = catalogue
        self._notify = changed
        self._condition = threading.Condition()
        self._lives: dict[int, LiveCollection] = {}  # guarded by self._condition
        self._thread: threading.Thread | None = None  # guarded by self._condition
        self._closing = False

    def watch(self, live: LiveCollection) -> None:
        """Goes on with what an opened collection was in the middle of."""
        if live.target is None:
            return
        with self._condition:
            self._lives[live.number] = live
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="vectordb-reindexer", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def begin(self, live: LiveCollection, choice: Choice) -> Target | None:
        """Makes ``choice`` what the collection is reindexed to, in place of what it was before.

        Returns:
            The reindex to wait for; None where the collection has this form already.

        Raises:
            InvalidArgument, FailedPrecondition: The form cannot be. CollectionNotFound, Closed: It ended.
        """
        form = live.form.of(choice)
        with live.manifest_lock:
            live.check_open()
            before = live.target
            if before is not None and before.form.choice == choice:
                return before
            live.reindex_error = None
            new = None if choice == live.form.choice else Target(form, live.segments)
            if new is None and before is None:
                return None
            self._store_target(live, new)
            failpoints.hit("reindex.begun")
            with live.lock:
                live.target = new
        if before is not None:
            self._close(before, _ended(live, "replaced by another reindex"), before.shadows.values())
        self.watch(live)
        return new

    def cancel(self, live: LiveCollection) -> bool:
        """Takes a running reindex back; whether there was one."""
        live.check_open()
        live.reindex_error = None
        target = live.target
        return target is not None and self._drop(live, target, _ended(live, "cancelled"))

    def wait(self, live: LiveCollection, target: Target, wanted: Callable[[], bool]) -> None:
        """Until a reindex is over, or ``wanted`` turns false.

        Raises:
            FailedPrecondition: It was cancelled or replaced. VectorDBError: Why it failed.
            Closed, CollectionNotFound: The database or the collection ended meanwhile.
        """
        target.waited = True
        with self._condition:
            while not target.ended and wanted():
                if self._closing:
                    raise Closed("the database was closed while it reindexed; it goes on when it is opened again")
                live.check_open()
                self._condition.wait(_POLL_SECONDS)
        if target.error is not None:
            raise anew(target.error)

    def stats(self, live: LiveCollection, optimizer: OptimizerStats) -> OptimizerStats:
        """What is being done with a collection, beside what its optimizer does."""
        with live.lock:
            target = live.target
            if target is not None:
                return replace(optimizer, state="reindexing", progress=target.progress(live.segments))
        if live.reindex_error is None:
            return optimizer
        state = "failed" if optimizer.state == "idle" else optimizer.state
        return replace(optimizer, state=state, error=optimizer.error or live.reindex_error.message)

    def close(self) -> None:
        """Stops the build that runs and ends the thread; what is built stays."""
        with self._condition:
            self._closing = True
            thread = self._thread
            self._condition.notify_all()
        if thread is not None:
            thread.join()

    # The thread

    def _run(self) -> None:
        lower_priority()
        while True:
            with self._condition:
                self._lives = {n: live for n, live in self._lives.items() if live.target and not live.is_gone}
                if self._closing or not self._lives:
                    self._thread = None
                    return
                lives = list(self._lives.values())
            # One segment of each in turn, so that a small collection need not wait for a large one.
            busy = [self._attempt(live) for live in lives]
            del lives
            if not any(busy):
                with self._condition:
                    self._condition.wait(_POLL_SECONDS)

    def _attempt(self, live: LiveCollection) -> bool:
        """One step; whether there was something to do."""
        target = live.target
        if target is None:
            return False
        try:
            return self._step(live, target)
        except (BuildCancelled, InterruptedError):
            return False
        except Exception as error:
            if self._is_moot(live, target):
                return False
            _log.exception("reindexing collection %r failed; it keeps the form that it has", live.name)
            return self._drop(live, target, kept(error, "the reindex failed"), failed=True)

    def _step(self, live: LiveCollection, target: Target) -> bool:
        with live.manifest_lock:
            waiting = target.waiting(live.segments)
            if not waiting:
                replaced = self._swap(live, target)
        if not waiting:
            self._close(target, None, replaced)
            return True
        with live.lock:
            free = [s for s in waiting if s.name not in live.merging]
            if not free:
                return False
            # The largest first: small ones may be merged until then.
            segment = max(free, key=lambda s: s.vector_count)
            target.building, target.building_progress = segment.name, 0.0
        try:
            self._build(live, target, segment)
        finally:
            with live.lock:
                target.building = None
        return True

    def _build(self, live: LiveCollection, target: Target, segment: Segment) -> None:
        def progress(fraction: float) -> None:
            target.building_progress = fraction

        form = target.form
        assert form.kind is not None, "a form without an index has none to build"
        with self._resources.index(segment, form) as affordable:
            options = BuildOptions(
                params=affordable.resolved.params,
                quantization=affordable.resolved.quantization,
                trained=trained_file(self._store, affordable, [*target.shadows.values(), *live.segments]),
                lean=self._resources.builds_lean(affordable),
                threads=build_threads(live.config.tuning, target.waited),
                cancelled=lambda: self._is_moot(live, target),
                progress=progress,
            )
            shadow = build_index(
                segment,
                self._store,
                form.kind,
                options,
                calibrate=lambda view: calibrate(view, live.config.metric, options.cancelled, options.threads),
            )
        failpoints.hit("reindex.built")
        with live.manifest_lock:
            if live.is_gone or live.target is not target:
                self._remove([shadow])
                raise BuildCancelled
            if self._store is not None:
                shadows = {**target.shadows, segment.name: shadow}
                write_manifest(self._storage, live.number, live.segments, shadows=shadows)
                failpoints.hit("reindex.named")
            with live.lock:
                target.shadows[segment.name] = shadow

    def _swap(self, live: LiveCollection, target: Target) -> list[Segment]:
        """The one step; gives back what served until now and does no more. Under ``manifest_lock``."""
        if live.is_gone or live.target is not target:
            raise BuildCancelled
        old = live.segments
        new = [target.swapped(segment) for segment in old]
        batch = self._storage.batch()
        put_manifest(batch, live.number, new)
        failpoints.hit("reindex.swap")
        self._catalogue.change(batch, live.number, target.form.config, None)
        failpoints.hit("reindex.swapped")
        with live.lock:
            live.swap(target.form, new)
            live.target = None
        return [before for before, after in zip(old, new, strict=True) if before.ref != after.ref]

    # Ending one

    def _drop(self, live: LiveCollection, target: Target, error: VectorDBError, *, failed: bool = False) -> bool:
        """Ends a reindex that came to nothing; false where it is over already."""
        with live.manifest_lock:
            if live.is_gone or live.target is not target:
                return False
            try:
                self._store_target(live, None)
            except VectorDBError:
                if not failed:
                    raise
                # Storage refuses too: it is over for this process, and the next one tries again.
                _log.exception("that collection %r is reindexed no more could not be noted", live.name)
            failpoints.hit("reindex.dropped")
            if failed:
                live.reindex_error = error
            with live.lock:
                live.target = None
        self._close(target, error, target.shadows.values())
        return True

    def _store_target(self, live: LiveCollection, target: Target | None) -> None:
        """Notes durably what the collection is reindexed to, and that nothing is built for it."""
        batch = self._storage.batch()
        if self._store is not None:
            put_manifest(batch, live.number, live.segments)
        self._catalogue.change(batch, live.number, live.config, None if target is None else target.form.choice)

    def _close(self, target: Target, error: VectorDBError | None, useless: Iterable[Segment]) -> None:
        """Removes the indexes that serve no more, or never did, and tells those who wait."""
        self._remove(useless)
        with self._condition:
            target.error, target.ended = error, True
            self._condition.notify_all()
        self._notify()

    def _remove(self, segments: Iterable[Segment]) -> None:
        """Removes the files of indexes; maps of them that searches hold stay valid."""
        if self._store is not None:
            for segment in segments:
                if segment.names_index:
                    self._store.remove(segment.ref)

    def _is_moot(self, live: LiveCollection, target: Target) -> bool:
        return self._closing or live.is_gone or live.target is not target


def _ended(live: LiveCollection, how: str) -> FailedPrecondition:
    return FailedPrecondition(f"the reindex of collection {live.name!r} was {how}", collection=live.name)
