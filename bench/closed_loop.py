"""Closed-loop clients in processes of their own: each asks, waits for the answer, asks again; refused, it comes again
when the refusal says.

Clients are threads, each with a connection of its own, spread over a few processes so that they do not wait for one
another's interpreter. They send ready-made messages and time an attempt from before it is sent until its answer is
there; answers are read after that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import grpc
import numpy as np

from vectordb.errors import ResourceExhausted
from vectordb_client.transport.calls import PATHS
from vectordb_client.transport.direct import DirectCalls
from vectordb_client.transport.status import to_error
from vectordb_proto.v1 import service_pb2

PROCESSES = 4
_BEGIN = 0.5
_PATIENCE = 120.0


@dataclass
class Seen:
    """What clients saw: seconds of each attempt, and how many answers were wrong."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: int = 0

    def add(self, other: Seen) -> None:
        self.answered += other.answered
        self.refused += other.refused
        self.wrong += other.wrong


class Crowd:
    """Processes that hold clients for a server. A context manager that ends them; not thread-safe.

    Args:
        address: The server's.
        messages: A file of an array, one serialized search a row; row i has record i for its best answer.
        exact: Whether that is sure.
    """

    def __init__(self, address: str, messages: Path, *, exact: bool) -> None:
        command = [sys.executable, "-m", "bench.closed_loop", address, str(messages), str(int(exact))]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(PROCESSES)
        ]

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(_PATIENCE)
            process.stdout.close()

    def ask(self, clients: int, seconds: float) -> Seen:
        """So many clients for so long; what they ask in the first half second is not counted."""
        for i, process in enumerate(self._processes):
            _say(process.stdin, list(range(i, clients, PROCESSES)))
        for process in self._processes:
            _hear(process.stdout)
        begin = time.monotonic() + _BEGIN  # one clock for all processes of a machine
        for process in self._processes:
            _say(process.stdin, [begin, begin + seconds])
        seen = Seen()
        for process in self._processes:
            seen.add(Seen(**_hear(process.stdout)))
        return seen


def _say(pipe: IO[str] | None, what: Any) -> None:
    assert pipe is not None
    pipe.write(json.dumps(what) + "\n")
    pipe.flush()


def _hear(pipe: IO[str] | None) -> Any:
    assert pipe is not None
    return json.loads(pipe.readline())


@dataclass(frozen=True)
class _Target:
    address: str
    messages: Any
    exact: bool


@dataclass
class _Start:
    """Clients wait at ``connected`` until all are, and then until they are ``told`` from when until when to ask."""

    connected: threading.Barrier
    told: threading.Event = field(default_factory=threading.Event)
    span: tuple[float, float] = (0.0, 0.0)


def main(arguments: Sequence[str]) -> None:
    """A process of clients: it tells when they are connected, and what they saw."""
    target = _Target(arguments[0], np.load(arguments[1], mmap_mode="r"), arguments[2] == "1")
    for line in sys.stdin:
        seeds = json.loads(line)
        start = _Start(threading.Barrier(len(seeds) + 1))
        seen = [Seen() for _ in seeds]
        threads = [
            threading.Thread(target=_client, args=(target, seed, start, one))
            for seed, one in zip(seeds, seen, strict=True)
        ]
        for thread in threads:
            thread.start()
        start.connected.wait(_PATIENCE)
        _say(sys.stdout, "connected")
        start.span = json.loads(sys.stdin.readline())
        start.told.set()
        for thread in threads:
            thread.join()
        all_of_them = Seen()
        for one in seen:
            all_of_them.add(one)
        _say(sys.stdout, asdict(all_of_them))


def _client(target: _Target, seed: int, start: _Start, seen: Seen) -> None:
    rng = np.random.default_rng(seed)
    rows = len(target.messages)
    calls, path = DirectCalls(target.address), PATHS["Search"]
    with closing(calls):
        for _ in range(2):  # the first is told of the lane, where there is one
            with suppress(grpc.RpcError):
                calls.call(path, (target.messages[0].tobytes(),), _PATIENCE, ())
        start.connected.wait(_PATIENCE)
        start.told.wait()
        begin, end = start.span
        while time.monotonic() < end:
            i = int(rng.integers(rows))
            data, error = target.messages[i].tobytes(), None
            started = time.monotonic()
            try:
                answer = calls.call(path, (data,), None, ())
                ended = time.monotonic()
                if target.exact:
                    found = service_pb2.SearchResponse.FromString(answer).results[0].hits.ids
                    seen.wrong += list(found[:1]) != [str(i)]
            except grpc.RpcError as raised:
                ended = time.monotonic()
                error = to_error(raised, target.address, None)
                if not isinstance(error, ResourceExhausted):
                    raise error from None
            if started >= begin:
                (seen.answered if error is None else seen.refused).append(ended - started)
            if error is not None:
                time.sleep(error.retry_after)


if __name__ == "__main__":
    main(sys.argv[1:])
