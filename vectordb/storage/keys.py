"""The layout of keys on disk: what stands where, byte for byte.

All integers are big-endian, so that keys sort by number. ``cid`` is a collection's number (u32, from 1, never reused);
number 0 is the catalogue of the whole database. A *kind* is one ASCII byte.

Family META (values: ``codec.py`` unless another file is named)::

    cid=0 | 'N' | name utf8                          collection number u32         catalogue
    cid=0 | 'A' | alias utf8                         reserved: collection number   aliases
    cid=0 | '#'                                      u32                           next collection number
    cid   | 'c'                                      configuration (catalogue.py)
    cid   | 'S'                                      state (catalogue.py)          version, next offset, row count
    cid   | 'M'                                      manifest of segments (catalogue.py)
    cid   | 'I' | id utf8                            offset u64, payload version u64
    cid   | 'T' | offset u64                         deleting version u64, payload version u64 at death
    cid   | 'O' | offset u64 | payload version u64   (empty)    payload written after the row itself: an overlay
    cid   | 'G' | version u64 | offset u64 | old payload version u64     (empty)   payload superseded at `version`
    cid   | 'K' | idempotency key utf8               result of the call
    cid   | 'U' | version u64 | piece u32            how to take back a piece of an unfinished large commit

Family ROWS::

    cid   | 'P' | offset u64 | payload version u64   id, metadata, text

Family VECTORS::

    cid   | 'V' | n u8 | vector name utf8[n] | offset u64      float32[dim], little-endian ("" is the default name)

Everything of one collection lies, in each family, in ``collection_range(cid)``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.errors import Corruption

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT_VERSION = 1
"""Version of this layout and of the value codecs, written to the FORMAT file (``format.py``)."""

GLOBAL = 0
"""The collection number under which the catalogue stands."""
MAX_COLLECTION = 2**32 - 2
MAX_U64 = 2**64 - 1

Range = tuple[bytes, bytes]
"""``[start, end)`` for scans and ``delete_range``."""


class Kind(Enum):
    """The byte after the collection number."""

    NAME = b"N"
    ALIAS = b"A"
    NEXT_COLLECTION = b"#"
    CONFIG = b"c"
    STATE = b"S"
    MANIFEST = b"M"
    ID = b"I"
    TOMBSTONE = b"T"
    OVERLAY = b"O"
    SUPERSEDED = b"G"
    RESULT = b"K"
    UNDO = b"U"
    PAYLOAD = b"P"
    VECTOR = b"V"


class Superseded(NamedTuple):
    """A payload that ``version`` replaced; it is purged once no snapshot precedes that version."""

    version: int
    offset: int
    payload_version: int


_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_CID_KIND = struct.Struct(">Ic")
_CID_U64 = struct.Struct(">IcQ")
_CID_U64_U32 = struct.Struct(">IcQI")
_CID_U64_U64 = struct.Struct(">IcQQ")
_CID_U64_U64_U64 = struct.Struct(">IcQQQ")
_VECTOR_DEFAULT = struct.Struct(">IcBQ")

NEXT_COLLECTION_KEY = _U32.pack(GLOBAL) + Kind.NEXT_COLLECTION.value


def _prefix(cid: int, kind: Kind) -> bytes:
    return _U32.pack(cid) + kind.value


# -- single keys -----------------------------------------------------------------------------------------------------


def name_key(name: str) -> bytes:
    """META: catalogue entry of a collection's name."""
    return _prefix(GLOBAL, Kind.NAME) + name.encode()


def config_key(cid: int) -> bytes:
    """META: a collection's configuration."""
    return _prefix(cid, Kind.CONFIG)


def state_key(cid: int) -> bytes:
    """META: a collection's state; written last in each commit."""
    return _prefix(cid, Kind.STATE)


def manifest_key(cid: int) -> bytes:
    """META: a collection's list of segments."""
    return _prefix(cid, Kind.MANIFEST)


def id_key(cid: int, id_: bytes) -> bytes:
    """META: where the record of this id (UTF-8) is."""
    return _CID_KIND.pack(cid, b"I") + id_


def tombstone_key(cid: int, offset: int) -> bytes:
    """META: the row is dead."""
    return _CID_U64.pack(cid, b"T", offset)


def overlay_key(cid: int, offset: int, payload_version: int) -> bytes:
    """META: ``payload_version`` wrote another payload for a row that was there before."""
    return _CID_U64_U64.pack(cid, b"O", offset, payload_version)


def superseded_key(cid: int, superseded: Superseded) -> bytes:
    """META: a replaced payload that waits to be purged."""
    return _CID_U64_U64_U64.pack(cid, b"G", *superseded)


def idempotency_key(cid: int, key: str) -> bytes:
    """META: the result of the call that carried this key."""
    return _prefix(cid, Kind.RESULT) + key.encode()


def undo_key(cid: int, version: int, piece: int) -> bytes:
    """META: undo record of one piece of the large commit ``version``."""
    return _CID_U64_U32.pack(cid, b"U", version, piece)


def payload_key(cid: int, offset: int, version: int) -> bytes:
    """ROWS: the payload that ``version`` wrote for the row ``offset``."""
    return _CID_U64_U64.pack(cid, b"P", offset, version)


def vector_key(cid: int, offset: int, name: str = "") -> bytes:
    """VECTORS: one raw vector."""
    return _vector_prefix(cid, name) + _U64.pack(offset)


