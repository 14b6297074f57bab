"""A running estimate of the recall that searches really get: now and then one that was served is done again, exactly.

Only the last approximate search of each collection is remembered. Every ``recall_sample_seconds`` one of them is
repeated by ``explain(analyze=True)``, which compares the answer with as many rows as a quarter of a second allows: less
than half a percent of one processor by default.
"""

from __future__ import annotations

import logging
import threading
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

from vectordb.errors import VectorDBError

if TYPE_CHECKING:
    from vectordb.requests import Backend, SearchRequest
    from vectordb.server.watch import Done

_log = logging.getLogger("vectordb.server")
_TIMEOUT = 2.0
_WEIGHT = 0.1
_EXACT = frozenset({"exact", "exact_filtered", "text", "empty", "skipped"})
_MOST_COLLECTIONS = 200


class Recall(NamedTuple):
    """The moving average over the samples of one collection, and their number."""

    estimate: float
    samples: int


class RecallSampler:
    """An observer of :mod:`vectordb.server.watch`, and the thread that samples. Thread-safe.

    Args:
        backend: Repeats the searches: the engine.
        seconds: Between two samples.
    """

    def __init__(self, backend: Backend, seconds: float) -> None:
        self._backend = backend
        self._seconds = seconds
        self._lock = threading.Lock()
        self._latest: dict[str, SearchRequest] = {}  # guarded by self._lock
        self._found: dict[str, Recall] = {}  # guarded by self._lock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vectordb-recall", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, within its running sample. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * _TIMEOUT)

    def __call__(self, done: Done) -> None:
        if done.operation != "search" or not done.answer or done.request.vectors is None or done.request.texts:
            return
        if all(part.strategy in _EXACT for part in done.answer[0].plan):
            return
        with self._lock:
            if done.collection in self._latest or len(self._latest) < _MOST_COLLECTIONS:
                self._latest[done.collection] = done.request

    def found(self) -> dict[str, Recall]:
        """What is known by collection."""
        with self._lock:
            return dict(self._found)

    def sample(self) -> bool:
        """Repeats one search of the collection that has waited longest; False where there was none."""
        with self._lock:
            if not self._latest:
                return False
            collection = next(iter(self._latest))
            request = copy(self._latest.pop(collection))
        assert request.vectors is not None
        request.vectors, request.timeout, request.allow_partial = request.vectors[:1], _TIMEOUT, True
        try:
            recall = self._backend.explain(collection, request, True).recall
        except VectorDBError as error:  # the collection was deleted, or the time was too short
            _log.debug("no estimate of the recall of %r: %s", collection, error)
            return True
        if recall is not None:
            with self._lock:
                before = self._found.get(collection)
                mean = recall if before is None else before.estimate + _WEIGHT * (recall - before.estimate)
                self._found[collection] = Recall(mean, 1 if before is None else before.samples + 1)
        return True

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self.sample()
            except Exception:
                _log.exception("sampling the recall failed")
