"""A limit on the memory of one database: counted by kind, kept by doing less, by doing it in pieces, or by refusing.

    kind        what is counted
    storage     RocksDB's block cache, memtables and table readers; bounded when it is opened (a tenth each)
    tail        rows that wait for their segment; sealed early, so that all tails together keep to a sixth
    segments    what of segments is not mapped from files: changes, indexes of kinds that do not map, and answers of
                filters, all of which keep to a sixteenth
    builds      what the running builds and merges are estimated to need
    writes      rows of writes on their way

Vectors, ids, metadata, postings and the indexes of kinds that map (``Capabilities.maps``) are files that the system
reads in and drops as it likes: they are shown, but are no memory that anybody could run out of.

Builds have what the rest leaves. Merges are kept so small that the index of what they make can be built in a third of
the limit; an index whose build does not fit is built over codes where its kind can and the user chose no quantization
(``Capabilities.lean``; ``stats`` shows it, and ``optimize`` builds it in full once that fits), else not at all, and
``stats`` says why. An index that does not map is not loaded where it does not fit: its segment is searched exactly,
and the index stays where it is for a later opening, unless another is built first.

Where the process is the database's own (the server's), what counts is the larger of this and the private memory that
the system sees in it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vectordb.engine.capacity.allocator import give_back, private_bytes
from vectordb.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from vectordb.index.base import capabilities_of
from vectordb.sizes import parse_size, sizes_text

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.segments.segment import Segment
    from vectordb.types import QuantizationSpec

AUTO, AUTO_SHARE = "auto", 0.8
LEAST = 32 << 20
STORAGE_SHARE, TAIL_SHARE, BUILD_SHARE, ANSWERS_SHARE = 1 / 10, 1 / 6, 1 / 3, 1 / 16
"""Of the limit: RocksDB's cache and its memtables, each; all tails; the build of one segment's index; kept answers
of filters. The rest is for rows on their way, and for a tail that is being sealed while the next one fills."""
_AGE = 0.05
_TRIM_SECONDS = 2.0

Relief: TypeAlias = Callable[[Callable[[], bool], float | None], None]
"""Has full tails sealed, and waits until its first argument is true, or for at most half of the timeout."""

_RETRY_AFTER = 1.0
_BUILD_ROW = 400
"""Bytes that a build needs a row beside its vector: links, levels, locks, and what calibration looks at."""
_BUILD_FORM = {"fp16": 0.5, "sq8": 0.25, "pq": 0.25, "rabitq": 0.25, "binary": 0.25}
"""Share of the float32 vectors that a build holds, by quantization; all of them without one."""
_LINKED_FIRST = {"pq": 1.1, "rabitq": 1.1}
"""The same of graphs that link full rows before they keep codes of them."""


class MemoryBudget:
    """The memory of one database against its limit. Thread-safe.

    Args:
        limit: Bytes; None for none.
        count: Counts what is in memory, by kind; asked at most every 50 ms, and again after each build. Between, what
            writes leave behind is added.
        own_process: The process has nothing else in it.
    """

    def __init__(self, limit: int | None, count: Callable[[], dict[str, int]], *, own_process: bool) -> None:
        self.limit = limit
        self._count = count
        self._measured = own_process
        self._lock = threading.Lock()
        self._claims: dict[str, int] = {"builds": 0, "writes": 0}  # guarded by self._lock
        self._known, self._at = 0, 0.0
        self._trimmed = 0.0

    def by_kind(self) -> Mapping[str, int]:
        """Bytes by kind, now."""
        return {**self._count(), **self._claims}

    def used(self) -> int:
        """Bytes that count against the limit, now or a moment ago."""
        return self._taken(self._looked())

    def _looked(self) -> int:
        """Counts anew where that is due; the private memory of a process that is the database's own, else 0."""
        now = time.monotonic()
        if now - self._at > _AGE:
            known = sum(self._count().values())
            with self._lock:
                self._known, self._at = known, now
        if not self._measured or self.limit is None:
            return 0
        measured = private_bytes()
        if self._taken(measured) > 0.85 * self.limit and now - self._trimmed > _TRIM_SECONDS:
            self._trimmed = now
            give_back()
        return measured

    def _taken(self, measured: int) -> int:
        return max(measured, self._known + sum(self._claims.values()))

    @property
    def left(self) -> int | None:
        """Bytes that may still be taken; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.used())

    @contextlib.contextmanager
    def write(self, size: int, wait: Relief, timeout: float | None) -> Iterator[None]:
        """Around a write of so many bytes.

        Args:
            wait: Called where there is no room.
            timeout: Seconds that the request has.

        Raises:
            ResourceExhausted: There was none after that either. DeadlineExceeded: That took all its time.
        """
        limit = self.limit
        if limit is None:
            yield
            return
        # Rows as given, as they are searched, and as they are stored.
        need = 3 * size
        claimed = False

        def fits() -> bool:
            nonlocal claimed
            claimed = claimed or self._claim("writes", need)
            return claimed

        if need > limit:
            raise self._exhausted(f"a write of {sizes_text(size)}", need, "split it, use bulk_upsert, or raise it")
        leaves = 0
        try:
            if not fits():
                started = time.monotonic()
                wait(fits, timeout)
                if timeout is not None and time.monotonic() - started >= timeout:
                    what = f"the write waited {timeout} s for memory and was withdrawn; nothing was written"
                    raise DeadlineExceeded(what, timeout=timeout)
                if not fits():
                    mend = "write less at a time, try again in a moment, or raise it"
                    raise self._exhausted(f"a write of {sizes_text(size)}", need, mend, retry_after=_RETRY_AFTER)
            # What is searched and what is stored stay, as given it goes.
            leaves = 2 * size
            yield
        finally:
            if claimed:
                self._release("writes", need, leaves)

    @contextlib.contextmanager
    def build(self, what: str, need: int) -> Iterator[None]:
        """Around a build or merge that needs so many bytes.

        Raises:
            ResourceExhausted: It does not fit.
        """
        if not self._claim("builds", need):
            raise self._exhausted(what, need, "free memory, raise it, or choose a smaller quantization")
        try:
            yield
        finally:
            self._release("builds", need)
            self._at = 0.0  # what it left behind is counted at the next look
            self.settle()

    def settle(self) -> None:
        """After what took much memory for a while: has the C library give it back, where there is a limit to keep."""
        if self.limit is not None:
            give_back()

    def allows(self, need: int) -> bool:
        """Whether so many more bytes fit."""
        left = self.left
        return left is None or need <= left

    def most_segment_bytes(self, dim: int, quantization: QuantizationSpec | None, family: str = "") -> int | None:
        """Raw vector bytes of the largest segment whose index can be built; None without a limit."""
        if self.limit is None:
            return None
        row = build_bytes(1, dim, quantization, family)
        return int(BUILD_SHARE * self.limit / row) * 4 * dim

    def _exhausted(self, what: str, need: int, mend: str, **facts: float) -> ResourceExhausted:
        used, limit = self.used(), self.limit or 0
        return ResourceExhausted(
            f"{what} needs {sizes_text(need)} of memory; {sizes_text(used)} of memory_limit = {sizes_text(limit)} are "
            f"taken: {mend}",
            resource="memory",
            needed=need,
            used=used,
            limit=limit,
            **facts,
        )

    def _claim(self, kind: str, need: int) -> bool:
        """Takes so many bytes where they fit, in one step: where there is room for one of two, one is refused."""
        measured = self._looked()
        with self._lock:
            if self.limit is not None and self._taken(measured) + need > self.limit:
                return False
            self._claims[kind] += need
            return True

    def _release(self, kind: str, need: int, leaves: int = 0) -> None:
        """Ends a claim; ``leaves``: bytes of it that stay."""
        with self._lock:
            self._claims[kind] -= need
            self._known += leaves


def settled_limit(given: int | str | None) -> int | None:
    """The limit in bytes: of a size, ``"auto"`` (80 % of what the container or the machine has), or None for none.

    Raises:
        InvalidArgument: Not such a limit, or less than 32 MiB.
    """
    if given is None:
        return None
    if given == AUTO:
        return int(AUTO_SHARE * available_bytes())
    size = parse_size(given)
    if size is None or size < LEAST:
        raise InvalidArgument(
            f"memory_limit is a number of bytes from {LEAST}, such as '4 GiB', or 'auto', got {given!r}",
            field="memory_limit",
        )
    return size


def available_bytes(root: Path = Path("/sys/fs/cgroup")) -> int:
    """What the container may take, or what the machine has, whichever is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            machine = min(machine, int((root / name).read_text()))
    return machine


