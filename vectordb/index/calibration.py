"""What recall an index was measured to have, by the width of its search: the ground for ``target_recall``.

Measured after each build on the segment's own vectors (``query/calibrate.py``), kept with the index (``index.json``),
read by the planner. A *curve* belongs to a way of using the index, a share of matching rows and a limit; its points
ascend by cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

ALL = "all"
WITHIN = "in"
AFTER = "post"
"""Ways of using an index: over all rows; told which rows match; over all rows, then the filter."""

_TOLERANCE = 0.95
"""A curve serves shares down to this part of its own."""


class Point(NamedTuple):
    """One setting: the width (None where the kind has none), the oversampling, and the recall that it had at least."""

    width: int | None
    oversampling: float
    recall: float


class Curve(NamedTuple):
    """Points of one way, share of matching rows and limit."""

    way: str
    share: float
    limit: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The curves of one index. Immutable."""

    curves: tuple[Curve, ...]

    def reaching(self, way: str, share: float, limit: int, target: float) -> list[Point]:
        """The narrowest setting of each oversampling with a recall of at least ``target``; empty where none is known.

        A share is served by the curve of the next smaller one, which is harder; a limit by what its neighbours need,
        in proportion between them and beyond them.
        """
        shares = [c.share for c in self.curves if c.way == way and c.share * _TOLERANCE <= share]
        if not shares:
            return []
        nearest = max(shares)
        curves = sorted((c for c in self.curves if c.way == way and c.share == nearest), key=lambda c: c.limit)
        below = [c for c in curves if c.limit <= limit]
        above = [c for c in curves if c.limit >= limit]
        if not above:
            return [_stretched(point, limit / curves[-1].limit) for point in _narrowest(curves[-1], target).values()]
        upper = _narrowest(above[0], target)
        if not below or below[-1].limit == above[0].limit:
            return list(upper.values())
        lower = _narrowest(below[-1], target)
        part = (limit - below[-1].limit) / (above[0].limit - below[-1].limit)
        return [_between(lower[o], upper[o], part) for o in upper if o in lower]

    def as_json(self) -> dict[str, Any]:
        """For ``index.json``."""
        return {"curves": [[*curve[:3], [list(point) for point in curve.points]] for curve in self.curves]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> Calibration | None:
        """What :meth:`as_json` made; None of None."""
        if stored is None:
            return None
        curves: Iterable[Any] = stored["curves"]
        return cls(tuple(Curve(w, s, n, tuple(Point(*point) for point in points)) for w, s, n, points in curves))


def _narrowest(curve: Curve, target: float) -> dict[float, Point]:
    """For each oversampling the first point that reaches the target."""
    found: dict[float, Point] = {}
    for point in curve.points:
        if point.recall >= target:
            found.setdefault(point.oversampling, point)
    return found


def _stretched(point: Point, factor: float) -> Point:
    return point if point.width is None else point._replace(width=round(point.width * factor))


def _between(lower: Point, upper: Point, part: float) -> Point:
    recall = min(lower.recall, upper.recall)
    if lower.width is None or upper.width is None:
        return upper._replace(recall=recall)
    return Point(round(lower.width + part * (upper.width - lower.width)), upper.oversampling, recall)
