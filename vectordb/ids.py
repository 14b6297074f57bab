"""Record ids: strings of 1 to 512 bytes of UTF-8; integers and UUIDs are stored as their text."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from vectordb.errors import InvalidArgument

MAX_ID_BYTES = 512


def as_id(value: Any, row: int = 0) -> str:
    """One user's id as text.

    Raises:
        InvalidArgument: Neither a string nor an integer nor a UUID (a bool is not an integer here).
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    # numpy integers answer __index__ like int does.
    if hasattr(value, "__index__") and not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
        return str(int(value))
    raise InvalidArgument(
        f"id in row {row} is {type(value).__name__}; ids are str, int or uuid.UUID", field="ids", row=row
    )


def as_ids(values: Iterable[Any]) -> list[str]:
    """A column of users' ids (list, numpy, pandas, arrow) as a list of text; one lone id as a list of one."""
    if isinstance(values, (str, uuid.UUID, int)):
        return [as_id(values)]
    if hasattr(values, "to_pylist"):
        values = values.to_pylist()
    elif hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, Iterable):
        raise InvalidArgument(f"ids are a list of str, int or uuid.UUID, got {values!r:.60}", field="ids")
    return [v if type(v) is str else as_id(v, row) for row, v in enumerate(values)]


def encoded_ids(ids: Sequence[str], *, unique: bool = True, max_bytes: int = MAX_ID_BYTES) -> list[bytes]:
    """Ids as UTF-8, checked.

    Raises:
        InvalidArgument: An id is empty, too long, not encodable, or (``unique``) there twice; the row is named.
    """
    keys = []
    for row, text in enumerate(ids):
        try:
            key = text.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(f"ids in row {row} is no text in UTF-8: {text!r:.60}", field="ids", row=row) from None
        if not 0 < len(key) <= max_bytes:
            raise InvalidArgument(
                f"id in row {row} has {len(key)} bytes of UTF-8; ids have 1 to {max_bytes} (max_id_bytes)",
                field="ids",
                row=row,
                got=len(key),
                limit=max_bytes,
            )
        keys.append(key)
    if unique and len(set(keys)) != len(keys):
        first: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key in first:
                raise InvalidArgument(
                    f"id {ids[row]!r} is in rows {first[key]} and {row}; give each id once in a call",
                    field="ids",
                    row=row,
                    id=ids[row],
                )
            first[key] = row
    return keys


def generated_ids(n: int) -> list[str]:
    """``n`` new UUIDs of version 7 (RFC 9562), ascending within the call: milliseconds, a counter, randomness."""
    stamp = time.time_ns() // 1_000_000
    random = os.urandom(8 * n)
    ids = []
    for i in range(n):
        # 12 bits of counter in rand_a; a full counter borrows the next millisecond.
        head = ((stamp + (i >> 12)) << 16) | 0x7000 | (i & 0xFFF)
        tail = int.from_bytes(random[8 * i : 8 * i + 8]) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
        ids.append(str(uuid.UUID(int=(head << 64) | tail)))
    return ids
