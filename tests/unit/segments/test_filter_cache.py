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
        cache.get(key, lambda: dense)
    cache.get("a", lambda: dense)
    cache.get("d", lambda: dense)
    assert cache.nbytes <= 30_000
    computed = []
    for key in "acdb":
        cache.get(key, lambda key=key: computed.append(key) or dense)
    assert computed == ["b"]


def test_what_exceeds_the_bound_is_not_kept() -> None:
    cache = FilterCache(bound=100)
    assert len(cache.get("a", lambda: from_rows(np.arange(1000)))) == 1000
    assert cache.nbytes == 0
