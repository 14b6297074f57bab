"""Texts that grow: an append-only log, indexed lazily in runs that double in size.

As for metadata (``vectordb.metadata.runs``; Bentley & Saxe 1980): the writer only keeps the text, and the first search
that needs it, or the sealing, finds its words. So writing costs nothing here, and each row is merged O(log n) times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectordb.text.build import build, no_poll, slices
from vectordb.text.index import Piece, TextIndex
from vectordb.text.merge import Moved, merged

if TYPE_CHECKING:
    from vectordb.text.analyzers import Analyzer

_STEP = (4096, 16 << 20)
"""Texts, and bytes of them, indexed at a time; what is done when a search runs out of time stays done."""
_PATIENCE = 0.01
"""Seconds between two looks at whether to go on waiting while another thread indexes."""


class TextRuns:
    """An append-only log of texts. One appender, any number of readers, all thread-safe.

    Attributes:
        bytes: Of all texts, those that were indexed and dropped included.
    """

    __slots__ = ("_dropped", "_how", "_lock", "_log", "_runs", "_texts", "bytes")

    def __init__(self, how: Analyzer) -> None:
        self._how = how
        self._log: list[bytes | None] = []  # grows at its end; a text leaves its place when it is indexed
        self.bytes = 0  # changed by the appender
        self._dropped = 0  # guarded by self._lock
        self._texts = 0
        self._lock = threading.Lock()
        self._runs: tuple[TextIndex, ...] = ()  # replaced as a whole, guarded by self._lock

    def append(self, texts: Sequence[bytes | None] | None, count: int) -> None:
        """Adds ``count`` rows with these texts, or without any."""
        self._log.extend([None] * count if texts is None else texts)
        for text in texts or ():
            if text is not None:
                self._texts += 1
                self.bytes += len(text)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the log and of its indexes, about."""
        return self.bytes - self._dropped + 8 * len(self._log) + sum(run.nbytes for run in self._runs)

    def pieces(self, length: int, poll: Callable[[], None] = no_poll) -> tuple[Piece, ...]:
        """Indexes over the first ``length`` rows; none where no row of the log has a text.

        Args:
            poll: Called now and then while texts are indexed; raises to stop, and what was done stays done.
        """
        if not self._texts:
            return ()
        runs = self._runs
        if sum(run.n for run in runs) < length:
            runs = self._extended(length, poll)
        found = []
        start = 0
        for run in runs:
            if start >= length:
                break
            found.append(Piece(run, start, min(run.n, length - start)))
            start += run.n
        return tuple(found)

    def _extended(self, length: int, poll: Callable[[], None]) -> tuple[TextIndex, ...]:
        while not self._lock.acquire(timeout=_PATIENCE):
            poll()
        try:
            covered = sum(run.n for run in self._runs)
            for first, last in slices(self._log, covered, length, _STEP):
                texts = self._log[first:last]
                self._runs = _balanced([*self._runs, build(texts, self._how, poll)])
                # Nobody reads them again. Of the same length, so that the appender does not notice.
                self._log[first:last] = [None] * len(texts)
                self._dropped += sum(len(text) for text in texts if text is not None)
            return self._runs
        finally:
            self._lock.release()


def _balanced(runs: list[TextIndex]) -> tuple[TextIndex, ...]:
    """Merges from the end until each run is more than twice as long as the next."""
    first = len(runs) - 1
    size = runs[first].n
    while first > 0 and runs[first - 1].n <= 2 * size:
        first -= 1
        size += runs[first].n
    if first == len(runs) - 1:
        return tuple(runs)
    parts = []
    start = 0
    for run in runs[first:]:
        rows = np.arange(run.n)
        parts.append(Moved(run, rows, rows + start))
        start += run.n
    return (*runs[:first], merged(parts, size))
