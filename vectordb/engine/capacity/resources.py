"""What one database may take of its machine, disk and memory, asked before each write, build and merge."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectordb.engine.capacity.allocator import bound_holes
from vectordb.engine.capacity.memory import (
    ANSWERS_SHARE,
    STORAGE_SHARE,
    TAIL_SHARE,
    MemoryBudget,
    Relief,
    build_bytes,
    collection_bytes,
    merge_bytes,
    settled_limit,
)
from vectordb.engine.capacity.space import DiskSpace, watermark
from vectordb.limits import Limits, limits_of
from vectordb.sizes import sizes_text
from vectordb.storage.rocks_options import WRITE_BUFFER_BYTES, Sizes

if TYPE_CHECKING:
    from vectordb.engine.form import Form
    from vectordb.engine.live import LiveCollection
    from vectordb.index.base import IndexKind
    from vectordb.segments.segment import Segment
    from vectordb.storage.base import Storage
    from vectordb.types import QuantizationSpec, Tuning

_LOSING = 0.5
"""A merge that keeps at most this share of its rows gives back more disk than it takes."""


_LEAST_SEALED = 1 << 20
"""However many collections share the memory for tails: smaller segments would be too many."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What one database may take.

    Attributes:
        memory_limit: Bytes (or ``"4 GiB"``, ``"auto"``) that the database keeps to; None for no limit, as a library
            cannot know how much of its process's memory is its own. See ``engine/capacity/memory.py``.
        own_process: The process is the database's: what it takes in all counts against the limit.
        min_free_disk: Bytes (or ``"2 GiB"``, ``"5%"``) below which no writes are taken; 0 for none, None for 256 MiB or
            5 % of the disk, whichever is less. See ``engine/capacity/space.py``.
    """

    memory_limit: int | str | None = None
    own_process: bool = False
    min_free_disk: int | str | None = None

    @property
    def memory_bytes(self) -> int | None:
        """The limit in bytes. Raises InvalidArgument: it is none."""
        return settled_limit(self.memory_limit)

    def storage_sizes(self, cache_bytes: int) -> Sizes:
        """What RocksDB may take, within the limit. Raises InvalidArgument as above."""
        limit = self.memory_bytes
        if limit is None:
            return Sizes(cache_bytes, WRITE_BUFFER_BYTES)
        most = int(STORAGE_SHARE * limit)
        return Sizes(min(cache_bytes, most), min(WRITE_BUFFER_BYTES, most))


def settled(given: dict[str, Any]) -> tuple[Demands, Limits]:
    """What options of these names ask for.

    Raises:
        InvalidArgument: An unknown name, a cap out of bounds, or a size that is none.
    """
    names = [field.name for field in fields(Demands)]
    demands = Demands(**{name: given[name] for name in names if name in given})
    # Before the folder is opened: what is found wrong later would leave it locked.
    _ = demands.memory_bytes, watermark(demands.min_free_disk, 0)
    return demands, limits_of({name: value for name, value in given.items() if name not in names})


class Resources:
    """Disk and memory of one database. Thread-safe.

    Args:
        demands: What it may take.
        folder: Where it lies; None for a database in memory.
        storage: Its storage. lives: Its open collections, read without a lock: whoever asks may hold another one.

    Raises:
        InvalidArgument: ``memory_limit`` or ``min_free_disk`` is no size.

    Attributes:
        disk: None for a database in memory.
        memory: Its budget.
        relief: What makes room for writes. Set once by the engine.
    """

    def __init__(
        self, demands: Demands, folder: Path | None, storage: Storage, lives: dict[str, LiveCollection]
    ) -> None:
        self.disk = None if folder is None else DiskSpace(folder, demands.min_free_disk)
        self._lives = lives

        def count() -> dict[str, int]:
            found = collection_bytes(list(lives.values()), in_memory=folder is None)
            return {"storage": storage.memory_bytes(), **found}

        limit = demands.memory_bytes
        if limit is not None:
            bound_holes(limit)
        self.memory = MemoryBudget(limit, count, own_process=demands.own_process)
        self.relief: Relief = lambda done, timeout: None

    def adopt(self, live: LiveCollection) -> None:
        """Takes one more open collection into account."""
        if self.memory.limit is not None:
            live.indexable = partial(self._may_index, live)
        self.share()

    def share(self) -> None:
        """Gives each open collection its share of the memory for tails and answers: when there is one more, or less."""
        limit, lives = self.memory.limit, list(self._lives.values())
        if limit is None:
            return
        for each in lives:
            each.seal_most = max(_LEAST_SEALED, int(TAIL_SHARE * limit / len(lives)))
            each.answers_most = int(ANSWERS_SHARE * limit / len(lives))
            each.share_answers()

    def may_load(self, kind: IndexKind, file_bytes: int) -> bool:
        """Whether a saved index may be loaded."""
        return kind.capabilities.maps or self.memory.allows(file_bytes)

    @property
    def read_only_reason(self) -> str | None:
        """Why no write is taken, or None."""
        return None if self.disk is None else self.disk.read_only_reason

    @contextlib.contextmanager
    def write(self, size: int, *, frees: bool, timeout: float | None = None) -> Iterator[None]:
        """Around a write of so many bytes; ``frees``: a deletion.

        Raises:
            ResourceExhausted: Disk or memory do not suffice. DeadlineExceeded: The wait for memory took all its time.
        """
        if self.disk is not None:
            self.disk.check_write(size, frees=frees)
        if frees:
            yield
            return
        with self.memory.write(size, self.relief, timeout):
            yield

    def seal(self, live: LiveCollection) -> None:
        """Before a tail becomes a segment, which frees memory: only the disk is asked. Raises as :meth:`write`."""
        if self.disk is not None:
            self.disk.check_job(live.tail.memory_bytes(), frees=False)

    @contextlib.contextmanager
    def merge(self, segments: Iterable[Segment], dead: int, form: Form | None) -> Iterator[Form | None]:
        """Around a merge of segments with so many dead rows; ``form``: that of the index to build. Gives the form that
        there is memory for. Raises likewise."""
        segments = list(segments)
        rows = max(1, sum(s.rows for s in segments))
        if self.disk is not None:
            kept = (rows - dead) / rows
            self.disk.check_job(int(kept * sum(s.disk_bytes for s in segments)), frees=kept <= _LOSING)
        need = merge_bytes(segments)
        if form is not None:
            vectors = sum(s.vector_count for s in segments)
            form = self._affordable(form, vectors)
            need = max(need, _build_bytes(form, vectors))
        with self.memory.build("a merge of segments", need):
            yield form

    @contextlib.contextmanager
    def index(self, segment: Segment, form: Form) -> Iterator[Form]:
        """Around the build of an index. Gives the form that there is memory for. Raises as :meth:`write`."""
        form = self._affordable(form, segment.vector_count)
        need = _build_bytes(form, segment.vector_count)
        if self.disk is not None:
            self.disk.check_job(need, frees=False)
        with self.memory.build(f"the index of {segment.vector_count} vectors", need):
            yield form

    def _affordable(self, form: Form, vectors: int) -> Form:
        """A form, or the same in codes where its index of so many vectors does not fit into the memory that is left."""
        return form if form.lean is None or self.affords(form, vectors) else form.lean

    def affords(self, form: Form, vectors: int) -> bool:
        """Whether there is memory to build an index of so many vectors in just this form."""
        return self.memory.allows(_build_bytes(form, vectors))

    def builds_lean(self, form: Form) -> bool:
        """Whether a build is to hold codes alone: where memory is short, and they are what is kept in the end."""
        quantization = form.resolved.quantization
        if self.memory.limit is None or form.kind is None or quantization is None:
            return False
        return form.kind.capabilities.lean == quantization.kind

    def _may_index(self, live: LiveCollection, segment: Segment) -> bool:
        """Whether the limit could ever hold the build of a segment's index."""
        return self.memory.limit is None or _build_bytes(_least(live.form), segment.vector_count) < self.memory.limit

    def hindrance(self, live: LiveCollection) -> str | None:
        """Why segments stay without an index, or None."""
        form = live.form
        left = [s for s in live.segments if s.built is None and form.wants_index(s) and not self._may_index(live, s)]
        if not left:
            return None
        need = max(_build_bytes(_least(form), s.vector_count) for s in left)
        return (
            f"{len(left)} segments are searched without an index: building one needs up to {sizes_text(need)}, more "
            f"than memory_limit = {sizes_text(self.memory.limit or 0)}; raise it, or choose a smaller quantization"
        )

    def tuning(self, live: LiveCollection) -> Tuning:
        """How the segments of a collection are merged, within the memory that there is."""
        tuning = live.config.tuning
        if live.form.kind is None:
            return tuning
        most = self.memory.most_segment_bytes(live.config.dim, *_codes(live.form))
        return tuning if most is None else replace(tuning, max_segment_bytes=min(tuning.max_segment_bytes, most))


def _build_bytes(form: Form, rows: int) -> int:
    return build_bytes(rows, form.config.dim, *_codes(form))


def _codes(form: Form) -> tuple[QuantizationSpec | None, str]:
    """What tells how much of the rows a build holds: the quantization, and the family of the kind."""
    return form.resolved.quantization, "" if form.kind is None else form.kind.capabilities.family


def _least(form: Form) -> Form:
    """The form that needs the least memory of those that a segment may get."""
    return form if form.lean is None else form.lean
