"""What the optimizer does next, as a pure function of the segments' sizes.

Merging is tiered: segments of one size class, side by side, are merged once there are ``merge_factor`` of them, so that
a row is rewritten about log(n) times. A segment with many dead rows is rewritten alone. Only neighbours are merged:
every segment covers one range of offsets. What waits for merging soon is merged before it is indexed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from vectordb.types import Tuning

REWRITE_DEAD = 0.20
"""A segment with at least this share of dead rows is rewritten in the background; a row is then rewritten once for at
least four deletions."""
REWRITE_DEAD_ASKED = 0.01
"""The same where the user asked for ``optimize``."""
REWRITE_OVERLAID = 0.20
"""A segment with at least this share of changed payloads gets new postings in the background."""
LEAST_REPLACEMENTS = 4_096
"""So does one with as many replacements of the same few payloads, which are kept in memory one by one, but not before
there are so many: a small segment would be rewritten all the time."""


class Facts(NamedTuple):
    """What the policy knows of a segment: raw vector bytes (as if every row had a vector), rows, dead rows, rows with
    a changed payload, whether it still wants an index, whether a running reindex needs it to stay as it is, and how
    often a payload was replaced."""

    bytes: int
    rows: int
    dead: int
    overlaid: int
    wants_index: bool
    held: bool = False
    replacements: int = 0

    @property
    def is_worn(self) -> bool:
        """Whether enough has changed for it to be rewritten alone, in the background."""
        if not self.rows:
            return False
        most = REWRITE_OVERLAID * self.rows
        return (
            self.dead >= REWRITE_DEAD * self.rows
            or self.overlaid >= most
            or self.replacements >= max(most, LEAST_REPLACEMENTS)
        )


class Merge(NamedTuple):
    """Rewrite the segments ``start..stop-1`` as one."""

    start: int
    stop: int


class Index(NamedTuple):
    """Build the index of one segment."""

    at: int


Job = Merge | Index


def next_job(segments: Sequence[Facts], tuning: Tuning, *, asked: bool, erase: bool = False) -> Job | None:
    """The most useful job, or None when all is well.

    Args:
        segments: In offset order.
        asked: The user called ``optimize``: as few segments as ``max_segment_bytes`` allows, hardly any dead rows.
        erase: No dead row and no replaced payload may stay in any segment.
    """
    for start, free in _free(segments):
        unclean = [i for i, s in enumerate(free) if s.dead or s.overlaid] if erase else []
        if unclean:
            return Merge(start + unclean[0], start + unclean[0] + 1)
        merge = _asked_merge(free, tuning) if asked else _tiered_merge(free, tuning)
        if merge is not None:
            return Merge(start + merge.start, start + merge.stop)
    waiting = [i for i, s in enumerate(segments) if s.wants_index]
    if waiting:
        return Index(max(waiting, key=lambda i: segments[i].bytes))
    return None


def is_wasted(job: Job, asked: Job | None, segments: Sequence[Facts], *, extends: bool) -> bool:
    """Whether what ``job`` makes would be thrown away by what is due since the user called ``optimize``.

    Args:
        job: What is going on.
        asked: What :func:`next_job` says with ``asked``, as if nothing were going on.
        segments: In offset order; there may be more of them than when ``job`` was chosen.
        extends: The index can grow: a merge keeps it if it is the first one's and over most of the rows.
    """
    start, stop = (job.start, job.stop) if isinstance(job, Merge) else (job.at, job.at + 1)
    if not isinstance(asked, Merge) or not asked.start <= start < stop <= asked.stop or (start, stop) == asked:
        return False
    mine, total = (sum(s.rows for s in segments[part]) for part in (slice(start, stop), slice(*asked)))
    return not extends or start != asked.start or 2 * mine < total


def _free(segments: Sequence[Facts]) -> Iterator[tuple[int, Sequence[Facts]]]:
    """The stretches of neighbours that may be merged, each with the place where it begins."""
    for held, group in groupby(enumerate(segments), key=lambda place: place[1].held):
        if not held:
            places = list(group)
            yield places[0][0], [facts for _, facts in places]


def _asked_merge(segments: Sequence[Facts], tuning: Tuning) -> Merge | None:
    start = 0
    while start < len(segments):
        stop, total = start, 0
        while stop < len(segments) and total + segments[stop].bytes <= tuning.max_segment_bytes:
            total += segments[stop].bytes
            stop += 1
        stop = max(stop, start + 1)
        if stop - start > 1:
            return Merge(start, stop)
        only = segments[start]
        few = max(1.0, REWRITE_DEAD_ASKED * only.rows)
        if only.dead >= few or only.overlaid >= few:
            return Merge(start, stop)
        start = stop
    return None


def _tiered_merge(segments: Sequence[Facts], tuning: Tuning) -> Merge | None:
    for i, s in enumerate(segments):
        if s.is_worn:
            return Merge(i, i + 1)
    best: Merge | None = None
    start = 0
    while start < len(segments):
        stop, total = start + 1, segments[start].bytes
        while (
            stop < len(segments)
            and stop - start < tuning.merge_factor
            and _size_class(segments[stop], tuning) == _size_class(segments[start], tuning)
            and total + segments[stop].bytes <= tuning.max_segment_bytes
        ):
            total += segments[stop].bytes
            stop += 1
        if stop - start >= tuning.merge_factor:
            # The cheapest first: small segments cost every search the most for their size.
            if best is None or total < sum(s.bytes for s in segments[best.start : best.stop]):
                best = Merge(start, stop)
            start = stop
        else:
            start += 1
    return best if best is not None else _stranded(segments, tuning)


def _stranded(segments: Sequence[Facts], tuning: Tuning) -> Merge | None:
    """Segments of mixed classes never fill a class: where there are many that can still grow, the cheapest neighbours
    are merged that make a segment at least twice as large as each of them.

    Without that bound a large segment would be rewritten for every few small ones beside it. With it a row is rewritten
    at most log2(n) times, and what it leaves alone is a falling row of sizes, of which there are few.
    """
    most = 2 * tuning.merge_factor
    if sum(2 * s.bytes <= tuning.max_segment_bytes for s in segments) <= most:
        return None
    best, least = None, tuning.max_segment_bytes + 1
    for start in range(len(segments)):
        total = largest = 0
        for stop in range(start + 1, min(start + most, len(segments)) + 1):
            total += segments[stop - 1].bytes
            largest = max(largest, segments[stop - 1].bytes)
            if total >= least:
                break
            if stop - start > 1 and total >= 2 * largest:
                best, least = Merge(start, stop), total
    return best


def _size_class(segment: Facts, tuning: Tuning) -> int:
    """0 up to ``seal_bytes`` times 1.5, then one more for each factor of ``merge_factor``."""
    return max(0, math.ceil(math.log(max(segment.bytes / (1.5 * tuning.seal_bytes), 1e-9), tuning.merge_factor)))
