"""Blocks of HTTP/2 headers: written as literals, read without a table."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectordb.wire.hpack import BadHeaders, headers_of, literal


def test_blocks_of_the_rfc() -> None:
    # RFC 7541, C.2 and C.4.1.
    assert headers_of(bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")) == (
        ("custom-key", b"custom-header"),
    )
    assert headers_of(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")) == (
        (":method", b"GET"),
        (":scheme", b"http"),
        (":path", b"/"),
        (":authority", b"www.example.com"),
    )
    # C.6.1, whose entries are all literal.
    block = (
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"
    )
    assert headers_of(bytes.fromhex(block)) == (
        (":status", b"302"),
        ("cache-control", b"private"),
        ("date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", b"https://www.example.com"),
    )


@given(st.lists(st.tuples(st.from_regex(r"\A[a-z-]{1,200}\Z"), st.binary(max_size=400)), max_size=4))
def test_literals_are_read_back(headers: list[tuple[str, bytes]]) -> None:
    assert headers_of(b"".join(literal(name, value) for name, value in headers)) == tuple(headers)


@given(st.binary(max_size=60))
def test_no_block_raises_anything_else(block: bytes) -> None:
    with contextlib.suppress(BadHeaders):
        headers_of(block)


@pytest.mark.parametrize("block", ["80", "be", "3fe11f", "00ff", "0001", "000185ffffffff7f", "ffffffffffffff7f"])
def test_blocks_that_need_a_table_or_are_damaged(block: str) -> None:
    with pytest.raises(BadHeaders):
        headers_of(bytes.fromhex(block))
