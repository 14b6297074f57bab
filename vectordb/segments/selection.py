"""What a filter selects in one part, worked out once and kept for the next search with it.

A filter that is asked for again and again also gets a copy of the vectors that it selects, where they are few: rows
that lie together, as bytes or at half precision (``vectordb.index.copies``), are scanned up to ten times as fast as
rows that are picked out of all.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.index.copied_bytes import ByteCopy, sample_of
from vectordb.index.copied_halves import HalfCopy
from vectordb.metadata.rowset import from_rows, to_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vectordb.filter import Filter
    from vectordb.index.copies import CopiedRows, RowCopy
    from vectordb.metadata.rowset import RowSet
    from vectordb.metric import Metric
    from vectordb.segments.part import Part

SELECTION_BYTES = 8 << 20
COPY_BYTES = 32 << 20
COPY_SHARE = 8
"""The copies of one segment take at most this part of its vectors' bytes, and at most ``COPY_BYTES``."""

COPY_LEAST = 48
"""Fewer rows are scored where they lie in no more time."""

BYTES_LEAST = 6_144
"""Fewer rows are copied at half precision: what bytes save does not make up for what more candidates cost."""

PIECE = 1_024
"""Rows copied at a time, each time by the search that comes along: 0.7 ms with 384 dimensions."""

MOST_DEAD = 32
"""A copy serves until more of its rows than this have died."""

_ENTRY = 1_024
_KEPT_ROWS = 1 << 17
_KEPT_STEPS = 16


class Changed(NamedTuple):
    """How far a part has changed since its rows were written: the same rows match in views for which this is equal.

    Attributes:
        dead: Dead rows. No deletion is taken back: an equal number means the same rows.
        payloads: Payloads that were replaced, one after the other.
    """

    dead: int = 0
    payloads: int = 0


class Copied(NamedTuple):
    """Vectors copied together, and the places of those among them whose rows have died since: int64[k]."""

    vectors: CopiedRows
    dead: NDArray[np.int64]


