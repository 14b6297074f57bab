"""The child process that builds one index: the other end of ``apart.py``, which describes what goes to and fro.

It lowers its priority, leaves no core dump, and ends when its parent does: at once on Linux, by the kernel's word,
which needs no turn at the GIL; elsewhere when standard input ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from vectordb.errors import ResourceExhausted, VectorDBError
from vectordb.index.base import BuildOptions, CannotExtend, GrowingIndex, IndexKind, VectorIndex
from vectordb.index.registry import get_kind
from vectordb.metric import Metric
from vectordb.types import QuantizationSpec

_NICENESS = 10
_REPORT_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1


def main(spec: dict[str, Any]) -> None:
    """Builds what one request asks for, says how it went, and ends the process."""
    # Libraries that print must not mix into the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    _behave(spec["parent"])
    try:
        _build(spec, _Progress(answers))
        answer: dict[str, Any] = {"done": True}
    except CannotExtend as why:
        answer = {"cannot_extend": str(why)}
    except Exception as error:
        answer = _described(error)
    _say(answers, answer)
    # Not by the usual way: native libraries' threads and destructors have nothing left to do here.
    os._exit(0)


def _build(spec: dict[str, Any], progress: _Progress) -> None:
    kind: IndexKind = get_kind(spec["kind"])
    metric = Metric(spec["metric"])
    vectors = np.memmap(spec["vectors"], np.dtype("<f4"), "r", shape=tuple(spec["shape"])).view(np.ndarray)
    quantization = spec["quantization"]
    options = BuildOptions(
        params=spec["params"],
        quantization=None if quantization is None else QuantizationSpec(*quantization),
        trained=None if spec["trained"] is None else Path(spec["trained"]),
        threads=spec["threads"],
        progress=progress,
    )
    index: VectorIndex
    if spec["base"] is None:
        index = kind.build(vectors, metric, options)
    else:
        base: GrowingIndex = kind.load(Path(spec["base"]), vectors[: spec["base_rows"]], metric, options)  # type: ignore[assignment]
        index = base.extended(vectors, options)
    index.save(Path(spec["out"]))


class _Progress:
    """Passes on the fraction done, not more often than anybody looks."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._next = 0.0

    def __call__(self, fraction: float) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REPORT_SECONDS
            _say(self._answers, {"progress": float(fraction)})


def _say(answers: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(answers, data) :]


def _described(error: Exception) -> dict[str, Any]:
    if isinstance(error, VectorDBError):
        fields = {name: value for name, value in error.fields.items() if _plain(value)}
        return {"error": type(error).__name__, "message": error.message, "fields": fields}
    if isinstance(error, MemoryError):
        text = "there is not enough memory to build this index: choose a kind or quantization that needs less"
        return {"error": ResourceExhausted.__name__, "message": text, "fields": {"limit": "memory"}}
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"no space left for an index: {error}; free disk space"
        return {"error": ResourceExhausted.__name__, "message": text, "fields": {"limit": "disk"}}
    return {"error": "Internal", "message": f"building failed: {type(error).__name__}: {error}", "fields": {}}


def _plain(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _behave(parent: int) -> None:
    """Steps back behind searches, and ties this process's life to its parent's."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # An interrupt from the terminal is for the parent, which ends this process as it sees fit.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before that
    threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    while os.read(0, 1 << 16):
        pass
    os._exit(1)
