"""What the C library keeps of what was freed, and how it is made to give it back.

Blocks from a threshold on come from the system one by one and go back to it when they are freed; smaller ones come
from arenas, which keep their holes. glibc raises that threshold, up to 32 MiB, to the size of the largest such block
that was ever freed: from then on rows, graphs and merged columns come from arenas too, one a thread. Measured under a
limit of 64 MiB (``tests/engine/memory_child.py``): of 95 MB of private memory up to 74 MB were holes.

Under a large limit it is the other way round: glibc's threshold starts at 128 KiB and hardly rises, so that what a
batch of a thousand rows needs comes from the system page by page and goes back with each call. Measured (batches of
1.6 MB to a server): 1,700 page faults a batch, and 1,000 with the threshold at its highest.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of ``mallopt``, from glibc's ``malloc.h``."""
_LEAST, _MOST = 128 << 10, 32 << 20
"""glibc's threshold at the start, and the highest that it raises it to."""
_SHARE = 512
"""How many blocks of the threshold's size make the limit: holes are smaller than one, and hardly ever hundreds."""

_lock = threading.Lock()
_set = _MOST + 1  # guarded by _lock


def bound_holes(limit: int) -> None:
    """Fixes, for the whole process, the size from which on blocks go back to the system at once: 1/512 of a limit in
    bytes, but no more than what glibc ends at; of several limits of the least. Nothing where the environment says how
    to allocate, or where there is another C library."""
    global _set
    if any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    wanted = min(max(_LEAST, limit // _SHARE), _MOST)
    with _lock, contextlib.suppress(OSError, AttributeError):
        if wanted >= _set:
            return
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, wanted)
        library.mallopt(_TRIM_THRESHOLD, 2 * wanted)
        _set = wanted


def give_back() -> None:
    """Has the C library return to the system what was freed, arenas of ended builds above all. Thread-safe."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def private_bytes() -> int:
    """Resident memory of this process that belongs to no file; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * mmap.PAGESIZE
