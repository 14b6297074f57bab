"""Exact search: every row that may belong to the true nearest ones, with a proof instead of a guess.

Native float32 distances only *nearly* order rows as the final scores do (``vectordb.metric.scores``: double precision,
rounded once). :func:`exact_candidates` therefore returns a superset: all rows whose native distance does not exceed
the k-th smallest one by more than the two can differ. Rescored, it yields the exact answer with all ties at the cut.

The bound. With u = 2^-24 and gamma(n) = n u / (1 - n u), a sum of d products in any order, fused or not, errs by at
most gamma(d) * sum|q_i x_i| <= gamma(d) |q| |x|; a sum of d squares or absolute values of differences by
gamma(d + 3) of its own value. Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), sections 3.1, 3.5.
Where float32 could overflow, or lose its digits below the normal range, double precision is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np

from vectordb.index import native
from vectordb.metric import Metric, norms

if TYPE_CHECKING:
    from numpy.typing import NDArray

_T = TypeVar("_T", bound=np.generic)
_UNIT = 2.0**-24
_TINY = 2.0**-126
_LARGEST = float(np.finfo(np.float32).max)
_SAFE_HIGH = 1e37
_UNIT_NORM = 1.0 + 2.0**-20
_MATRIX_QUERIES = 8
"""From so many queries on, one matrix product beats direct sums (measured: 2 times at 8 queries, 3 times at 100)."""
_MATRIX_CHUNK = 64
_IN_PLACE_QUERIES = 3
"""Up to so many queries read picked rows in place; more share one copy of them."""
_NATIVE_LIMIT = 1024
"""Up to so many neighbours faiss's own top-k is used; beyond, all distances and a partition are cheaper."""
_DOUBLE_BYTES = 4 << 20


