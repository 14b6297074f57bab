"""Groups of equal rows beside an index of another library: which rows to give it, and which sections to save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vectordb.index.duplicates import Groups, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STARTS, _MEMBERS = "starts", "rows"


def distinct(vectors: NDArray[np.float32], groups: Groups | None) -> Rows:
    """One row of each group of float32[n, d], in the order of the groups; all rows where there are none."""
    return Rows(vectors) if groups is None else Rows(vectors, groups.rows[groups.starts[:-1]].astype(np.int64))


def sections(groups: Groups | None) -> dict[str, bytes]:
    """Both arrays as sections of a file (``envelope``); none without groups."""
    if groups is None:
        return {}
    return {_STARTS: groups.starts.astype("<u4").tobytes(), _MEMBERS: groups.rows.astype("<u4").tobytes()}


def read(found: Mapping[str, memoryview], rows: int, nodes: int) -> Groups | None:
    """The groups among a file's sections, of a matrix of ``rows`` rows, ``nodes`` of them distinct.

    Raises:
        ValueError: They are not groups of so many rows.
    """
    if _STARTS not in found:
        if nodes != rows:
            raise ValueError(f"{nodes} nodes for {rows} rows")
        return None
    starts, members = np.frombuffer(found[_STARTS], "<u4"), np.frombuffer(found[_MEMBERS], "<u4")
    if len(starts) != nodes + 1 or len(members) != rows:
        raise ValueError("groups of equal rows that do not fit")
    if starts[0] != 0 or starts[-1] != rows or (starts[1:] <= starts[:-1]).any() or (members >= rows).any():
        raise ValueError("impossible groups of equal rows")
    return Groups(starts, members)
