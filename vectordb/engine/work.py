"""What the optimizer knows of one collection: what was asked, how far it is, and what failed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.errors import VectorDBError

RETRY_SECONDS = 30.0


@dataclass(slots=True)
class Work:
    """What is going on with one collection. Guarded by the optimizer's condition.

    Calls of ``optimize`` are numbered. What is written after a call is not waited for: else a call beside steady
    writers would never return.

    Attributes:
        asked: The last call; ``sealed``: up to which one the tail is sealed; ``merged``: up to which one all is done.
        upto: End of the offsets that the calls up to ``sealed`` are about; ``version``: the one they are about.
        sealing: Whether the sealer is at work; ``building``: what the builder does (``merging``, ``indexing``).
        sealing_progress, building_progress: Fractions of the running jobs.
        full: The last call that wants everything merged; ``erase``: the last one that wants nothing dead to stay.
        stale: While erasing, the indexes that have yet to be built anew; None until all segments are clean.
        busy: The threads that are at work on it, sweeping included.
        failures: By thread, why its last job failed and when it tries again: an index that cannot be built must not
            keep the tail from being sealed.
    """

    live: LiveCollection
    asked: int = 0
    sealed: int = 0
    merged: int = 0
    upto: int = 0
    version: int = 0
    sealing: bool = False
    building: str | None = None
    sealing_progress: float = 0.0
    building_progress: float = 0.0
    full: int = 0
    erase: int = 0
    stale: frozenset[str] | None = None
    busy: set[str] = field(default_factory=set)
    failures: dict[str, tuple[VectorDBError, float]] = field(default_factory=dict)

    @property
    def is_erasing(self) -> bool:
        return self.erase > self.merged

    @property
    def error(self) -> VectorDBError | None:
        """Why a job failed that has not succeeded since."""
        return next((error for error, _ in list(self.failures.values())), None)

    def fail(self, thread: str, error: VectorDBError) -> None:
        self.failures[thread] = error, time.monotonic() + RETRY_SECONDS

    def waits(self, thread: str) -> bool:
        """Whether a thread failed and lets some time pass before it tries again."""
        failure = self.failures.get(thread)
        return failure is not None and time.monotonic() < failure[1]
