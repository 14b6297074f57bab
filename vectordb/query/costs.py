"""What the ways of searching a part cost: the figures that the planner compares.

All in microseconds for one query on one thread of an x86-64 server core (AVX-512), measured on 20,000 to 116,659 real
384-d float32 embeddings. They only have to be right relative to each other: on a machine half as fast every one of them
doubles. Each formula scales with ``dim``, because at hundreds of dimensions memory traffic is what is paid for.
"""

from __future__ import annotations

import math

SCAN = 5_800.0 / (100_000 * 384)
"""A dimension of a row read in order: an exact scan of 100,000 x 384 takes 5.8 ms."""

GATHER = 2_900.0 / (11_666 * 384)
"""A dimension of a row picked out and compared: exact search over 10 % of 116,659 x 384 takes 2.9 ms (1 %: half that a
row, because the target stays in the cache)."""

WALK = 134.0 / (1_077 * 384)
"""A dimension of a row met on a graph walk (random access): HNSW, m 16, ef 64, 134 us for 1,077 comparisons."""

BEAM_STEP = 4e-4
"""A slot of the beam looked at by one expansion: finding the best of ``ef`` candidates is linear in ``ef``, and it is
done ``ef`` times. Unnoticed at 100, 40 ms at 10,000."""

EXACT_CALL = 30.0
"""Fixed cost of an exact search of one block: calls, selection of candidates, gathering them."""

INDEX_CALL = 15.0
"""Fixed cost of one call of an index."""

BITMAP = 10.0
"""Packing a set of rows into the bits that an index tests (``numpy.packbits`` over 50,000 rows)."""

MEMBERSHIP = 0.05
"""Testing one candidate against a set of rows."""

VISITS = 55.0
VISITS_EXPONENT = 0.72
"""Rows compared by an HNSW walk: about ``55 * ef ** 0.72`` (m 16: 404 at ef 16, 1,077 at 64, 3,016 at 256, 7,624 at
1,000). Neighbourhoods overlap the more, the wider the beam is, hence the exponent."""

UNKNOWN_SHARE = 0.05
"""Share of a part's rows that an index without a beam (clusters, trees) is taken to compare."""


def visits(rows: int, ef: int | None) -> int:
    """Rows that an index compares with one query; ``ef`` is None where the kind has no beam."""
    guess = UNKNOWN_SHARE * rows if ef is None else VISITS * ef**VISITS_EXPONENT
    return min(rows, math.ceil(guess))


def walk(rows: int, dim: int, ef: int | None) -> float:
    """One search of an index over ``rows`` vectors."""
    beam = 0.0 if ef is None else BEAM_STEP * ef * ef
    return INDEX_CALL + visits(rows, ef) * dim * WALK + beam


def scan(rows: int, dim: int) -> float:
    """Exact search over all rows."""
    return EXACT_CALL + rows * dim * SCAN


def scan_matches(matches: float, rows: int, dim: int) -> float:
    """Exact search over the matching ones of ``rows`` vectors: picked out, unless all of them match."""
    return scan(rows, dim) if matches >= rows else EXACT_CALL + matches * dim * GATHER


def widest_beam(microseconds: float, rows: int, dim: int) -> int:
    """The largest ``ef`` whose walk fits into a span of time; 0 where none does."""
    low, high = 0, 1 << 20
    while low < high:
        middle = (low + high + 1) // 2
        if walk(rows, dim, middle) <= microseconds:
            low = middle
        else:
            high = middle - 1
    return low
