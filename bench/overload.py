"""``python -m bench overload``: ten times the clients that saturate a server, all honouring its RetryInfo.

Closed-loop clients (each asks, waits for the answer, asks again) are doubled, and the fewest taken that get about the
most answers: those saturate it. Ten times as many then ask for a while; one that is refused comes again when the
refusal says. The bars:

    accepted    p99 below 3 times the p99 of the saturated server
    refused     within 50 ms, at the p99
    memory      the server's resident bytes grow by less than 10 %

and every answer is right. Run it on an otherwise idle machine: clients and server share it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import report
from vectordb.cli.process import ServerProcess
from vectordb.errors import ResourceExhausted
from vectordb.requests import SearchRequest
from vectordb_client import connect

CLIENTS = (1, 2, 4, 8, 16, 32)
ENOUGH = 0.9
"""The fewest clients that get so much of the most answers a second are those that saturate."""
TIMES = 10
BARS = {"accepted": 3.0, "refused_ms": 50.0, "memory": 1.1}
_WARM_UP = 0.5


@dataclass
class Seen:
    """What the clients of one stage saw: seconds of each attempt."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: int = 0


@dataclass(frozen=True)
class Stage:
    """One number of clients: calls a second, and milliseconds."""

    clients: int
    answered_a_second: float
    p50_ms: float
    p99_ms: float
    refused_a_second: float
    refused_p99_ms: float
    wrong: int


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench overload", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the overload; each step before has a fifth")
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
        steps = saturated(server.address, base, options)
        best = steps[-1]
        before = resident(server.pid)
        over = stage(server.address, base, options, TIMES * best.clients, options.seconds)
        memory = resident(server.pid) / before
    bars = {
        "accepted": over.p99_ms / best.p99_ms,
        "refused_ms": over.refused_p99_ms,
        "memory": memory,
    }
    for name, value in bars.items():
        print(f"{name:<12} {value:.3g} (bar {BARS[name]:g}) {'holds' if value < BARS[name] else 'MISSED'}")
    path = report.place(options.out, f"overload-{options.rows}x{options.dim}")
    stages = [asdict(each) for each in (*steps, over)]
    report.write(path, {"machine": report.machine(), "workers": options.workers, "stages": stages, "bars": bars})
    print(f"written to {path}")


def saturated(address: str, base: Any, options: argparse.Namespace) -> list[Stage]:
    """Stages of more and more clients, up to the fewest that saturate the server, which are the last."""
    steps = [stage(address, base, options, clients, options.seconds / 5) for clients in CLIENTS]
    enough = ENOUGH * max(step.answered_a_second for step in steps)
    return steps[: 1 + next(i for i, step in enumerate(steps) if step.answered_a_second >= enough)]


def stage(address: str, base: Any, options: argparse.Namespace, clients: int, seconds: float) -> Stage:
    """So many closed-loop clients for so long; what comes in the first half second is not counted."""
    seen = Seen()
    begin = time.monotonic() + _WARM_UP
    threads = [
        threading.Thread(target=client, args=(address, base, options, seed, (begin, begin + seconds), seen))
        for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Stage(
        clients,
        len(seen.answered) / seconds,
        _percentile(seen.answered, 50),
        _percentile(seen.answered, 99),
        len(seen.refused) / seconds,
        _percentile(seen.refused, 99),
        seen.wrong,
    )
    print(
        f"{clients:>5} clients: {found.answered_a_second:>7.0f} answered/s, p50 {found.p50_ms:.1f} "
        f"p99 {found.p99_ms:.1f} ms; {found.refused_a_second:.0f} refused/s, p99 {found.refused_p99_ms:.1f} ms; "
        f"{found.wrong} wrong",
        flush=True,
    )
    return found


def client(
    address: str, base: Any, options: argparse.Namespace, seed: int, span: tuple[float, float], seen: Seen
) -> None:
    """One closed loop. Its channel has no retries of its own: each attempt is timed by itself."""
    rng = np.random.default_rng(seed)
    with connect(address, retries=0) as db:
        backend = db._backend
        while time.monotonic() < span[1]:
            i = int(rng.integers(len(base)))
            request = SearchRequest(base[i : i + 1], 10, exact=not options.indexed, include=())
            started, delay = time.monotonic(), 0.0
            try:
                ids = backend.search("docs", request)[0].ids
            except ResourceExhausted as error:
                delay, ids = error.retry_after, []
            ended = time.monotonic()
            if started >= span[0]:
                (seen.refused if delay else seen.answered).append(ended - started)
                seen.wrong += not delay and not options.indexed and ids[0] != str(i)
            time.sleep(delay)


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) * 1e3 if values else 0.0


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
