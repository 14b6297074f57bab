"""Searches a second of a server with several clients at once, and its processor time a search.

The clients are threads of a process of their own, each with its own connection of this library's client; they send
ready-made messages and do not read the answers, so that every server is asked alike and as little as possible of the
machine is theirs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from bench.datasets import Dataset
from bench.systems.base import Query
from bench.systems.engine import COLLECTION, Served
from bench.systems.raw_served import METHOD, RawServed
from vectordb.requests import SearchRequest
from vectordb.wire.search import search_to_parts
from vectordb_client.transport.calls import PATHS
from vectordb_client.transport.direct import DirectCalls
from vectordb_client.transport.http2 import Failed

CLIENTS = 8
_PAUSE = 0.1
"""Seconds until a client asks again that was refused."""


@dataclass(frozen=True)
class Target:
    """Where and what to ask: a method's full name and its requests, as they go over the wire."""

    address: str
    method: str
    messages: Sequence[bytes]


def target(system: Served | RawServed, data: Dataset, ef: int, limit: int = 10) -> Target:
    """The unfiltered searches of a data set for one server."""
    if isinstance(system, RawServed):
        queries = [Query(vector, limit, ef) for vector in data.queries]
        return Target(system.address, METHOD, [system.message(query) for query in queries])
    requests = [
        SearchRequest(vector[None, :], limit, params={"ef": ef}, include=system.include) for vector in data.queries
    ]
    return Target(
        system.server.address, PATHS["Search"], [b"".join(search_to_parts(COLLECTION, request)) for request in requests]
    )


def measure(
    systems: Sequence[Served | RawServed], data: Dataset, ef: int, rounds: int, turn: float
) -> Mapping[str, Mapping[str, float]]:
    """Medians of ``rounds`` turns of ``turn`` seconds each, the systems taking turns: ``qps``, and ``cpu_us`` a search
    in the server."""
    found: dict[str, list[tuple[float, float]]] = {system.name: [] for system in systems}
    targets = {system.name: target(system, data, ef) for system in systems}
    for _ in range(rounds):
        for system in systems:
            before = system.cpu()
            answered, seconds = _asked(targets[system.name], turn)
            found[system.name].append((answered / seconds, (system.cpu() - before) / answered * 1e6))
    return {
        name: {"qps": _middle(f[0] for f in all_), "cpu_us": _middle(f[1] for f in all_)}
        for name, all_ in found.items()
    }


def _middle(values: Any) -> float:
    ordered = sorted(values)
    return float(ordered[len(ordered) // 2])


def _asked(asked: Target, turn: float) -> tuple[int, float]:
    """Searches answered, and in how many seconds, by a process full of clients."""
    with tempfile.TemporaryDirectory(prefix="vectordb-bench-") as folder:
        messages = Path(folder) / "messages"
        messages.write_text(json.dumps([message.hex() for message in asked.messages]))
        command = [sys.executable, "-m", "bench.throughput", asked.address, asked.method, str(messages), str(turn)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    answered, seconds = json.loads(done.stdout)
    return answered, seconds


def main() -> None:
    """The process of the clients: prints ``[answered, seconds]``."""
    address, method, path, turn = sys.argv[1:]
    messages = [bytes.fromhex(text) for text in json.loads(Path(path).read_text())]
    counts = [0] * CLIENTS
    ready = threading.Barrier(CLIENTS + 1)
    over = threading.Event()

    def ask(number: int) -> None:
        calls = DirectCalls(address)
        for _ in range(2):  # the first is told of the lane, where there is one
            calls.call(method, (messages[0],), None, ())
        ready.wait()
        while not over.is_set():
            try:
                calls.call(method, (messages[(number + counts[number] * CLIENTS) % len(messages)],), None, ())
                counts[number] += 1
            except Failed as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                time.sleep(_PAUSE)  # somebody else has the processors
        calls.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    over.wait(float(turn))
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps([sum(counts), time.perf_counter() - started]))


if __name__ == "__main__":
    main()
