"""Processes in milliseconds, to be killed: the tests' end of ``nursery.py``."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import IO, Any


class Child:
    """A forked process: what it says, how it ends."""

    def __init__(self, pid: int, told: queue.Queue[dict[str, Any]]) -> None:
        self.pid = pid
        self.code: int | None = None
        self._told = told

    def says(self, key: str, timeout: float = 60.0) -> Any:
        """The next thing it says under this key; None where it ends instead."""
        while self.code is None:
            told = self._told.get(timeout=timeout)
            self.code = told.get("ended")
            if key in told:
                return told[key]
        return None

    def told(self, key: str) -> list[Any]:
        """All that it has said under this key up to now and was not asked for."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                told = self._told.get_nowait()
                self.code = told.get("ended", self.code)
                if key in told:
                    found.append(told[key])
        return found

    def wait(self, timeout: float = 60.0) -> int:
        """Until it ends: its exit code, negative for a signal. Raises ``queue.Empty`` where it does not."""
        self.says("", timeout)
        assert self.code is not None
        return self.code

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> int:
        """SIGKILL, and waits; what it said before can still be asked for."""
        self.signal(signal.SIGKILL)
        said = []
        while self.code is None:
            told = self._told.get(timeout=60)
            self.code = told.get("ended")
            said.append(told)
        for told in said:
            self._told.put(told)
        return self.code


class Nursery:
    """The process of ``nursery.py``; see there. Not thread-safe."""

    def __init__(self) -> None:
        paths = [str(Path(__file__).parents[1] / "slow_kind"), *(path for path in sys.path if path)]
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GRPC_VERBOSITY": "NONE"},
        )
        self._tickets = itertools.count(1)
        self._told: defaultdict[int, queue.Queue[dict[str, Any]]] = defaultdict(queue.Queue)
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self._queue(told["ticket"]).put(told)

    def _queue(self, ticket: int) -> queue.Queue[dict[str, Any]]:
        with self._lock:
            return self._told[ticket]

    def fork(self, task: str, failpoints: str = "", file_bytes: int | None = None, **arguments: Any) -> Child:
        """A child at a task. ``file_bytes``: no file of it grows beyond that (until ``prlimit`` says otherwise)."""
        ticket = next(self._tickets)
        given = {
            "ticket": ticket,
            "task": task,
            "failpoints": failpoints,
            "file_bytes": file_bytes,
            "arguments": arguments,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(given).encode() + b"\n")
        self._process.stdin.flush()
        told = self._queue(ticket)
        return Child(told.get(timeout=60)["pid"], told)

    def serve(self, folder: Path, failpoints: str = "", file_bytes: int | None = None) -> tuple[Child, str | None]:
        """A server, and its address; None where it ended before it served."""
        child = self.fork("serve", failpoints, file_bytes, folder=str(folder))
        line = child.says("line")
        return child, None if line is None else line.rpartition(" ")[2]

    def errors(self) -> str:
        """The end of what all children wrote to standard error."""
        size = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, size - 8_000))
        return self.log.read().decode("utf-8", "replace")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        self._process.stdout.close()
        self.log.close()
