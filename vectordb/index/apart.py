"""Builds in a child process: for kinds whose builds cannot be cancelled, hold the GIL, or may end the process.

The child (``worker.py``) is a fresh interpreter with this one's ``sys.path``. It maps the file of vectors, builds or
extends, and writes the file of the index; nothing is pickled.

    to the child     standard input: one line of JSON, its ``sys.path``, and one with the :class:`Job`; then it stays
                     open: its end tells the child that this process is gone
    from the child   standard output: lines of JSON, ``{"progress": 0.5}``, at last ``{"done": true}``, or
                     ``{"error": name, "message": ..., "fields": ...}`` of a class of ``vectordb.errors``, or
                     ``{"cannot_extend": why}``; standard error: whatever libraries print, quoted when it crashes

What the child does to itself, a crash included, is an error here and nothing more. It is killed when the build is
cancelled, and it dies with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import IO, TYPE_CHECKING, Any, NoReturn

from vectordb.errors import BY_NAME, FailedPrecondition, Internal, ResourceExhausted
from vectordb.index.base import BuildCancelled, BuildOptions, CannotExtend
from vectordb.metric import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_POLL_SECONDS = 0.05
_KEPT = 2_000
"""Characters at the end of what the child printed that an error quotes."""
_WRITE = 16 << 20

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from vectordb.index.worker import main; main(json.loads(sys.stdin.readline()))"
)


@dataclass(frozen=True, slots=True)
class Job:
    """What to build.

    Attributes:
        kind: Name of a registered kind.
        vectors: File of the prepared vectors: float32, little-endian, row by row.
        shape: (n, d), n >= 1.
        metric: The metric.
        out: The file to write; not there yet.
        base: File of an index of this kind over the first ``base_rows`` rows, to be extended; None: to be built anew.
        base_rows: See ``base``.
    """

    kind: str
    vectors: Path
    shape: tuple[int, int]
    metric: Metric
    out: Path
    base: Path | None = None
    base_rows: int = 0


def build(job: Job, options: BuildOptions) -> None:
    """Writes the index file ``job.out``; returns when that is complete. Releases the GIL while it waits.

    Args:
        job: What to build.
        options: As for ``IndexKind.build``; ``cancelled`` is polled here, ``progress`` called on this thread.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true; the child is gone by then.
        CannotExtend: The kind said so of ``job.base``.
        VectorDBError: The kind's own error.
        Internal: Any other exception of the kind, or the child crashed: the message says how.
        FailedPrecondition: There is no interpreter to start.
    """
    if options.cancelled():
        raise BuildCancelled
    child = _start()
    try:
        answer = _Answer(options.progress)
        printed = _converse(child, _request(job, options), answer, options.cancelled)
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            assert pipe is not None
            pipe.close()
    if options.cancelled():
        # A folder that was removed under the child is no error of the kind.
        raise BuildCancelled
    _conclude(job, answer.last, child.returncode, printed)


def _start() -> subprocess.Popen[bytes]:
    if not sys.executable or getattr(sys, "frozen", False):
        raise FailedPrecondition(
            "this kind of index is built in a child process, and this program has no Python interpreter to start "
            "(sys.executable); run it with one, or choose another kind of index"
        )
    pipe = subprocess.PIPE
    try:
        # Unbuffered: pipes are read as they fill. -P: neither the current folder nor a script's is searched.
        command = [sys.executable, "-P", "-c", _BOOT]
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    except OSError as error:
        raise FailedPrecondition(f"cannot start {sys.executable!r} to build an index in: {error}") from error


def _request(job: Job, options: BuildOptions) -> bytes:
    quantization = options.quantization
    spec = {
        "parent": os.getpid(),
        "kind": job.kind,
        "vectors": str(job.vectors),
        "shape": list(job.shape),
        "metric": job.metric.value,
        "out": str(job.out),
        "base": None if job.base is None else str(job.base),
        "base_rows": job.base_rows,
        "params": dict(options.params),
        "quantization": None if quantization is None else [quantization.kind, dict(quantization.params)],
        "trained": None if options.trained is None else str(options.trained),
        "threads": options.threads,
    }
    return b"".join(json.dumps(line).encode() + b"\n" for line in ([str(p) for p in sys.path], spec))


class _Answer:
    """Reads the child's lines."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress
        self._rest = b""
        self.last: dict[str, Any] = {}

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "progress" in message:
                self._progress(message["progress"])
            else:
                self.last = message


