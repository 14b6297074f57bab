"""The optimizer's jobs: seal the tail, merge segments, build an index; each publishes its result in one step.

Everything slow happens beside the serving segments, without a lock. The manifest names the result, synced, before
readers see it; what happened to the rows meanwhile is carried over under the collection's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vectordb import failpoints
from vectordb.engine.care.rebuild import rebuild_segment
from vectordb.engine.manifest import write_manifest
from vectordb.index.base import BuildCancelled, BuildOptions
from vectordb.query.calibrate import calibrate
from vectordb.segments.build import build_index, carry_over, extendable, seal
from vectordb.segments.columns import SealOptions
from vectordb.segments.opening import INDEX
from vectordb.segments.store import text_ref
from vectordb.storage import codec, keys
from vectordb.storage.base import Family

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.engine.capacity.resources import Resources
    from vectordb.engine.form import Form
    from vectordb.engine.live import LiveCollection
    from vectordb.index.calibration import Calibration
    from vectordb.segments.segment import Segment, SegmentView
    from vectordb.segments.store import SegmentStore
    from vectordb.segments.tail import TailSection
    from vectordb.segments.views import View
    from vectordb.storage.base import Storage


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the jobs of one collection work with.

    Attributes:
        store: Where segments are published; None in memory.
        threads: Native threads to build with.
        cancelled: True once the database closes or the collection is deleted. Takes the collection's ``lock`` where it
            has to look at segments: to be asked outside of it.
        progress: Told the fraction done of the running job.
        form: The form that served when the job was chosen. The job comes to nothing once another does.
        resources: Asked whether disk and memory suffice.
        more_threads: How many more there are once somebody waits.
        learn_anew: Take nothing over that another index has learned: it may have been learned from erased rows.
    """

    live: LiveCollection
    storage: Storage
    store: SegmentStore | None
    threads: int
    cancelled: Callable[[], bool]
    progress: Callable[[float], None]
    form: Form
    resources: Resources
    more_threads: Callable[[], int] = lambda: 0
    learn_anew: bool = False

    def is_moot(self) -> bool:
        """Whether the job came to nothing."""
        return self.cancelled() or self.live.form is not self.form

    def seal_options(self, *, keep_first: bool, share: float, merging: bool) -> SealOptions:
        """``share``: how much of the job the sealing is, for the progress. A sealed tail suits every form."""
        live = self.live
        return SealOptions(
            collection=live.number,
            dim=live.config.dim,
            metric=live.config.metric,
            fields=live.config.fields,
            keep_first=keep_first,
            stored=self._stored_metadata,
            cancelled=self.is_moot if merging else self.cancelled,
            progress=lambda fraction: self.progress(share * fraction),
        )

    def _stored_metadata(self, offsets: NDArray[np.uint64], versions: NDArray[np.uint64]) -> list[bytes | None]:
        wanted = keys.payload_keys_at(self.live.number, offsets.tolist(), versions.tolist())
        found = self.storage.get_many(Family.ROWS, wanted)
        return [None if value is None else codec.payload_metadata(value) for value in found]

    def build_options(self, form: Form, *, done: float) -> BuildOptions:
        """For an index of a form; ``done``: how much of the job precedes the build."""
        return BuildOptions(
            params=form.resolved.params,
            quantization=form.resolved.quantization,
            trained=None if self.learn_anew else trained_file(self.store, form, self.live.segments),
            lean=self.resources.builds_lean(form),
            threads=self.threads,
            more_threads=self.more_threads,
            cancelled=self.is_moot,
            progress=lambda fraction: self.progress(done + (1.0 - done) * fraction),
        )

    def calibrate(self, view: SegmentView) -> Calibration | None:
        """Measures the recall of an index that was just built, for ``target_recall``."""
        threads = self.threads + self.more_threads()
        return calibrate(view, self.live.config.metric, self.cancelled, threads)


def trained_file(store: SegmentStore | None, form: Form, segments: Iterable[Segment]) -> Path | None:
    """The file of the newest saved index of a form, whose trained state another build may take over."""
    if store is None:
        return None
    newest, found = -1, None
    for segment in segments:
        if form.fits(segment):
            path = store.path(segment.ref) / INDEX
            # Another thread may have merged it away by now.
            with suppress(FileNotFoundError):
                made = path.stat().st_mtime_ns
                newest, found = max((newest, found), (made, path), key=lambda pair: pair[0])
    return found


def seal_tail(shop: Workshop) -> None:
    """Turns what is in the tail now into a segment. A no-op on an empty tail."""
    live = shop.live
    shop.resources.seal(live)
    with live.lock:
        upto = live.tail.freeze()
        version = live.state.version
        sections = [s for s in live.tail.sections if s.hi <= upto and s.rows]
        views = [s.view(version) for s in sections]
    if not views:
        return
    segment = seal(views, shop.store, shop.seal_options(keep_first=False, share=1.0, merging=False))
    failpoints.hit("seal.built")
    _publish(shop, [], sections, views, segment, upto)


def merge_segments(shop: Workshop, start: int, stop: int, most_dead: float) -> None:
    """Rewrites the segments ``start..stop-1`` as one, without their dead rows.

    Where they had an index the new one gets its own before it takes their place, so that searches stay fast. The
    index of the first is extended, and its dead rows are kept, if less than ``most_dead`` of its rows are dead.
    """
    live = shop.live
    # Not under the lock: it may look at the segments itself, under the lock.
    if shop.cancelled():
        raise BuildCancelled
    with live.lock:
        sources = list(live.segments[start:stop])
        if live.form is not shop.form or any(live.is_held(s) for s in sources):
            raise BuildCancelled
        live.merging = frozenset(s.name for s in sources)
        version = live.state.version
        views = [s.view(version) for s in sources]
    form = shop.form if shop.form.kind is not None and any(s.built is not None for s in sources) else None
    try:
        with shop.resources.merge(sources, sum(view.dead for view in views), form) as affordable:
            _merge(shop, sources, views, most_dead, affordable)
    finally:
        with live.lock:
            live.merging = frozenset()


