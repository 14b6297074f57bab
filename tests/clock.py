"""A clock that only the tests move: a machine's load moves it by nothing."""

from __future__ import annotations


class Clock:
    """Seconds, in the place of ``time.monotonic`` and ``time.sleep``."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        return self.now

    def let_pass(self, seconds: float) -> None:
        self.now += seconds
