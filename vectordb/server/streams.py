"""A cap on calls that hold a thread for long, and an end to those whose client fell silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from vectordb.errors import ResourceExhausted


class Cancellable(Protocol):
    """The part of a grpc context that is used here."""

    def cancel(self) -> Any: ...


class Stream:
    """One long call: silent from :meth:`wait` to :meth:`work`."""

    __slots__ = ("context", "silent_since")

    def __init__(self, context: Cancellable) -> None:
        self.context = context
        self.silent_since: float | None = None

    def wait(self) -> None:
        """The client is to send or to read now."""
        self.silent_since = time.monotonic()

    def work(self) -> None:
        """The client did; the server works."""
        self.silent_since = None


class Streams:
    """The long calls under way. Thread-safe.

    Args:
        limit: At most so many at a time.
        idle_seconds: One whose client is silent for so long is cancelled by :meth:`expire`.
    """

    def __init__(self, limit: int, idle_seconds: float) -> None:
        self.limit = limit
        self._idle = idle_seconds
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()  # guarded by self._lock

    def __len__(self) -> int:
        return len(self._streams)

    @contextmanager
    def entered(self, context: Cancellable) -> Iterator[Stream]:
        """A place among them.

        Raises:
            ResourceExhausted: All are taken.
        """
        stream = Stream(context)
        with self._lock:
            if len(self._streams) >= self.limit:
                raise ResourceExhausted(
                    f"{self.limit} bulk writes, builds, backups, checks or erasures are under way, as many as "
                    "max_streams allows; try again later",
                    limit=self.limit,
                    retry_after=1.0,
                )
            self._streams.add(stream)
        try:
            yield stream
        finally:
            with self._lock:
                self._streams.discard(stream)

    def expire(self) -> None:
        """Cancels the calls whose clients have been silent for too long."""
        before = time.monotonic() - self._idle
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            since = stream.silent_since
            if since is not None and since < before:
                stream.context.cancel()
