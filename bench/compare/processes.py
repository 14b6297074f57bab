"""Processor time, memory and pauses of a process and all that it started (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from bench.systems.base import process_cpu

MEMORY = {"Pss_Anon": "anonymous", "Pss_Shmem": "anonymous", "Pss_File": "file"}
"""Parts of smaps_rollup; a page that several processes share counts once over all of them."""


def tree(pid: int) -> list[int]:
    """The process and all its descendants, parents first."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu(pids: Iterable[int]) -> float:
    """Seconds of processor time so far of all of them; one that has ended counts nothing."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += process_cpu(pid)
    return total


def memory(pids: Iterable[int]) -> dict[str, int]:
    """Resident bytes: ``anonymous`` (shared memory included) and ``file`` (mapped files, libraries too)."""
    found = dict.fromkeys(MEMORY.values(), 0)
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in MEMORY:
                    found[MEMORY[name]] += int(value.split()[0]) * 1024
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """A signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def die_with_parent() -> None:
    """This process is killed when the thread that started it is gone, stopped or not: prctl(PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
