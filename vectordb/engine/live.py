"""An open collection: its segments and tail, the snapshot that readers take, and how a commit becomes visible.

Who changes what, under which lock:

    commit_gate   held by the committer for a whole group, from its checks to its publication; by what must see nothing
                  half written: deleting the collection, rebuilding a segment, and a ``get`` that writers overtook
    manifest_lock held by whoever changes or copies what the manifest names, from choosing to naming: the optimizer's
                  threads, the reindexer, rebuilding, deleting, backups
    lock          segments, tail, changes of rows, snapshot: held for moments, by the committer after each sync and by
                  whoever swaps segments

Taken in this order. Searches, counts and scans take no lock: they read ``snapshot`` once.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from vectordb.engine.draft import Death, Effects, Overlay
from vectordb.engine.form import Form, Target
from vectordb.engine.results import Results
from vectordb.engine.sweep import Sweep
from vectordb.errors import Closed, CollectionNotFound, Corruption, VectorDBError
from vectordb.limits import DEFAULTS, Limits
from vectordb.segments.snapshot import Snapshot
from vectordb.stats import ScrubStats
from vectordb.storage import keys
from vectordb.storage.base import Family, Storage
from vectordb.storage.codec import IdEntry, State
from vectordb.types import CollectionConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.segments.segment import Segment
    from vectordb.segments.tail import Tail, TailSection


class LiveCollection:
    """One open collection of a database.

    Attributes:
        number: Its number, never reused.
        state: Committed version, next offset and live rows; changed by the committer alone.
        results: Results of calls with an idempotency key; changed by the committer alone.
        snapshot: What readers see now.
        form: The form that serves; changed in the step that swaps it.
        target: The running reindex; changed under ``manifest_lock`` and ``lock``.
        merging: Names of the segments that are being merged; guarded by ``lock``.
        reindex_error: Why the last reindex failed.
        scrub: What the background check of its files found; changed by the scrubber alone.
        unsynced: While a group is being written: the version before it, and where its ids were then. It holds while
            that version is shown, so that one assignment, of the snapshot, makes a group visible to every reader.
        sweep: What may be removed from storage once no snapshot needs it.
        limits: Caps on what requests may ask for.
        seal_most: Bytes of raw vectors with which the tail is sealed at the latest; ``pressed``: it is sealed now.
        answers_most: Bytes that all its segments may take for the answers of filters; see :meth:`share_answers`.
        indexable: Whether there is memory to build a segment's index.
    """

    def __init__(
        self, number: int, config: CollectionConfig, storage: Storage, state: State, contents: Contents
    ) -> None:
        self.number = number
        self.form = Form(config)
        self.config = config
        self.name = config.name
        self.storage = storage
        self.state = state
        self.results = contents.results
        self.lock = threading.Lock()
        self.commit_gate = threading.Lock()
        self.manifest_lock = threading.Lock()
        self.unsynced: tuple[int, Mapping[bytes, IdEntry | None]] | None = None
        self.segments: tuple[Segment, ...] = ()  # guarded by self.lock
        self.tail: Tail = contents.tail  # guarded by self.lock
        self.sweep = contents.sweep
        self.wake: Callable[[], None] = _nothing
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()  # guarded by self.lock
        self._gone: str | None = None
        self.target: Target | None = None
        self.reindex_error: VectorDBError | None = None
        self.merging: frozenset[str] = frozenset()
        self.scrub = ScrubStats()
        self.limits: Limits = DEFAULTS
        self.seal_most = self.answers_most = 1 << 50
        self.pressed = False
        self.indexable: Callable[[Segment], bool] = _always
        self._serve(contents.segments)
        self.snapshot = self._show()

    # Publication

    def publish(self, effects: Effects) -> None:
        """Makes a committed group visible."""
        with self.lock:
            for batch in effects.batches:
                self.tail.append(batch)
            for death_version, deaths in groupby(effects.deaths, attrgetter("version")):
                self._bury(death_version, list(deaths))
            for version, overlays in groupby(effects.overlays, attrgetter("payload_version")):
                self._overlay(version, list(overlays))
            self.state = self.state.advanced(effects.version, effects.next_offset, effects.alive)
            self.sweep.add_superseded(effects.superseded)
            self._show()
        self.wake()

    def _bury(self, version: int, deaths: list[Death]) -> None:
        offsets = np.fromiter((d.offset for d in deaths), np.uint64, len(deaths))
        for holder, mine in self._holders(offsets):
            holder.mark_deleted(offsets[mine], version)

    def _overlay(self, version: int, overlays: list[Overlay]) -> None:
        offsets = np.fromiter((o.offset for o in overlays), np.uint64, len(overlays))
        for holder, mine in self._holders(offsets):
            holder.overlay(offsets[mine], version, [overlays[i].metadata for i in np.flatnonzero(mine).tolist()])

    def _holders(self, offsets: NDArray[np.uint64]) -> Iterable[tuple[Segment | TailSection, NDArray[np.bool_]]]:
        """What holds each of the offsets: pairs of holder and bool[k]."""
        low, high = int(offsets.min()), int(offsets.max())
        holders: tuple[Segment | TailSection, ...] = (*self.segments, *self.tail.sections)
        for holder in holders:
            if holder.lo <= high and holder.hi > low:
                yield holder, (offsets >= holder.lo) & (offsets < holder.hi)

    def with_replaced(self, old: Sequence[Segment], *new: Segment) -> tuple[Segment, ...]:
        """The segments with adjacent ones (or, where there are none, the tail's frozen front) swapped for others."""
        at = self.segments.index(old[0]) if old else len(self.segments)
        return (*self.segments[:at], *new, *self.segments[at + len(old) :])

    def replace(self, old: Sequence[Segment], *new: Segment) -> None:
        """Serves :meth:`with_replaced`; under ``lock``."""
        self._serve(self.with_replaced(old, *new))
        self.share_answers()
        self._show()

    def swap(self, form: Form, segments: Sequence[Segment]) -> None:
        """Lets the collection have another form, in which the segments are the same rows; under ``lock``."""
        self.form, self.config = form, form.config
        self._serve(segments)
        self.share_answers()
        self._show()

    def _serve(self, segments: Sequence[Segment]) -> None:
        before, self.segments = self.segments, tuple(segments)
        for segment in self.segments:
            if segment not in before:
                segment.serve()

    def share_answers(self) -> None:
        """Gives each segment its share of ``answers_most``: what filters select is kept a segment, and counts."""
        segments = self.segments
        for segment in segments:
            segment.data.answers.limit(self.answers_most // len(segments))

    def _show(self) -> Snapshot:
        """Publishes the present as the snapshot (under ``lock``)."""
        version = self.state.version
        views = tuple(segment.view(version) for segment in self.segments)
        self.snapshot = Snapshot(version, (*views, *self.tail.views(version)))
        self._snapshots.add(self.snapshot)
        return self.snapshot

    def oldest_version(self) -> int:
        """The version of the oldest snapshot that anybody still looks at."""
        with self.lock:
            return min(snapshot.version for snapshot in self._snapshots)

    # State

    def check_open(self) -> None:
        """Raises: CollectionNotFound or Closed, once the collection was deleted or the database closed."""
        if self._gone == "deleted":
            raise CollectionNotFound(f"collection {self.name!r} was deleted", collection=self.name)
        if self._gone is not None:
            raise Closed("the database is closed; open it again")

    @property
    def is_gone(self) -> bool:
        return self._gone is not None

    def end(self, why: str) -> None:
        """``"deleted"`` or ``"closed"``: nothing works from now on."""
        self._gone = why
        # They refer to it: in a cycle it would keep its files open, and their disk space taken, until Python's
        # collector happens to come by.
        self.wake = _nothing
        self.indexable = _always

    @contextmanager
    def deleting(self) -> Iterator[None]:
        """Ends it, and holds what may see nothing half done meanwhile. Where that fails before anything was written,
        reads go on."""
        self.end("deleted")
        with self.commit_gate, self.manifest_lock:
            try:
                yield
            except VectorDBError:
                with suppress(VectorDBError):
                    if self.storage.get(Family.META, keys.state_key(self.number)) is not None:
                        self._gone = None
                raise

    def missing_payload(self, offset: int, payload_version: int) -> Corruption | CollectionNotFound | Closed:
        """The error for a row whose payload storage does not have."""
        try:
            self.check_open()
        except (CollectionNotFound, Closed) as gone:
            return gone
        return Corruption(
            f"collection {self.name!r}: the payload of row {offset} (version {payload_version}) is missing from "
            "storage; run 'vectordb verify' on the folder",
            collection=self.name,
            offset=offset,
        )

    @property
    def row_bytes(self) -> int:
        """Raw bytes of one vector."""
        return 4 * self.config.dim

    @property
    def seal_due(self) -> bool:
        """Whether the open tail is large enough to be sealed: also where writers would wait for that to happen."""
        tuning = self.config.tuning
        if self.pressed and self.tail.rows:
            return True
        return self.tail.open_bytes >= min(tuning.seal_bytes, tuning.max_unindexed_bytes, self.seal_most)

    @property
    def unindexed_bytes(self) -> int:
        """Raw vector bytes that are searched exactly although an index is due for them."""
        if self.form.kind is None:
            return 0
        return self.tail.rows * self.row_bytes + sum(
            s.vector_count * self.row_bytes for s in self.segments if self.needs_index(s)
        )

    def needs_index(self, segment: Segment) -> bool:
        """Whether the serving form's index is due, and can be built, for a segment that has none and that no reindex
        cares for."""
        if segment.built is not None or not self.form.wants_index(segment) or self.is_held(segment):
            return False
        return self.indexable(segment)

    def is_held(self, segment: Segment) -> bool:
        """Whether a running reindex needs the segment to stay as it is."""
        target = self.target
        return target is not None and target.holds(segment)

    @property
    def shadows(self) -> Mapping[str, Segment]:
        """What a running reindex has built, by the name of the segment."""
        target = self.target
        return {} if target is None else target.shadows


def _nothing() -> None:
    """Nobody is to be woken."""


def _always(segment: Segment) -> bool:
    return True


class Contents:
    """What an opened collection consists of."""

    def __init__(self, segments: Sequence[Segment], tail: Tail, results: Results, sweep: Sweep) -> None:
        self.segments = segments
        self.tail = tail
        self.results = results
        self.sweep = sweep
