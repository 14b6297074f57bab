"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE = re.compile(r"\s*([0-9]{1,18})\s*([A-Za-z]*)\s*")


def parse_size(value: object) -> int | None:
    """Bytes of ``268435456``, ``"268435456"`` or ``"256 MiB"``; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2].lower() not in UNITS:
        return None
    return int(found[1]) * UNITS[found[2].lower()]


def sizes_text(size: int) -> str:
    """Bytes for people: ``"1.5 GiB"``, ``"300 MiB"``."""
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}" if size < 1000 * unit else f"{size // unit} {name}"
    return f"{size} bytes"
