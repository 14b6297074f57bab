"""Measures what recall an index has at which width, on its own segment's vectors, for ``target_recall``.

Queries. A row of the index is no fair query, even if it is left out of its own answer: its links (or its cell) lead
straight to its neighbours. So rows are drawn and moved by noise in a random direction, whose length is a part of the
distance at which rows lie from each other (``NOISE``; less where more neighbours are asked for). Measured on 384-d text
embeddings (20,000 and 100,000 rows, HNSW): at the widths where 500 unseen queries find 0.90, 0.95 and 0.99 of 10
neighbours, rows left out of their own answers find 0.96 to 0.99, and moved rows what the unseen ones do, within 0.01.

What is run is the executor's own search, with its probes, retries and fallbacks, so that the figures are those of real
searches. Recorded is the mean recall less 1.5 times its standard error. What several of the curves have in common is
done once: the exact search (``_Truth``), and the walks that are not told of a filter (``_Walks``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import copy
from time import thread_time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from vectordb.errors import DeadlineExceeded
from vectordb.index import calibration
from vectordb.index.base import BuildCancelled, Neighbours, capabilities_of
from vectordb.index.calibration import Calibration, Curve, Point
from vectordb.metadata import rowset
from vectordb.metadata.estimate import Estimate
from vectordb.metric import Metric, prepared
from vectordb.query import exact, indexed, parallel, planner, widths
from vectordb.query.deadline import Deadline
from vectordb.query.planner import Ask, PartFacts, Step, Way
from vectordb.query.run import Report, Run
from vectordb.query.spec import SearchSpec
from vectordb.segments.selection import Selection
from vectordb.types import FilterMode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.index.base import Capabilities, Params, VectorIndex
    from vectordb.query.merge import Found
    from vectordb.segments.part import Part

LEAST_ROWS = 4_096
"""Smaller parts are not calibrated: an exact search of them takes no longer than a careful one of an index."""
SHARES = (1.0, 0.5, 0.2, 0.1, 0.01, 0.001)
QUERIES = {10: 192, 100: 48}
"""By limit. Their mean recall has a standard error of about 0.007 at 0.95 and 0.003 at 0.99."""
DOUBT = 1.5
"""Standard errors by which the measured mean is taken to be too high."""
NOISE = {10: 1.0, 100: 0.5}
"""By limit, in median distances between rows."""
STEPS = 12
STEP = 1.5
"""A ladder of widths goes up by powers of this, the same ones in all curves. It ends at 86 times the narrowest ..."""
LEAST_STEP = 1.25
"""... and begins where the widths that can be asked for do: from there to the next power it is this much at least."""
ENOUGH = 0.994
"""... or where so much is found; a higher target is kept by exact search."""
OVERSAMPLINGS = (1.0, 2.0, 4.0)
"""Times the kind's own."""
DEEPEST = 0.1
"""One exact search finds the true neighbours among shares of the rows down to this one."""
KEPT_WIDTH = 4_096
"""Walks of a greater width are not kept: at that one they take 9 MB."""
BUDGET_SECONDS = 20.0
"""Of processor time. What is not measured by then stays unknown, and is searched exactly under a target."""

_WAYS = {calibration.ALL: Way.INDEX, calibration.WITHIN: Way.INDEX_FILTERED, calibration.AFTER: Way.INDEX_POST}
_MODES = {calibration.ALL: FilterMode.AUTO, calibration.WITHIN: FilterMode.IN, calibration.AFTER: FilterMode.POST}


