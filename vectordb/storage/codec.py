"""Values on disk that commits write: fixed layouts (little-endian) for rows, MessagePack maps for the few others.

Configuration and manifest are in ``catalogue.py``.

A payload (family ROWS)::

    0      u8    layout, now 1
    1      u8    flags: 1 = a text follows (else the record has none), 2 = an expiry time stands in the header
    2      u16   n, length of the id
    4      u32   m, length of the metadata
    8      i64   expiry time, microseconds since 1970 UTC; only under flag 2 (reserved: nothing expires yet)
    8|16   u8[n] id, UTF-8
           u8[m] metadata, MessagePack (``vectordb.encoding``; empty for none)
           rest  text, UTF-8

Fixed entries: id -> (offset u64, payload version u64); tombstone -> (deleting version u64, payload version u64 at
death); catalogue name -> collection number u32; a vector -> float32[dim].

Every decoder raises :class:`vectordb.errors.Corruption` for bytes that no encoder makes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import ormsgpack

from vectordb.errors import Corruption, VectorDBError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_T = TypeVar("_T")

PAYLOAD_LAYOUT = 1
_MAP_LAYOUT = 1
_HAS_TEXT = 1
_HAS_EXPIRY = 2

_HEADER = struct.Struct("<BBHI")
_HEADER_EXPIRY = struct.Struct("<BBHIq")
_U32 = struct.Struct("<I")
_U64_U64 = struct.Struct("<QQ")
_RESULT = struct.Struct("<BdQQ")


class Payload(NamedTuple):
    """A decoded payload.

    Attributes:
        id: The user's id, UTF-8.
        metadata: MessagePack, empty for none.
        text: UTF-8, or ``None`` where the record has no text.
        expires: Microseconds since 1970 UTC, or ``None``.
    """

    id: bytes
    metadata: bytes
    text: bytes | None
    expires: int | None = None


class IdEntry(NamedTuple):
    """Where the record of an id is: its row, and the version that wrote its payload."""

    offset: int
    payload_version: int


class Tombstone(NamedTuple):
    """The end of a row: the version that deleted or replaced it, and that of the payload it had then."""

    version: int
    payload_version: int


# -- payloads --------------------------------------------------------------------------------------------------------


def encode_payload(id_: bytes, metadata: bytes, text: bytes | None, expires: int | None = None) -> bytes:
    """One row's payload. ``id_`` and ``text`` are UTF-8, the id of at most 65,535 bytes."""
    if expires is not None:
        flags = _HAS_EXPIRY if text is None else _HAS_EXPIRY | _HAS_TEXT
        header = _HEADER_EXPIRY.pack(PAYLOAD_LAYOUT, flags, len(id_), len(metadata), expires)
        return b"".join((header, id_, metadata, text or b""))
    if text is None:
        return _HEADER.pack(PAYLOAD_LAYOUT, 0, len(id_), len(metadata)) + id_ + metadata
    return b"".join((_HEADER.pack(PAYLOAD_LAYOUT, _HAS_TEXT, len(id_), len(metadata)), id_, metadata, text))


def _bounds(value: bytes) -> tuple[int, int, int, int]:
    """(flags, start of the id, start of the metadata, start of the text) of a payload, checked."""
    try:
        layout, flags, n, m = _HEADER.unpack_from(value)
    except struct.error:
        raise Corruption(f"a stored payload has only {len(value)} bytes") from None
    if layout != PAYLOAD_LAYOUT or flags > 3:
        raise Corruption(f"a stored payload has layout {layout} and flags {flags}; this release reads layout 1")
    first = 16 if flags & _HAS_EXPIRY else 8
    end = first + n + m
    if end > len(value) or (end < len(value) and not flags & _HAS_TEXT):
        raise Corruption(f"a stored payload of {len(value)} bytes does not match its lengths (id {n}, metadata {m})")
    return flags, first, first + n, end


def decode_payload(value: bytes) -> Payload:
    """The whole payload."""
    flags, id_at, metadata_at, text_at = _bounds(value)
    expires = _HEADER_EXPIRY.unpack_from(value)[4] if flags & _HAS_EXPIRY else None
    text = value[text_at:] if flags & _HAS_TEXT else None
    return Payload(value[id_at:metadata_at], value[metadata_at:text_at], text, expires)


def payload_id(value: bytes) -> bytes:
    """Only the id, without copying the rest."""
    _, id_at, metadata_at, _ = _bounds(value)
    return value[id_at:metadata_at]


def payload_metadata(value: bytes) -> bytes:
    """Only the encoded metadata, without copying the rest."""
    _, _, metadata_at, text_at = _bounds(value)
    return value[metadata_at:text_at]


def payload_text(value: bytes) -> bytes | None:
    """Only the text, without copying the rest."""
    flags, _, _, text_at = _bounds(value)
    return value[text_at:] if flags & _HAS_TEXT else None


# -- fixed entries ---------------------------------------------------------------------------------------------------


def encode_id_entry(offset: int, payload_version: int) -> bytes:
    """Where an id's record is."""
    return _U64_U64.pack(offset, payload_version)


def decode_id_entry(value: bytes) -> IdEntry:
    """Where an id's record is."""
    if len(value) != 16:
        raise _wrong_length("an id entry", len(value), 16)
    return IdEntry._make(_U64_U64.unpack(value))


def encode_tombstone(version: int, payload_version: int) -> bytes:
    """The end of a row."""
    return _U64_U64.pack(version, payload_version)


