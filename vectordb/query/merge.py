"""Candidates into winners: one order for all, (better score, then id by code point), also at the cut.

Distances here are scores turned so that smaller is closer (``vectordb.metric.distances``), already final.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
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


class Alike(NamedTuple):
    """Candidates of many queries, equally many each, all in one part.

    Attributes:
        part: The part's number.
        rows: int64[q, c], of each query ascending by distance.
        distances: float32[q, c], final.
    """

    part: int
    rows: NDArray[np.int64]
    distances: NDArray[np.float32]

    def each(self) -> Iterator[Found]:
        """Those of each query."""
        return (Found(self.part, *both) for both in zip(self.rows, self.distances, strict=True))


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


class _Cut(NamedTuple):
    """One query's best candidates, still without ids; ``numbers`` are their parts, where they are not all of ``part``.

    More than were asked for where equal scores reach past the cut.
    """

    part: int
    numbers: NDArray[np.int64] | None
    rows: NDArray[np.int64]
    distances: NDArray[np.float32]


def winners(found: Sequence[Found], parts: Sequence[Part], limit: int, metric: Metric) -> Winners:
    """The best ``limit`` of one query's candidates; no row may occur twice."""
    if not found:
        none = np.empty(0, np.int64)
        return Winners([], np.empty(0, np.float32), none, none)
    cut = _cut(found, limit)
    return _ordered(cut, _ids(parts, cut), limit, metric)


def all_winners(found: Sequence[Sequence[Found]], parts: Sequence[Part], limit: int, metric: Metric) -> list[Winners]:
    """:func:`winners` for each query. Where all were answered by one part, it is asked for the ids of all at once."""
    if len(found) == 1:
        return [winners(found[0], parts, limit, metric)]
    answering = {entries[0].part if len(entries) == 1 else None for entries in found}
    number = answering.pop()
    if answering or number is None:
        return [winners(entries, parts, limit, metric) for entries in found]
    counts = {len(entries[0].rows) for entries in found}
    if len(counts) == 1 and counts.pop() >= limit:
        rows = np.concatenate([entries[0].rows for entries in found]).reshape(len(found), -1)
        distances = np.concatenate([entries[0].distances for entries in found]).reshape(len(found), -1)
        return winners_alike(Alike(number, rows, distances), parts, limit, metric)
    cuts = [_cut(entries, limit) for entries in found]
    ids = iter(parts[number].ids(np.concatenate([cut.rows for cut in cuts])))
    return [_ordered(cut, list(islice(ids, len(cut.rows))), limit, metric) for cut in cuts]


def winners_alike(found: Alike, parts: Sequence[Part], limit: int, metric: Metric) -> list[Winners]:
    """:func:`winners` for each of many queries with at least ``limit`` candidates: all are cut at once."""
    number, rows, distances = found
    # Equal scores find their order by their ids: also those beyond the cut. They are rare.
    looked_at = distances[:, : limit + 1]
    tied = np.flatnonzero((looked_at[:, 1:] == looked_at[:, :-1]).any(axis=1)).tolist()
    scores = _scores(distances[:, :limit], metric)
    ids = parts[number].ids(rows[:, :limit].ravel())
    starts = range(0, len(ids), limit)
    numbers = np.full(limit, number, np.int64)
    all_ = [
        Winners(ids[start : start + limit], scored, numbers, mine)
        for start, scored, mine in zip(starts, scores, rows[:, :limit], strict=True)
    ]
    for query in tied:
        all_[query] = winners([Found(number, rows[query], distances[query])], parts, limit, metric)
    return all_


def _cut(found: Sequence[Found], limit: int) -> _Cut:
    if len(found) == 1:
        number, rows, distances = found[0]
        if len(rows) > limit and distances.item(limit) != distances.item(limit - 1):
            rows, distances = rows[:limit], distances[:limit]
        return _Cut(number, None, rows, distances)
    distances = np.concatenate([f.distances for f in found])
    order = nearest(distances, limit)
    numbers = np.repeat(np.array([f.part for f in found], np.int64), [len(f.rows) for f in found])[order]
    return _Cut(found[0].part, numbers, np.concatenate([f.rows for f in found])[order], distances[order])


def _ordered(cut: _Cut, ids: list[str], limit: int, metric: Metric) -> Winners:
    """The winners, with their ids at hand: equal scores find their order only now."""
    number, numbers, rows, distances = cut
    n = len(rows)
    keys = distances.tolist()
    if len(set(keys)) < n:
        by_id = sorted(range(n), key=lambda i: (keys[i], ids[i]))[:limit]
        ids = [ids[i] for i in by_id]
        order = np.array(by_id, np.int64)
        rows, distances = rows[order], distances[order]
        numbers = None if numbers is None else numbers[order]
    if numbers is None:
        numbers = np.zeros(len(rows), np.int64)
        if number:
            numbers += number
    return Winners(ids, _scores(distances, metric), numbers, rows)


def _scores(distances: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Distances turned back into scores. Not by a bare minus: a distance of zero has the one sign or the other by how
    it was computed, a score of zero never has one."""
    return np.float32(0.0) - distances if metric.higher_is_better else distances


def concatenated(hits: Sequence[Winners]) -> Winners:
    """The hits of several queries one after the other."""
    if len(hits) == 1:
        return hits[0]
    return Winners(
        [id_ for one in hits for id_ in one.ids],
        np.concatenate([one.scores for one in hits]),
        np.concatenate([one.parts for one in hits]),
        np.concatenate([one.rows for one in hits]),
    )


def at_least(hits: Winners, min_score: float, metric: Metric) -> Winners:
    """The hits whose score is at least as good as ``min_score``, compared in double precision."""
    wide = hits.scores.astype(np.float64)
    kept = int(np.count_nonzero(wide >= min_score if metric.higher_is_better else wide <= min_score))
    if kept == len(hits.ids):
        return hits
    return Winners(hits.ids[:kept], hits.scores[:kept], hits.parts[:kept], hits.rows[:kept])


def _ids(parts: Sequence[Part], cut: _Cut) -> list[str]:
    """Ids of rows of several parts, each part asked once."""
    if cut.numbers is None:
        return parts[cut.part].ids(cut.rows)
    ids = [""] * len(cut.rows)
    for number in np.unique(cut.numbers).tolist():
        places = np.flatnonzero(cut.numbers == number)
        for place, id_ in zip(places.tolist(), parts[number].ids(cut.rows[places]), strict=True):
            ids[place] = id_
    return ids
