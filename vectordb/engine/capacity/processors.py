"""How background work shares the processors with searches."""

from __future__ import annotations

import logging
import os
import threading

from vectordb.types import Tuning

_log = logging.getLogger("vectordb.engine")
_NICENESS = 10


def build_threads(tuning: Tuning, all_processors: bool) -> int:
    """Native threads for a build: all processors, or all but one."""
    processors = len(os.sched_getaffinity(0))
    return tuning.build_threads or (processors if all_processors else max(1, processors - 1))


def lower_priority() -> None:
    """Lets searches go first. Threads that OpenMP makes for a build inherit it."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    except OSError:
        _log.debug("the builder's priority cannot be lowered here")
