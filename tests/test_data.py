"""The data sets are what they say, also the made-up ones that stand in where the real ones are not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vectordb.filter import as_filter
from vectordb.filter.reference import matches


@pytest.fixture
def elsewhere(data: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as it is on a machine without the real sets."""
    monkeypatch.setattr(data, "data_folder", lambda: None)
    return data


def check_wordnet(data: ModuleType, wordnet: Any) -> None:
    n = len(wordnet.ids)
    assert wordnet.base.shape == (n, 384)
    assert wordnet.base.dtype == wordnet.queries.dtype == np.float32
    assert len(set(wordnet.ids)) == len(wordnet.metadata) == len(wordnet.texts) == n
    # float16 on disk: unit length to within 1e-4 or so.
    np.testing.assert_allclose(np.linalg.norm(wordnet.base, axis=1), 1.0, atol=1e-3)
    near = data.brute_force(wordnet.queries[:20], wordnet.base, 10)
    np.testing.assert_array_equal(wordnet.truth[:20, :10], near)
    for name, where in wordnet.filters.items():
        condition = as_filter(where)
        said = np.array([matches(condition, metadata) for metadata in wordnet.metadata])
        np.testing.assert_array_equal(wordnet.matching[name], said)
        assert 0.005 * n < said.sum() < 0.5 * n
        assert wordnet.filtered_truth[name].shape == (100, 20)
        assert said[wordnet.filtered_truth[name]].all()


def test_wordnet(data: ModuleType, wordnet: Any) -> None:
    check_wordnet(data, wordnet)
    assert wordnet.real == data.have_shared_data()
    assert len(wordnet.ids) == 20_000


def test_a_part_of_wordnet_has_its_own_truth(data: ModuleType, wordnet5k: Any) -> None:
    check_wordnet(data, wordnet5k)
    assert wordnet5k.truth.max() < 5_000
    assert len(wordnet5k.ids) == 5_000


def test_wordnet_elsewhere(elsewhere: Any) -> None:
    made_up = elsewhere.wordnet.__wrapped__(4_000)
    assert not made_up.real
    check_wordnet(elsewhere, made_up)


def test_mnist(data: ModuleType, mnist: Any) -> None:
    near = data.brute_force(mnist.queries[:20], mnist.base, 10, metric="l2")
    np.testing.assert_array_equal(mnist.truth[:20, :10], near)
    assert mnist.base.shape == (5_000, 784)
    assert mnist.base.max() > 100


def test_mnist_elsewhere(elsewhere: Any) -> None:
    made_up = elsewhere.mnist.__wrapped__()
    assert not made_up.real
    assert made_up.base.shape == (5_000, 784)
    assert made_up.truth.shape == (200, 100)


FAR = {
    "dot": lambda query, row: -float(query @ row),
    "l2": lambda query, row: float(((query - row) ** 2).sum()),
    "l1": lambda query, row: float(np.abs(query - row).sum()),
}


@pytest.mark.parametrize("metric", FAR)
def test_brute_force_is_exact(data: ModuleType, metric: str) -> None:
    rng = np.random.default_rng(1)
    base, queries = rng.standard_normal((70, 5)), rng.standard_normal((3, 5))
    for query, found in zip(queries, data.brute_force(queries, base, 7, metric=metric), strict=True):
        far = [FAR[metric](query, row) for row in base]
        assert found.tolist() == sorted(range(70), key=far.__getitem__)[:7]


def test_a_wrong_folder_is_told(data: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VECTORDB_TEST_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="VECTORDB_TEST_DATA"):
        data.data_folder()
