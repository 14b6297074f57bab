"""What happens to the rows of a segment or tail section after they were written: deletions and new payloads.

The rows themselves never change. Both kinds of change carry the version that made them, so that one object serves
views of every version, and what came after the snapshot that a merge worked on can be carried over to its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.metadata.overlay import OverlayLog, OverlayView
from vectordb.segments.tombstones import DeadRows, Tombstones

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vectordb.types import FieldSpec


_CHANGE = 300
"""Bytes of a :class:`PayloadChange` with its array and its list."""


class PayloadChange(NamedTuple):
    """Payloads replaced by one version: rows int64[k] and their encoded metadata."""

    version: int
    rows: NDArray[np.int64]
    metadata: Sequence[bytes]


class Changes:
    """Deletions and payload changes of one holder of rows. Written under the commit lock, read at any time.

    Args:
        fields: The collection's declared fields.
    """

    __slots__ = ("_changed", "_count", "_last", "_overlays", "_payloads", "tombstones")

    def __init__(self, fields: Mapping[str, FieldSpec] | None) -> None:
        self.tombstones = Tombstones()
        self._overlays = OverlayLog(fields)
        self._payloads: list[PayloadChange] = []
        self._changed = self._count = 0
        # The last view made, the version and the count of changes it was made at: it also shows every later version,
        # until something changes. By the count, since a view that is made beside a change may be kept after it.
        self._last: tuple[int, int, DeadRows, OverlayView | None] | None = None

    def mark_deleted(self, rows: NDArray[np.int64], version: int, capacity: int) -> int:
        """Marks rows int64[k] as deleted by ``version``; see :meth:`Tombstones.mark`."""
        self._note(version)
        return self.tombstones.mark(rows, version, capacity)

    def restore_deleted(self, rows: NDArray[np.int64], versions: NDArray[np.uint64], capacity: int) -> int:
        """As :meth:`mark_deleted` for deletions of many versions uint64[k]; see :meth:`Tombstones.restore`."""
        if len(rows):
            self._note(int(versions.max()))
        return self.tombstones.restore(rows, versions, capacity)

    def overlay(self, rows: NDArray[np.int64], version: int, metadata: Sequence[bytes]) -> None:
        """Replaces the payloads of rows int64[k] as of ``version``, which is not below an earlier call's."""
        if len(rows):
            self._note(version)
            self._overlays.append(rows, version, metadata)
            self._payloads.append(PayloadChange(version, rows, metadata))

    def _note(self, version: int) -> None:
        self._changed = max(self._changed, version)
        self._count += 1

    def at(self, version: int) -> tuple[DeadRows, OverlayView | None]:
        """Dead rows and payload changes (None without any) as of ``version``."""
        count, last = self._count, self._last
        if last is not None and last[0] <= version and last[1] == count:
            return last[2], last[3]
        dead = self.tombstones.at(version)
        overlay = self._overlays.at(version) if len(self._overlays) else None
        if version >= self._changed:
            self._last = (version, count, dead, overlay)
        return dead, overlay

    def payloads_since(self, version: int) -> Iterator[PayloadChange]:
        """Payload changes after ``version``, in the order in which they were made."""
        for change in list(self._payloads):
            if change.version > version:
                yield change

    @property
    def payload_bytes(self) -> int:
        """Memory of replaced payloads in bytes, about."""
        return self._overlays.nbytes + _CHANGE * len(self._payloads)

    @property
    def nbytes(self) -> int:
        """Memory in bytes, about."""
        return self.tombstones.nbytes + self.payload_bytes
