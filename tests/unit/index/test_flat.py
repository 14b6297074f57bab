"""The kind ``flat`` beyond the conformance suite: slices, ties, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vectordb.errors import Corruption
from vectordb.index import flat
from vectordb.index.base import BuildOptions
from vectordb.index.flat import FLAT
from vectordb.metric import Metric, distances, prepared, scores


def normal(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("queries", [1, 10])
def test_many_slices_answer_like_one(metric: Metric, queries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    base, asked = prepared(normal(1000, 8), metric), prepared(normal(queries, 8, 1), metric)
    mask = np.random.default_rng(2).random(1000) < 0.3
    bits = np.packbits(mask, bitorder="little")
    whole = FLAT.build(base, metric, BuildOptions())
    wanted = [whole.search(asked, 15).rows, whole.search(asked, 15, allowed=bits).rows]
    monkeypatch.setattr(flat, "_SLICE_BYTES", 70 * 8 * 4)
    sliced = FLAT.build(base, metric, BuildOptions())
    for found, rows in zip(wanted, (None, mask), strict=True):
        got = sliced.search(asked, 15, allowed=None if rows is None else bits)
        np.testing.assert_array_equal(got.rows, found)
        assert got.scored == queries * (1000 if rows is None else int(mask.sum()))
    for query, rows in zip(asked, wanted[1], strict=True):
        far = distances(scores(query, base, metric), metric)
        far[~mask] = np.inf
        np.testing.assert_array_equal(np.sort(far)[:15], far[rows])


def test_equal_rows_ascend_by_position() -> None:
    base = np.repeat(normal(2, 4), [3, 50], axis=0)
    found = FLAT.build(base, Metric.L2, BuildOptions()).search(base[10:11], 20)
    np.testing.assert_array_equal(found.rows[0], np.arange(3, 23))


def test_a_file_of_another_matrix_is_refused(tmp_path: Path) -> None:
    path, base = tmp_path / "index", normal(20, 4)
    FLAT.build(base, Metric.L2, BuildOptions()).save(path)
    FLAT.load(path, base, Metric.L2, BuildOptions())
    for vectors, metric in ((base[:19], Metric.L2), (normal(20, 5), Metric.L2), (base, Metric.DOT)):
        with pytest.raises(Corruption, match="20 rows of dim 4"):
            FLAT.load(path, vectors, metric, BuildOptions())
    for data in (b"", path.read_bytes()[:-1], b"X" + path.read_bytes()[1:]):
        path.write_bytes(data)
        with pytest.raises(Corruption, match="not a flat index file"):
            FLAT.load(path, base, Metric.L2, BuildOptions())