class Selection:
    """The rows of one part that meet one filter, are alive and have a vector. Thread-safe; its rows never change.

    Attributes:
        matches: Those rows.
        matched: Living rows that meet the filter, with or without a vector.
        estimated: How many of them were expected before the filter was evaluated.
        changed: The state of the part that it holds for.
        uses: Searches with it so far, about; a batch is one.
        copied: The vectors of its rows, once they were worth a copy.
        copyable: Whether such a copy has its place.
        halves: Bytes tell too few of its rows apart: a copy is to be at half precision.
        counted: The bytes that it counts as while it is kept, without a copy.
    """

    __slots__ = (
        "_bits",
        "_copying",
        "_lock",
        "_rows",
        "_steps",
        "changed",
        "copied",
        "copyable",
        "counted",
        "estimated",
        "halves",
        "matched",
        "matches",
        "uses",
    )

    def __init__(self, matches: RowSet, matched: int, estimated: int, changed: Changed | None = None) -> None:
        self.matches = matches
        self.matched = matched
        self.estimated = estimated
        self.changed = changed or Changed()
        self.uses = 0
        self.copied: Copied | None = None
        self.copyable = False
        self.counted = 0
        self.halves = False
        self._rows: NDArray[np.int64] | None = None
        self._bits: NDArray[np.uint8] | None = None
        self._steps: dict[tuple[Any, ...], Any] = {}
        self._copying: RowCopy | None = None
        self._lock = Lock()

    @classmethod
    def of(cls, part: Part, where: Filter, changed: Changed | None = None) -> Selection:
        """What the filter selects in a part.

        Raises:
            InvalidFilter: A field is declared with ``indexed: false``.
            Corruption: Mapped postings are inconsistent.
        """
        estimate = part.estimate(where)
        if estimate.high <= 0 or part.rows <= part.dead or part.vector_count == 0:
            return cls(from_rows(np.empty(0, np.int64)), 0, 0, changed)
        living = part.matching(where)
        if part.dead:
            living = living - part.dead_rows()
        matches = living if part.vector_count == part.rows else part.with_vector(living)
        alive, with_vector = (part.rows - part.dead) / part.rows, part.vector_count / part.rows
        return cls(matches, len(living), round(estimate.expected * alive * with_vector), changed)

    def __len__(self) -> int:
        return len(self.matches)

    def rows(self) -> NDArray[np.int64]:
        """The rows, ascending: int64[n]. Do not write it."""
        rows = self._rows
        if rows is None:
            rows = to_rows(self.matches)
            if len(rows) <= _KEPT_ROWS:
                self._rows = rows
        return rows

    def bits(self, part: Part) -> NDArray[np.uint8]:
        """Packed bits over the positions of the part's matrix, as ``VectorIndex.search`` takes them. Do not write."""
        bits = self._bits
        if bits is None:
            bits = self._bits = part.allowed_positions(self.matches)
        return bits

    def planned(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What ``make`` gives, kept under ``key`` for as long as the selection is."""
        found = self._steps.get(key)
        if found is None:
            if len(self._steps) >= _KEPT_STEPS:
                self._steps.clear()
            found = self._steps[key] = make()
        return found

    def _inherit(self, other: Selection, part: Part) -> None:
        """Takes over the copy of a selection of the same filter, of a state in which fewer rows were dead."""
        self.halves = other.halves
        if other.copied is None or other.changed.payloads != self.changed.payloads:
            return
        dead = np.flatnonzero(~part.alive(other.copied.vectors.rows))
        if len(dead) <= MOST_DEAD:
            self.uses = other.uses
            self.copied = Copied(other.copied.vectors, dead)

    def _drop_copy(self) -> None:
        self.copied = self._copying = None
        self.uses = 0


class Selections:
    """The selections of one segment by filter, least recently used first out. Thread-safe.

    Args:
        rows: Rows of the segment.
        dim: d of the vectors.
        copy_bytes: What copies may take; 0 for none.
        bound: What all else may take.
    """

    __slots__ = (
        "_bound",
        "_bytes",
        "_copies",
        "_copy_bound",
        "_copy_bytes",
        "_dim",
        "_entries",
        "_lock",
        "_rows",
    )

    def __init__(self, rows: int, dim: int = 0, copy_bytes: int = 0, bound: int = SELECTION_BYTES) -> None:
        self._rows = rows
        self._dim = dim
        self._bound, self._copy_bound = bound, copy_bytes
        self._bytes = self._copy_bytes = 0
        self._entries: OrderedDict[Filter, Selection] = OrderedDict()
        self._copies: OrderedDict[int, tuple[Selection, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, part: Part, where: Filter, changed: Changed) -> Selection:
        """What the filter selects in a view of the segment, kept from now on; see :meth:`Selection.of`."""
        with self._lock:
            known = self._entries.get(where)
            if known is not None and known.changed == changed:
                self._entries.move_to_end(where)
                if known.copied is not None and id(known) in self._copies:
                    self._copies.move_to_end(id(known))
                return known
        made = Selection.of(part, where, changed)
        if known is not None:
            if changed.dead < known.changed.dead or changed.payloads < known.changed.payloads:
                return made  # for an older view: newer ones are the ones to come
            made._inherit(known, part)
        with self._lock:
            self._put(where, made)
        return made

    def _put(self, where: Filter, made: Selection) -> None:
        size = made.counted = where.nbytes + self._size(made)
        old = self._entries.pop(where, None)
        if old is not None:
            self._forget(old, made)
        if size > self._bound or id(made) not in self._copies:
            self._discard_copy(made)
        if size > self._bound:
            return
        made.copyable = self._has_room(made)
        self._entries[where] = made
        self._bytes += size
        self._evict()

    def _evict(self) -> None:
        while self._bytes > self._bound:
            self._forget(self._entries.popitem(last=False)[1])

    def _forget(self, old: Selection, heir: Selection | None = None) -> None:
        self._bytes -= old.counted
        old.copyable = False
        entry = self._copies.pop(id(old), None)
        if entry is not None:
            if heir is not None and heir.copied is not None:
                self._copies[id(heir)] = (heir, entry[1])
            else:
                self._copy_bytes -= entry[1]

    def _discard_copy(self, selection: Selection) -> None:
        entry = self._copies.pop(id(selection), None)
        if entry is not None:
            self._copy_bytes -= entry[1]
        selection._drop_copy()

    def copy_on(self, selection: Selection, part: Part, metric: Metric) -> None:
        """Copies a few more of a selection's vectors, unless another thread is at it; with the last of them ``copied``
        is set."""
        if not selection._lock.acquire(blocking=False):
            return
        try:
            if selection.copied is None and self._reserve(selection):
                self._copy_piece(selection, part, metric)
        finally:
            selection._lock.release()

    def _copy_piece(self, selection: Selection, part: Part, metric: Metric) -> None:
        copying = selection._copying or self._begun(selection, part, metric)
        copying.add(part.vectors_at(copying.wanted(PIECE)))
        found = copying.result() if copying.finished() else None
        with self._lock:
            if id(selection) not in self._copies:
                return  # the room was given to another meanwhile
            if not copying.finished():
                selection._copying = copying
                return
            selection._copying = None
            if found is None:
                self._discard_copy(selection)
                given_up, selection.halves = self._as_halves(selection), True
                selection.copyable = not given_up and self._has_room(selection)
            else:
                selection.copied = Copied(found, np.empty(0, np.int64))

    def _begun(self, selection: Selection, part: Part, metric: Metric) -> RowCopy:
        rows = selection.rows()
        if self._as_halves(selection):
            return HalfCopy(rows, self._dim, metric)
        return ByteCopy(rows, part.vectors_at(sample_of(rows)), metric)

    def _reserve(self, selection: Selection) -> bool:
        """Makes room for a selection's copy, at the cost of those that were not used for longest."""
        with self._lock:
            if id(selection) in self._copies:
                return True
            size = self._copy_size(selection)
            if not selection.copyable or size > self._copy_bound:
                return False
            while self._copy_bytes + size > self._copy_bound:
                self._discard_copy(next(iter(self._copies.values()))[0])
            self._copies[id(selection)] = (selection, size)
            self._copy_bytes += size
            return True

    def limit(self, bound: int) -> None:
        """Bounds what all but the copies may take from now on."""
        with self._lock:
            self._bound = bound
            self._evict()

    def limit_copies(self, copy_bytes: int) -> None:
        """Bounds what copies may take from now on."""
        with self._lock:
            self._copy_bound = copy_bytes
            for selection, _ in list(self._copies.values()) if self._copy_bytes > copy_bytes else ():
                self._discard_copy(selection)
            for selection in self._entries.values():
                selection.copyable = self._has_room(selection)

    @property
    def nbytes(self) -> int:
        """Memory of what is kept, in bytes: an upper bound."""
        return self._bytes + self._copy_bytes

    def _size(self, selection: Selection) -> int:
        """An upper bound of a selection's bytes once all its forms are made, its filter left out."""
        n = len(selection)
        return _ENTRY + self._rows // 4 + (8 * n if n <= _KEPT_ROWS else 0)

    def _has_room(self, selection: Selection) -> bool:
        """Whether a copy is of use, and there is room for it at all."""
        return len(selection) >= COPY_LEAST and self._copy_size(selection) <= self._copy_bound

    def _copy_size(self, selection: Selection) -> int:
        kind = HalfCopy if self._as_halves(selection) else ByteCopy
        return len(selection) * kind.row_bytes(self._dim)

    @staticmethod
    def _as_halves(selection: Selection) -> bool:
        return selection.halves or len(selection) < BYTES_LEAST