def _converse(child: subprocess.Popen[bytes], request: bytes, answer: _Answer, cancelled: Callable[[], bool]) -> str:
    """Sends the request and reads until the child ends or is no longer wanted: the end of what it printed."""
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    printed = b""
    with selectors.DefaultSelector() as ready:
        with contextlib.suppress(BrokenPipeError):  # it died at once; what it printed says why
            child.stdin.write(request)
        ready.register(child.stdout, selectors.EVENT_READ)
        ready.register(child.stderr, selectors.EVENT_READ)
        while not answer.last and not cancelled():
            # Asked before the pipes are: what a child says before it ends is in them by the time that it has ended.
            ended = child.poll() is not None
            events = ready.select(0.0 if ended else _POLL_SECONDS)
            for key, _ in events:
                pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]
                data = pipe.read(1 << 16)
                if not data:
                    ready.unregister(pipe)
                elif pipe is child.stdout:
                    answer.feed(data)
                else:
                    printed = (printed + data)[-4 * _KEPT :]
            # Not by the ends of the pipes alone: what the child started may hold them open.
            if ended and not events:
                break
    return printed.decode(errors="replace").strip()[-_KEPT:]


def _conclude(job: Job, answer: dict[str, Any], code: int, printed: str) -> None:
    if "done" in answer:
        return
    if "cannot_extend" in answer:
        raise CannotExtend(answer["cannot_extend"])
    if "error" in answer:
        raise BY_NAME.get(answer["error"], Internal)(answer["message"], **answer["fields"])
    _crashed(job, code, printed)


def _crashed(job: Job, code: int, printed: str) -> NoReturn:
    said = f"; it printed: {printed}" if printed else ""
    if code == -signal.SIGKILL:
        raise ResourceExhausted(
            f"the child process that built a {job.kind!r} index was killed, as the system does where memory runs out: "
            f"give this machine more, or choose a kind or quantization that needs less{said}",
            kind=job.kind,
        )
    how = f"ended with code {code}"
    if code < 0:
        how = f"was ended by signal {signal.Signals(-code).name}"
    raise Internal(
        f"the child process that built a {job.kind!r} index of {job.shape[0]} x {job.shape[1]} vectors {how}; choose "
        f"another kind of index if it happens again{said}",
        kind=job.kind,
    )


class Scratch:
    """A temporary folder that lives as long as this object: for databases in memory, which have no folder."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="vectordb-"))
        weakref.finalize(self, rmtree, self.path, ignore_errors=True)


def write_vectors(path: Path, vectors: NDArray[np.float32], cancelled: Callable[[], bool]) -> Path:
    """Writes a matrix as the file that a :class:`Job` names; returns the path.

    Raises:
        BuildCancelled: ``cancelled()`` turned true.
        ResourceExhausted: The disk is full.
    """
    step = max(1, _WRITE // (4 * max(1, vectors.shape[1])))
    try:
        with path.open("wb") as file:
            for start in range(0, len(vectors), step):
                if cancelled():
                    raise BuildCancelled
                file.write(vectors[start : start + step].astype("<f4", copy=False).tobytes())
    except OSError as error:
        raise ResourceExhausted(
            f"cannot write '{path}' for the build of an index in a child process: {error}; free space, or name another "
            "folder in TMPDIR",
            limit="disk",
        ) from error
    return path
