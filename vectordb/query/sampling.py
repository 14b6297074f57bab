"""An estimate of the recall of one answer: exact search over a random sample of the rows, or over all of them.

Method. The rows that may be answers (alive, with a vector, matching the filter) are cut into blocks of neighbours in
storage, and blocks are compared with the query in random order until all are done or the time is over. A compared row
that scores better than the last hit and is no hit was missed. With ``m`` missed rows in a sampled fraction ``f``, about
``m / f`` were missed in all; the recall is the share of hits among the true ``limit`` nearest rows then, every found
missed row counting ``1 / f`` at its own place in the order.

Confidence. With all rows compared the recall is exact, and so is its lower bound. Of a sample the bound is the recall
at the upper 95 % limit of a Poisson count of ``m`` (Wilson and Hilferty's approximation): blocks are taken to be a
random sample of the missed rows, which holds where rows that lie together in storage are not alike. A sample tells
little about small limits: without any missed row in half of the rows, the bound for 10 hits is 0.63.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.index.exact import exact_candidates
from vectordb.metadata import rowset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.query.run import Run
    from vectordb.query.spec import Winners
    from vectordb.segments.part import Part

BUDGET_SECONDS = 0.25
"""Enough for three million rows of 384 dimensions."""
BLOCK_BYTES = 6 << 20
ONE_SIDED_95 = 1.645


class RecallEstimate(NamedTuple):
    """The recall of one answer, a bound below which it is with a chance of 5 %, and the share of rows compared."""

    recall: float
    low: float
    sampled: float


class _Block(NamedTuple):
    """Rows of one part to compare, int64[m]."""

    part: int
    rows: NDArray[np.int64]


def estimate(run: Run, winners: Winners, budget: float = BUDGET_SECONDS) -> RecallEstimate | None:
    """The recall of the winners of the run's only query, before ``min_score`` was applied; None if no time was left.

    Args:
        budget: Seconds; at least one block is compared. The run's deadline counts too.

    Raises:
        DeadlineExceeded: The time of the whole request is up, and no partial answer is wanted.
    """
    until = perf_counter() + budget
    blocks = list(_blocks(run))
    total = sum(len(block.rows) for block in blocks)
    wanted = min(run.limit, total)
    if wanted == 0:
        return RecallEstimate(1.0, 1.0, 1.0)
    order = np.random.default_rng(0).permutation(len(blocks)).tolist()
    compared, missed = 0, [np.empty(0, np.float32)]
    for number in order:
        if run.expired():
            break
        missed.append(_missed(run, winners, blocks[number]))
        compared += len(blocks[number].rows)
        if perf_counter() > until:
            break
    if compared == 0:
        return None
    sampled = compared / total
    found = _distances(run, winners)
    ahead = np.sort(np.concatenate(missed))
    recall = _recall(found, ahead, 1.0 / sampled, wanted)
    low = recall
    if compared < total:
        most = _upper(len(ahead))
        # Rows that may have been missed beyond those that were seen: at worst all before the first hit.
        unseen = max(0.0, most - len(ahead)) / sampled
        low = max(0.0, recall - unseen / (wanted + unseen))
    return RecallEstimate(recall, low, sampled)


def _blocks(run: Run) -> Iterator[_Block]:
    count = max(1, BLOCK_BYTES // (4 * run.queries.shape[1]))
    for number, part in enumerate(run.parts):
        rows = _eligible(part, run)
        for first in range(0, len(rows), count):
            yield _Block(number, rows[first : first + count])


def _eligible(part: Part, run: Run) -> NDArray[np.int64]:
    """Rows that may be answers, ascending."""
    if part.rows == 0 or part.vector_count == 0:
        return np.empty(0, np.int64)
    if run.spec.where is None:
        rows = part.rows_of(np.arange(part.vector_count, dtype=np.int64))
    else:
        matching = part.matching(run.spec.where)
        rows = rowset.to_rows(matching if part.vector_count == part.rows else part.with_vector(matching))
    return rows[part.alive(rows)] if part.dead else rows


def _missed(run: Run, winners: Winners, block: _Block) -> NDArray[np.float32]:
    """Final distances of the block's rows that are better than the last hit and no hits."""
    part = run.parts[block.part]
    vectors = part.vectors_at(block.rows)
    found = exact_candidates(run.queries, vectors, min(run.limit, len(vectors)), run.spec.metric)
    places = found.rows[0]
    places = places[places >= 0]
    places = places[~np.isin(block.rows[places], winners.rows[winners.parts == block.part])]
    distances = run.final_distances(0, vectors[places])
    if len(winners) < run.limit:
        return distances
    ahead: NDArray[np.float32] = distances[distances < _distances(run, winners)[-1]]
    return ahead


def _distances(run: Run, winners: Winners) -> NDArray[np.float32]:
    return -winners.scores if run.spec.metric.higher_is_better else winners.scores


def _recall(found: NDArray[np.float32], ahead: NDArray[np.float32], weight: float, wanted: int) -> float:
    """Share of hits among the nearest ``wanted`` rows, each missed row standing for ``weight`` rows at its place."""
    before = np.searchsorted(ahead, found, side="left") * weight
    ranks = np.arange(1, len(found) + 1) + before
    return float(np.count_nonzero(ranks <= wanted)) / wanted


def _upper(count: int) -> float:
    """Upper 95 % limit of the mean of a Poisson variable of which ``count`` was seen (Wilson and Hilferty 1931)."""
    n = count + 1
    return n * (1.0 - 1.0 / (9.0 * n) + ONE_SIDED_95 / (3.0 * math.sqrt(n))) ** 3