class _Walks:
    """The index of a part whose width is a beam. What it finds at a width without being told of a filter is kept: the
    beam goes the same way whatever share of the rows matches and however many candidates are wanted of it. Thread-safe.
    """

    def __init__(self, index: VectorIndex, width: str) -> None:
        self._index = index
        self._width = width
        self._kept: dict[tuple[int, bytes], tuple[NDArray[np.int64], NDArray[np.float32]]] = {}

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`; ``scored`` counts what was walked anew."""
        width = int(params[self._width]) if params else 0
        if allowed is not None or not limit <= width <= KEPT_WIDTH:
            return self._index.search(queries, limit, allowed=allowed, params=params)
        keys = [(width, query.tobytes()) for query in queries]
        missing = [place for place, key in enumerate(keys) if key not in self._kept]
        scored = 0
        if missing:
            found = self._index.search(queries[missing], width, params=params)
            scored = found.scored
            for place, rows, distances in zip(missing, found.rows, found.distances, strict=True):
                self._kept[keys[place]] = rows, distances
        kept = [self._kept[key] for key in keys]
        rows = np.stack([rows[:limit] for rows, _ in kept])
        return Neighbours(rows, np.stack([distances[:limit] for _, distances in kept]), scored)


class _Subject(NamedTuple):
    """What is calibrated: an indexed part, its metric, queries float32[q, d] by limit, threads to search them with, and
    the calling thread's clock to end by."""

    part: Part
    capabilities: Capabilities
    metric: Metric
    queries: dict[int, NDArray[np.float32]]
    cancelled: Deadline
    threads: int
    until: float

    def search(self, limit: int, search: Callable[[Run], Report], depth: int | None = None) -> list[list[Found]]:
        """What is found by each query of a limit, searched for so many or for ``depth`` rows."""
        spec = SearchSpec(limit if depth is None else depth, metric=self.metric)
        run = Run([self.part], self.queries[limit], spec, self.cancelled)

        def found_by(run: Run) -> list[list[Found]]:
            search(run)
            return run.found

        each = -(-len(run.queries) // self.threads)
        some = parallel.over_queries(run, parallel.Sizes(each, each), found_by)
        return [found for founds in some for found in founds]


def calibrate(part: Part, metric: Metric, cancelled: Callable[[], bool], threads: int = 1) -> Calibration | None:
    """The calibration of a part's index; None where it needs none (exact, or few rows).

    Takes a few seconds of one thread at 100,000 rows, at most about ``BUDGET_SECONDS`` of the calling one; with more
    ``threads`` the others are those that search batches. The same index gives the same
    calibration, unless time ran out.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    if part.index is None or part.kind is None:
        return None
    capabilities = capabilities_of(part.index, part.kind)
    if capabilities.exact or part.vector_count - part.dead < LEAST_ROWS:
        return None
    if capabilities.width is not None and capabilities.has_beam:
        walks = _Walks(part.index, capabilities.width)
        part = copy(part)
        # Nothing but searches is asked of it here.
        part.index = cast("VectorIndex", walks)
    rng = np.random.default_rng(0)
    living = _living(part)
    queries = {limit: _queries(part, living, metric, (limit, rng)) for limit in QUERIES}
    deadline = Deadline(cancelled=cancelled)
    subject = _Subject(part, capabilities, metric, queries, deadline, threads, thread_time() + BUDGET_SECONDS)
    try:
        return Calibration(tuple(_curves(subject, living, rng)))
    except DeadlineExceeded:
        raise BuildCancelled from None


def _living(part: Part) -> NDArray[np.int64]:
    """Living rows with a vector, ascending."""
    rows = part.rows_of(np.arange(part.vector_count, dtype=np.int64))
    return rows[part.alive(rows)] if part.dead else rows


def _queries(
    part: Part, living: NDArray[np.int64], metric: Metric, wanted: tuple[int, np.random.Generator]
) -> NDArray[np.float32]:
    limit, rng = wanted
    rows = rng.choice(living, QUERIES[limit], replace=False)
    vectors, others = part.vectors_at(rows), part.vectors_at(rng.permutation(rows))
    apart = np.linalg.norm(vectors - others, axis=1)
    length = NOISE[limit] * float(np.median(apart[apart > 0.0])) if (apart > 0.0).any() else 0.0
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    noise *= np.float32(length) / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.ascontiguousarray(prepared(vectors + noise, metric), dtype=np.float32)


def _curves(subject: _Subject, living: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Curve]:
    truths = {limit: _Truth(subject, limit) for limit in QUERIES}
    for share in SHARES:
        count = round(share * len(living))
        if count == 0 or thread_time() > subject.until:
            continue
        selection = None if share == 1.0 else _chosen(rng.choice(living, count, replace=False))
        ways = (calibration.ALL,) if selection is None else (calibration.WITHIN, calibration.AFTER)
        for limit in QUERIES:
            cuts: NDArray[np.float32] | None = None
            for way in ways:
                ladder = list(_ladder(subject, selection, way, limit))
                if ladder and cuts is None:
                    cuts = truths[limit].cuts(selection)
                points = () if cuts is None else _points(subject, selection, ladder, (limit, cuts))
                if points:
                    yield Curve(way, share, limit, points)


def _chosen(rows: NDArray[np.int64]) -> Selection:
    return Selection(rowset.from_rows(np.sort(rows)), len(rows), len(rows))


def _facts(subject: _Subject, selection: Selection | None) -> PartFacts:
    part, count = subject.part, 0 if selection is None else len(selection)
    estimate = None if selection is None else Estimate(count, count, count)
    dim = next(iter(subject.queries.values())).shape[1]
    return PartFacts(
        part.rows, part.dead, part.vector_count, dim, subject.capabilities, estimate, selection is not None
    )


def _ladder(subject: _Subject, selection: Selection | None, way: str, limit: int) -> Iterator[list[tuple[float, Step]]]:
    """For each oversampling the steps by ascending width; none where the planner would not go that way."""
    capabilities, facts = subject.capabilities, _facts(subject, selection)
    high = None if capabilities.width is None else capabilities.search_params[capabilities.width].high
    adjustable = widths.OVERSAMPLING in capabilities.search_params
    for factor in OVERSAMPLINGS if adjustable else (1.0,):
        oversampling = capabilities.oversampling * factor
        steps: list[tuple[float, Step]] = []
        # Under a filter a beam narrower than this would only be widened by the executor.
        width = (
            1 if selection is None else math.ceil(limit * facts.vectors / len(selection) * capabilities.width_per_row)
        )
        for _ in range(STEPS if capabilities.width is not None else 1):
            params: dict[str, Any] = {} if capabilities.width is None else {capabilities.width: width}
            if adjustable:
                params[widths.OVERSAMPLING] = oversampling
            step = planner.plan(facts, Ask(limit, _MODES[way], params=params))
            if step.way is not _WAYS[way]:
                break
            if steps and step.params == steps[-1][1].params:
                break
            steps.append((oversampling, step))
            # The narrowest is what spans the candidates.
            width = _next_width(widths.width_of(capabilities, step.params) or 1)
            width = width if high is None else min(width, int(high))
        if steps:
            yield steps


def _next_width(width: int) -> int:
    """The first power of ``STEP`` that is ``LEAST_STEP`` times as wide, and wider by one at least."""
    least = max(width + 1, LEAST_STEP * width)
    return math.ceil(STEP ** math.ceil(math.log(least, STEP)))


def _points(
    subject: _Subject, selection: Selection | None, ladder: list[list[tuple[float, Step]]], truth: tuple[int, Any]
) -> tuple[Point, ...]:
    """Measures each step of each ladder, until one finds nearly everything or the time is over."""
    points: list[Point] = []
    for steps in ladder:
        best = 0.0
        for oversampling, step in steps:
            if thread_time() > subject.until:
                return tuple(points)
            recall = _recall(subject, selection, step, truth)
            best = max(best, recall)
            points.append(Point(widths.width_of(subject.capabilities, step.params), oversampling, round(best, 4)))
            if best >= ENOUGH:
                break
    return tuple(points)


def _recall(subject: _Subject, selection: Selection | None, step: Step, truth: tuple[int, Any]) -> float:
    """Mean recall, less what chance may have added."""
    limit, cuts = truth
    facts = _facts(subject, selection)
    all_found = subject.search(limit, lambda run: indexed.search(run, 0, facts, step, selection))
    wanted = limit if selection is None else min(limit, len(selection))
    hits = np.array(
        [
            0 if not found else min(wanted, int(np.count_nonzero(found[-1].distances <= cut)))
            for found, cut in zip(all_found, cuts, strict=True)
        ]
    )
    recalls = hits / wanted
    return float(recalls.mean() - DOUBT * recalls.std() / np.sqrt(len(recalls)))


class _Truth:
    """For each query of a limit the exact distance of its last true neighbour among whatever rows are chosen.

    One search of all rows goes so deep that enough of what it finds are among any tenth of them that is drawn at
    random. Fewer rows are searched by themselves, and so are those among which, by chance, it found too few.
    """

    def __init__(self, subject: _Subject, limit: int) -> None:
        self._subject = subject
        self._limit = limit
        self._nearest: list[Found] = []

    def cuts(self, selection: Selection | None) -> NDArray[np.float32]:
        """float32[q], of all living rows or the chosen ones."""
        part, limit = self._subject.part, self._limit
        if selection is not None and len(selection) + 1 < DEEPEST * (part.vector_count - part.dead):
            return self._searched(selection)
        if not self._nearest:
            # Of so many a tenth, less four standard deviations, is the limit.
            depth = math.ceil((limit + 4.0 * math.sqrt(limit) + 16.0) / DEEPEST)
            all_found = self._subject.search(limit, lambda run: exact.report(run, 0, None), depth)
            self._nearest = [found[0] for found in all_found]
        if selection is None:
            return np.array([found.distances[:limit][-1] for found in self._nearest], np.float32)
        chosen = rowset.to_mask(selection.matches, part.rows)
        found = [nearest.distances[chosen[nearest.rows]][:limit] for nearest in self._nearest]
        if min(map(len, found)) < min(limit, len(selection)):
            return self._searched(selection)
        return np.array([distances[-1] for distances in found], np.float32)

    def _searched(self, selection: Selection) -> NDArray[np.float32]:
        limit = self._limit
        all_found = self._subject.search(limit, lambda run: exact.report(run, 0, selection))
        return np.array([found[0].distances[:limit][-1] for found in all_found], np.float32)
