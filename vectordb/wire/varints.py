"""Whole numbers as protobuf has them on the wire."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A whole number of 0 or more: seven bits a byte, the lowest first."""
    if number < _KEPT:
        return _SMALL[number]
    return _made(number)


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    """The whole number that begins at a place, and the place after it.

    Raises:
        IndexError: The data, or what a number may take of it, ends within it.
    """
    number = 0
    for place in range(_LONGEST):
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128:
            return number, at + place + 1
    raise IndexError(at)


def _made(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


_LONGEST = 10
_KEPT = 2_048
"""Sizes of messages are mostly smaller, and are asked for ten times a search."""
_SMALL = [_made(number) for number in range(_KEPT)]
