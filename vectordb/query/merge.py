"""Candidates into winners: one order for all, (better score, then id by code point), also at the cut.

Distances here are scores turned so that smaller is closer (``vectordb.metric.distances``), already final.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.metric import Metric
from vectordb.query.spec import Winners

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.segments.part import Part


class Found(NamedTuple):
    """Candidates of one query in one part.

    Attributes:
        part: The part's number.
        rows: int64[c], ascending by distance.
        distances: float32[c], final.
    """

    part: int
    rows: NDArray[np.int64]
    distances: NDArray[np.float32]


def nearest(distances: NDArray[np.float32], limit: int) -> NDArray[np.int64]:
    """The places of the ``limit`` smallest distances, ascending, and of all that equal the last of them: int64[c]."""
    n = len(distances)
    if n > 4 * limit and n > 64:
        kept = np.flatnonzero(distances <= np.partition(distances, limit - 1)[limit - 1])
        return kept[distances[kept].argsort(kind="stable")]
    order = distances.argsort(kind="stable")
    if n > limit:
        ascending = distances[order]
        order = order[: ascending.searchsorted(ascending[limit - 1], side="right")]
    return order


def winners(found: Sequence[Found], parts: Sequence[Part], limit: int, metric: Metric) -> Winners:
    """The best ``limit`` of one query's candidates; no row may occur twice."""
    if len(found) == 1:
        number, rows, distances = found[0]
        numbers = None
        if len(rows) > limit and distances.item(limit) != distances.item(limit - 1):
            rows, distances = rows[:limit], distances[:limit]
    elif not found:
        none = np.empty(0, np.int64)
        return Winners([], np.empty(0, np.float32), none, none)
    else:
        distances = np.concatenate([f.distances for f in found])
        order = nearest(distances, limit)
        distances = distances[order]
        rows = np.concatenate([f.rows for f in found])[order]
        numbers = np.repeat(np.array([f.part for f in found], np.int64), [len(f.rows) for f in found])[order]
        number = found[0].part
    ids = parts[number].ids(rows) if numbers is None else _ids(parts, numbers, rows)
    n = len(rows)
    keys = distances.tolist()
    if len(set(keys)) < n:
        # Only now, with ids at hand, equal scores find their order.
        by_id = sorted(range(n), key=lambda i: (keys[i], ids[i]))[:limit]
        ids = [ids[i] for i in by_id]
        order = np.array(by_id, np.int64)
        rows, distances = rows[order], distances[order]
        numbers = None if numbers is None else numbers[order]
    if numbers is None:
        numbers = np.zeros(len(rows), np.int64)
        if number:
            numbers += number
    return Winners(ids, -distances if metric.higher_is_better else distances, numbers, rows)


def at_least(hits: Winners, min_score: float, metric: Metric) -> Winners:
    """The hits whose score is at least as good as ``min_score``, compared in double precision."""
    wide = hits.scores.astype(np.float64)
    kept = int(np.count_nonzero(wide >= min_score if metric.higher_is_better else wide <= min_score))
    if kept == len(hits.ids):
        return hits
    return Winners(hits.ids[:kept], hits.scores[:kept], hits.parts[:kept], hits.rows[:kept])


def _ids(parts: Sequence[Part], numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> list[str]:
    """Ids of rows of several parts, each part asked once."""
    ids = [""] * len(rows)
    for number in np.unique(numbers).tolist():
        places = np.flatnonzero(numbers == number)
        for place, id_ in zip(places.tolist(), parts[number].ids(rows[places]), strict=True):
            ids[place] = id_
    return ids
