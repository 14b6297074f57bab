"""How a write waits while RocksDB takes none: its memtables or its first level are full, and it writes them out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from vectordb.errors import ResourceExhausted

_log = logging.getLogger("vectordb.storage")

_PAUSE = (0.0005, 0.02)  # seconds: first and longest pause between attempts
_TOLD_SECONDS, _TRIED_SECONDS, _LAST_SECONDS = 5.0, 1.0, 5.0


class Stall:
    """The wait of one write, used by its thread alone.

    Args:
        path: Whose writes wait.
        closing: Whether the storage is about to be closed.
    """

    __slots__ = ("_began", "_closing", "_ends", "_path", "_pause", "_told", "_tried")

    def __init__(self, path: Path, closing: Callable[[], bool]) -> None:
        self._path = path
        self._closing = closing
        self._began = self._tried = time.monotonic()
        self._pause, _ = _PAUSE
        self._told = False
        self._ends: float | None = None

    def pause(self) -> None:
        """Lets a moment pass, longer ones as time goes by.

        Raises:
            ResourceExhausted: The storage is about to be closed, and it has gone on for seconds since.
        """
        now = time.monotonic()
        waited = now - self._began
        if not self._told and waited >= _TOLD_SECONDS:
            self._told = True
            _log.warning("'%s' has taken no writes for %.0f s: its disk is slow, or fails", self._path, waited)
        if self._closing():
            self._ends = self._ends or now + _LAST_SECONDS
            if now >= self._ends:
                raise ResourceExhausted(
                    f"'{self._path}' has taken no writes for {waited:.0f} s and is being closed: see whether its disk "
                    "is full, slow or failing, then open it again",
                    path=str(self._path),
                )
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _PAUSE[1])

    def is_to_be_tried(self) -> bool:
        """Whether to try the write all the same, now and then: of what stopped it for good only a write is told."""
        now = time.monotonic()
        if now - self._tried < _TRIED_SECONDS:
            return False
        self._tried = now
        return True
