import numpy as np

from vectordb.filter import col
from vectordb.metadata.rowset import RowSet, from_rows
from vectordb.segments.filter_cache import FilterCache


def test_an_answer_is_computed_once() -> None:
    cache, calls = FilterCache(), []

    def compute() -> RowSet:
        calls.append(1)
        return from_rows(np.arange(5))

    first = cache.get(col("a") == 1, compute)
    assert cache.get(col("a") == 1, compute) is first
    assert len(calls) == 1


def test_operands_of_other_types_are_other_filters() -> None:
    cache = FilterCache()
    answers = [
        cache.get(col("a") == value, lambda v=value: from_rows(np.array([id(type(v)) % 97])))
        for value in (1, 1.0, True)
    ]
    assert len({tuple(a) for a in answers}) == len({id(t) % 97 for t in (int, float, bool)})


def test_the_bound_holds_and_the_oldest_goes_first() -> None:
    dense = from_rows(np.arange(0, 60_000, 2))
    cache = FilterCache(bound=30_000)
    for key in "abc":
        cache.get(col(key) == 1, lambda: dense)
    cache.get(col("a") == 1, lambda: dense)
    cache.get(col("d") == 1, lambda: dense)
    assert cache.nbytes <= 30_000
    computed = []
    for key in "acdb":
        cache.get(col(key) == 1, lambda key=key: computed.append(key) or dense)
    assert computed == ["b"]
    cache.limit(100)
    assert cache.nbytes == 0


def test_what_exceeds_the_bound_is_not_kept() -> None:
    cache = FilterCache(bound=100)
    assert len(cache.get(col("a") == 1, lambda: from_rows(np.arange(1000)))) == 1000
    assert cache.nbytes == 0


def test_what_is_asked_once_is_not_kept_and_what_is_kept_is_given_to_it() -> None:
    cache, where = FilterCache(), col("a") == 1
    assert len(cache.get(where, lambda: from_rows(np.arange(3)), keep=False)) == 3
    assert cache.nbytes == 0
    kept = cache.get(where, lambda: from_rows(np.arange(5)))
    assert cache.get(where, lambda: from_rows(np.arange(7)), keep=False) is kept


def test_the_filter_counts_as_well() -> None:
    cache = FilterCache(bound=100_000)
    for first in range(10):
        cache.get(col("a").isin([f"{first}-{i}" for i in range(200)]), lambda: from_rows(np.empty(0, np.int64)))
    assert 30_000 < cache.nbytes <= 100_000
