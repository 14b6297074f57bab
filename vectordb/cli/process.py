"""A `vectordb serve` process as an object: started, killed the hard way, started again. For demo and bench."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Self

from vectordb.errors import Unavailable

_LISTENING = re.compile(r"listening on (\S+)")


class ServerProcess:
    """One server process on a folder, listening on a port of 127.0.0.1 that it picks itself.

    A context manager that stops it. Not thread-safe.

    Args:
        folder: What it serves; made if absent.
        start_timeout: Seconds until it must say that it listens.
        environment: Variables set for it beside the inherited ones.

    Raises:
        Unavailable: It ended or kept silent; the message holds the end of what it wrote to standard error.
    """

    def __init__(
        self, folder: Path, *, start_timeout: float = 60.0, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when reaped
        command = [sys.executable, "-m", "vectordb.cli.main", "serve"]
        self._process = subprocess.Popen(
            [*command, "--data", str(folder), "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.address = self._await_address(start_timeout)
        """``host:port`` to connect to."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: it gets no chance to flush, close or say goodbye."""
        self._process.kill()
        self._reap()

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, then waits: its exit code, -9 where it had to be killed after ``timeout`` seconds."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        if self._process.poll() is None:
            self._process.kill()
        return self._reap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _await_address(self, timeout: float) -> str:
        lines: queue.Queue[str | None] = queue.Queue()
        assert self._process.stdout is not None
        # It also drains the pipe afterwards, so that a talkative server never blocks on it.
        threading.Thread(target=_drain, args=(self._process.stdout, lines), daemon=True).start()
        try:
            while (line := lines.get(timeout=timeout)) is not None:
                if found := _LISTENING.search(line):
                    return found.group(1)
            reason = f"the server ended with code {self._process.wait(5)} before it served"
        except queue.Empty:
            reason = f"the server did not serve within {timeout:g} s"
        written = self._tail()
        self.stop(timeout=1.0)
        raise Unavailable(f"{reason}; it wrote:\n{written}")

    def _tail(self, limit: int = 4000) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - limit))
        return self._log.read().decode("utf-8", "replace").strip() or "(nothing)"

    def _reap(self) -> int:
        code = self._process.wait(20)
        self._log.close()
        return code


def _drain(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in _until_closed(stream):
        lines.put(line)
    lines.put(None)
    stream.close()


def _until_closed(stream: IO[str]) -> Iterator[str]:
    with contextlib.suppress(ValueError, OSError):
        yield from stream
