"""A gate that lets calls in until it is shut, and is shut only once nobody is inside."""

from __future__ import annotations

import threading
from types import TracebackType

from vectordb.errors import Closed


class Gate:
    """Counts the calls that use a native handle, so that closing waits for them. Thread-safe.

    Used as a context manager around each call::

        with gate:
            ...native call...

    Args:
        what: What is closed, for the message of :class:`vectordb.errors.Closed`.
    """

    __slots__ = ("_inside", "_no_one_inside", "shut", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.shut = False  # written under the condition's lock; a bare read may be stale by one call
        self._inside = 0  # guarded by self._no_one_inside
        self._no_one_inside = threading.Condition(threading.Lock())

    def __enter__(self) -> None:
        with self._no_one_inside:
            if self.shut:
                raise self.closed()
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._no_one_inside:
            self._inside -= 1
            if self.shut and not self._inside:
                self._no_one_inside.notify_all()

    def close(self) -> bool:
        """Refuses new calls and waits for those inside. Returns whether this call was the first to shut the gate.

        Must not be called from inside the gate.
        """
        with self._no_one_inside:
            first = not self.shut
            self.shut = True
            while self._inside:
                self._no_one_inside.wait()
            return first

    def refuse(self) -> None:
        """Refuses new calls without waiting for those inside."""
        with self._no_one_inside:
            self.shut = True

    def abandon(self) -> None:
        """In a forked child: shuts the gate for good. Threads that held its lock do not exist here."""
        self.what += ", opened before this process was forked,"
        self.shut = True
        self._no_one_inside = threading.Condition(threading.Lock())
        self._inside = 0

    def closed(self) -> Closed:
        """The error that a call gets once the gate is shut."""
        return Closed(f"{self.what} is closed; open it again to use it")
