"""Forked children of a test."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable


def in_child(work: Callable[[], None]) -> int:
    """Runs ``work`` in a forked child; its exit code, 1 where it raised, negative where it hung."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1
