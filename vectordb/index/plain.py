"""So few rows that a kind's structure would be one piece: they are compared one by one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vectordb.index import envelope
from vectordb.index.base import Neighbours, Params, VectorIndex
from vectordb.metric import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Plain:
    """An index of another kind that is an exact one inside. Its file is a frame with 0 as the kind's own number.

    Args:
        kind: Name of the kind.
        flat: What searches.
        shape: (n, d).
        metric: The metric.
    """

    def __init__(self, kind: str, flat: VectorIndex, shape: tuple[int, ...], metric: Metric) -> None:
        self._kind, self._flat, self._shape, self._metric = kind, flat, shape, metric

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`."""
        return self._flat.search(queries, limit, allowed=allowed, params=params)

    def save(self, path: Path) -> None:
        """See :meth:`vectordb.index.base.VectorIndex.save`."""
        path.write_bytes(envelope.block(self._kind, self._shape, self._metric, envelope.BLOCK_BYTES))

    def memory_bytes(self) -> int:
        """Nothing beside the vectors."""
        return 0
