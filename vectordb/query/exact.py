"""Exact search of one part, in blocks: all rows, or given ones.

Exact means: the hits are those that sorting all rows by (final score, id) would give, ties at the cut included. The
native scan of a block in single precision yields a superset (``vectordb.index.exact`` widens the cut by its rounding
error); the final scores of those few decide. Nothing depends on how rows fall into blocks or queries into batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.index.exact import Candidates, exact_candidates, merged, nearer, picked_candidates, readable_in_place
from vectordb.metadata import rowset
from vectordb.metric import Metric
from vectordb.query.merge import Found, nearest
from vectordb.query.run import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.query.run import Run
    from vectordb.segments.part import Part
    from vectordb.segments.selection import Selection

BLOCK_BYTES = 16 << 20
"""Vectors between two looks at the deadline: about 0.7 ms for one query."""

GATHER_BYTES = 4 << 20
"""The same for rows that are picked out, which costs four times as much; the copy fits a cache."""

IN_PLACE_BYTES = 16 << 20
"""The same for rows that are picked out and read where they lie: about 0.6 ms for one query."""

QUERIES = 32
"""Queries between two looks at the deadline: one matrix product of 6 ms with a block of 16 MB."""

QUERIES_L1 = 4
"""The same under L1, which no matrix product speeds up."""

SHORT_SECONDS = 0.2
FINER = 4
"""With less time left than this, blocks are so many times smaller and queries so many times fewer: 0.4 ms of work
instead of 6, at a tenth more of it."""

FEW_ROWS = 192
"""Up to so many rows of a filter one query looks at without the machinery of blocks."""

MANY = 64
"""More rows than this are compared in single precision where they lie before those that are left get their scores:
of 190 rows, 29 us instead of 64."""

COPIED_TOGETHER = 1_000
"""From so many copied rows on the queries of a batch, too, are answered from the copy, one after the other: below, a
matrix of all distances takes less than the calls."""

FEW_DEAD = 32
"""Up to so many dead rows in a block are over-fetched and dropped; beyond it the living are copied out."""


class Scan(NamedTuple):
    """What a scan did: rows compared (all queries together), and the share of the rows that it came to look at."""

    scored: int
    fraction: float


class _Stretch(NamedTuple):
    """Vectors to compare at once.

    Attributes:
        rows: int64[m], the row of each; ``None`` where the i-th is row ``first_row + i``.
        dead: How many of the rows are dead, to be over-fetched and dropped.
        covered: Rows of the part that are done with this stretch, for the fraction searched.
        positions: int64[m]: only these of the vectors are compared; ``rows`` are theirs. ``None`` for all.
    """

    vectors: NDArray[np.float32]
    rows: NDArray[np.int64] | None
    first_row: int
    dead: int
    covered: int
    positions: NDArray[np.int64] | None = None


def scan(run: Run, number: int, selection: Selection | None, chosen: Sequence[int] | None = None) -> Scan:
    """Adds the nearest rows of the chosen queries to ``run.found``, in place of what an index found in that part.

    Args:
        selection: Rows to compare; ``None`` for all that are alive and have a vector.
        chosen: Numbers of queries; ``None`` for all.
    """
    part = run.parts[number]
    if chosen is None:
        chosen = range(len(run.queries))
    asked = len(chosen)
    if selection is not None:
        chosen = _unanswered(run, number, selection, chosen)
        if not chosen:
            return Scan(asked * len(selection), 1.0)
    finer = FINER if run.deadline.remaining() < SHORT_SECONDS else 1
    step = (QUERIES_L1 if run.spec.metric is Metric.L1 else QUERIES) // finer
    slices = [chosen[first : first + step] for first in range(0, len(chosen), step)]
    rows = None if selection is None else selection.rows()
    if rows is not None and len(rows) < part.vector_count:
        in_place = part.in_place(rows) if readable_in_place(len(chosen), run.spec.metric) else None
        total, stretches = len(rows), _picked(part, rows, run.queries.shape[1] * 4 * finer, in_place)
    else:
        total, stretches = part.vector_count, _all(part, BLOCK_BYTES // finer)
    pools: list[list[Candidates]] = [[] for _ in slices]
    passed = compared = 0
    complete = True
    for stretch in stretches:
        for numbers, pool in zip(slices, pools, strict=True):
            if run.expired():
                complete = False
                break
            found = _compare(run, part, stretch, numbers)
            compared += found.scored
            passed += stretch.covered * len(numbers)
            pool.append(found)
            if len(pool) > 1 and sum(c.rows.shape[1] for c in pool) > 8 * run.limit + 512:
                pool[:] = [merged(pool, run.limit)]
        if not complete:
            break
    for numbers, pool in zip(slices, pools, strict=True):
        _settle(run, number, numbers, pool, complete)
    done = asked - len(chosen)
    if done and selection is not None:
        compared += done * len(selection)
    return Scan(compared, 1.0 if complete else (done + passed / total) / asked)


def report(run: Run, number: int, selection: Selection | None) -> Report:
    """:func:`scan` for all queries, and how it went."""
    found = Report()
    found.scored, found.fraction = scan(run, number, selection)
    return found


_Scored = tuple["NDArray[np.int64]", "NDArray[np.float32]"]


def _unanswered(run: Run, number: int, selection: Selection, chosen: Sequence[int]) -> Sequence[int]:
    """Answers queries one by one where that is the shortest way, and returns the others."""
    alone = len(chosen) == 1
    if not alone and (selection.copied is None or len(selection) < COPIED_TOGETHER):
        return chosen
    left: list[int] = []
    for place, query in enumerate(chosen):
        if run.expired():
            return [*left, *chosen[place:]]
        scored = _copied(run, number, query, selection) or (_few(run, number, query, selection) if alone else None)
        if scored is None:
            left.append(query)
        else:
            _put(run, number, query, *scored)
    return left


def _copied(run: Run, number: int, query: int, selection: Selection) -> _Scored | None:
    """Rows among which the nearest are, from their copy, and final distances; ``None`` where no copy tells."""
    if selection.copied is None:
        return None
    part = run.parts[number]
    vectors, dead = selection.copied
    return vectors.nearest(
        run.queries[query], run.limit, dead, lambda rows: run.final_distances(query, part.vectors_at(rows))
    )


def _few(run: Run, number: int, query: int, selection: Selection) -> _Scored | None:
    """The same of rows so few that no scan is worth its calls."""
    if not 0 < len(selection) <= FEW_ROWS:
        return None
    rows, part = selection.rows(), run.parts[number]
    if len(rows) > MANY:
        rows = _nearer(run, number, query, rows)
    return rows, run.final_distances(query, part.vectors_at(rows))


def _nearer(run: Run, number: int, query: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the rows that can be among the nearest, where that is cheap to say."""
    metric = run.spec.metric
    place = run.parts[number].in_place(rows) if readable_in_place(1, metric) and len(rows) > run.limit else None
    if place is None:
        return rows
    return rows[nearer(run.queries[query], *place, run.limit, metric)]


