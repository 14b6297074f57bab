"""The parent's end of a worker: a command with a bound of time, a pause between turns, a death that harms no other."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from bench.compare import processes

ROOT = Path(__file__).resolve().parents[2]
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS")

_START = 120.0


class Failed(Exception):
    """A system answered with an error, crashed, or did not answer in time; the message says which."""


class Child:
    """One worker process. Not thread-safe; a context manager that ends the process and what it started.

    Args:
        folder: Of the system; must be there.
        form: ``index`` and ``quantization`` of this engine instead of its defaults.

    Raises:
        Failed: It did not start.
    """

    def __init__(
        self, system: str, arena: Path, folder: Path, threads: int = 2, form: Mapping[str, Any] | None = None
    ) -> None:
        self.system = system
        self.dead: str | None = None
        self._stopped = False
        self._buffer = b""
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._answers, theirs = os.pipe()
        told = {
            "system": system, "arena": str(arena), "folder": str(folder), "threads": threads, "answers": theirs,
            "form": dict(form or {}),
        }  # fmt: skip
        pools = dict.fromkeys(_POOLS, str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.compare.worker", json.dumps(told)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, pass_fds=[theirs],
            # A session of its own: Ctrl-C is the parent's business, and killing the group ends its children too.
            start_new_session=True, env={**os.environ, **pools},
        )  # fmt: skip
        os.close(theirs)
        try:
            self.about: dict[str, Any] = self._answer(_START, "start")
        except BaseException:
            self.close()
            raise

    def ask(self, command: str, timeout: float, **arguments: Any) -> Any:
        """Runs a command.

        Raises:
            Failed: It raised (the worker lives on), the worker died, or it took longer (the worker is killed).
        """
        self.tell(command, **arguments)
        return self._answer(timeout, command)

    def tell(self, command: str, **arguments: Any) -> None:
        """Sends a command; :meth:`answer` is to be called before the next one."""
        if self.dead is not None:
            raise Failed(self.dead)
        self.go_on()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._died(command)) from None

    def answer(self, timeout: float, command: str) -> Any:
        return self._answer(timeout, command)

    def pause(self) -> None:
        """Nothing of it runs until the next command."""
        if self.dead is None and not self._stopped:
            processes.send(processes.tree(self._process.pid), signal.SIGSTOP)
            self._stopped = True

    def go_on(self) -> None:
        if self._stopped:
            processes.send(processes.tree(self._process.pid), signal.SIGCONT)
            self._stopped = False

    def kill(self, reason: str) -> None:
        """SIGKILL for it and all that it started."""
        self.dead = self.dead or reason
        pids = processes.tree(self._process.pid)
        processes.send(pids, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Lets it close its system, for a while, and ends it."""
        if self.dead is None:
            with suppress(Failed):
                self.ask("close", 60.0)
            self.kill("closed")
        if self._process.stdin is not None and not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
        self._log.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, timeout: float, command: str) -> Any:
        until = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                self.kill(f"killed: no answer to {command!r} within {timeout:.0f} s")
                raise Failed(str(self.dead))
            piece = os.read(self._answers, 1 << 16)
            if not piece:
                raise Failed(self._died(command))
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["result"]

    def _died(self, command: str) -> str:
        pids = processes.tree(self._process.pid)
        code = self._process.wait()
        processes.send(pids[1:], signal.SIGKILL)
        name = signal.Signals(-code).name if code < 0 else f"code {code}"
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        self.dead = f"died of {name} during {command!r}" + (f": {lines[-1][:200]}" if lines else "")
        return self.dead
