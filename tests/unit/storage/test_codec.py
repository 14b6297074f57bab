"""Values come back as they went in, and bytes that no encoder makes are Corruption."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import ormsgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectordb.errors import Corruption
from vectordb.metric import Metric
from vectordb.storage import catalogue, codec
from vectordb.storage.catalogue import SegmentEntry
from vectordb.storage.codec import IdempotentResult, IdEntry, Payload, State, Tombstone
from vectordb.types import CollectionConfig, Durability, FieldSpec, FieldType, IndexSpec, QuantizationSpec, Tuning

u64 = st.integers(0, 2**64 - 1)
payloads = st.builds(
    Payload,
    st.binary(min_size=1, max_size=512),
    st.binary(max_size=100),
    st.none() | st.binary(max_size=100),
    st.none() | st.integers(-(2**63), 2**63 - 1),
)


@given(payloads)
def test_payload(payload: Payload) -> None:
    value = codec.encode_payload(*payload)
    assert codec.decode_payload(value) == payload
    assert codec.payload_id(value) == payload.id
    assert codec.payload_metadata(value) == payload.metadata
    assert codec.payload_text(value) == payload.text


def test_payload_layout() -> None:
    assert codec.encode_payload(b"id", b"m", b"text") == b"\x01\x01\x02\x00\x01\x00\x00\x00idmtext"
    assert codec.encode_payload(b"id", b"", None) == b"\x01\x00\x02\x00\x00\x00\x00\x00id"
    assert codec.encode_payload(b"i", b"", None, 1)[:16] == b"\x01\x02\x01\x00\x00\x00\x00\x00\x01" + bytes(7)
    assert codec.decode_payload(codec.encode_payload(b"i", b"", b"")).text == b""


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01\x00\x02",
        b"\x02\x00\x02\x00\x00\x00\x00\x00id",  # a newer layout
        b"\x01\x08\x02\x00\x00\x00\x00\x00id",  # an unknown flag
        b"\x01\x00\x03\x00\x00\x00\x00\x00id",  # cut short
        b"\x01\x00\x02\x00\x00\x00\x00\x00id more",  # no text announced
        b"\x01\x02\x00\x00\x00\x00\x00\x00\x00",  # no room for the expiry time
    ],
)
def test_malformed_payloads(value: bytes) -> None:
    readers: list[Callable[[bytes], object]] = [
        codec.decode_payload,
        codec.payload_id,
        codec.payload_metadata,
        codec.payload_text,
    ]
    for read in readers:
        with pytest.raises(Corruption, match="payload"):
            read(value)


@given(payloads, st.data())
def test_a_shortened_payload_never_reads_past_its_end(payload: Payload, data: st.DataObject) -> None:
    value = codec.encode_payload(*payload)
    short = value[: data.draw(st.integers(0, len(value) - 1))]
    try:
        decoded = codec.decode_payload(short)
    except Corruption:
        return
    assert payload.text is not None
    assert decoded.text is not None
    assert decoded[:2] == payload[:2]
    assert payload.text.startswith(decoded.text)


@given(u64, u64)
def test_fixed_entries(a: int, b: int) -> None:
    assert codec.decode_id_entry(codec.encode_id_entry(a, b)) == IdEntry(a, b)
    assert codec.decode_tombstone(codec.encode_tombstone(a, b)) == Tombstone(a, b)
    assert codec.decode_u32(codec.encode_u32(a & 0xFFFFFFFF)) == a & 0xFFFFFFFF


def test_fixed_entries_of_a_wrong_length() -> None:
    for call in (
        lambda: codec.decode_id_entry(b"x" * 15),
        lambda: codec.decode_tombstone(b"x" * 17),
        lambda: codec.decode_u32(b""),
    ):
        with pytest.raises(Corruption, match=r"16 bytes|instead of"):
            call()


@pytest.mark.parametrize(("n", "dim"), [(0, 3), (1, 1), (5, 384)])
def test_vectors(n: int, dim: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32)
    stored = codec.encode_vectors(vectors)
    assert stored == [row.astype("<f4").tobytes() for row in vectors]
    back = codec.decode_vectors(stored, dim)
    assert back.shape == (n, dim)
    assert back.flags.writeable
    np.testing.assert_array_equal(back, vectors)
    assert codec.encode_vectors(np.asfortranarray(vectors)) == stored


def test_vectors_of_a_wrong_length() -> None:
    with pytest.raises(Corruption, match="stored vector 1 has 8 bytes instead of 12"):
        codec.decode_vectors([b"x" * 12, b"x" * 8], 3)
    with pytest.raises(Corruption, match="stored vector 0 has 16 bytes"):
        codec.decode_vectors([b"x" * 16, b"x" * 8], 3)


def test_results() -> None:
    result = IdempotentResult(1769850000.25, 3, 2**60, b"digest")
    assert codec.decode_result(codec.encode_result(result)) == result
    for value in (b"", codec.encode_result(result)[:20], b"\x02" + codec.encode_result(result)[1:]):
        with pytest.raises(Corruption, match="idempotent"):
            codec.decode_result(value)


def test_state_keeps_what_it_does_not_know() -> None:
    state = State(7, 2**63, 3).advanced(8, 2**63 + 1, 4)
    assert codec.decode_state(codec.encode_state(state)) == state
    newer = ormsgpack.packb({**ormsgpack.unpackb(codec.encode_state(state)), "epoch": [1, 2]})
    read = codec.decode_state(newer)
    assert read.extra == {"epoch": [1, 2]}
    again = codec.decode_state(codec.encode_state(read.advanced(9, 2**63 + 2, 4)))
    assert again == State(9, 2**63 + 2, 4, {"epoch": [1, 2]})


def test_undo() -> None:
    before = [(b"a", b"old"), (b"b", None), (b"\xff\x00", b"")]
    assert codec.decode_undo(codec.encode_undo(before)) == before


def test_manifest() -> None:
    segments = [
        SegmentEntry("a" * 32, 0, 100, 90, 12),
        SegmentEntry("b" * 32, 100, 2**40, 5, 2**50, IndexSpec("hnsw", {"m": 16, "x": 0.5}), "index-1", "indexed"),
        SegmentEntry("c" * 32, 2**40, 2**41, 5, 2**50, next_index_name="index-2"),
    ]
    assert catalogue.decode_manifest(catalogue.encode_manifest(segments)) == segments
    assert catalogue.decode_manifest(catalogue.encode_manifest([])) == []
    raw = ormsgpack.unpackb(catalogue.encode_manifest(segments))
    # As older releases wrote it, and read it.
    assert ["next_index_name" in entry for entry in raw["segments"]] == [False, False, True]
    raw["segments"][0]["tier"] = 3
    read = catalogue.decode_manifest(ormsgpack.packb(raw))
    assert read[0].extra == {"tier": 3}
    assert catalogue.decode_manifest(catalogue.encode_manifest(read)) == read


CONFIGS = [
    CollectionConfig("docs", 384),
    CollectionConfig(
        "d",
        2,
        Metric.L1,
        IndexSpec("hnsw", {"m": 16, "flag": True, "name": "x"}),
        QuantizationSpec("pq", {"nbits": 8}),
        {"year": FieldSpec(FieldType.INT), "note": FieldSpec(FieldType.TEXT, False)},
        Tuning(seal_bytes=1, durability=Durability.ASYNC),
        analyzer="german",
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["defaults", "everything"])
def test_config(config: CollectionConfig) -> None:
    data = catalogue.encode_config(config)
    assert catalogue.decode_config(data) == config
    assert catalogue.decode_target(data) is None
    target = catalogue.Choice(IndexSpec("hnsw", {"m": 8}), QuantizationSpec("sq8"))
    running = catalogue.encode_config(config, target)
    assert (catalogue.decode_config(running), catalogue.decode_target(running)) == (config, target)
    raw = ormsgpack.unpackb(data)
    raw["later"] = 1
    raw["tuning"]["later"] = 1
    del raw["tuning"]["merge_factor"]
    assert catalogue.decode_config(ormsgpack.packb(raw)) == config
    del raw["analyzer"]
    assert catalogue.decode_config(ormsgpack.packb(raw)).analyzer == "standard"


@pytest.mark.parametrize(
    "decode", [codec.decode_state, codec.decode_undo, catalogue.decode_manifest, catalogue.decode_config]
)
@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x01", ormsgpack.packb({}), ormsgpack.packb({"v": 1}), ormsgpack.packb([1]), b"\x81\xa1v"],
)
def test_malformed_maps(decode: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(Corruption, match="cannot be read"):
        decode(data)


def test_newer_map_layout_is_refused() -> None:
    with pytest.raises(Corruption, match="layout 2"):
        codec.decode_state(ormsgpack.packb({"v": 2}))


def test_malformed_fields_are_named() -> None:
    raw = ormsgpack.unpackb(catalogue.encode_config(CONFIGS[0]))
    raw["metric"] = "hamming"
    with pytest.raises(Corruption, match="hamming"):
        catalogue.decode_config(ormsgpack.packb(raw))
    with pytest.raises(Corruption, match="state"):
        codec.decode_state(ormsgpack.packb({"v": 1, "version": -1, "next": 0, "alive": 0, "sealed": 0}))
