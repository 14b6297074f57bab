"""Header blocks of HTTP/2 without a dynamic table (RFC 7541): what is left of HPACK where the table's size is 0.

Then a block says the same whatever came before it, and those that repeat are read once.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

Headers = tuple[tuple[str, bytes], ...]

_STATIC: tuple[tuple[str, bytes], ...] = (
    (":authority", b""), (":method", b"GET"), (":method", b"POST"), (":path", b"/"), (":path", b"/index.html"),
    (":scheme", b"http"), (":scheme", b"https"), (":status", b"200"), (":status", b"204"), (":status", b"206"),
    (":status", b"304"), (":status", b"400"), (":status", b"404"), (":status", b"500"), ("accept-charset", b""),
    ("accept-encoding", b"gzip, deflate"),
    *((name, b"") for name in (
        "accept-language", "accept-ranges", "accept", "access-control-allow-origin", "age", "allow", "authorization",
        "cache-control", "content-disposition", "content-encoding", "content-language", "content-length",
        "content-location", "content-range", "content-type", "cookie", "date", "etag", "expect", "expires", "from",
        "host", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified",
        "link", "location", "max-forwards", "proxy-authenticate", "proxy-authorization", "range", "referer", "refresh",
        "retry-after", "server", "set-cookie", "strict-transport-security", "transfer-encoding", "user-agent", "vary",
        "via", "www-authenticate",
    )),
)  # fmt: skip
"""Appendix A."""
_LENGTHS = (
    *(13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28),
    *(28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28),
    *(6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6),
    *(5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10),
    *(13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7),
    *(7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6),
    *(15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5),
    *(6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28),
    *(20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23),
    *(24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24),
    *(22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23),
    *(21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23),
    *(26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25),
    *(19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27),
    *(20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23),
    *(26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26),
    30,
)
"""Appendix B: bits of each byte's code, and of the end. Codes of one length go up with their bytes."""


def _codes() -> dict[tuple[int, int], int]:
    codes, code, before = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(_LENGTHS)):
        code <<= length - before
        codes[length, code] = symbol
        code, before = code + 1, length
    return codes


_CODES = _codes()
_END = 256


class BadHeaders(Exception):
    """A block that cannot be read, or needs a dynamic table."""


def literal(name: str, value: bytes, *, secret: bool = False) -> bytes:
    """A header as it is; ``secret``: whoever passes it on must not put it into a table either."""
    data = name.encode()
    return b"".join((b"\x10" if secret else b"\x00", _length(len(data)), data, _length(len(value)), value))


def metadata_block(metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Metadata of gRPC as headers: what is binary in base64, and keys as secrets."""
    parts = []
    for name, value in metadata:
        data = base64.b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode()
        parts.append(literal(name, data, secret=name == "authorization"))
    return b"".join(parts)


def _length(number: int) -> bytes:
    if number < 127:
        return bytes((number,))
    data, number = bytearray((127,)), number - 127
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def headers_of(block: bytes) -> Headers:
    """The headers of a block, in order.

    Raises:
        BadHeaders: It is damaged, or needs a dynamic table.
    """
    try:
        return tuple(_read(block))
    except (IndexError, UnicodeDecodeError):
        raise BadHeaders("a header block ends too early, or has a name that is no text") from None


def _read(block: bytes) -> list[tuple[str, bytes]]:
    found, at = [], 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _number(block, at, 7)
            found.append(_static(index))
        elif first & 0xE0 == 0x20:
            size, at = _number(block, at, 5)
            if size:
                raise BadHeaders("the peer wants a dynamic table")
        else:
            # With indexing, without it, or never indexed: all the same without a table.
            index, at = _number(block, at, 6 if first & 0x40 else 4)
            if index:
                name = _static(index)[0]
            else:
                text, at = _string(block, at)
                name = text.decode("ascii")
            value, at = _string(block, at)
            found.append((name, value))
    return found


def _static(index: int) -> tuple[str, bytes]:
    if not 1 <= index <= len(_STATIC):
        raise BadHeaders(f"entry {index} is none of the static table")
    return _STATIC[index - 1]


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    number, at, shift = block[at] & most, at + 1, 0
    if number < most:
        return number, at
    while True:
        more, at = block[at], at + 1
        number += (more & 127) << shift
        shift += 7
        if more < 128:
            return number, at
        if shift > 28:
            raise BadHeaders("a number has more than 32 bits")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    size, at = _number(block, at, 7)
    data = block[at : at + size]
    if len(data) != size:
        raise IndexError
    return (_decoded(data) if coded else data), at + size


def _decoded(data: bytes) -> bytes:
    found, code, length = bytearray(), 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            symbol = _CODES.get((length, code))
            if symbol is not None:
                if symbol == _END:
                    raise BadHeaders("a text has the sign for its end")
                found.append(symbol)
                code = length = 0
            elif length > 30:
                raise BadHeaders("a text has no code")
    if length > 7 or code != (1 << length) - 1:
        raise BadHeaders("a text's last byte is not filled with ones")
    return bytes(found)