class Candidates(NamedTuple):
    """A superset of the nearest rows of each query, ties at the cut included. Rows ascend by distance.

    Attributes:
        rows: int64[q, m], positions in the block, padded with -1.
        distances: float32[q, m], smaller is closer (squared for l2), padded with +inf.
        slack: float64[q]. A row further than the k-th nearest plus this cannot be one of the k nearest; holds across
            blocks with the largest of their slacks.
        scored: Distances computed.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    slack: NDArray[np.float64]
    scored: int


class ErrorBound(NamedTuple):
    """How far a native distance a can be from the one that the final score stands for: relative * |a| + absolute."""

    relative: float
    absolute: NDArray[np.float64] | float

    @overload
    def slack(self, cut: NDArray[np.float64]) -> NDArray[np.float64]: ...

    @overload
    def slack(self, cut: float) -> float: ...

    def slack(self, cut: NDArray[np.float64] | float) -> NDArray[np.float64] | float:
        """What to add to the k-th smallest native distance float64[q] so that nothing is missed: float64[q]. Or of one
        query in plain numbers.

        Both the k-th row and a row beyond it may err, in opposite directions: twice the bound, and a little for the
        bound being relative to the distance that is itself inexact.
        """
        out: NDArray[np.float64] | float = 2.5 * (self.relative * np.abs(cut) + self.absolute)
        return out


def _gamma(count: int) -> float:
    return count * _UNIT / (1.0 - count * _UNIT)


def error_bound(
    query_norms: NDArray[np.float64] | float, max_norm: float, metric: Metric, dim: int, *, expanded: bool = False
) -> ErrorBound:
    """The proven error of float32 distances, rounding of the final score included.

    Args:
        query_norms: float64[q], Euclidean lengths; or that of one query.
        max_norm: At least the greatest length of any row (ignored by direct l2 and l1).
        metric: The metric; cosine takes prepared vectors.
        dim: d, at most 65,536.
        expanded: Whether l2 was computed as |q|^2 + |x|^2 - 2 q.x, which cancels.
    """
    if metric.higher_is_better:
        return ErrorBound(0.0, _gamma(dim + 4) * query_norms * max_norm + dim * _TINY)
    if metric is Metric.L2 and expanded:
        return ErrorBound(0.0, _gamma(dim + 10) * (query_norms + max_norm) ** 2 + 4 * dim * _TINY)
    return ErrorBound(1.1 * _gamma(dim + 8), dim * _TINY)


def largest_norm(vectors: NDArray[np.float32]) -> float:
    """An upper bound of the Euclidean lengths of float32[n, d], within a few parts in a thousand; inf on overflow."""
    if not len(vectors):
        return 0.0
    squared = float(native.squared_norms(vectors).max())
    return float(np.sqrt(squared * (1.0 + 2.0 * _gamma(vectors.shape[1] + 2)) + vectors.shape[1] * _TINY))


def exact_candidates(
    queries: NDArray[np.float32],
    block: NDArray[np.float32],
    limit: int,
    metric: Metric,
    *,
    max_norm: float | None = None,
) -> Candidates:
    """All rows of a block that can be among the ``limit`` truly nearest of each query. Thread-safe, releases the GIL.

    Args:
        queries: float32[q, d], prepared, C-contiguous, finite.
        block: float32[n, d], prepared, C-contiguous, finite; a few MB at a time keep deadlines and the GIL responsive.
        limit: k >= 1; may exceed n.
        metric: The metric.
        max_norm: At least the greatest Euclidean length in the block, if known. Only dot (and l2 for batches of
            queries) needs it; left out, it costs one more pass over the block there.

    Returns:
        :class:`Candidates`. Usually a few more than ``limit`` rows; many where many are tied.
    """
    count, dim = block.shape
    if not count or not len(queries):
        return _none(len(queries))
    if len(queries) >= _MATRIX_QUERIES and metric is not Metric.L1:
        chunks = range(0, len(queries), _MATRIX_CHUNK)
        bound = _needed_norm(block, metric, max_norm, batch=True)
        return _stacked([_by_matrix(queries[i : i + _MATRIX_CHUNK], block, limit, metric, bound) for i in chunks])
    largest = _needed_norm(block, metric, max_norm, batch=False)
    if metric.higher_is_better:
        safe = _is_safe(norms(queries) * largest, dim)
    else:
        safe = np.ones(len(queries), dtype=bool)
    if safe.all():
        return _by_sums(queries, block, limit, metric, largest)
    return _stacked(
        [
            _by_sums(queries[i : i + 1], block, limit, metric, largest)
            if safe[i]
            else _in_double(queries[i : i + 1], block, limit, metric)
            for i in range(len(queries))
        ]
    )


def readable_in_place(queries: int, metric: Metric) -> bool:
    """Whether :func:`picked_candidates` serves so many queries best; else the rows are to be copied out first.

    Its products need a bound of the rows' lengths, which only unit vectors have beforehand.
    """
    return queries <= _IN_PLACE_QUERIES and metric in (Metric.COSINE, Metric.L2)


def picked_candidates(
    queries: NDArray[np.float32],
    matrix: NDArray[np.float32],
    positions: NDArray[np.int64],
    limit: int,
    metric: Metric,
) -> Candidates:
    """As :func:`exact_candidates` for some rows of a matrix, read where they lie; metric cosine or l2.

    Args:
        matrix: float32[n, d], prepared, C-contiguous, finite.
        positions: int64[k], ascending, each at least 0 and less than n.

    Returns:
        :class:`Candidates`, whose rows are places in ``positions``.
    """
    if not len(positions) or not len(queries):
        return _none(len(queries))
    bound = error_bound(norms(queries), _UNIT_NORM, metric, matrix.shape[1])
    found = []
    for i, query in enumerate(queries):
        distances = native.picked_distances(query, matrix, positions, metric)[None]
        if metric is Metric.L2 and not np.isfinite(distances).all():
            found.append(_in_double(queries[i : i + 1], matrix.take(positions, axis=0), limit, metric))
        else:
            found.append(_selected(distances, limit, _one(bound, i)))
    return _stacked(found)


def nearer(
    query: NDArray[np.float32],
    matrix: NDArray[np.float32],
    positions: NDArray[np.int64],
    limit: int,
    metric: Metric,
) -> NDArray[np.int64]:
    """The places in ``positions`` of all that can be among the ``limit`` nearest, for one query float32[d] and few
    positions: as :func:`picked_candidates` (metric cosine or l2), with less around it.

    Args:
        positions: int64[k], k >= limit.
    """
    distances = native.picked_distances(query, matrix, positions, metric)
    cut = float(np.partition(distances, limit - 1)[limit - 1])
    slack = error_bound(_UNIT_NORM, _UNIT_NORM, metric, matrix.shape[1]).slack(cut)
    # In double precision. A cut that overflowed keeps all.
    return np.flatnonzero(distances <= np.float64(cut + slack))


def merged(parts: Sequence[Candidates], limit: int) -> Candidates:
    """Candidates of several blocks, their rows already in one numbering, cut to those of the whole."""
    rows = np.concatenate([p.rows for p in parts], axis=1)
    distances = np.concatenate([p.distances for p in parts], axis=1)
    slack = np.max([p.slack for p in parts], axis=0)
    # Padding last, also behind rows whose squared distance is infinite in float32.
    order = np.lexsort((rows < 0, distances), axis=1)
    rows = np.take_along_axis(rows, order, axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    if distances.shape[1] > limit:
        cut = distances[:, limit - 1].astype(np.float64)
        keep = distances <= (cut + slack)[:, None]
        width = max(limit, int((keep & (rows >= 0)).sum(axis=1).max()))
        rows, distances = rows[:, :width], distances[:, :width]
    return Candidates(rows, distances, slack, sum(p.scored for p in parts))


def _needed_norm(block: NDArray[np.float32], metric: Metric, max_norm: float | None, *, batch: bool) -> float:
    if metric is Metric.COSINE:
        return _UNIT_NORM
    if metric is Metric.DOT or (metric is Metric.L2 and batch):
        return largest_norm(block) if max_norm is None else max_norm
    return 0.0


def _is_safe(products: NDArray[np.float64], dim: int) -> NDArray[np.bool_]:
    """Whether sums bounded by these products of lengths neither overflow nor vanish in float32: bool[q]."""
    safe: NDArray[np.bool_] = (products < _SAFE_HIGH) & ((products > dim * 2.0**-96) | (products == 0.0))
    return safe


def _none(queries: int) -> Candidates:
    return Candidates(np.empty((queries, 0), np.int64), np.empty((queries, 0), np.float32), np.zeros(queries), 0)


def _by_sums(
    queries: NDArray[np.float32], block: NDArray[np.float32], limit: int, metric: Metric, max_norm: float
) -> Candidates:
    """Direct sums: faiss's top-k with a margin; where the margin does not separate the cut, all distances."""
    count, dim = block.shape
    lengths = norms(queries) if metric.higher_is_better else np.zeros(len(queries))
    bound = error_bound(lengths, max_norm, metric, dim)
    margin = limit + 8 + limit // 8
    if margin >= count or margin > _NATIVE_LIMIT:
        return _stacked([_all_sums(queries[i], block, limit, metric, _one(bound, i)) for i in range(len(queries))])
    distances, rows = native.nearest(queries, block, margin, metric)
    cut = distances[:, limit - 1].astype(np.float64)
    slack = bound.slack(cut)
    # A missing row means that its distance overflowed; an overflowing cut compares false and ends here too.
    separated = (distances[:, -1] > cut + slack) & (rows[:, -1] >= 0)
    if separated.all():
        keep = distances <= (cut + slack)[:, None]
        width = int(keep.sum(axis=1).max())
        rows[~keep] = -1
        distances[~keep] = np.inf
        return Candidates(rows[:, :width], distances[:, :width], slack, count * len(queries))
    return _stacked([_all_sums(queries[i], block, limit, metric, _one(bound, i)) for i in range(len(queries))])