def _vector_prefix(cid: int, name: str) -> bytes:
    encoded = name.encode()
    return _prefix(cid, Kind.VECTOR) + bytes((len(encoded),)) + encoded


# -- many keys -------------------------------------------------------------------------------------------------------


def id_keys(cid: int, ids: Iterable[bytes]) -> list[bytes]:
    """META keys of many ids, in order."""
    prefix = _prefix(cid, Kind.ID)
    return [prefix + id_ for id_ in ids]


def payload_keys(cid: int, first_offset: int, n: int, version: int) -> list[bytes]:
    """ROWS keys of the payloads that ``version`` wrote for ``n`` new rows from ``first_offset`` on."""
    pack = _CID_U64_U64.pack
    return [pack(cid, b"P", offset, version) for offset in range(first_offset, first_offset + n)]


def payload_keys_at(cid: int, offsets: Iterable[int], versions: Iterable[int]) -> list[bytes]:
    """ROWS keys of any payloads; Python integers."""
    pack = _CID_U64_U64.pack
    return [pack(cid, b"P", offset, version) for offset, version in zip(offsets, versions, strict=True)]


def vector_keys_at(cid: int, offsets: Iterable[int], name: str = "") -> list[bytes]:
    """VECTORS keys of the given offsets; Python integers."""
    if not name:
        pack = _VECTOR_DEFAULT.pack
        return [pack(cid, b"V", 0, offset) for offset in offsets]
    prefix, pack_u64 = _vector_prefix(cid, name), _U64.pack
    return [prefix + pack_u64(offset) for offset in offsets]


# -- ranges ----------------------------------------------------------------------------------------------------------


def collection_range(cid: int) -> Range:
    """All keys of a collection, in any family."""
    return _U32.pack(cid), _U32.pack(cid + 1)


def kind_range(cid: int, kind: Kind) -> Range:
    """All keys of one kind of a collection."""
    return _after(_prefix(cid, kind))


def _after(prefix: bytes) -> Range:
    """All keys that begin with a prefix whose last byte is below 0xFF."""
    return prefix, prefix[:-1] + bytes((prefix[-1] + 1,))


def number_range(cid: int, kind: Kind, low: int = 0, high: int | None = None) -> Range:
    """Keys of ``kind`` whose first number (offset or version) is in ``[low, high)``; ``None``: to the last.

    For TOMBSTONE, OVERLAY and PAYLOAD the first number is the offset, for SUPERSEDED and UNDO the version.
    """
    start, end = kind_range(cid, kind)
    return start + _U64.pack(low), end if high is None else start + _U64.pack(high)


def undo_range(cid: int) -> Range:
    """META: all undo records of a collection."""
    return kind_range(cid, Kind.UNDO)


def vector_range(cid: int, low: int = 0, high: int | None = None, name: str = "") -> Range:
    """VECTORS keys of one vector name with offsets in ``[low, high)``; ``None``: to the last."""
    prefix = _vector_prefix(cid, name)
    end = prefix + b"\xff" * 9 if high is None else prefix + _U64.pack(high)
    return prefix + _U64.pack(low), end


# -- reading keys ----------------------------------------------------------------------------------------------------


def parse_tail(key: bytes) -> bytes:
    """The UTF-8 text at the end of a NAME, ALIAS, ID or RESULT key."""
    return key[5:]


def parse_cid(key: bytes) -> int:
    """The collection number of any key."""
    return int.from_bytes(key[:4], "big")


def parse_offset(key: bytes) -> int:
    """The offset of a TOMBSTONE or VECTOR key (its last 8 bytes)."""
    return int.from_bytes(key[-8:], "big")


def parse_offset_version(key: bytes) -> tuple[int, int]:
    """(offset, payload version) of a PAYLOAD or OVERLAY key."""
    if len(key) != _CID_U64_U64.size:
        raise _wrong_length(key, _CID_U64_U64.size)
    _, _, offset, version = _CID_U64_U64.unpack(key)
    return offset, version


def parse_superseded(key: bytes) -> Superseded:
    """The replaced payload of a SUPERSEDED key."""
    if len(key) != _CID_U64_U64_U64.size:
        raise _wrong_length(key, _CID_U64_U64_U64.size)
    return Superseded(*_CID_U64_U64_U64.unpack(key)[2:])


def parse_numbers(keys: Sequence[bytes], count: int = 1) -> NDArray[np.uint64]:
    """The last ``count`` u64 of many keys of one length: uint64[n, count].

    TOMBSTONE and VECTOR keys have one (the offset), PAYLOAD and OVERLAY two, SUPERSEDED three.

    Raises:
        Corruption: The keys differ in length or are too short.
    """
    if not keys:
        return np.empty((0, count), dtype=np.uint64)
    length = len(keys[0])
    joined = b"".join(keys)
    if length < 5 + 8 * count or len(joined) != length * len(keys):
        raise Corruption(f"{len(keys)} stored keys that begin with {keys[0]!r} differ in length", key=keys[0].hex())
    matrix = np.frombuffer(joined, dtype=np.uint8).reshape(len(keys), length)[:, length - 8 * count :]
    return np.ascontiguousarray(matrix).view(">u8").astype(np.uint64)


def _wrong_length(key: bytes, expected: int) -> Corruption:
    return Corruption(f"stored key {key!r} has {len(key)} bytes instead of {expected}", key=key.hex())
