"""What the ways of searching a part cost: the figures that the planner compares.

All in microseconds for one query on one thread of an x86-64 server core (AVX-512), measured on 20,000 to 116,659 real
384-d float32 embeddings. They only have to be right relative to each other: on a machine half as fast every one of them
doubles. Each formula scales with ``dim``, because at hundreds of dimensions memory traffic is what is paid for.
``python -m bench calibrate`` measures them anew and prints them beside these.
"""

from __future__ import annotations

import math

from vectordb.index.base import Capabilities, Effort

SCAN = 5_800.0 / (100_000 * 384)
"""A dimension of a row read in order: an exact scan of 100,000 x 384 takes 5.8 ms."""

GATHER = 1_450.0 / (10_000 * 384)
"""A dimension of a row picked out of 100,000 and read in place: 10 % of them take 0.45 ms on an idle machine, 2.2 ms
where others compete for its memory, in a run that found ``SCAN`` as it is written here and a walk at 1.7 times
``WALK``: what is written is that by this. 1 % of them, or 10 % of 20,000, fit the cache: 0.8 ms for as many."""

COPIED = 175.0 / (10_000 * 384)
"""A dimension of a row copied together as bytes (``index/copied_bytes.py``): 10,000 of 100,000. At half precision it is
a tenth more, and half more once other work fills the cache."""

WALK = 134.0 / (1_077 * 384)
"""A dimension of a row met on a graph walk (random access): HNSW, m 16, ef 64, 134 us for 1,077 comparisons."""

EXACT_CALL = 30.0
"""Fixed cost of an exact search of one block: calls, selection of candidates, gathering them."""

BITMAP = 6.0
"""Packing a set of rows into the bits that an index tests (half of 100,000 rows)."""

MEMBERSHIP = 0.007
"""Testing one candidate against a set of rows, in arrays of many."""

RESCORE = 2.0 / 384
"""A dimension of a candidate whose full vector is read at random and scored in double precision: most of it is the
fault of a page that was unmapped again (``segments/vectors.py``); from memory it is an eighth of this."""

UNKNOWN_SHARE = 0.05
"""Share of a part's rows that an index is taken to compare whose kind does not tell its effort."""


def effort_of(capabilities: Capabilities, rows: int) -> Effort:
    """What a query of an index over ``rows`` vectors costs, by its kind's word or by a guess."""
    return capabilities.effort or Effort(0.0, compared=UNKNOWN_SHARE * rows, dimension=WALK)


def visits(effort: Effort, rows: int, width: float | None) -> int:
    """Rows that an index compares with one query; ``width`` is None where the kind has none."""
    compared: float = effort.compared + effort.factor * (width or 1.0) ** effort.exponent
    return min(rows, math.ceil(compared))


def walk(effort: Effort, rows: int, dim: int, width: float | None, *, filtered: bool = False) -> float:
    """One search of an index over ``rows`` vectors; ``filtered``: it is told which of them are allowed."""
    row = effort.row + (effort.filtered if filtered else 0.0)
    compared = visits(effort, rows, width) * (dim * effort.dimension + row)
    return effort.call + compared + effort.square * (width or 0.0) ** 2


def scan(rows: int, dim: int) -> float:
    """Exact search over all rows."""
    return EXACT_CALL + rows * dim * SCAN


def scan_matches(matches: float, rows: int, dim: int) -> float:
    """Exact search over the matching ones of ``rows`` vectors: picked out, unless all of them match."""
    return scan(rows, dim) if matches >= rows else EXACT_CALL + matches * dim * GATHER


def scan_copied(matches: float, dim: int) -> float:
    """Exact search over matching rows that were copied together, by one query."""
    return EXACT_CALL + matches * dim * COPIED


def widest(effort: Effort, microseconds: float, rows: int, dim: int) -> int:
    """The largest width whose walk fits into a span of time; 0 where none does."""
    low, high = 0, 1 << 20
    while low < high:
        middle = (low + high + 1) // 2
        if walk(effort, rows, dim, middle) <= microseconds:
            low = middle
        else:
            high = middle - 1
    return low
