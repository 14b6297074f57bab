"""Graphs that are linked over bytes: when they are, and that what they keep and find is as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectordb.index import hnsw_build, native
from vectordb.index.base import BuildCancelled, BuildOptions
from vectordb.index.duplicates import Rows, most_equal
from vectordb.index.faiss_hnsw import HNSW
from vectordb.index.hnsw_links import Bytes, choose_bytes
from vectordb.metric import Metric, prepared

FLOATS = [Metric.COSINE, Metric.DOT, Metric.L2]


def never() -> bool:
    return False


def normal(n: int, dim: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def test_bytes_reach_as_far_as_they_can() -> None:
    rounded = Bytes(127.0 / 4.0).scaled(np.array([[-4.0, 0.01, 2.0]], np.float32))
    assert rounded.tolist() == [[-127.0, 0.0, 64.0]]
    assert rounded.dtype == np.float32
    assert rounded.flags.c_contiguous


@pytest.mark.parametrize("metric", FLOATS)
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_ordinary_rows_are_linked_as_bytes(metric: Metric, size: float) -> None:
    chosen = choose_bytes(Rows(np.float32(size) * normal(2_000, 64)), metric, never)
    assert chosen is not None
    assert np.abs(chosen.scaled(np.float32(size) * normal(2_000, 64))).max() == 127.0


def test_l1_and_rows_without_a_size_are_not() -> None:
    assert choose_bytes(Rows(normal(100, 8)), Metric.L1, never) is None
    assert choose_bytes(Rows(np.zeros((100, 8), np.float32)), Metric.L2, never) is None
    assert choose_bytes(Rows(np.float32(1e30) * normal(100, 8)), Metric.L2, never) is None


def test_rows_that_one_large_component_crowds_together_are_not() -> None:
    rows = normal(2_000, 64)
    rows[7, 3] = 1_000.0
    assert choose_bytes(Rows(rows), Metric.L2, never) is None


def test_rows_that_are_equal_as_bytes_are_not() -> None:
    """Few of them, beside the rows that the measured recall is of."""
    rows = normal(2_000, 64)
    rows[1_001:1_006] = rows[1_000] + 1e-4 * normal(5, 64, 1)
    assert choose_bytes(Rows(rows), Metric.L2, never) is None
    assert choose_bytes(Rows(np.delete(rows, np.s_[1_001:1_006], axis=0)), Metric.L2, never) is not None


def test_rows_that_are_equal_once_they_are_rounded_are_counted() -> None:
    rows = np.array([[0.2, -0.2], [-0.2, 0.2], [0.4, 0.4], [3.0, 1.0]], np.float32)
    assert most_equal(Rows(rows), lambda block: np.rint(block) + np.float32(0.0), never) == 3
    assert most_equal(Rows(rows[:0]), np.ascontiguousarray, never) == 0


@pytest.mark.parametrize("metric", FLOATS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_graph_linked_over_bytes_keeps_its_rows_and_finds_as_much(
    metric: Metric, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, queries = prepared(normal(4_000, 32), metric), prepared(normal(100, 32, 1), metric)
    _, true = native.nearest(queries, base, 10, Metric.L2 if metric is Metric.COSINE else metric)

    def recall() -> tuple[float, Any]:
        index = HNSW.build(base, metric, BuildOptions(threads=threads))
        found = index.search(queries, 10, params={"ef": 40})
        hits = [len(np.intersect1d(a, b)) for a, b in zip(found.rows, true, strict=True)]
        return sum(hits) / true.size, index._graph.native

    assert choose_bytes(Rows(base), metric, never) is not None
    by_bytes, graph = recall()
    kept = graph.storage.reconstruct_n(0, len(base))
    np.testing.assert_allclose(kept, base, rtol=2e-3, atol=1e-3)
    monkeypatch.setattr(hnsw_build, "choose_bytes", lambda rows, metric, cancelled: None)
    assert by_bytes >= recall()[0] - 0.02


def test_a_build_that_is_cancelled_while_its_rows_are_bytes_ends() -> None:
    base, reported = normal(20_000, 16), [0.0]
    options = BuildOptions(
        params={"ef_construction": 8}, cancelled=lambda: reported[-1] > 0.1, progress=reported.append
    )
    with pytest.raises(BuildCancelled):
        HNSW.build(base, Metric.L2, options)
    assert 0.1 < reported[-1] < 1.0
