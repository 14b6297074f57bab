"""Copied rows: a superset of the true nearest ones, whatever the rounding did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vectordb.index.copied_bytes import ByteCopy, sample_of
from vectordb.index.copied_halves import HalfCopy
from vectordb.index.copies import CopiedRows, RowCopy
from vectordb.metric import Metric, distances, prepared, scores

METRICS = [Metric.COSINE, Metric.DOT, Metric.L2]
KINDS = ["bytes", "halves"]


def copied(kind: str, vectors: Any, metric: Metric, rows: Any = None, piece: int = 300) -> CopiedRows | None:
    rows = np.arange(len(vectors)) if rows is None else rows
    copy: RowCopy = HalfCopy(rows, vectors.shape[1], metric)
    if kind == "bytes":
        copy = ByteCopy(rows, vectors[np.searchsorted(rows, sample_of(rows))], metric)
    while not copy.finished():
        wanted = copy.wanted(piece)
        copy.add(vectors[np.searchsorted(rows, wanted)])
    return copy.result()


def candidates(copy: CopiedRows | None, query: Any, vectors: Any, limit: int, dead: Any = ()) -> set[int] | None:
    """The rows that can be among the nearest; each has its final distance."""
    metric = Metric.DOT if copy is None else copy._metric

    def score(rows: Any) -> Any:
        return distances(scores(query, vectors[rows], metric), metric)

    found = None if copy is None else copy.nearest(query, limit, np.asarray(dead, np.int64), score)
    if found is None:
        return None
    rows, far = found
    assert far.tolist() == score(rows).tolist()
    assert len(set(rows.tolist())) == len(rows)
    return set(rows.tolist())


def nearest(query: Any, vectors: Any, metric: Metric, limit: int) -> set[int]:
    """Places of the ``limit`` best final scores, and of all that equal the last of them."""
    far = distances(scores(query, vectors, metric), metric)
    return set(np.flatnonzero(far <= np.sort(far)[min(limit, len(far)) - 1]).tolist())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("limit", [1, 10, 60])
@pytest.mark.parametrize("dim", [48, 100, 128])
def test_the_nearest_are_among_few_candidates(kind: str, metric: Metric, limit: int, dim: int) -> None:
    rng = np.random.default_rng(limit)
    vectors = prepared(rng.standard_normal((3_000, dim), dtype=np.float32), metric)
    rows = copied(kind, vectors, metric)
    assert rows is not None
    found = []
    for query in prepared(rng.standard_normal((30, dim), dtype=np.float32), metric):
        held = candidates(rows, query, vectors, limit)
        assert held is not None
        assert nearest(query, vectors, metric, limit) <= held
        found.append(len(held))
    # Rows by chance lie much closer together than those of real data.
    assert np.median(found) <= (limit + 20 if kind == "halves" else 3 * limit + 60)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_dead_rows_are_left_out_and_made_up_for(kind: str, metric: Metric) -> None:
    rng = np.random.default_rng(8)
    vectors = prepared(rng.standard_normal((1_000, 64), dtype=np.float32), metric)
    rows = copied(kind, vectors, metric)
    assert rows is not None
    for query in prepared(rng.standard_normal((10, 64), dtype=np.float32), metric):
        dead = rng.choice(1_000, 20, replace=False)
        dead[:8] = np.argsort(distances(scores(query, vectors, metric), metric))[:8]
        dead = np.unique(dead)
        gone = set(rows.rows[dead].tolist())
        alive = np.setdiff1d(np.arange(1_000), rows.rows[dead])
        held = candidates(rows, query, vectors, 10, dead)
        assert held is not None
        assert not held & gone
        assert {int(alive[place]) for place in nearest(query, vectors[alive], metric, 10)} <= held


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e-3, 300.0])
@pytest.mark.parametrize("spread", [1e-4, 0.1, 1.0])
def test_rows_that_are_told_apart_badly(kind: str, metric: Metric, scale: float, spread: float) -> None:
    """Rows nearly alike, tiny, or large: what is returned still holds the nearest, or nothing is returned."""
    rng = np.random.default_rng(1)
    base = rng.standard_normal(32)
    vectors = prepared((scale * (base + spread * rng.standard_normal((800, 32)))).astype(np.float32), metric)
    rows = copied(kind, vectors, metric)
    assert rows is not None or kind == "bytes"
    for query in prepared((scale * (base + 0.1 * rng.standard_normal((20, 32)))).astype(np.float32), metric):
        held = candidates(rows, query, vectors, 10)
        assert held is None or nearest(query, vectors, metric, 10) <= held


@st.composite
def _rows(draw: st.DrawFn) -> tuple[Any, Any]:
    """Rows and queries of odd scales: near-ties, a dimension far from zero, rows out of range, whole numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    count, dim = draw(st.integers(60, 900)), draw(st.integers(1, 70))
    scale = 10.0 ** draw(st.integers(-12, 12))
    centre = rng.standard_normal(dim) * draw(st.sampled_from([0.0, 1.0, 30.0]))
    values = centre + rng.standard_normal((count, dim)) * draw(st.sampled_from([1e-3, 1.0]))
    if draw(st.booleans()):
        values = np.rint(values * 4)
    near = draw(st.integers(0, 40))
    values[:near] = values[-1] + 1e-6 * rng.standard_normal((near, dim))
    for place in range(draw(st.integers(0, 20))):
        values[place * 3 % count] *= draw(st.sampled_from([1.5, 10.0, 1e4]))
    queries = values[rng.integers(0, count, 3)] + rng.standard_normal((3, dim)) * draw(
        st.sampled_from([0.0, 1e-3, 1.0])
    )
    return (values * scale).astype(np.float32), (queries * scale).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(_rows(), st.sampled_from(METRICS), st.sampled_from(KINDS), st.integers(1, 30))
