"""Two looks at correlation: of a filter with the query of a walk, at no second walk, and with the vectors at all.

A graph walk that may return only matching rows still visits the neighbourhood of the query. If the matches lie
elsewhere (the filter is correlated with the query), it returns the few that it met by chance, and nothing in the answer
shows it: measured on 20,000 text embeddings, a filter of 50 % that excludes just the 200 nearest rows has recall 0.70,
with every list full.

So rows that do not match are let through too, a known random share of them: *markers*. How many of them lie before the
last hit says how many rows of all lie before it. If those are far more than the beam spans, the walk has not seen the
surroundings of that hit, and it is not believed. With about as many markers as hits the estimate is off by a third,
which is enough: uncorrelated filters lie at two thirds of the beam, harmful ones at several beams.

Whether a filter can be correlated with any query shows in the neighbours of a few of its own rows (``scattered``): they
match as often as all rows do, or more often. That is looked up once a filter and segment, where a plan hangs on it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, NEIGHBOURS = 8, 16
"""Matching rows that are looked at, and neighbours of each: a tenth of them 12.8 +- 3.4 times by chance."""

BELIEVED = 1.3
"""Hits are believed up to this many times as far as the beam spans, counted in rows."""

_HIGHEST, _LOWEST = 2, 12
"""Shares of markers, as negative powers of two: at most a quarter of the rows."""


class Markers(NamedTuple):
    """Packed bits over positions, uint8[ceil(n / 8)], and the share of the positions that they mark."""

    bits: NDArray[np.uint8]
    share: float


def markers(positions: int, selectivity: float) -> Markers:
    """Markers for a part, about as dense as the matching rows but never denser than a quarter. Do not write them."""
    power = _HIGHEST
    while power < _LOWEST and 0.5**power > selectivity:
        power += 1
    return Markers(_random_bits(-(-positions // 8), power), 0.5**power)


@overload
def rank(place: int, needed: int, share: float) -> float: ...
@overload
def rank(place: NDArray[np.int64], needed: int, share: float) -> NDArray[np.float64]: ...
def rank(place: int | NDArray[np.int64], needed: int, share: float) -> float | NDArray[np.float64]:
    """About how many rows, matching or not, are as near as the ``needed``-th hit.

    Args:
        place: Where that hit stands in a list of matching rows and markers, from 0; or int64[q], of several queries.
        share: Of the other rows, those that are markers.
    """
    return needed + (place - (needed - 1)) / share


def sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some of the matching rows, the same each time: int64[at most ROWS]."""
    if len(rows) <= ROWS:
        return rows
    return rows[np.random.default_rng(len(rows)).choice(len(rows), ROWS, replace=False)]


def scattered(matching: int, looked_at: int, share: float) -> bool:
    """Whether so many of the neighbours of matching rows match by chance, where ``share`` of all rows does."""
    by_chance = share * looked_at
    return matching <= 1.25 * by_chance + 3.0 * math.sqrt(by_chance * (1.0 - share))


@lru_cache(maxsize=64)
def _random_bits(count: int, power: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng((count, power))
    bits = rng.integers(0, 256, count, dtype=np.uint8)
    for _ in range(power - 1):
        bits &= rng.integers(0, 256, count, dtype=np.uint8)
    bits.setflags(write=False)
    return bits
