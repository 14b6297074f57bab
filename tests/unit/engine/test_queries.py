"""Checking a search and preparing its queries: one query alone is the same, to the last bit, as in a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vectordb.engine.checks import check_search
from vectordb.errors import InvalidVector
from vectordb.metric import Metric, prepared
from vectordb.requests import SearchRequest
from vectordb.types import CollectionConfig


@given(st.integers(1, 300) | st.integers(1000, 9000), st.integers(-30, 30), st.sampled_from(Metric), st.integers(0, 9))
@example(8193, 0, Metric.COSINE, 0)
def test_a_query_is_prepared_alone_as_in_a_batch(dim: int, exponent: int, metric: Metric, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((3, dim)).astype(np.float32) * np.float32(2.0**exponent)
    config = CollectionConfig("c", dim, metric)
    batch = check_search(config, SearchRequest(vectors))
    np.testing.assert_array_equal(batch, prepared(vectors, metric))
    for row in range(3):
        alone = check_search(config, SearchRequest(vectors[row : row + 1]))
        assert alone.dtype == np.float32
        assert alone.tobytes() == batch[row].tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", list(Metric))
def test_bad_numbers_are_refused_alone_and_in_a_batch(bad: float, metric: Metric) -> None:
    for queries, at in ((1, 0), (3, 2)):
        vectors = np.ones((queries, 4), np.float32)
        vectors[at, 1] = bad
        with pytest.raises(InvalidVector) as caught:
            check_search(CollectionConfig("c", 4, metric), SearchRequest(vectors))
        assert (caught.value.row, caught.value.position) == (at, 1)


@pytest.mark.parametrize("queries", [1, 3])
def test_a_zero_query_has_no_direction(queries: int) -> None:
    vectors = np.ones((queries, 4), np.float32)
    vectors[-1] = 0.0
    with pytest.raises(InvalidVector, match="no direction"):
        check_search(CollectionConfig("c", 4, Metric.COSINE), SearchRequest(vectors))
    for metric in (Metric.DOT, Metric.L2, Metric.L1):
        assert check_search(CollectionConfig("c", 4, metric), SearchRequest(vectors)) is vectors