def _one(bound: ErrorBound, query: int) -> ErrorBound:
    absolute = bound.absolute
    return ErrorBound(bound.relative, absolute[query : query + 1] if isinstance(absolute, np.ndarray) else absolute)


def _all_sums(
    query: NDArray[np.float32], block: NDArray[np.float32], limit: int, metric: Metric, bound: ErrorBound
) -> Candidates:
    distances = native.block_distances(query, block, metric)[None]
    if metric.higher_is_better or np.isfinite(distances).all():
        return _selected(distances, limit, bound)
    return _in_double(query[None], block, limit, metric)


def _by_matrix(
    queries: NDArray[np.float32], block: NDArray[np.float32], limit: int, metric: Metric, max_norm: float
) -> Candidates:
    """One matrix product for all queries; l2 by expansion, and by direct sums where that cancels too much."""
    lengths = norms(queries)
    scale = lengths * max_norm if metric is not Metric.L2 else (lengths + max_norm) ** 2
    if not _is_safe(scale, block.shape[1]).all():
        return _stacked([exact_candidates(q[None], block, limit, metric, max_norm=max_norm) for q in queries])
    distances = native.inner_products(queries, block)
    bound = error_bound(lengths, max_norm, metric, block.shape[1], expanded=True)
    if metric is not Metric.L2:
        return _selected(np.negative(distances, out=distances), limit, bound)
    distances *= -2.0
    distances += native.squared_norms(block)
    distances += native.squared_norms(np.ascontiguousarray(queries))[:, None]
    np.maximum(distances, 0.0, out=distances)
    found = _selected(distances, limit, bound)
    if found.rows.shape[1] <= 2 * limit + 64:
        return found
    crowded = (found.rows >= 0).sum(axis=1) > 2 * limit + 64
    direct = _by_sums(np.ascontiguousarray(queries[crowded]), block, limit, metric, max_norm)
    return _replaced(found, crowded, direct)


