"""What a search sees: a *part* is one sealed segment or the tail, bound to one snapshot and therefore immutable.

A part numbers its rows ``0..rows-1``; dead and replaced rows keep their number. Vectors stand in matrices of their own
numbering (*positions*), since a row may have no vector: ``vector_rows`` maps positions to rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.filter import Filter
    from vectordb.index.base import IndexKind, VectorIndex
    from vectordb.index.calibration import Calibration
    from vectordb.metadata.estimate import Estimate
    from vectordb.metadata.rowset import RowSet
    from vectordb.metric import Metric
    from vectordb.segments.selection import Selection
    from vectordb.text.bm25 import Totals
    from vectordb.text.index import Piece


class Block(NamedTuple):
    """A stretch of the vector matrix.

    Attributes:
        vectors: float32[m, d], prepared, C-contiguous; do not write.
        rows: int64[m], the row of each vector; ``None`` where position i is row ``first_row + i``.
        first_row: Row of the first vector where ``rows`` is None.
    """

    vectors: NDArray[np.float32]
    rows: NDArray[np.int64] | None
    first_row: int


class Part(Protocol):
    """An immutable view of one segment or the tail at one version. Thread-safe."""

    name: str
    """The segment's name, or ``"tail"``."""
    rows: int
    """Number of rows, dead ones included."""
    dead: int
    """How many of them are dead at this version."""
    vector_count: int
    """Rows that have a vector, dead ones included."""
    index: VectorIndex | None
    """The approximate index over positions ``0..vector_count-1``, once built."""
    kind: IndexKind | None
    """The kind that built ``index``."""
    calibration: Calibration | None
    """What recall ``index`` was measured to have, by the width of its search."""
    spread: dict[Filter, bool]
    """Whether the rows that match a filter lie scattered among all, where the executor looked; a cache of its own."""

    def blocks(self, max_bytes: int) -> Iterator[Block]:
        """The whole vector matrix, in stretches of at most ``max_bytes`` (at least one row each)."""
        ...

    def vectors_at(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Prepared vectors float32[k, d] of rows that have one (a copy)."""
        ...

    def in_place(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        """The whole vector matrix float32[n, d] and the positions int64[k] of rows that have a vector, to read many
        rows where they lie; ``None`` where the matrix is in pieces."""
        ...

    def rows_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of positions of the matrix that ``index`` searches; -1 stays -1. May return its argument."""
        ...

    def allowed_positions(self, rows: RowSet) -> NDArray[np.uint8]:
        """Packed bits over positions, set for the given rows, in the form that ``VectorIndex.search`` takes."""
        ...

    def with_vector(self, rows: RowSet) -> RowSet:
        """Those of the given rows that have a vector. May return its argument."""
        ...

    def alive(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the given rows are alive at this version: bool[k]."""
        ...

    def dead_rows(self) -> RowSet:
        """All dead rows (cached; do not change)."""
        ...

    def matching(self, where: Filter, *, keep: bool = True) -> RowSet:
        """Rows, dead or alive, whose metadata at this version meets the filter (cached; do not change).

        Args:
            keep: Whether the answer is kept for those who ask the same, as searches do; an answer kept is given anyhow.
        """
        ...

    def selection(self, where: Filter) -> Selection:
        """The living rows with a vector that meet the filter, in the forms that searches take (cached)."""
        ...

    def copy_on(self, selection: Selection, metric: Metric) -> None:
        """Copies a few more of the vectors of a selection of this part that is ``copyable``."""
        ...

    def estimate(self, where: Filter) -> Estimate:
        """Bounds and expectation of ``len(matching(where))``, without evaluating it in full."""
        ...

    def ids(self, rows: NDArray[np.int64]) -> list[str]: ...

    def offsets(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]: ...

    def payload_versions(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The version that last wrote each row's payload, as of this part's version."""
        ...

    def metadata(self, rows: NDArray[np.int64]) -> list[bytes] | None:
        """The rows' encoded metadata (``vectordb.encoding``) as of this part's version; None where only storage has it:
        segments in memory, and those that an earlier release wrote."""
        ...

    def sort_keys(self, path: str, rows: NDArray[np.int64]) -> list[tuple[int, object] | None]:
        """What ``order_by`` sorts the given rows by: (rank of the type, value); None where the field is missing, null
        or a list. Ranks: 0 bool, 1 number, 2 datetime, 3 string."""
        ...

    def text(self, poll: Callable[[], None]) -> Sequence[Piece]:
        """The words of the rows' texts, dead rows included; rows in no piece have none.

        Args:
            poll: Called now and then while texts are indexed; raises to stop.
        """
        ...

    def text_totals(self, poll: Callable[[], None]) -> Totals:
        """Living rows that have a word, and how many words they have; ``poll`` as for :meth:`text`."""
        ...
