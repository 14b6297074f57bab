"""Removing from storage what no reader can reach any more."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

from vectordb import failpoints
from vectordb.storage import keys
from vectordb.storage.base import Family, Storage
from vectordb.storage.keys import Superseded


class Sweep:
    """Rows and payloads that nobody can reach any more once the snapshots before their end are gone. Thread-safe.

    A dead row is handed over when no segment holds it any longer; its tombstone goes with it. Everything here is
    found again on opening (tombstones of rows in no segment, superseded payloads), so it need not be stored.

    Attributes:
        removed: Rows and payloads removed so far.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._lock = threading.Lock()
        self._running = threading.Lock()  # held from taking things until storage has removed them
        self.removed = 0  # changed under self._running
        self._superseded: deque[Superseded] = deque()  # guarded by self._lock
        self._rows: deque[tuple[int, int, int]] = deque()  # (death, offset, payload version); guarded by self._lock

    def add_superseded(self, superseded: Iterable[Superseded]) -> None:
        """Payloads that were replaced."""
        with self._lock:
            self._superseded.extend(superseded)

    def add_rows(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """Dead rows that no segment holds: (deleting version, offset, payload version), ascending by version."""
        with self._lock:
            self._rows.extend(rows)

    def __len__(self) -> int:
        return len(self._superseded) + len(self._rows)

    def run(self, storage: Storage, oldest_version: int, most: int) -> int:
        """Removes up to ``most`` of what no snapshot needs; returns how much it removed.

        Args:
            oldest_version: No snapshot before this version is looked at any more.
        """
        with self._running:
            done = self._run(storage, oldest_version, most)
            self.removed += done
            return done

    def run_all(self, storage: Storage, oldest_version: int, most: int) -> None:
        """Removes everything that no snapshot needs, ``most`` at a time, and is done with what others began."""
        with self._lock:
            # A younger one may stand before an older one, which then waits for it.
            self._superseded = deque(sorted(self._superseded))
            self._rows = deque(sorted(self._rows))
        while self.run(storage, oldest_version, most):
            pass

    def _run(self, storage: Storage, oldest_version: int, most: int) -> int:
        number = self._number
        batch = storage.batch()
        done = 0
        with self._lock:
            while self._superseded and done < most and self._superseded[0].version <= oldest_version:
                old = self._superseded.popleft()
                batch.delete(Family.ROWS, keys.payload_key(number, old.offset, old.payload_version))
                batch.delete(Family.META, keys.overlay_key(number, old.offset, old.payload_version))
                batch.delete(Family.META, keys.superseded_key(number, old))
                done += 1
            while self._rows and done < most and self._rows[0][0] <= oldest_version:
                _, offset, payload_version = self._rows.popleft()
                batch.delete(Family.ROWS, keys.payload_key(number, offset, payload_version))
                batch.delete(Family.VECTORS, keys.vector_key(number, offset))
                batch.delete(Family.META, keys.tombstone_key(number, offset))
                batch.delete(Family.META, keys.overlay_key(number, offset, payload_version))
                done += 1
        if done:
            failpoints.hit("sweep.write")
            storage.write(batch)
        return done