def _merge(
    shop: Workshop,
    sources: Sequence[Segment],
    views: Sequence[SegmentView],
    most_dead: float,
    form: Form | None,
) -> None:
    """``form``: of the index that the new segment gets at once; None for none."""
    if _mend(shop, sources):
        raise BuildCancelled
    kind = None if form is None else form.kind
    share = 1.0 if kind is None else 0.1
    options = shop.build_options(form or shop.form, done=share)
    base = None
    if kind is not None and not shop.learn_anew and views[0].dead < max(1.0, most_dead * views[0].rows):
        base = extendable(views, kind, options)
    segment = seal(views, shop.store, shop.seal_options(keep_first=base is not None, share=share, merging=True))
    try:
        if segment is not None and kind is not None and shop.form.wants_index(segment):
            segment = build_index(segment, shop.store, kind, options, base, shop.calibrate)
    except BaseException:
        if segment is not None and shop.store is not None:
            shop.store.remove(segment.name)
        raise
    failpoints.hit("merge.built")
    _publish(shop, sources, sources, views, segment)


def _mend(shop: Workshop, sources: Sequence[Segment]) -> bool:
    """Checks what is about to be merged, since a merge gives what it reads new checksums, and mends what is damaged."""
    store = shop.store
    damaged = [] if store is None else [s for s in sources if _damage(store, s, shop.is_moot)]
    for segment in damaged:
        assert store is not None
        rebuild_segment(shop.live, shop.storage, store, segment, shop.cancelled)
    return bool(damaged)


def _damage(store: SegmentStore, segment: Segment, cancelled: Callable[[], bool]) -> list[str]:
    """What is wrong with the columns and the words of a segment."""
    problems = store.verify(segment.name, cancelled)
    if not problems and segment.data.info.documents != 0:
        problems = store.verify(text_ref(segment.name), cancelled)
    return problems


def index_segment(shop: Workshop, at: int) -> None:
    """Builds the index of one segment beside it, or beside the one that it has, and puts it in place."""
    live = shop.live
    segment = live.segments[at]
    if shop.form.kind is None:
        return
    with shop.resources.index(segment, shop.form) as form:
        if form is not shop.form and form.fits(segment) and not shop.learn_anew:
            raise BuildCancelled  # it has what there is memory for
        options = shop.build_options(form, done=0.0)
        indexed = build_index(segment, shop.store, shop.form.kind, options, calibrate=shop.calibrate)
    failpoints.hit("index.built")
    with live.manifest_lock:
        if live.is_gone or live.form is not shop.form or segment not in live.segments:
            _discard(shop, indexed.ref)
        if shop.store is not None:
            named = live.with_replaced([segment], indexed)
            write_manifest(shop.storage, live.number, named, shadows=live.shadows)
        with live.lock:
            live.replace([segment], indexed)
    if segment.names_index and shop.store is not None:
        shop.store.remove(segment.ref)


def _publish(
    shop: Workshop,
    old: Sequence[Segment],
    sources: Sequence[Segment | TailSection],
    views: Sequence[View],
    new: Segment | None,
    sealed_upto: int | None = None,
) -> None:
    """Puts a new segment (or nothing) in the place of its sources."""
    live = shop.live
    version = views[0].version
    with live.manifest_lock:
        # A collection that was deleted meanwhile gets nothing published; one of another form nothing that was merged.
        if live.is_gone or (old and live.form is not shop.form):
            _discard(shop, None if new is None else new.name)
        if any(segment not in live.segments for segment in old):
            # One of them was damaged and has been rebuilt: what was read from it is not to be trusted.
            _discard(shop, None if new is None else new.name)
        fresh = [] if new is None else [new]
        if shop.store is not None:
            named = live.with_replaced(old, *fresh)
            write_manifest(shop.storage, live.number, named, _folded(live.number, views), live.shadows)
        with live.lock:
            if new is not None:
                carry_over(sources, new, version)
            if sealed_upto is not None:
                live.tail.drop(sealed_upto)
            live.replace(old, *fresh)
        live.sweep.add_rows(_dead(views))
    failpoints.hit("swap.done")
    if shop.store is not None:
        for segment in old:
            shop.store.remove(segment.name)


def _discard(shop: Workshop, ref: str | None) -> NoReturn:
    """Removes what nobody wants any more."""
    if ref is not None and shop.store is not None:
        shop.store.remove(ref)
    raise BuildCancelled


def _folded(number: int, views: Sequence[View]) -> list[bytes]:
    """Overlay records of the payload changes that the new segment includes."""
    found: list[bytes] = []
    for view in views:
        rows = view.changed_rows()
        if len(rows):
            offsets, versions = view.offsets(rows).tolist(), view.payload_versions(rows).tolist()
            found.extend(keys.overlay_key(number, o, v) for o, v in zip(offsets, versions, strict=True))
    return found


def _dead(views: Sequence[View]) -> list[tuple[int, int, int]]:
    """Rows that died up to the views' version: (deleting version, offset, payload version), ascending."""
    found: list[tuple[int, int, int]] = []
    for view in views:
        rows, versions = view.deleted()
        if len(rows):
            payload_versions = view.payload_versions(rows).tolist()
            found.extend(zip(versions.tolist(), view.offsets(rows).tolist(), payload_versions, strict=True))
    return sorted(found)
