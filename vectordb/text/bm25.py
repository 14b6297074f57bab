"""The one routine that scores: the same record and query have the same score to the last bit whatever holds the record.

    score = sum over the units of  count * idf * f * (k1 + 1) / (f + k1 * (1 - b + b * length / average))
    idf   = ln(1 + (N - n + 0.5) / (n + 0.5))

f: how often the unit occurs in the record; length: its words; N: living records with a word, average: the mean of their
lengths, n: those of them in which the unit occurs. Each summand is computed element by element in double precision, the
units are added in the order of the query, and the sum is rounded to float32 once.

Source: S. Robertson, H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.text.match import Postings

K1 = 1.2
B = 0.75

DENSE = 8
"""From one posting in so many rows on, sums are made in an array over all rows; the same ones, only faster."""


class Totals(NamedTuple):
    """Living records that have a word, and their lengths together."""

    documents: int
    length: int


class Weighted(NamedTuple):
    """Where a unit occurs among some rows, and its ``count * idf * (k1 + 1)``."""

    postings: Postings
    weight: float


def weight(totals: Totals, matching: int, count: int) -> float:
    """The weight of a unit that occurs in ``matching`` living records and ``count`` times in the query."""
    return count * math.log1p((totals.documents - matching + 0.5) / (matching + 0.5)) * (K1 + 1.0)


def scored(
    units: Sequence[Weighted], lengths: NDArray[np.uint32], average: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Scores all rows in which a unit occurs.

    Args:
        units: In the order of the query; their rows are below ``len(lengths)``.
        lengths: Of all rows.
        average: Mean length of the living records of the whole collection.

    Returns:
        The rows int64[k], ascending, and their scores float32[k].
    """
    units = [unit for unit in units if len(unit.postings.rows)]
    if not units:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    # 1.2 * 0.25, and so on: one number times the length, one added.
    slope, base = K1 * B / average, K1 * (1.0 - B)
    n = len(lengths)
    if DENSE * sum(len(unit.postings.rows) for unit in units) >= n:
        sums = np.zeros(n)
        for unit in units:
            sums[unit.postings.rows] += _summand(unit, lengths, slope, base)
        rows = np.flatnonzero(sums)
        return rows, sums[rows].astype(np.float32)
    distinct, places = np.unique(np.concatenate([unit.postings.rows for unit in units]), return_inverse=True)
    # Adds in the order given, one by one, unlike reduceat.
    summands = np.concatenate([_summand(unit, lengths, slope, base) for unit in units])
    totals = np.bincount(places, summands, len(distinct))
    return distinct.astype(np.int64), totals.astype(np.float32)


def _summand(unit: Weighted, lengths: NDArray[np.uint32], slope: float, base: float) -> NDArray[np.float64]:
    rows, frequencies = unit.postings
    wide = frequencies.astype(np.float64)
    below = lengths[rows] * slope
    below += base
    below += wide
    wide /= below
    wide *= unit.weight
    return wide
