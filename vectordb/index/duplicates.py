"""Equal rows: found once, so that a graph holds one of each.

A navigable graph links every row to its nearest ones. Where many rows are equal, those are its copies: the links lead
nowhere else, and a walk that enters such an island never leaves it. Measured on text embeddings with 100 copies of
each row, a search for 10 found 40 to 60 % of what it should; with one node for all copies, all of it. A few copies do
no harm, so a matrix with none above :data:`HARMLESS` is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vectordb.index.base import BuildCancelled

if TYPE_CHECKING:
    from numpy.typing import NDArray

HARMLESS = 3
"""So many copies of a row cost a graph nothing that could be measured."""
_BLOCK_BYTES = 4 << 20
_SEED = 0x5EED


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A matrix float32[n, d], or some of its rows in a given order, read in blocks."""

    vectors: NDArray[np.float32]
    picked: NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        return len(self.vectors) if self.picked is None else len(self.picked)

    @property
    def dim(self) -> int:
        width: int = self.vectors.shape[1]
        return width

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows ``start`` to ``stop``, as a view where possible."""
        return self.vectors[start:stop] if self.picked is None else self.vectors[self.picked[start:stop]]

    def blocks(self, cancelled: Callable[[], bool]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All rows in blocks of a few MB, which fit a cache, each with the number of its first row.

        Raises:
            BuildCancelled: ``cancelled()``, asked before each block, turned true.
        """
        step = _step(self.dim)
        for start in range(0, self.count, step):
            if cancelled():
                raise BuildCancelled
            yield start, self.block(start, start + step)

    def take(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """A copy of some rows."""
        return self.vectors[places if self.picked is None else self.picked[places]]


class Groups:
    """Which rows are equal: distinct rows are numbered ``0..u-1``, each with its copies. Immutable.

    Args:
        starts: uint32[u + 1], where the copies of each distinct row begin in ``rows``.
        rows: uint32[n], positions, ascending within each group.
    """

    def __init__(self, starts: NDArray[np.uint32], rows: NDArray[np.uint32]) -> None:
        self.starts, self.rows = starts, rows

    @classmethod
    def of(cls, labels: NDArray[np.int64]) -> Groups:
        """From the number of the distinct row of each position, int64[n]; every number up to the greatest is used."""
        starts = np.zeros(int(labels.max(initial=-1)) + 2, np.uint32)
        np.cumsum(np.bincount(labels), out=starts[1:])
        return cls(starts, np.argsort(labels, kind="stable").astype(np.uint32))

    @property
    def distinct(self) -> int:
        return len(self.starts) - 1

    def labels(self) -> NDArray[np.int64]:
        """The number of the distinct row of each position: int64[n]."""
        out = np.empty(len(self.rows), np.int64)
        out[self.rows] = np.repeat(np.arange(self.distinct), np.diff(self.starts))
        return out

    def allowed(self, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Packed bits over distinct rows that have an allowed copy, from packed bits over positions."""
        mask = np.unpackbits(bits, count=len(self.rows), bitorder="little")
        return np.packbits(np.maximum.reduceat(mask[self.rows], self.starts[:-1]), bitorder="little")

    def spread(
        self,
        found: NDArray[np.int64],
        distances: NDArray[np.float32],
        limit: int,
        bits: NDArray[np.uint8] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Distinct rows int64[q, k] (padded with -1) as positions int64[q, limit], every allowed copy in its place."""
        queries, width = found.shape
        rows = np.full((queries, limit), -1, np.int64)
        far = np.full((queries, limit), np.inf, np.float32)
        real = np.maximum(found, 0)
        first = self.starts[real].astype(np.int64)
        sizes = np.where(found >= 0, self.starts[real + 1] - first, 0)
        if bits is None:
            before = np.cumsum(sizes, axis=1) - sizes
            sizes = np.clip(limit - before, 0, sizes)
        flat = sizes.ravel()
        slot = np.repeat(np.arange(flat.size), flat)
        within = np.arange(len(slot)) - np.repeat(np.cumsum(flat) - flat, flat)
        positions = self.rows[first.ravel()[slot] + within].astype(np.int64)
        if bits is not None:
            keep = (bits[positions >> 3] >> (positions & 7)) & 1 == 1
            slot, positions = slot[keep], positions[keep]
        query = slot // width
        sizes_of = np.bincount(query, minlength=queries)
        column = np.arange(len(query)) - np.repeat(np.cumsum(sizes_of) - sizes_of, sizes_of)
        keep = column < limit
        query, column = query[keep], column[keep]
        rows[query, column] = positions[keep]
        far[query, column] = distances.ravel()[slot[keep]]
        return rows, far

    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.starts.nbytes + self.rows.nbytes


def grouped(vectors: NDArray[np.float32], cancelled: Callable[[], bool]) -> Groups | None:
    """The groups of equal rows of float32[n, d], or None where they are too small to matter.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    first = first_equal(vectors, cancelled)
    if not _matter(first):
        return None
    return Groups.of(_numbered(first, np.empty(0, np.int64)))


def regrouped(
    vectors: NDArray[np.float32], count: int, groups: Groups | None, cancelled: Callable[[], bool]
) -> tuple[Groups | None, NDArray[np.int64] | None]:
    """The groups of a matrix that has grown, the distinct rows of its first part keeping their numbers.

    Args:
        vectors: float32[n, d].
        count: Rows of the first part.
        groups: Its groups; None: each of its rows is its own, equal ones too.
        cancelled: Polled.

    Returns:
        The groups of all, and the new distinct rows, ascending; ``(None, None)`` where there were no groups and are
        still none that matter.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    first = first_equal(vectors, cancelled)
    if groups is None and not _matter(first):
        return None, None
    labels = _numbered(first, np.arange(count) if groups is None else groups.labels())
    return Groups.of(labels), count + np.flatnonzero(first[count:] == np.arange(count, len(first)))


def first_equal(vectors: NDArray[np.float32], cancelled: Callable[[], bool]) -> NDArray[np.int64]:
    """For each row of float32[n, d] the first row that equals it bit by bit: int64[n].

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    hashes = _hashes(Rows(vectors), cancelled)
    count = len(hashes)
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    begins = np.flatnonzero(np.concatenate([np.ones(min(1, count), bool), ordered[1:] != ordered[:-1]]))
    first = np.empty(count, np.int64)
    first[order] = np.repeat(order[begins], np.diff(np.append(begins, count)))
    copies = np.flatnonzero(first != np.arange(count))
    step = _step(vectors.shape[1])
    for start in range(0, len(copies), step):
        if cancelled():
            raise BuildCancelled
        some = copies[start : start + step]
        # Equal hashes are not yet equal rows.
        same = (vectors[some].view(np.uint32) == vectors[first[some]].view(np.uint32)).all(axis=1)
        first[some[~same]] = some[~same]
    return first


def most_equal(
    rows: Rows, seen: Callable[[NDArray[np.float32]], NDArray[np.float32]], cancelled: Callable[[], bool]
) -> int:
    """How many rows at most are equal bit by bit once ``seen`` has rounded them; 0 of no rows.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
    """
    return int(np.unique(_hashes(rows, cancelled, seen), return_counts=True)[1].max(initial=0))


def _matter(first: NDArray[np.int64]) -> bool:
    return len(first) > 0 and int(np.bincount(first).max()) > HARMLESS


def _numbered(first: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of distinct rows: those known for the first rows go on, new ones follow in order."""
    count = len(known)
    labels = np.empty(len(first), np.int64)
    labels[:count] = known
    new = first[count:] == np.arange(count, len(first))
    fresh = int(known.max(initial=-1)) + 1
    labels[count:][new] = fresh + np.arange(int(new.sum()))
    labels[count:][~new] = labels[first[count:][~new]]
    return labels


def _step(dim: int) -> int:
    return max(1, _BLOCK_BYTES // (4 * max(1, dim)))


def _hashes(
    rows: Rows,
    cancelled: Callable[[], bool],
    seen: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.ascontiguousarray,
) -> NDArray[np.uint64]:
    """A 64-bit sum hash of the bits of each row, as ``seen`` makes it of the block that holds it: uint64[n]."""
    odd = np.random.default_rng(_SEED).integers(0, 1 << 63, rows.dim, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    out = np.empty(rows.count, np.uint64)
    for start, block in rows.blocks(cancelled):
        words = seen(block).view(np.uint32).astype(np.uint64)
        words *= odd
        out[start : start + len(block)] = np.add.reduce(words, axis=1, dtype=np.uint64)
    return out