def _in_double(queries: NDArray[np.float32], block: NDArray[np.float32], limit: int, metric: Metric) -> Candidates:
    """Double precision throughout, for what float32 cannot hold. Slow and rare."""
    step = max(1, _DOUBLE_BYTES // (8 * block.shape[1]))
    wide = queries.astype(np.float64)
    out = np.empty((len(queries), len(block)))
    for start in range(0, len(block), step):
        rows = block[start : start + step].astype(np.float64)
        for i, query in enumerate(wide):
            if metric.higher_is_better:
                values = -np.add.reduce(rows * query, axis=1)
            elif metric is Metric.L2:
                values = np.add.reduce(np.square(rows - query), axis=1)
            else:
                values = np.add.reduce(np.abs(rows - query), axis=1)
            out[i, start : start + step] = values
    # Scores beyond float32 are equal infinities, so what they are made from must tie as well.
    largest = _LARGEST**2 if metric is Metric.L2 else _LARGEST
    np.clip(out, -largest, largest, out=out)
    magnitude = norms(queries) * float(norms(block).max())
    absolute = 2.0**-52 * block.shape[1] * 4.0 * magnitude if metric.higher_is_better else np.zeros(len(queries))
    return _selected(out, limit, ErrorBound(6 * _UNIT, absolute + 2.0**-148))


def _selected(distances: NDArray[np.floating[Any]], limit: int, bound: ErrorBound) -> Candidates:
    """The candidates in a full matrix of distances [q, n] (float32 or float64)."""
    queries, count = distances.shape
    kth = min(limit, count) - 1
    if queries == 1:
        return _selected_of_one(distances[0], kth, bound)
    cut = np.partition(distances, kth, axis=1)[:, kth].astype(np.float64)
    slack = bound.slack(cut)
    which, found = np.nonzero(distances <= (cut + slack)[:, None])
    sizes = np.bincount(which, minlength=queries)
    columns = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = np.full((queries, int(sizes.max())), -1, np.int64)
    values = np.full(rows.shape, np.inf, distances.dtype)
    rows[which, columns] = found
    values[which, columns] = distances[which, found]
    order = np.argsort(values, axis=1, kind="stable")
    with np.errstate(over="ignore"):
        narrow = np.take_along_axis(values, order, axis=1).astype(np.float32)
    return Candidates(np.take_along_axis(rows, order, axis=1), narrow, slack, queries * count)


def _selected_of_one(distances: NDArray[np.floating[Any]], kth: int, bound: ErrorBound) -> Candidates:
    cut = np.partition(distances, kth)[kth : kth + 1].astype(np.float64)
    slack = bound.slack(cut)
    rows = np.flatnonzero(distances <= cut + slack)
    values = distances[rows]
    order = values.argsort(kind="stable")
    with np.errstate(over="ignore"):
        narrow = values[order].astype(np.float32)
    return Candidates(rows[order][None], narrow[None], slack, len(distances))


def _stacked(parts: Sequence[Candidates]) -> Candidates:
    """Candidates of several groups of queries, one below the other, padded to one width."""
    if len(parts) == 1:
        return parts[0]
    width = max(p.rows.shape[1] for p in parts)
    return Candidates(
        np.concatenate([_padded(p.rows, width, -1) for p in parts]),
        np.concatenate([_padded(p.distances, width, np.inf) for p in parts]),
        np.concatenate([p.slack for p in parts]),
        sum(p.scored for p in parts),
    )


def _replaced(base: Candidates, which: NDArray[np.bool_], others: Candidates) -> Candidates:
    """``base`` with the queries marked in bool[q] taken from ``others``."""
    keep = int((base.rows[~which] >= 0).sum(axis=1).max(initial=0))
    width = max(keep, others.rows.shape[1])
    rows = _padded(base.rows[:, :width], width, -1)
    distances = _padded(base.distances[:, :width], width, np.inf)
    slack = base.slack.copy()
    rows[which] = _padded(others.rows, width, -1)
    distances[which] = _padded(others.distances, width, np.inf)
    slack[which] = others.slack
    return Candidates(rows, distances, slack, base.scored + others.scored)


def _padded(array: NDArray[_T], width: int, fill: float) -> NDArray[_T]:
    missing = width - array.shape[1]
    if missing == 0:
        return array.copy()
    return np.pad(array, ((0, 0), (0, missing)), constant_values=fill)
