"""What one search, scan or merge looks at: the parts of a collection at one version, frozen."""

from __future__ import annotations

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

    __slots__ = ("__weakref__", "dead", "parts", "rows", "version", "ways")

    def __init__(self, version: int, parts: tuple[AnyView, ...]) -> None:
        self.version = version
        self.parts = parts
        self.dead = sum(part.dead for part in parts)
        self.rows = sum(part.rows for part in parts) - self.dead
        self.ways: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<Snapshot of version {self.version}: {self.rows} rows in {len(self.parts)} parts>"
