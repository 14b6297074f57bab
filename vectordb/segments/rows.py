"""Rows on their way into the tail: as a commit wrote them, or as recovery read them back from storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class RowBatch:
    """Rows in ascending offset order, column by column.

    Attributes:
        offsets: uint64[n], strictly ascending (holes are allowed: purged rows leave them).
        ids: n ids.
        payload_versions: uint64[n], the version that last wrote each row's payload.
        metadata: n encoded metadata maps (``vectordb.encoding``), ``b""`` for the empty map.
        vectors: Prepared float32[n, d], or None when no row has a vector. Rows without one may hold anything.
        has_vector: bool[n], or None when all rows have a vector (none, where ``vectors`` is None).
        texts: UTF-8 or None a row; None where no row has a text.
    """

    offsets: NDArray[np.uint64]
    ids: Sequence[str]
    payload_versions: NDArray[np.uint64]
    metadata: Sequence[bytes]
    vectors: NDArray[np.float32] | None = None
    has_vector: NDArray[np.bool_] | None = None
    texts: Sequence[bytes | None] | None = None

    def __post_init__(self) -> None:
        n = len(self.offsets)
        lengths = {len(self.ids), len(self.payload_versions), len(self.metadata)}
        if self.vectors is not None:
            lengths.add(len(self.vectors))
        if self.has_vector is not None:
            lengths.add(len(self.has_vector))
        if self.texts is not None:
            lengths.add(len(self.texts))
        if lengths - {n}:
            raise ValueError(f"columns of one batch differ in length: {sorted(lengths | {n})}")

    def __len__(self) -> int:
        return len(self.offsets)

    @classmethod
    def dense(
        cls,
        first_offset: int,
        version: int,
        ids: Sequence[str],
        metadata: Sequence[bytes],
        vectors: NDArray[np.float32] | None = None,
        has_vector: NDArray[np.bool_] | None = None,
    ) -> RowBatch:
        """Rows of one commit: offsets ``first_offset..first_offset+n-1``, all written by ``version``."""
        n = len(ids)
        offsets = np.arange(first_offset, first_offset + n, dtype=np.uint64)
        return cls(offsets, ids, np.full(n, version, np.uint64), metadata, vectors, has_vector)

    def vector_mask(self) -> NDArray[np.bool_]:
        """Which rows have a vector: bool[n]."""
        if self.vectors is None:
            return np.zeros(len(self), np.bool_)
        return np.ones(len(self), np.bool_) if self.has_vector is None else self.has_vector
