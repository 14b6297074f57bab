"""Keys sort as their numbers do, ranges hold exactly what they should, and the layout on disk is fixed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectordb.errors import Corruption
from vectordb.storage import keys
from vectordb.storage.keys import Kind, Superseded

cids = st.integers(1, keys.MAX_COLLECTION)
u64 = st.integers(0, keys.MAX_U64)
ids = st.binary(min_size=1, max_size=40)
names = st.sampled_from(["", "title", "titles", "é"])


def test_layout_byte_for_byte() -> None:
    """These bytes are on users' disks: a change here needs a new FORMAT_VERSION and a migration."""
    assert keys.FORMAT_VERSION == 1
    assert keys.name_key("docs") == b"\0\0\0\0Ndocs"
    assert Kind.ALIAS.value == b"A", "reserved"
    assert keys.NEXT_COLLECTION_KEY == b"\0\0\0\0#"
    assert keys.config_key(1) == b"\0\0\0\x01c"
    assert keys.state_key(1) == b"\0\0\0\x01S"
    assert keys.manifest_key(258) == b"\0\0\x01\x02M"
    assert keys.id_key(1, b"x") == b"\0\0\0\x01Ix"
    assert keys.tombstone_key(1, 2) == b"\0\0\0\x01T\0\0\0\0\0\0\0\x02"
    assert keys.overlay_key(1, 2, 3) == b"\0\0\0\x01O\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03"
    assert keys.superseded_key(1, Superseded(2, 3, 4)) == b"\0\0\0\x01G" + b"".join(
        n.to_bytes(8, "big") for n in (2, 3, 4)
    )
    assert keys.idempotency_key(1, "k") == b"\0\0\0\x01Kk"
    assert keys.undo_key(1, 2, 3) == b"\0\0\0\x01U\0\0\0\0\0\0\0\x02\0\0\0\x03"
    assert keys.payload_key(1, 2, 3) == b"\0\0\0\x01P\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03"
    assert keys.vector_key(1, 2) == b"\0\0\0\x01V\0\0\0\0\0\0\0\0\x02"
    assert keys.vector_key(1, 2, "ab") == b"\0\0\0\x01V\x02ab\0\0\0\0\0\0\0\x02"


@given(cids, st.lists(ids, max_size=5), u64)
def test_many_keys_equal_single_ones(cid: int, some_ids: list[bytes], version: int) -> None:
    assert keys.id_keys(cid, some_ids) == [keys.id_key(cid, i) for i in some_ids]
    offsets = [7, 2**40, 0]
    assert keys.payload_keys(cid, 300, 4, version) == [keys.payload_key(cid, o, version) for o in range(300, 304)]
    versions = [1, version, 3]
    assert keys.payload_keys_at(cid, offsets, versions) == [
        keys.payload_key(cid, o, v) for o, v in zip(offsets, versions, strict=True)
    ]
    for name in ("", "title"):
        assert keys.vector_keys_at(cid, offsets, name) == [keys.vector_key(cid, o, name) for o in offsets]


@given(cids, cids, u64, u64)
def test_a_collection_range_holds_it_and_nothing_else(cid: int, other: int, a: int, b: int) -> None:
    start, end = keys.collection_range(cid)
    mine = [
        keys.config_key(cid),
        keys.id_key(cid, b"\xff" * 600),
        keys.undo_key(cid, a, 5),
        keys.payload_key(cid, a, b),
        keys.vector_key(cid, a, "é"),
        keys.superseded_key(cid, Superseded(a, b, a)),
    ]
    assert all(start <= key < end for key in mine)
    assert all((start <= key < end) == (other == cid) for key in (keys.state_key(other), keys.vector_key(other, a)))
    assert not start <= keys.name_key("x") < end


@given(cids, u64, u64, u64)
def test_number_ranges(cid: int, low: int, high: int, offset: int) -> None:
    for kind, key in (
        (Kind.TOMBSTONE, keys.tombstone_key(cid, offset)),
        (Kind.OVERLAY, keys.overlay_key(cid, offset, 9)),
        (Kind.PAYLOAD, keys.payload_key(cid, offset, 9)),
        (Kind.SUPERSEDED, keys.superseded_key(cid, Superseded(offset, 1, 2))),
        (Kind.UNDO, keys.undo_key(cid, offset, 3)),
    ):
        start, end = keys.number_range(cid, kind, low, high)
        assert (start <= key < end) == (low <= offset < high)
        start, end = keys.number_range(cid, kind, low)
        assert (start <= key < end) == (low <= offset)
        start, end = keys.kind_range(cid, kind)
        assert start <= key < end
        assert not start <= keys.state_key(cid) < end


@given(cids, u64, u64, u64, names, names)
def test_vector_ranges(cid: int, low: int, high: int, offset: int, name: str, other: str) -> None:
    key = keys.vector_key(cid, offset, other)
    start, end = keys.vector_range(cid, low, high, name)
    assert (start <= key < end) == (name == other and low <= offset < high)
    start, end = keys.vector_range(cid, low, None, name)
    assert (start <= key < end) == (name == other and low <= offset)


@given(cids, st.lists(u64, min_size=2, max_size=2, unique=True))
def test_order_is_that_of_the_numbers(cid: int, numbers: list[int]) -> None:
    low, high = sorted(numbers)
    assert keys.tombstone_key(cid, low) < keys.tombstone_key(cid, high)
    assert keys.payload_key(cid, low, high) < keys.payload_key(cid, high, low)
    assert keys.vector_key(cid, low) < keys.vector_key(cid, high)


@given(cids, u64, u64, u64, ids)
def test_parsing(cid: int, a: int, b: int, c: int, id_: bytes) -> None:
    assert keys.parse_cid(keys.payload_key(cid, a, b)) == cid
    assert keys.parse_tail(keys.id_key(cid, id_)) == id_
    assert keys.parse_offset(keys.tombstone_key(cid, a)) == keys.parse_offset(keys.vector_key(cid, a, "t")) == a
    assert keys.parse_offset_version(keys.payload_key(cid, a, b)) == (a, b)
    assert keys.parse_offset_version(keys.overlay_key(cid, a, b)) == (a, b)
    assert keys.parse_superseded(keys.superseded_key(cid, Superseded(a, b, c))) == Superseded(a, b, c)
    many = [keys.superseded_key(cid, Superseded(a, b, c)), keys.superseded_key(cid, Superseded(c, a, b))]
    found = keys.parse_numbers(many, 3)
    assert found.dtype == np.uint64
    assert found.tolist() == [[a, b, c], [c, a, b]]
    assert keys.parse_numbers([keys.vector_key(cid, a)]).tolist() == [[a]]
    assert keys.parse_numbers([], 2).shape == (0, 2)


def test_keys_of_a_wrong_length_are_corruption() -> None:
    for parse in (keys.parse_offset_version, keys.parse_superseded):
        with pytest.raises(Corruption, match="bytes instead of"):
            parse(b"\0\0\0\1Pxyz")
    with pytest.raises(Corruption, match="differ in length"):
        keys.parse_numbers([keys.tombstone_key(1, 1), b"\0\0\0\1T"])
    with pytest.raises(Corruption, match="differ in length"):
        keys.parse_numbers([keys.tombstone_key(1, 1)], 2)
