"""Dictionaries of byte strings: sorting, merging and searching agree with Python's own."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vectordb.metadata import bytes_keys
from vectordb.metadata.bytes_keys import BytesKeys


def words(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    stems = [b"", b"\0", b"https://example.org/", b"x" * 127, b"x" * 128, b"y" * 300, "é日".encode()]
    return [rng.choice(stems) + bytes(rng.choices(b"\0ab", k=rng.randrange(12))) for _ in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 50, 3000])
def test_sort_is_bytewise_and_marks_repeats(count: int) -> None:
    given = words(count, count)
    blob = np.frombuffer(b"".join(given), dtype=np.uint8)
    lengths = np.array([len(w) for w in given], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    order, distinct = bytes_keys.sort_strings(blob, starts, lengths)
    ordered = [given[i] for i in order]
    assert ordered == sorted(given)
    assert distinct.tolist() == [i == 0 or ordered[i] != ordered[i - 1] for i in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_union_of_dictionaries(seed: int) -> None:
    parts = [sorted(set(words(seed * 10 + i, 200))) for i in range(3)]
    union, codes = bytes_keys.merged([BytesKeys.of(part) for part in parts])
    expected = sorted(set().union(*parts))
    assert [union[i] for i in range(len(union))] == expected
    assert [expected[c] for c in codes] == [w for part in parts for w in part]
    chosen = np.arange(0, len(union), 3)
    assert [bytes_keys.kept(union, chosen)[i] for i in range(len(chosen))] == expected[::3]


@pytest.mark.parametrize("asked", [1, 7, 8, 500])
def test_find_gives_exactly_the_keys_that_are_there(asked: int) -> None:
    own = sorted(set(words(1, 1000)))
    keys = BytesKeys.of(own)
    # Near misses: same first 8 bytes, same length, another end.
    wanted = sorted({*words(2, asked), *random.Random(3).sample(own, asked // 2), *(w + b"!" for w in own[:asked])})
    found = keys.find(wanted)
    assert sorted(own[i] for i in found) == [w for w in wanted if w in set(own)]


def test_bounds_and_prefixes() -> None:
    own = sorted(["", "a", "ab", "abc", "b", "é", "é\0", "\U0010ffff"], key=str.encode)
    keys = BytesKeys.of([w.encode() for w in own])
    for prefix in ["", "a", "ab", "abd", "é", "\U0010ffff", "z"]:
        low, high = keys.prefixed(prefix.encode())
        assert [keys[i].decode() for i in range(low, high)] == [w for w in own if w.startswith(prefix)]
    for word in ["", "a", "aa", "zz", "é"]:
        assert keys.left(word.encode()) == sum(w.encode() < word.encode() for w in own)


def test_empty() -> None:
    empty = BytesKeys.of([])
    assert len(empty) == 0
    assert empty.prefixed(b"") == (0, 0)
    assert len(empty.find([b"a"] * 1)) == 0
    assert len(empty.find([bytes([i]) for i in range(20)])) == 0