def test_nothing_near_is_missed(rows: tuple[Any, Any], metric: Metric, kind: str, limit: int) -> None:
    vectors, queries = (prepared(part, metric) for part in rows)
    assume(metric is not Metric.COSINE or (vectors.any(axis=1).all() and queries.any(axis=1).all()))
    copy = copied(kind, vectors, metric)
    for query in queries:
        held = candidates(copy, query, vectors, limit)
        assert held is None or nearest(query, vectors, metric, limit) <= held


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_at_the_cut_are_all_returned_or_none(kind: str, metric: Metric) -> None:
    rng = np.random.default_rng(2)
    vectors = prepared(rng.standard_normal((2_000, 16), dtype=np.float32), metric)
    for equal, some in ((40, True), (1_500, False)):
        vectors[:equal] = vectors[0]
        rows = copied(kind, vectors, metric)
        held = candidates(rows, vectors[0], vectors, 10)
        assert (held is not None) == some
        assert held is None or set(range(equal)) <= held


@pytest.mark.parametrize("metric", METRICS)
def test_rows_beyond_the_range_of_bytes_are_candidates_of_all_queries(metric: Metric) -> None:
    rng = np.random.default_rng(4)
    vectors = prepared(rng.standard_normal((3_000, 64), dtype=np.float32), metric)
    stray = np.array([7, 8, 1_500])
    vectors[stray] = prepared(np.eye(64, dtype=np.float32)[:3] * np.float32(60.0), metric)
    rows = copied("bytes", vectors, metric)
    assert rows is not None
    queries = prepared(rng.standard_normal((10, 64), dtype=np.float32), metric)
    for query in [*queries, vectors[7]] if metric is Metric.DOT else queries:
        held = candidates(rows, query, vectors, 10)
        assert held is not None
        assert nearest(query, vectors, metric, 10) | set(stray.tolist()) <= held
        assert len(held) < 150


def test_what_a_precision_does_not_hold_is_not_copied() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((600, 8)).astype(np.float32)
    assert copied("halves", vectors, Metric.L2) is not None
    assert copied("bytes", vectors, Metric.L2) is not None
    vectors[70, 3] = 1e6
    assert copied("halves", vectors, Metric.L2) is None
    # Steps are as wide as the farthest rows, and tell others apart no more.
    vectors[::10, 3] = 1e6
    assert copied("bytes", vectors, Metric.L2) is None
    # So many leave their range that looking at them all would cost too much.
    vectors[:, 3] = 1.0
    vectors[np.setdiff1d(np.arange(600), sample_of(np.arange(600)))[:40], 3] = 100.0
    assert copied("bytes", vectors, Metric.L2) is None
    assert copied("bytes", np.ones((600, 8), np.float32), Metric.L2) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", [Metric.DOT, Metric.L2])
def test_queries_beyond_single_precision_are_left_to_others(kind: str, metric: Metric) -> None:
    vectors = np.random.default_rng(3).standard_normal((500, 8), dtype=np.float32)
    rows = copied(kind, vectors, metric)
    assert rows is not None
    assert candidates(rows, np.full(8, 1e37, np.float32), vectors, 10) is None
    if metric is Metric.DOT and kind == "bytes":
        assert candidates(rows, np.zeros(8, np.float32), vectors, 10) is None


@pytest.mark.parametrize("kind", KINDS)
def test_small_copies_are_returned_whole(kind: str) -> None:
    vectors = np.eye(13, dtype=np.float32)
    rows = copied(kind, vectors, Metric.COSINE)
    assert rows is not None
    assert candidates(rows, vectors[0], vectors, 10) == set(range(13))
    assert candidates(rows, vectors[0], vectors, 10, [0, 5]) == set(range(13)) - {0, 5}


@pytest.mark.parametrize("dim", [40, 64, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_a_copy_are_known_beforehand(kind: str, dim: int) -> None:
    vectors = np.random.default_rng(6).standard_normal((64, dim)).astype(np.float32)
    rows = copied(kind, vectors, Metric.L2, np.arange(0, 640, 10))
    assert rows is not None
    assert rows.nbytes == 64 * (HalfCopy if kind == "halves" else ByteCopy).row_bytes(dim)
    assert ByteCopy.row_bytes(384) == 384 + 8
    assert HalfCopy.row_bytes(384) == 2 * 384 + 8
