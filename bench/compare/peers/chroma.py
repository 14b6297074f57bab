"""Chroma, in process and its own server (``chroma run``)."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import chromadb
from chromadb.config import Settings

from bench.compare.arena import Rows, Where
from bench.compare.peers.base import EF_CONSTRUCTION, Ground, M, Peer, Search


class Chroma(Peer):
    """A persistent client. The width is the collection's, not a search's, and takes effect when it is opened anew."""

    width = "ef_search"
    durable = "SQLite's log, as shipped"
    synced = True
    build: ClassVar[dict[str, Any]] = {"max_neighbors": M, "ef_construction": EF_CONSTRUCTION, "precision": "f32"}

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._client: Any = None
        self._collection: Any = None
        self._width = 100

    def _connect(self) -> Any:
        return chromadb.PersistentClient(str(self.ground.folder), settings=Settings(anonymized_telemetry=False))

    def create(self) -> None:
        self._client = self._connect()
        space = {"cosine": "cosine", "dot": "ip", "l2": "l2"}[self.ground.metric]
        graph = {
            "space": space, "max_neighbors": M, "ef_construction": EF_CONSTRUCTION, "ef_search": self._width,
            "num_threads": self.ground.threads,
        }  # fmt: skip
        self._collection = self._client.create_collection(
            "bench", configuration={"hnsw": graph}, embedding_function=None
        )

    def reopen(self) -> None:
        self._client = self._connect()
        self._collection = self._client.get_collection("bench", embedding_function=None)
        # What an earlier process set is unknown here.
        self._width = 0

    def write(self, rows: Rows) -> None:
        ids = [str(number) for number in rows.numbers]
        self._collection.add(ids=ids, embeddings=rows.vectors, metadatas=rows.metadata)

    def finish(self) -> None:
        # Rows are indexed as they come; a search takes in what the index has not seen yet.
        vector = [1.0] + [0.0] * (self.ground.dim - 1)
        self._collection.query(query_embeddings=[vector], n_results=1, include=["distances"])

    def filter(self, where: Where, mask: Any) -> Any:
        return {where.field: {"$lt": where.value} if where.op == "<" else {"$eq": where.value}}

    def use(self, width: int) -> None:
        if width != self._width:
            self._collection.modify(configuration={"hnsw": {"ef_search": width}})
            self._close()
            self.reopen()
            self._width = width
            # The index is read by the first search.
            self.finish()

    def _close(self) -> None:
        self._collection = None
        if self._client is not None:
            self._client.close()
        self._client = None

    def _query(self, vectors: list[Any], search: Search) -> Any:
        return self._collection.query(
            query_embeddings=vectors, n_results=self.ground.limit, where=search.where, include=["distances"]
        )["ids"]

    def search(self, search: Search) -> Any:
        return self._query([search.vector], search)[0]

    def search_batch(self, searches: Sequence[Search]) -> Any:
        return self._query([search.vector for search in searches], searches[0])

    def rows(self, answer: Any) -> list[int]:
        return [int(name) for name in answer]

    def delete(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), 5_000):
            self._collection.delete(ids=[str(number) for number in numbers[start : start + 5_000]])

    def close(self) -> None:
        self._close()


class ChromaServer(Chroma):
    """The same folder format behind HTTP."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._server: subprocess.Popen[bytes] | None = None
        self._port = 0

    def _connect(self) -> Any:
        if self._port == 0:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._port = free.getsockname()[1]
            command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(self.ground.folder)]
            self._server = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self._port)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        until = time.monotonic() + 60.0
        while True:
            with contextlib.suppress(Exception):
                settings = Settings(anonymized_telemetry=False)
                client = chromadb.HttpClient(host="127.0.0.1", port=self._port, settings=settings)
                client.heartbeat()
                return client
            if time.monotonic() > until or (self._server is not None and self._server.poll() is not None):
                raise RuntimeError("the Chroma server did not start")
            time.sleep(0.01)

    def pids(self) -> list[int]:
        return [] if self._server is None else [self._server.pid]

    def address(self) -> str | None:
        return str(self._port)

    def attach(self, address: str) -> None:
        self._port = int(address)
        self.reopen()

    def use(self, width: int) -> None:
        if self._server is not None:  # A second client takes what the first one set.
            super().use(width)

    def _close(self) -> None:
        super()._close()
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(20)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._port = 0
