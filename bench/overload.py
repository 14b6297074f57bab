"""``python -m bench overload``: ten times the clients that saturate a server, all honouring its RetryInfo.

Closed-loop clients (each asks, waits for the answer, asks again) are doubled, and the fewest taken that get about the
most answers: those saturate it. Ten times as many then ask for a while; one that is refused comes again when the
refusal says. Just before and after, as many as saturate it are measured once more. The bars:

    accepted    p99 below 3 times the p99 of the saturated server, the mean of before and after
    refused     within 50 ms, at the p99
    memory      the server's resident bytes grow by less than 10 %

and every answer is right. ``--seconds 1800`` is the long form. Run it on an otherwise idle machine: clients and server
share it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from bench.closed_loop import Crowd
from bench.systems.base import process_cpu
from vectordb.cli.process import ServerProcess
from vectordb.requests import SearchRequest
from vectordb.wire.search import search_to_parts
from vectordb_client import connect

CLIENTS = (1, 2, 4, 8, 16, 32)
ENOUGH = 0.9
"""The fewest clients that get so much of the most answers a second are those that saturate."""
TIMES = 10
BARS = {"accepted": 3.0, "refused_ms": 50.0, "memory": 1.1}
_LONGEST_STEP = 10.0
_ASKED = 2000
"""So many different searches."""


@dataclass(frozen=True)
class Stage:
    """One number of clients: calls a second, milliseconds, and of the server its processors and resident bytes."""

    clients: int
    answered_a_second: float
    p50_ms: float
    p99_ms: float
    refused_a_second: float
    refused_p50_ms: float
    refused_p99_ms: float
    wrong: int
    cores: float
    most_bytes: int
    bytes_a_minute: float


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench overload", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of the overload; each other stage has a fifth, at most 10"
    )
    parser.add_argument("--workers", type=int, default=8, help="the server's max_workers")
    parser.add_argument("--indexed", action="store_true", help="searches by the index, not exact ones")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    options = parse(arguments)
    base = np.random.default_rng(0).standard_normal((options.rows, options.dim)).astype(np.float32)
    environment = {"VECTORDB_MAX_WORKERS": str(options.workers)}
    with (
        tempfile.TemporaryDirectory(prefix="vectordb-bench-") as scratch,
        ServerProcess(Path(scratch) / "db", environment=environment) as server,
    ):
        with connect(server.address) as db:
            docs = db.create_collection("docs", options.dim, index="hnsw" if options.indexed else "flat")
            docs.bulk_upsert(({"id": str(i), "vector": row} for i, row in enumerate(base)), progress=False)
            docs.optimize()
        messages = Path(scratch) / "messages.npy"
        np.save(messages, _messages(base, exact=not options.indexed))
        with Crowd(server.address, messages, exact=not options.indexed) as crowd:
            step = min(options.seconds / 5, _LONGEST_STEP)
            steps = saturated(crowd, server.pid, step)
            clients = steps[-1].clients
            usual = [stage(crowd, server.pid, clients, step)]
            before = resident(server.pid)
            over = stage(crowd, server.pid, TIMES * clients, options.seconds)
            usual.append(stage(crowd, server.pid, clients, step))
    bars = {
        "accepted": over.p99_ms / (sum(each.p99_ms for each in usual) / len(usual)),
        "refused_ms": over.refused_p99_ms,
        "memory": over.most_bytes / before,
    }
    for name, value in bars.items():
        print(f"{name:<12} {value:.3g} (bar {BARS[name]:g}) {'holds' if value < BARS[name] else 'MISSED'}")
    print(f"memory grew by {over.bytes_a_minute / 2**20:+.3f} MiB a minute at {over.most_bytes / 2**20:.0f} MiB")
    path = report.place(options.out, f"overload-{options.rows}x{options.dim}")
    stages = [asdict(each) for each in (*steps, usual[0], over, usual[1])]
    report.write(path, {"machine": report.machine(), "workers": options.workers, "stages": stages, "bars": bars})
    print(f"written to {path}")


def _messages(base: Any, *, exact: bool) -> Any:
    """Searches for the first rows, as they go over the wire: uint8[rows, bytes]."""
    requests = (SearchRequest(base[i : i + 1], 10, exact=exact, include=()) for i in range(min(_ASKED, len(base))))
    found = [b"".join(search_to_parts("docs", request)) for request in requests]
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(found), -1)


def saturated(crowd: Crowd, pid: int, seconds: float) -> list[Stage]:
    """Stages of more and more clients, up to the fewest that saturate the server, which are the last."""
    steps = [stage(crowd, pid, clients, seconds) for clients in CLIENTS]
    enough = ENOUGH * max(step.answered_a_second for step in steps)
    return steps[: 1 + next(i for i, step in enumerate(steps) if step.answered_a_second >= enough)]


def stage(crowd: Crowd, pid: int, clients: int, seconds: float) -> Stage:
    """So many closed-loop clients for so long."""
    with Watch(pid, seconds / 100) as memory:
        before = process_cpu(pid)
        seen = crowd.ask(clients, seconds)
        spent = process_cpu(pid) - before
    found = Stage(
        clients,
        len(seen.answered) / seconds,
        _percentile(seen.answered, 50),
        _percentile(seen.answered, 99),
        len(seen.refused) / seconds,
        _percentile(seen.refused, 50),
        _percentile(seen.refused, 99),
        seen.wrong,
        spent / seconds,
        max(memory.bytes),
        memory.slope(),
    )
    print(
        f"{clients:>5} clients: {found.answered_a_second:>7.0f} answered/s, p50 {found.p50_ms:.1f} "
        f"p99 {found.p99_ms:.1f} ms; {found.refused_a_second:.0f} refused/s, p50 {found.refused_p50_ms:.1f} "
        f"p99 {found.refused_p99_ms:.1f} ms; {found.wrong} wrong; server {found.cores:.2f} cores",
        flush=True,
    )
    return found


class Watch:
    """Looks at a process's resident memory every so many seconds. A context manager; not thread-safe."""

    def __init__(self, pid: int, every: float) -> None:
        self.at = [time.monotonic()]
        self.bytes = [resident(pid)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, args=(pid, max(0.1, every)), daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self, pid: int, every: float) -> None:
        while not self._over.wait(every):
            self.at.append(time.monotonic())
            self.bytes.append(resident(pid))

    def slope(self) -> float:
        """Bytes a minute, of the line through what was seen after the first quarter."""
        settled = len(self.at) // 4
        at, size = np.array(self.at[settled:]), np.array(self.bytes[settled:], np.float64)
        at -= at.mean()
        return float(60.0 * (at @ size) / max(float(at @ at), 1e-9))


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) * 1e3 if values else 0.0


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
