"""``target_recall``: the setting of an index that an earlier measurement says to reach it. Pure.

The measurement is the index's calibration (``index/calibration.py``). Without one, and where no setting reached the
target, the answer is None, and the planner searches exactly: a recall that nobody measured is not promised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vectordb.query import costs

if TYPE_CHECKING:
    from vectordb.index.base import Capabilities
    from vectordb.index.calibration import Calibration, Point

UNCALIBRATED = "the recall of this index was not calibrated, so the target is kept by exact search"
ALL_WANTED = "a recall of 1 needs exact search"
MISSED = "no calibrated setting of the index reaches the target recall with this filter and limit"


def setting(
    calibration: Calibration, capabilities: Capabilities, shape: tuple[int, int], wanted: tuple[str, float, int, float]
) -> Point | None:
    """The cheapest setting that reaches the target, or None.

    Args:
        shape: Rows and dimensions of the index.
        wanted: Way of using the index, share of matching rows, limit, target.
    """
    rows, dim = shape
    effort = costs.effort_of(capabilities, rows)

    def cost(point: Point) -> float:
        rescoring = point.oversampling * wanted[2] * dim * costs.RESCORE
        return costs.walk(effort, rows, dim, point.width) + rescoring

    return min(calibration.reaching(*wanted), key=cost, default=None)
