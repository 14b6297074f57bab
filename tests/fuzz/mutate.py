"""Damage to bytes and to JSON trees, drawn from a seeded generator, so that a case is named by its seed and number."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

_BYTES = (0, 1, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
_SPLICED = (
    b'"',
    b"'",
    b"[[",
    b"{",
    b"\\u0000",
    b"\n",
    b"\xff\xfe",
    b"nan",
    b"1e999",
    b"../",
    b"\x00" * 9,
    b"\x80" * 11,
)
_JUNK: tuple[Any, ...] = (None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1e308, 0.5, "", "x", "../../x", "\x00", "a" * 5000,
                          [], {}, [[]], {"": {}}, [None] * 3)  # fmt: skip


class Mutator:
    """What one case draws. Not thread-safe.

    Args:
        target, seed, number: Name the case.
    """

    def __init__(self, target: str, seed: int, number: int) -> None:
        self.random = random.Random(f"{target}:{seed}:{number}")

    def bytes(self, data: bytes, low: int = 0) -> bytes:
        """The same bytes with one to eight kinds of damage, none before ``low``."""
        head, body = data[:low], bytearray(data[low:])
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 8))):
            self._once(body)
        return head + bytes(body)

    def _once(self, body: bytearray) -> None:
        draw = self.random
        at = draw.randrange(len(body) + 1)
        kind = draw.randrange(8)
        if kind == 0 and body:
            body[at % len(body)] ^= 1 << draw.randrange(8)
        elif kind == 1 and body:
            body[at % len(body)] = draw.choice(_BYTES)
        elif kind == 2:
            del body[at:]
        elif kind == 3:
            del body[at : at + draw.choice((1, 2, 4, 8, 64))]
        elif kind == 4:
            body[at:at] = draw.choice(_SPLICED)
        elif kind == 5:
            body[at:at] = draw.randbytes(draw.choice((1, 4, 16)))
        elif kind == 6:
            size = draw.choice((1, 2, 4, 8))
            number = draw.choice(_NUMBERS) & (256**size - 1)
            body[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))
        else:
            end = at + draw.choice((1, 8, 64))
            body[at:at] = body[at:end] * draw.choice((1, 2, 20))

    def text(self, text: str) -> str:
        """A text damaged as bytes; what is no UTF-8 then becomes lone surrogates."""
        return self.bytes(text.encode()).decode("utf-8", "surrogateescape")

    def tree(self, value: Any) -> Any:
        """A JSON tree with one to three values replaced, removed or added."""
        value = json.loads(json.dumps(value))
        for _ in range(self.random.choice((1, 1, 2, 3))):
            value = self._tree_once(value)
        return value

    def _tree_once(self, value: Any) -> Any:
        draw = self.random
        if isinstance(value, dict) and value and draw.random() < 0.8:
            name = draw.choice(sorted(value))
            how = draw.random()
            if how < 0.15:
                del value[name]
            elif how < 0.25:
                value[draw.choice(("", "x", name + "_"))] = value[name]
            else:
                value[name] = self._tree_once(value[name])
            return value
        if isinstance(value, list) and value and draw.random() < 0.8:
            at = draw.randrange(len(value))
            value[at] = self._tree_once(value[at])
            return value
        if isinstance(value, int) and draw.random() < 0.5:
            return draw.choice((value + 1, value - 1, -value, value * 2, value << 32))
        if isinstance(value, str) and draw.random() < 0.5:
            return self.text(value).encode("utf-8", "replace").decode()
        return deepcopy(draw.choice(_JUNK))
