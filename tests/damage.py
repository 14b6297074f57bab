"""What disks do to files."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, place: float = 0.5, bit: int = 4) -> None:
    """Flips one bit of the byte at that share of the file; in place, because a database may have it mapped."""
    at = int(path.stat().st_size * place)
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