def decode_tombstone(value: bytes) -> Tombstone:
    """The end of a row."""
    if len(value) != 16:
        raise _wrong_length("a tombstone", len(value), 16)
    return Tombstone._make(_U64_U64.unpack(value))


def encode_u32(number: int) -> bytes:
    """A collection's number."""
    return _U32.pack(number)


def decode_u32(value: bytes) -> int:
    """A collection's number."""
    if len(value) != 4:
        raise _wrong_length("a collection number", len(value), 4)
    number: int = _U32.unpack(value)[0]
    return number


def _wrong_length(what: str, got: int, expected: int) -> Corruption:
    return Corruption(f"{what} is stored with {got} bytes instead of {expected}", got=got, expected=expected)


# -- vectors ---------------------------------------------------------------------------------------------------------


def encode_vectors(vectors: NDArray[np.float32]) -> list[bytes]:
    """The rows of float32[n, d] as bytes."""
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    if not rows.size:
        return [b""] * len(rows)
    as_bytes: list[bytes] = rows.view(f"V{4 * rows.shape[1]}").ravel().tolist()
    return as_bytes


def decode_vectors(values: Sequence[bytes], dim: int) -> NDArray[np.float32]:
    """Stored vectors as float32[n, dim], a writable copy."""
    size = 4 * dim
    for row, value in enumerate(values):
        if len(value) != size:
            raise Corruption(f"stored vector {row} has {len(value)} bytes instead of {size}", row=row)
    joined = bytearray().join(values)
    return np.frombuffer(joined, dtype="<f4").reshape(len(values), dim).astype(np.float32, copy=False)


# -- results of idempotent calls -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IdempotentResult:
    """What a call with an idempotency key did; its ids are those of the repeated request.

    Attributes:
        expires: When it may be forgotten, seconds since 1970 UTC.
        count: Rows written, changed or deleted.
        version: The version that it committed, or the collection's where it changed nothing.
        fingerprint: Digest of the request, to refuse the same key for another one; may be empty.
    """

    expires: float
    count: int
    version: int
    fingerprint: bytes = b""


def encode_result(result: IdempotentResult) -> bytes:
    """A call's result."""
    return _RESULT.pack(1, result.expires, result.count, result.version) + result.fingerprint


def decode_result(value: bytes) -> IdempotentResult:
    """A call's result."""
    if len(value) < _RESULT.size or value[0] != 1:
        raise Corruption(f"the stored result of an idempotent call cannot be read ({len(value)} bytes)")
    _, expires, count, version = _RESULT.unpack_from(value)
    return IdempotentResult(expires, count, version, value[_RESULT.size :])


# -- maps --------------------------------------------------------------------------------------------------------------


def pack_map(value: Mapping[str, Any]) -> bytes:
    """A value as a MessagePack map with a layout number under ``"v"``.

    A reader keeps or ignores fields that it does not know, so a release can add some without a migration. A change
    that older releases must not overlook takes a new number, which they refuse.
    """
    return ormsgpack.packb({"v": _MAP_LAYOUT, **value})


def unpack_map(what: str, data: bytes, build: Callable[[dict[str, Any]], _T]) -> _T:
    """What ``build`` makes of a map of :func:`pack_map`; ``what`` names it in errors. Raises Corruption."""
    try:
        value = ormsgpack.unpackb(data)
        layout = value.pop("v")
        if layout != _MAP_LAYOUT:
            raise Corruption(
                f"{what} is stored in layout {layout}, this release reads {_MAP_LAYOUT}; use a newer release",
                layout=layout,
            )
        return build(value)
    except VectorDBError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corruption(f"{what} cannot be read from storage: {type(error).__name__}: {error}") from error


# -- state -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class State:
    """Where a collection stands; written last in each of its commits.

    Attributes:
        version: The last committed version (0: nothing was ever written).
        next_offset: The offset of the next new row.
        alive: Live rows.
        extra: Fields of newer releases, kept as they are.
    """

    version: int = 0
    next_offset: int = 0
    alive: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def advanced(self, version: int, next_offset: int, alive: int) -> State:
        """The state after a commit."""
        return State(version, next_offset, alive, self.extra)


def encode_state(state: State) -> bytes:
    """A collection's state."""
    return pack_map(
        {
            **state.extra,
            "version": state.version,
            "next": state.next_offset,
            "alive": state.alive,
        }
    )


def decode_state(data: bytes) -> State:
    """A collection's state. Raises Corruption."""

    def build(value: dict[str, Any]) -> State:
        known = [value.pop(name) for name in ("version", "next", "alive")]
        if not all(type(number) is int and number >= 0 for number in known):
            raise ValueError(f"numbers expected, got {known}")
        return State(known[0], known[1], known[2], value)

    return unpack_map("the state of a collection", data, build)


# -- undo records ----------------------------------------------------------------------------------------------------

Before = tuple[bytes, bytes | None]
"""A META key and the value that it had, ``None`` where it was absent."""


def encode_undo(before: Sequence[Before]) -> bytes:
    """What one piece of a large commit overwrote in META."""
    return pack_map({"before": [list(pair) for pair in before]})


def decode_undo(data: bytes) -> list[Before]:
    """What to put back (or, for ``None``, to delete), in any order within one piece. Raises Corruption."""

    def build(value: dict[str, Any]) -> list[Before]:
        return [(key, old) for key, old in value["before"]]

    return unpack_map("an undo record", data, build)
