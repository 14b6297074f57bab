"""The narrowest search that reaches a recall: doubling, then bisection, within a bound of time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

RATIO = 1.06
"""Bisection ends when the widths that reach the target and that do not are nearer than this."""


@dataclass(frozen=True)
class Point:
    """One width tried: recall over the tuning queries, and their median in microseconds."""

    width: int
    recall: float
    p50_us: float
    queries: int


@dataclass
class Tuner:
    """Remembers what was tried, so that a second target costs only what it adds. Used by one thread.

    Args:
        evaluate: Recall and speed at a width.
        low, high: Bounds of the width, both included.
        seconds: After so long no further width is tried.
    """

    evaluate: Callable[[int], Point]
    low: int
    high: int
    seconds: float = 10.0
    points: dict[int, Point] = field(default_factory=dict)

    def reach(self, target: float, start: int | None = None) -> dict[str, Any]:
        """The least width known to reach the target: ``width, reached, recall, complete``.

        ``complete`` is False where the time ended before bisection did; ``reached`` where even the best falls short.
        """
        until = time.monotonic() + self.seconds
        width = min(self.high, max(self.low, start or 4 * self.low))
        below, above = self._known(target)
        if above is None:
            below, above = self._tried(width, target)
        while above is None and below < self.high and time.monotonic() < until:
            width = min(self.high, max(width, 2 * below if below else width))
            below, above = self._tried(width, target)
        while above is not None and above > self.low and time.monotonic() < until:
            if below and above <= max(below + 1, math.floor(below * RATIO)):
                break
            # Nothing below is known to fail yet: halve. Else the geometric middle, since costs grow as widths do.
            middle = round(math.sqrt(below * above)) if below else max(self.low, above // 2)
            middle = min(above - 1, max(below + 1, middle))
            below, above = self._tried(middle, target)
        chosen = max(self.points.values(), key=lambda point: point.recall) if above is None else self.points[above]
        return {
            "width": chosen.width,
            "reached": chosen.recall >= target,
            "recall": chosen.recall,
            "complete": time.monotonic() < until,
        }

    def curve(self) -> list[dict[str, Any]]:
        """All that was tried, narrow to wide."""
        return [vars(self.points[width]) for width in sorted(self.points)]

    def _tried(self, width: int, target: float) -> tuple[int, int | None]:
        if width not in self.points:
            self.points[width] = self.evaluate(width)
        return self._known(target)

    def _known(self, target: float) -> tuple[int, int | None]:
        """The widest that fails below the narrowest that reaches it (0: none), and that one (None: none)."""
        above = min((w for w, point in self.points.items() if point.recall >= target), default=None)
        below = max(
            (w for w, p in self.points.items() if p.recall < target and (above is None or w < above)), default=0
        )
        return below, above
