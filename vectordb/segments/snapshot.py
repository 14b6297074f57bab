"""What one search, scan or merge looks at: the parts of a collection at one version, frozen."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from vectordb.segments.segment import SegmentView
    from vectordb.segments.tail import TailView

    AnyView: TypeAlias = SegmentView | TailView


class Snapshot:
    """Immutable and thread-safe. Weakly referable: the oldest one alive bounds what storage may purge.

    Attributes:
        version: The collection's version that it shows.
        parts: Views of the segments in offset order, then of the tail's sections (at least one).
        rows: Live rows.
        dead: Dead rows not yet merged away.
        ways: What searches worked out for this snapshot, by the kind of search; theirs to fill and to bound.
    """

    __slots__ = ("__weakref__", "_bounds", "dead", "parts", "rows", "version", "ways")

    def __init__(self, version: int, parts: tuple[AnyView, ...]) -> None:
        self.version = version
        self.parts = parts
        self.dead = sum(part.dead for part in parts)
        self.rows = sum(part.rows for part in parts) - self.dead
        self._bounds = [part.lo for part in parts]
        self.ways: dict[Any, Any] = {}

    def locate(self, offset: int) -> tuple[AnyView, int] | None:
        """The part and row of an offset, dead or alive; None when no part holds it at this version."""
        at = bisect_right(self._bounds, offset) - 1
        # Empty tail sections share their bound with the section before: step back over them.
        while at >= 0:
            part = self.parts[at]
            row = part.row_of(offset)
            if row >= 0:
                return part, row
            if part.rows:
                return None
            at -= 1
        return None

    def __iter__(self) -> Iterator[AnyView]:
        return iter(self.parts)

    def __repr__(self) -> str:
        return f"<Snapshot of version {self.version}: {self.rows} rows in {len(self.parts)} parts>"
