"""Whole numbers as protobuf has them on the wire."""

from __future__ import annotations

_SMALL = [bytes((number,)) for number in range(128)]


def varint(number: int) -> bytes:
    """A whole number of 0 or more: seven bits a byte, the lowest first."""
    if number < 128:
        return _SMALL[number]
    if number < 16_384:
        return bytes((number & 127 | 128, number >> 7))
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)
