"""Free disk space: below a watermark the database takes no more writes, and takes them again once space is back.

    free space          what is refused
    < watermark         builds, merges and writes that need more than what is left above it stop first; then all writes
    < a quarter of it   deletions too, and the merges that would give space back: RocksDB needs some for either

The watermark is what RocksDB may want to close cleanly (its log and its memtables) and room for deletions. A disk that
is full all the same (others fill it too) is a failed write, after which nobody knows what is on disk.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from vectordb.errors import InvalidArgument, ResourceExhausted
from vectordb.sizes import parse_size, sizes_text

DEFAULT_BYTES, DEFAULT_SHARE = 256 << 20, 0.05
"""The watermark unless given: the smaller of the two, the share being of the whole disk."""
_AGE = 0.25
_BACK = 1.1
"""Space is back when this much more than the watermark is free: a disk at the edge must not flap."""


class Usage(NamedTuple):
    """Bytes of a disk: all, and those that are free to this user."""

    total: int
    free: int


def usage(folder: Path) -> Usage:
    """Of the disk on which a folder lies."""
    total, _, free = shutil.disk_usage(folder)
    return Usage(total, free)


class DiskSpace:
    """Watches the disk of one folder. Thread-safe: a look more or less does not matter.

    Args:
        folder: On the disk.
        least: The watermark: bytes, text such as ``"2 GiB"`` or ``"5%"``, 0 for none, None for the default.

    Raises:
        InvalidArgument: ``least`` is none of these.
    """

    def __init__(self, folder: Path, least: int | str | None) -> None:
        self._folder = folder
        self._given = least
        self._usage = usage(folder)
        self._seen = time.monotonic()
        self.watermark = watermark(least, self._usage.total)
        self._low = self._usage.free < self.watermark

    def look(self) -> Usage:
        """The disk now, or a moment ago."""
        now = time.monotonic()
        if now - self._seen > _AGE:
            self._seen = now
            with contextlib.suppress(OSError):  # the folder was moved away: storage says so better
                self._usage = usage(self._folder)
            self._low = self._usage.free < self.watermark * (_BACK if self._low else 1.0)
        return self._usage

    @property
    def read_only_reason(self) -> str | None:
        """Why writes are refused, or None."""
        free = self.look().free
        return self._told(free, 0) if self._low else None

    def check_write(self, size: int, *, frees: bool) -> None:
        """Before a write of so many bytes; ``frees``: a deletion, which may dip into what is kept for them.

        Raises:
            ResourceExhausted: Too little is free (``free``, ``needed``, ``limit`` in bytes).
        """
        free = self.look().free
        if frees:
            if free < self._reserve:
                raise self._exhausted(free, 0, "free space on it by other means")
        elif self._low or (size > _SMALL and free - _COPIES * size < self._reserve):
            raise self._exhausted(free, _COPIES * size, "free space, delete records, or lower min_free_disk")

    def check_job(self, needed: int, *, frees: bool) -> None:
        """Before a build or merge that writes so many bytes; ``frees``: it gives back more than it takes.

        Raises:
            ResourceExhausted: As above.
        """
        free = self.look().free
        if free - needed < (self._reserve if frees else self.watermark):
            raise self._exhausted(free, needed, "builds and merges wait until there is more")

    @property
    def _reserve(self) -> int:
        return self.watermark // 4

    def _told(self, free: int, needed: int) -> str:
        need = f" and {sizes_text(needed)} are needed" if needed else ""
        return (
            f"the disk of {self._folder} has {sizes_text(free)} free{need}; "
            f"min_free_disk keeps {sizes_text(self.watermark)} free"
        )

    def _exhausted(self, free: int, needed: int, mend: str) -> ResourceExhausted:
        return ResourceExhausted(
            f"{self._told(free, needed)}: {mend}", resource="disk", free=free, needed=needed, limit=self.watermark
        )


_SMALL = 1 << 20
"""Writes up to here need not be counted: the watermark has room for those that come between two looks."""
_COPIES = 3
"""Times that written bytes may lie on disk for a while: in the log, in a file of RocksDB, in a segment."""


def watermark(given: int | str | None, total: int) -> int:
    """Bytes to keep free on a disk of ``total`` bytes.

    Raises:
        InvalidArgument: Not such a size.
    """
    if given is None:
        return min(DEFAULT_BYTES, int(DEFAULT_SHARE * total))
    share = re.fullmatch(r"\s*([0-9]{1,2}(?:\.[0-9]+)?)\s*%\s*", given) if isinstance(given, str) else None
    if share is not None:
        return int(float(share[1]) / 100 * total)
    size = parse_size(given)
    if size is None:
        raise InvalidArgument(
            f"min_free_disk is a number of bytes, '2 GiB', '5%' or 0, got {given!r}", field="min_free_disk"
        )
    return size
