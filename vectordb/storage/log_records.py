"""Makes records of a damaged log harmless that RocksDB would read for ever.

RocksDB can write a log over an old one; records of such a *recycled* log have types of their own. Logs here are never
recycled, so that such a type is damage: one flipped bit makes it, or what a power loss left at the end. But RocksDB
(seen of rocksdict 0.3.29, in every recovery mode, also when opened to be read) does not come back from such a record
behind the first one: it goes round in ``log::Reader::ReadRecord``, holding the GIL. With any other wrong type it tells
of the damage like of any other, and what was acknowledged is compared as always (``engine/opening.py``).

A MANIFEST is written like a log, and RocksDB reads it likewise.

A log is blocks of 32 KiB of records: checksum, length of the content (16 bits), type, content. A record that does not
meet its checksum ends its block for RocksDB; what is looked at here beyond that is ignored there.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from struct import Struct

from vectordb.errors import Corruption

_log = logging.getLogger("vectordb.storage")

BLOCK = 32_768
HEADER = Struct("<IHB")
_RECYCLED = frozenset({5, 6, 7, 8, 11})
_WRONG = b"\xff"
"""A type that there is not."""


def records(log: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where each record of a log begins, and its type; of damaged blocks what their lengths lead to."""
    size, unpack = len(log), HEADER.unpack_from
    for block in range(0, size, BLOCK):
        at, last = block, min(block + BLOCK, size) - HEADER.size
        while at <= last:
            _, length, kind = unpack(log, at)
            yield at, kind
            at += HEADER.size + length


def disarm(folder: Path) -> None:
    """Gives records of the folder's logs and MANIFESTs that say they are of a recycled log another wrong type. Not
    while somebody writes there.

    Raises:
        Corruption: There is one, in a file that cannot be written.
    """
    for path in (*folder.glob("*.log"), *folder.glob("MANIFEST-*")):
        found = _recycled(path)
        if not found:
            continue
        _log.warning("log %s is damaged: %d of its records say that they are of a recycled log", path, len(found))
        try:
            with path.open("r+b") as file:
                for at in found:
                    file.seek(at + HEADER.size - 1)
                    file.write(_WRONG)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Corruption(
                f"log '{path}' is damaged in a way that RocksDB cannot read, and cannot be written: {error.strerror}. "
                "Copy the folder to where it can be, or restore it from a backup",
                path=str(path),
            ) from None


def _recycled(path: Path) -> list[int]:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as log:
            return [at for at, kind in records(log) if kind in _RECYCLED]
