"""Graphs built over codes from the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectordb.errors import ResourceExhausted
from vectordb.index import hnsw_build
from vectordb.index.base import BuildOptions
from vectordb.index.faiss_hnsw import HNSW
from vectordb.index.quantization import resolve
from vectordb.metric import Metric, prepared
from vectordb.types import QuantizationSpec

SHAPE = {"m": 12, "ef_construction": 80}


def options(dim: int) -> BuildOptions:
    return BuildOptions(params=SHAPE, quantization=resolve(QuantizationSpec("sq8", {}), dim), lean=True)


def recall(index: Any, rows: np.ndarray, metric: Metric) -> float:
    """Of the ten nearest among twenty candidates, as a search that rescores them has."""
    queries = rows[::50]
    if metric is Metric.L2:
        far = np.square(queries[:, None] - rows[None]).sum(axis=2)
    else:
        far = -queries @ rows.T
    truth = np.argsort(far, axis=1)[:, :10]
    found = index.search(queries, 20).rows
    return float(np.mean([len(np.intersect1d(t, f)) / 10 for t, f in zip(truth, found, strict=True)]))


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2, Metric.DOT])
def test_it_finds_what_one_over_rows_finds_and_grows(
    metric: Metric, wordnet5k: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.ascontiguousarray(prepared(np.asarray(wordnet5k.base, np.float32)[:3_000], metric))
    lean = options(rows.shape[1])
    # No full row is ever put into a graph.
    monkeypatch.setattr(hnsw_build, "_empty", None)
    monkeypatch.setattr(hnsw_build.hnsw_codes, "full_rows", None)
    index = HNSW.build(rows[:2_000], metric, lean)
    index.save(tmp_path / "index.bin")
    loaded = HNSW.load(tmp_path / "index.bin", rows[:2_000], metric, lean)
    assert loaded.capabilities.compressed
    assert recall(loaded, rows[:2_000], metric) >= 0.95
    grown = loaded.extended(rows, lean)
    assert recall(grown, rows, metric) >= 0.95
    assert grown.memory_bytes() < 2 * rows.nbytes / 4


def test_equal_rows_stand_once_in_it() -> None:
    rows = np.repeat(np.random.default_rng(0).standard_normal((200, 32)).astype(np.float32), 10, axis=0)
    index = HNSW.build(rows, Metric.L2, options(32))
    found = index.search(rows[:1], 10)
    assert sorted(found.rows[0].tolist()) == list(range(10))


def test_rows_that_the_codes_cannot_tell_apart_are_refused() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2_000, 32)).astype(np.float32) * 1e-4
    rows[0], rows[1] = 100.0, -100.0
    with pytest.raises(ResourceExhausted, match="of the neighbours: raise memory_limit"):
        HNSW.build(rows, Metric.L2, options(32))