def _picked(
    part: Part,
    rows: NDArray[np.int64],
    row_bytes: int,
    in_place: tuple[NDArray[np.float32], NDArray[np.int64]] | None,
) -> Iterator[_Stretch]:
    """Given rows in pieces, read in place or copied out. ``row_bytes``: of one row, or more for smaller pieces."""
    if in_place is not None:
        matrix, positions = in_place
        count = max(1, IN_PLACE_BYTES // row_bytes)
        for first in range(0, len(rows), count):
            piece = rows[first : first + count]
            yield _Stretch(matrix, piece, 0, 0, len(piece), positions[first : first + count])
        return
    count = max(1, GATHER_BYTES // row_bytes)
    for first in range(0, len(rows), count):
        piece = rows[first : first + count]
        yield _Stretch(part.vectors_at(piece), piece, 0, 0, len(piece))


def _all(part: Part, block_bytes: int) -> Iterator[_Stretch]:
    """All rows with a vector; where many of a block are dead, the living ones copied out."""
    dead = rowset.to_rows(part.dead_rows()) if part.dead else None
    for vectors, rows, first_row in part.blocks(block_bytes):
        n = len(vectors)
        if dead is None:
            yield _Stretch(vectors, rows, first_row, 0, n)
            continue
        if rows is None:
            low, high = dead.searchsorted((first_row, first_row + n)).tolist()
            places = dead[low:high] - first_row
        else:
            places = np.flatnonzero(~part.alive(rows))
        if len(places) <= FEW_DEAD:
            yield _Stretch(vectors, rows, first_row, len(places), n)
        elif len(places) < n:
            living = np.delete(np.arange(n, dtype=np.int64), places)
            yield _Stretch(vectors[living], living + first_row if rows is None else rows[living], 0, 0, n)


def _compare(run: Run, part: Part, stretch: _Stretch, numbers: Sequence[int]) -> Candidates:
    """The candidates of some queries in one stretch, by row; dead ones made padding."""
    queries = run.queries if len(numbers) == len(run.queries) else run.queries[np.asarray(numbers)]
    metric = run.spec.metric
    if stretch.positions is None:
        found = exact_candidates(queries, stretch.vectors, run.limit + stretch.dead, metric)
    else:
        found = picked_candidates(queries, stretch.vectors, stretch.positions, run.limit, metric)
    positions = found.rows
    rows = positions + stretch.first_row if stretch.rows is None else stretch.rows[positions]
    if positions.min(initial=0) < 0:
        rows = np.where(positions < 0, -1, rows)
    if not stretch.dead:
        return found._replace(rows=rows)
    real = rows >= 0
    gone = np.zeros(rows.shape, np.bool_)
    gone[real] = ~part.alive(rows[real])
    return found._replace(rows=np.where(gone, -1, rows), distances=np.where(gone, np.float32(np.inf), found.distances))


def _settle(run: Run, number: int, numbers: Sequence[int], pool: list[Candidates], complete: bool) -> None:
    """Scores the candidates of some queries finally and puts the best among those found."""
    if not pool:
        return
    candidates = pool[0] if len(pool) == 1 else merged(pool, run.limit)
    for query, rows in zip(numbers, candidates.rows, strict=True):
        if rows.min(initial=0) < 0:
            rows = rows[rows >= 0]
        if len(rows) == 0:
            continue
        _settle_rows(run, number, query, rows, complete)


def _settle_rows(run: Run, number: int, query: int, rows: NDArray[np.int64], complete: bool) -> None:
    _put(run, number, query, rows, run.final_distances(query, run.parts[number].vectors_at(rows)), complete)


def _put(
    run: Run,
    number: int,
    query: int,
    rows: NDArray[np.int64],
    distances: NDArray[np.float32],
    complete: bool = True,
) -> None:
    order = nearest(distances, run.limit)
    found = Found(number, rows[order], distances[order])
    run.put(query, found if complete else _joined(run, query, found))


def _joined(run: Run, query: int, found: Found) -> Found:
    """An unfinished scan's rows together with those that an index had found in the same part before."""
    entries = run.found[query]
    if not entries or entries[-1].part != found.part:
        return found
    rows, places = np.unique(np.concatenate([entries[-1].rows, found.rows]), return_index=True)
    distances = np.concatenate([entries[-1].distances, found.distances])[places]
    order = distances.argsort(kind="stable")
    return Found(found.part, rows[order], distances[order])
