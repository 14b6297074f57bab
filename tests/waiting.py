"""Waiting for what other threads and processes do, never longer than a test may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from vectordb.errors import VectorDBError


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Returns as soon as the condition is true; fails the test where it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come about within {seconds} s"
        time.sleep(0.01)


class Call(threading.Thread):
    """A call in a thread of its own, begun at once, and the error of ours that it ended with."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call
        self.error: VectorDBError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except VectorDBError as error:
            self.error = error

    def over(self) -> VectorDBError | None:
        """Waits for its end."""
        self.join(30)
        assert not self.is_alive()
        return self.error
