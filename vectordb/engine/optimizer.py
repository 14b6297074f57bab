"""The background optimizer: one thread seals tails and sweeps storage, one merges and builds indexes.

Two threads, so that the tail is sealed on time however long a build takes. Both run niced (only a calibration by
several threads borrows those that search batches), and nothing ever waits for them but ``optimize(wait=True)`` and,
gently, writers that are far ahead of the builder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vectordb.engine import jobs
from vectordb.engine.capacity.processors import build_threads, lower_priority
from vectordb.engine.policy import REWRITE_DEAD_ASKED, Index, Job, Merge, next_job
from vectordb.engine.survey import Outrun, facts_of
from vectordb.engine.work import Work
from vectordb.errors import Closed, DeadlineExceeded, FailedPrecondition, ResourceExhausted, anew, kept
from vectordb.index.base import BuildCancelled
from vectordb.segments.build import MAX_DEAD
from vectordb.stats import OptimizerStats
from vectordb.storage import keys
from vectordb.storage.base import Family, Storage

if TYPE_CHECKING:
    from vectordb.engine.capacity.resources import Resources
    from vectordb.engine.form import Form
    from vectordb.engine.live import LiveCollection
    from vectordb.segments.segment import BuiltIndex
    from vectordb.segments.store import SegmentStore

_log = logging.getLogger("vectordb.engine")

_IDLE_SECONDS = 1.0
_SEALER, _BUILDER = "vectordb-sealer", "vectordb-builder"
_SWEEP_AT_ONCE = 250
_LONGEST_DELAY = 2.0
_LONGEST_RELIEF = 10.0


class Optimizer:
    """The two threads of one database. All methods are thread-safe."""

    def __init__(self, storage: Storage, store: SegmentStore | None, resources: Resources) -> None:
        self._storage = storage
        self._store = store
        self._resources = resources
        self._changed = threading.Condition()
        self._works: dict[int, Work] = {}  # guarded by self._changed
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, args=(name, step), name=name, daemon=True)
            for name, step in ((_SEALER, self._seal_or_sweep), (_BUILDER, self._build))
        ]
        for thread in self._threads:
            thread.start()

    def watch(self, live: LiveCollection) -> None:
        """Takes care of a collection from now on."""
        with self._changed:
            self._works[live.number] = Work(live)
            self._changed.notify_all()
        live.wake = lambda: self._nudge(live)

    def wake(self) -> None:
        """Looks at all collections now: something changed."""
        with self._changed:
            self._changed.notify_all()

    def _nudge(self, live: LiveCollection) -> None:
        """After a commit: wakes the sealer when the tail is full."""
        if live.seal_due:
            self.wake()

    def request(
        self, live: LiveCollection, wait: bool, *, erase: bool = False, remaining: Callable[[], float] = lambda: 1.0
    ) -> None:
        """Seals, merges and indexes all there is now; returns when done, or at once without ``wait``.

        What a running reindex works on is merged after it, so that it is merged only once.

        Args:
            erase: Instead, rewrites what holds dead rows or replaced payloads.
            remaining: Seconds that are left to wait.

        Raises:
            VectorDBError: With ``wait``: why a job failed. Closed, CollectionNotFound: It ended meanwhile.
            FailedPrecondition: With ``wait``: a write failed before, so that nothing new could be named.
            DeadlineExceeded: Nothing remains; the work goes on.
        """
        live.check_open()
        with self._changed:
            work = self._work(live)
            work.asked += 1
            mine = work.asked
            if erase:
                work.erase = mine
            else:
                work.full = mine
            if self._storage.failure is None:  # else nothing is tried again, and what failed is told
                work.failures.clear()
            self._changed.notify_all()
            while wait and work.merged < mine:
                if work.error is not None:
                    raise anew(work.error)
                # Who is still at work may be the one whose write failed, and says so.
                if self._storage.failure is not None and not work.busy:
                    raise FailedPrecondition(
                        f"the database takes no writes since one failed ({self._storage.failure}), and makes no more "
                        "segments; mend the cause, then close and open it again",
                        reason=self._storage.failure,
                    )
                if self._closing:
                    raise Closed("the database was closed while it was optimized; call optimize again after opening")
                if remaining() <= 0:
                    raise DeadlineExceeded("time ran out before all segments were done; the work goes on")
                live.check_open()
                self._changed.wait(min(0.2, remaining()))

    def _work(self, live: LiveCollection) -> Work:
        """Under self._changed. Raises CollectionNotFound or Closed where the collection ended."""
        work = self._works.get(live.number)
        if work is None:
            live.check_open()
            raise Closed("the database is closed; open it again")
        return work

    def slow_down(self, live: LiveCollection, timeout: float | None) -> float:
        """Holds a writer back for moments while far more than usual waits for its index; the seconds it took."""
        most = live.config.tuning.max_unindexed_bytes
        if live.unindexed_bytes <= most:
            return 0.0
        started = time.monotonic()
        end = started + min(_LONGEST_DELAY, timeout / 2 if timeout is not None else _LONGEST_DELAY)
        with self._changed:
            while live.unindexed_bytes > most and time.monotonic() < end and not self._closing:
                self._changed.wait(0.05)
        return time.monotonic() - started

    def relieve(self, done: Callable[[], bool], timeout: float | None) -> None:
        """Has the larger tails sealed, and waits until ``done``: builds that have the memory may end."""
        end = time.monotonic() + min(_LONGEST_RELIEF, timeout / 2 if timeout is not None else _LONGEST_RELIEF)
        with self._changed:
            while not done() and time.monotonic() < end and not self._closing:
                lives = [work.live for work in self._works.values()]
                sizes = [live.tail.memory_bytes() for live in lives]
                for live, size in zip(lives, sizes, strict=True):
                    live.pressed = live.pressed or 4 * size >= max(sizes)
                self._changed.notify_all()
                self._changed.wait(0.05)

    def stats(self, live: LiveCollection) -> OptimizerStats:
        """What is being done, and how far it is."""
        with self._changed:
            work = self._work(live)
            error = None if work.error is None else work.error.message
            state, progress = "idle" if error is None else "failed", 1.0
            error = error or self._storage.failure or self._resources.hindrance(live)
            if work.building is not None:
                state, progress = work.building, work.building_progress
            elif work.sealing:
                state, progress = "sealing", work.sealing_progress
            return OptimizerStats(state, progress, live.unindexed_bytes, error)

    def close(self) -> None:
        """Cancels what runs and ends the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # The threads

    def _run(self, name: str, step: Callable[[Work], bool]) -> None:
        lower_priority()
        while not self._closing:
            busy = self._round(name, step)
            if not busy:
                with self._changed:
                    if not self._closing and not self._has_work():
                        self._changed.wait(_IDLE_SECONDS)

    def _round(self, name: str, step: Callable[[Work], bool]) -> bool:
        """Looks at each collection once; whether one gave something to do."""
        # A frame of its own: a waiting thread must not keep a deleted collection's files open.
        with self._changed:
            works = list(self._works.values())
        busy = False
        for work in works:
            if work.live.is_gone:
                self._forget(work)
            elif not self._closing and not work.waits(name):
                busy |= self._attempt(name, step, work)
        return busy

    def _has_work(self) -> bool:
        """Whether a request came in since the works were looked at (under self._changed)."""
        if self._storage.failure is not None:
            return False
        return any(
            (work.asked > work.sealed and not work.sealing and not work.waits(_SEALER))
            or (
                work.sealed > work.merged
                and work.building is None
                and work.live.target is None
                and not work.waits(_BUILDER)
            )
            for work in self._works.values()
        )

    def _forget(self, work: Work) -> None:
        with self._changed:
            self._works.pop(work.live.number, None)
            self._changed.notify_all()

    def _attempt(self, name: str, step: Callable[[Work], bool], work: Work) -> bool:
        if self._storage.failure is not None:
            return False  # nothing could be named in the manifest: each attempt would only leave its files behind
        with self._changed:
            work.busy.add(name)
        try:
            busy = step(work)
        except (BuildCancelled, InterruptedError):
            return False
        except Exception as error:
            if self._closing or work.live.is_gone:
                return False
            if isinstance(error, ResourceExhausted):
                _log.warning("optimizing collection %r waits: %s", work.live.name, error.message)
            else:
                _log.exception("optimizing collection %r failed; it is tried again", work.live.name)
            with self._changed:
                work.fail(name, kept(error, "optimizing failed"))
                self._changed.notify_all()
            return False
        finally:
            # Only now: who sees that nobody is at work sees, too, why.
            with self._changed:
                work.busy.discard(name)
                if name == _SEALER:
                    work.sealing = False
                else:
                    work.building = None
        if busy:
            # Only then: two idle threads must not wake each other for ever.
            with self._changed:
                self._changed.notify_all()
        return busy

    def _seal_or_sweep(self, work: Work) -> bool:
        live = work.live
        with self._changed:
            asked = work.asked
            # What could not be sealed is tried again, however little has been written since.
            work.sealing = asked > work.sealed or live.seal_due or _SEALER in work.failures
            work.sealing_progress = 0.0
        if not work.sealing:
            return self._sweep(live)

        def progress(fraction: float) -> None:
            work.sealing_progress = fraction

        try:
            jobs.seal_tail(self._workshop(live, live.form, progress, all_processors=False))
            with self._changed, live.lock:
                live.pressed = False
                work.failures.pop(_SEALER, None)
                if asked > work.sealed:
                    work.sealed = asked
                    work.upto = live.segments[-1].hi if live.segments else 0
                    work.version = live.state.version
        finally:
            self._resources.memory.settle()
        self._sweep(live)
        return True

    def _sweep(self, live: LiveCollection) -> bool:
        """Removes from storage what no snapshot needs, in small steps; whether there may be more."""
        expired = live.results.take_expired(_SWEEP_AT_ONCE)
        if expired:
            batch = self._storage.batch()
            for key in expired:
                batch.delete(Family.META, keys.idempotency_key(live.number, key))
            self._storage.write(batch)
        swept = live.sweep.run(self._storage, live.oldest_version(), _SWEEP_AT_ONCE) if len(live.sweep) else 0
        # Else more keys a second than one such step would come in than are forgotten.
        return swept > 0 or len(expired) == _SWEEP_AT_ONCE

    def _build(self, work: Work) -> bool:
        live, form = work.live, work.live.form
        with self._changed:
            sealed = work.sealed
            asked = sealed > work.merged
            erasing = asked and work.is_erasing
            full = asked and work.full > work.merged
            tuning = self._resources.tuning(live)
            job = next_job(
                facts_of(live, (work.upto, work.version) if asked else None), tuning, asked=full, erase=erasing
            )
            if job is None and erasing and live.target is None:
                job = _stale_index(live, work)
            if job is None and full and live.target is None:
                job = self._lean_index(live, work)
            if job is None and asked and live.target is not None:
                # Done once the reindex is, which holds segments that it merges; the usual work goes on.
                asked = False
                job = next_job(facts_of(live, None), tuning, asked=False)
                if job is None:
                    return False
            if job is None:
                work.failures.pop(_BUILDER, None)
                if asked:
                    work.merged, work.stale = sealed, None
                    self._changed.notify_all()
                # After a request there may be work of the usual kind.
                return asked
            work.building = "merging" if isinstance(job, Merge) else "indexing"
            work.building_progress = 0.0

        def progress(fraction: float) -> None:
            work.building_progress = fraction

        # A user who waits gets the whole machine; in the background one processor is left to searches.
        shop = replace(self._workshop(live, form, progress, all_processors=asked), learn_anew=erasing)
        if not asked:
            more = build_threads(live.config.tuning, True) - shop.threads
            shop = replace(shop, more_threads=lambda: more if work.sealed > work.merged else 0)
            shop = replace(shop, cancelled=self._cancelled_or_outrun(work, job))
        try:
            if isinstance(job, Merge):
                # An asked merge leaves no more dead rows than would have it rewritten once more.
                most_dead = 0.0 if erasing else REWRITE_DEAD_ASKED if asked else MAX_DEAD
                jobs.merge_segments(shop, job.start, job.stop, most_dead)
            else:
                jobs.index_segment(shop, job.at)
            with self._changed:
                work.failures.pop(_BUILDER, None)
        except Exception:
            if shop.is_moot():
                raise BuildCancelled from None
            raise
        return True

    def _lean_index(self, live: LiveCollection, work: Work) -> Index | None:
        """The next index that was built in codes for want of memory, and for which there is enough by now."""
        for at, segment in enumerate(live.segments):
            if segment.lo >= work.upto:
                break
            if live.form.is_lean(segment) and self._resources.affords(live.form, segment.vector_count):
                return Index(at)
        return None

    def _cancelled_or_outrun(self, work: Work, job: Job) -> Callable[[], bool]:
        """For a job of the background: true also once somebody waits for a merge that would throw its result away."""
        live, outrun = work.live, Outrun(work.live, job)

        def cancelled() -> bool:
            if self._closing or live.is_gone:
                return True
            waited = work.sealed if min(work.sealed, work.full) > work.merged else 0
            return outrun.by(waited, (work.upto, work.version), self._resources.tuning)

        return cancelled

    def _workshop(
        self, live: LiveCollection, form: Form, progress: Callable[[float], None], *, all_processors: bool
    ) -> jobs.Workshop:
        threads = build_threads(live.config.tuning, all_processors)
        cancelled = lambda: self._closing or live.is_gone  # noqa: E731
        return jobs.Workshop(live, self._storage, self._store, threads, cancelled, progress, form, self._resources)


def _stale_index(live: LiveCollection, work: Work) -> Index | None:
    """The next index that may have learned from rows that are erased, also where its own segment never held them."""
    learned = {s.built.info.name: at for at, s in enumerate(live.segments) if s.built is not None and _learns(s.built)}
    if work.stale is None:
        work.stale = frozenset(learned)
    at = min((at for name, at in learned.items() if name in work.stale), default=None)
    return None if at is None else Index(at)


def _learns(built: BuiltIndex) -> bool:
    """Whether such an index may take over what another one learned."""
    return built.info.quantization is not None or built.kind.capabilities.family == "clusters"
