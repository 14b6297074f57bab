"""Keyword search over the parts of one snapshot: count, weigh, score, merge, all under one deadline.

Two passes over the units of a query. The first finds the postings of each unit in each part, without its dead rows, and
adds up how many records have it: only then is its weight known. The second scores, a block of rows at a time. A filter
narrows what is scored and never what is counted, so that a record's score does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.metadata import rowset
from vectordb.metric import Metric
from vectordb.query import merge
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.merge import Found, nearest
from vectordb.query.spec import Outcome, SearchSpec, Winners
from vectordb.results import Plan, SegmentPlan
from vectordb.text import bm25
from vectordb.text.bm25 import Totals, Weighted
from vectordb.text.match import Postings, postings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.segments.part import Part
    from vectordb.text.index import Piece
    from vectordb.text.query import TextQuery

DEADLINE = "deadline"
TEXT = "text"
BLOCK_ROWS = 1 << 18
"""Rows scored between two looks at the deadline: at most 10 ms for a query of ten common words."""
BETTER = Metric.DOT
"""Scores here are like inner products: higher is better."""


class _Place(NamedTuple):
    """A piece of a part, and in it the postings of every unit of one query, without dead rows."""

    piece: Piece
    units: list[Postings]


class _TimeUp(Exception):
    """The deadline passed inside a slice of work."""


def execute_text(
    parts: Sequence[Part], queries: Sequence[TextQuery], spec: SearchSpec, deadline: Deadline = NO_DEADLINE
) -> Outcome:
    """The best records of each query by BM25.

    Args:
        parts: One snapshot's segments and tail; no id is alive in two of them.
        spec: ``limit``, ``where``, ``min_score`` (a bound of the keyword score) and ``allow_partial`` count.

    Returns:
        For each query ``min(limit, living matches)`` winners, fewer only by ``min_score`` or past the deadline.

    Raises:
        DeadlineExceeded: The time ran out and ``spec.allow_partial`` is false, or the caller went away.

    Thread-safe: all state is the call's own.
    """
    started = perf_counter()
    run = _Run(parts, spec, deadline)
    winners = [run.search(query) for query in queries]
    timings = {TEXT: (perf_counter() - started) * 1e3}
    plans = tuple(run.plan(number) for number in range(len(parts)))
    outcome = Outcome(winners, Plan(plans, spec.filter_mode, spec.version, timings))
    if run.incomplete:
        outcome.incomplete_reason = DEADLINE
        outcome.searched_fraction = run.searched / max(1, len(queries) * sum(part.rows for part in parts))
    return outcome


def explain_text(parts: Sequence[Part], queries: Sequence[TextQuery], spec: SearchSpec) -> tuple[SegmentPlan, ...]:
    """How each part would be searched, without scoring anything: ``estimated`` is a bound of the rows that match."""
    plans = []
    filtered = spec.where is not None
    for part in parts:
        likely = 0
        for piece in part.text(_no_poll):
            likely += sum(len(postings(unit, piece).rows) for query in queries for unit in query.units)
        if likely and spec.where is not None:
            likely = min(likely, part.estimate(spec.where).expected)
        strategy = TEXT if likely else "empty"
        plans.append(SegmentPlan(part.name, strategy, part.rows, min(likely, part.rows - part.dead), filtered=filtered))
    return tuple(plans)


class _Run:
    """One call of :func:`execute_text`. Used by one thread."""

    def __init__(self, parts: Sequence[Part], spec: SearchSpec, deadline: Deadline) -> None:
        self.parts = parts
        self.spec = spec
        self.incomplete = False
        self.searched = 0
        self._deadline = deadline
        self._matched = [0] * len(parts)
        self._scored = [0] * len(parts)
        self._likely = [0] * len(parts)
        self._skipped = [0] * len(parts)
        self._allowed: dict[int, NDArray[np.bool_]] = {}

    def search(self, query: TextQuery) -> Winners:
        """The winners of one query, as far as the time allows."""
        found: list[Found] = []
        done = 0
        try:
            if not self.incomplete:
                places, counts, totals = self._counted(query)
                weights = [bm25.weight(totals, n, times) for n, times in zip(counts, query.counts, strict=True)]
                for number in range(len(self.parts)):
                    for place in places[number]:
                        self._score(number, place, weights, totals, found)
                    self.searched += self.parts[number].rows
                    done += 1
        except _TimeUp:
            if not self.spec.allow_partial or self._deadline.cancelled():
                raise self._deadline.error() from None
            self.incomplete = True
        for number in range(done, len(self.parts)):
            self._skipped[number] += 1
        winners = merge.winners(found, self.parts, self.spec.limit, BETTER)
        return winners if self.spec.min_score is None else merge.at_least(winners, self.spec.min_score, BETTER)

    def plan(self, number: int) -> SegmentPlan:
        """How one part was searched, all queries together."""
        part = self.parts[number]
        strategy = "skipped" if self._skipped[number] else TEXT if self._likely[number] else "empty"
        return SegmentPlan(
            part.name,
            strategy,
            part.rows,
            min(self._likely[number], part.rows - part.dead),
            None if self._skipped[number] else self._matched[number],
            self._scored[number],
            filtered=self.spec.where is not None,
        )

    def _poll(self) -> None:
        if self._deadline.expired():
            raise _TimeUp

    def _counted(self, query: TextQuery) -> tuple[list[list[_Place]], list[int], Totals]:
        """The first pass: postings by part and piece, living records by unit, and the totals of the snapshot."""
        places: list[list[_Place]] = []
        counts = [0] * len(query.units)
        documents = length = 0
        for number, part in enumerate(self.parts):
            self._poll()
            pieces = part.text(self._poll)
            more = part.text_totals(self._poll)
            documents, length = documents + more.documents, length + more.length
            here = []
            for piece in pieces:
                units = []
                for unit in query.units:
                    self._poll()
                    units.append(_living(part, piece, postings(unit, piece)))
                sizes = [len(unit.rows) for unit in units]
                counts = [a + b for a, b in zip(counts, sizes, strict=True)]
                self._likely[number] += sum(sizes)
                here.append(_Place(piece, units))
            places.append(here)
        return places, counts, Totals(documents, length)

    def _score(self, number: int, place: _Place, weights: Sequence[float], totals: Totals, found: list[Found]) -> None:
        """The second pass over one piece: adds the best rows of each block to ``found``."""
        piece = place.piece
        units = [Weighted(at, weight) for at, weight in zip(place.units, weights, strict=True) if len(at.rows)]
        if not units:
            return
        average = totals.length / totals.documents
        for first, block in _blocks(units, piece.rows):
            self._poll()
            lengths = piece.text.arrays.lengths[first : min(first + BLOCK_ROWS, piece.rows)]
            rows, scores = bm25.scored(block, lengths, average)
            self._scored[number] += len(rows)
            rows += piece.start + first
            if self.spec.where is not None:
                passed = self._mask(number)[rows]
                rows, scores = rows[passed], scores[passed]
            self._matched[number] += len(rows)
            if len(rows):
                distances = -scores
                order = nearest(distances, self.spec.limit)
                found.append(Found(number, rows[order], distances[order]))

    def _mask(self, number: int) -> NDArray[np.bool_]:
        """Which rows of a part meet the filter, dead ones included."""
        mask = self._allowed.get(number)
        if mask is None:
            part = self.parts[number]
            assert self.spec.where is not None
            mask = self._allowed[number] = rowset.to_mask(part.matching(self.spec.where), part.rows)
        return mask


def _living(part: Part, piece: Piece, found: Postings) -> Postings:
    """The postings without those of dead rows."""
    if not part.dead or not len(found.rows):
        return found
    alive = part.alive(found.rows.astype(np.int64) + piece.start)
    return found if alive.all() else Postings(found.rows[alive], found.frequencies[alive])


def _blocks(units: Sequence[Weighted], rows: int) -> Iterator[tuple[int, Sequence[Weighted]]]:
    """Postings cut into blocks of rows: the first row of each, and the postings counted from it."""
    if rows <= BLOCK_ROWS:
        yield 0, units
        return
    cuts = np.arange(0, rows + BLOCK_ROWS, BLOCK_ROWS)
    places = [np.searchsorted(unit.postings.rows, cuts).tolist() for unit in units]
    for i, first in enumerate(cuts[:-1].tolist()):
        block = []
        for unit, bounds in zip(units, places, strict=True):
            here = slice(bounds[i], bounds[i + 1])
            at = Postings(unit.postings.rows[here] - first, unit.postings.frequencies[here])
            block.append(Weighted(at, unit.weight))
        yield first, block


def _no_poll() -> None:
    """Explaining has no deadline: it searches nothing."""