def build_bytes(rows: int, dim: int, quantization: QuantizationSpec | None, family: str = "") -> int:
    """About what the build of an index needs, the vectors themselves being mapped. ``family``: of its kind."""
    share = 1.0 if quantization is None else _BUILD_FORM.get(quantization.kind, 1.0)
    if quantization is not None and family == "graph":
        share = _LINKED_FIRST.get(quantization.kind, share)
    return int(rows * (4 * dim * share + _BUILD_ROW))


def merge_bytes(segments: Iterable[Segment]) -> int:
    """About what sealing segments as one needs: their postings, ids and words, old and new."""
    return sum(
        2 * (s.data.postings.memory_bytes + s.data.ids.nbytes + (0 if s.data.text is None else s.data.text.nbytes))
        for s in segments
    )


def unmapped_bytes(segment: Segment, *, in_memory: bool) -> int:
    """What of a segment the system cannot drop; of a database in memory all."""
    if in_memory:
        return segment.memory_bytes()
    return segment.changes.nbytes + segment.data.answers.nbytes + unmapped_index_bytes(segment, in_memory=False)


def unmapped_index_bytes(segment: Segment, *, in_memory: bool) -> int:
    """What of a segment's index the system cannot drop."""
    built = segment.built
    if built is None or (capabilities_of(built.index, built.kind).maps and not in_memory):
        return 0
    return built.index.memory_bytes()


def collection_bytes(lives: Iterable[LiveCollection], *, in_memory: bool) -> dict[str, int]:
    """Memory of open collections by kind; what is mapped from files is left out."""
    found = {"tail": 0, "segments": 0}
    for live in lives:
        found["tail"] += live.tail.memory_bytes()
        for segment in live.segments:
            found["segments"] += unmapped_bytes(segment, in_memory=in_memory)
        for shadow in list(live.shadows.values()):  # at once: a reindex may add one meanwhile
            # All but the index is shared with what serves.
            found["segments"] += unmapped_index_bytes(shadow, in_memory=in_memory)
    return found
