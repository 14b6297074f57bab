"""Bare faiss behind a bare handler: the limit of a served search, over each transport. No checks, no payloads.

It is asked as this engine is, over the connections of its own client.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss as faiss_module
import grpc
import numpy as np

from bench.datasets import Dataset
from bench.systems.base import Query, process_cpu
from bench.systems.engine import LANE
from bench.systems.raw_faiss import RawFaiss
from vectordb.server.config import load
from vectordb.server.lane import Lane
from vectordb.server.transports import GRPCIO, CallBounds, Transport, native
from vectordb_client.transport.direct import DirectCalls

faiss: Any = faiss_module  # Its type stubs lag behind its classes.

SERVICE, CALL = "bench.Raw", "Search"
METHOD = f"/{SERVICE}/{CALL}"
THREADS = 8
"""As many as ``vectordb serve`` has for calls."""


class RawServed:
    """One unfiltered graph in a server process of its own; searches with a filter are not for it.

    Args:
        raw: What is searched.
        index: File that it is saved to before this is loaded.
        transport: One of :func:`bench.systems.engine.transports`.
    """

    def __init__(self, raw: RawFaiss, index: Path, transport: str) -> None:
        self._raw = raw
        self.name = f"raw {transport}"
        self._index = index
        self._transport = transport
        self._process: subprocess.Popen[str] | None = None
        self._calls: DirectCalls | None = None
        self.address = ""

    def load(self, data: Dataset) -> dict[str, float]:
        command = [sys.executable, "-m", "bench.systems.raw_served", str(self._index), self._transport]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        self._calls = DirectCalls(self.address)
        return {}

    def message(self, query: Query) -> bytes:
        """What a client sends for a search: limit and width as int32, and the vector."""
        return np.array([query.limit, query.ef], np.int32).tobytes() + self._raw.asked(query.vector).tobytes()

    def search(self, query: Query) -> Any:
        assert self._calls is not None
        return self._calls.call(METHOD, (self.message(query),), None, ())

    def rows(self, answer: Any) -> list[int]:
        return [row for row in np.frombuffer(answer, np.int64).tolist() if row >= 0]

    def cpu(self) -> float:
        assert self._process is not None
        return process_cpu(self._process.pid)

    def close(self) -> None:
        if self._calls is not None:
            self._calls.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The end of its input is its end.
                self._process.communicate(timeout=10)
            self._process.kill()
            self._process.wait()


def main() -> None:
    """The server process: prints its address, serves until its standard input ends."""
    path, transport = sys.argv[1:]
    index = faiss.read_index(path)
    faiss.omp_set_num_threads(1)

    def search(data: bytes, _: grpc.ServicerContext) -> bytes:
        limit, ef = np.frombuffer(data, np.int32, 2).tolist()
        vector = np.frombuffer(data, np.float32, offset=8)
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        return bytes(index.search(vector[None, :], limit, params=parameters)[1])

    config = load({"max_workers": THREADS}, environment={})
    handlers = {CALL: grpc.unary_unary_rpc_method_handler(search)}
    if transport == LANE:
        lane = Lane({METHOD: handlers[CALL]}, CallBounds(THREADS, 100), config.max_message_bytes)
        lane.start()
        _serve(lane.address)
        lane.stop(0).wait()
        return
    bare = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
    bare.add_registered_method_handlers(SERVICE, handlers)
    server: Transport = (
        bare if transport == GRPCIO else native({METHOD: handlers[CALL]}, bare, CallBounds(THREADS, 100), config)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    _serve(f"127.0.0.1:{port}")
    server.stop(0).wait()


def _serve(address: str) -> None:
    print(address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
