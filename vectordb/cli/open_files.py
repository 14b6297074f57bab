"""How many files a server may have open: each mapped file of a segment is one, and each connection."""

from __future__ import annotations

import resource

WANTED = 4_096


def allow(wanted: int = WANTED) -> None:
    """Raises this process's soft limit to ``wanted``, as far as the hard one lets it.

    The usual soft limit of 1,024 is for programs that use ``select``, which none here does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
