"""This engine: embedded, and served over each transport, by the client's public calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from bench.compare.arena import Rows, Where
from bench.compare.peers.base import EF_CONSTRUCTION, Ground, M, Peer, Search
from vectordb.cli.process import ServerProcess
from vectordb.index.registry import get_kind
from vectordb_client import connect

COLLECTION = "bench"


class Embedded(Peer):
    """The engine in the measuring process."""

    durable = "yes: synced before it is acknowledged"
    synced = True

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._db: Any = None
        self._collection: Any = None
        kind = get_kind(ground.index or "hnsw").capabilities
        if kind.width is None:
            self.width, self.widths = "", (0, 0)
        elif kind.width != self.width:
            self.width, high = kind.width, kind.search_params[kind.width].high
            self.widths = (1, 4_096 if high is None else int(high))

    def _params(self, width: int) -> dict[str, int] | None:
        return {self.width: width} if self.width else None

    def _connect(self) -> Any:
        return connect(self.ground.folder)

    def create(self) -> None:
        self._db = self._connect()
        graph = {"kind": "hnsw", "m": M, "ef_construction": EF_CONSTRUCTION}
        index = graph if self.ground.index in (None, "hnsw") else self.ground.index
        self._collection = self._db.create_collection(
            COLLECTION, self.ground.dim, metric=self.ground.metric, index=index, quantization=self.ground.quantization
        )

    def reopen(self) -> None:
        self._db = self._connect()
        self._collection = self._db.collection(COLLECTION)

    def write(self, rows: Rows) -> None:
        self._collection.upsert([_id(row) for row in rows.numbers], rows.vectors, metadata=rows.metadata)

    def finish(self) -> None:
        self._collection.optimize()

    def filter(self, where: Where, mask: Any) -> Any:
        return {"field": where.field, "op": where.op, "value": where.value}

    def search(self, search: Search) -> Any:
        return self._collection.search(
            search.vector, self.ground.limit, where=search.where, params=self._params(search.width), include=()
        )

    def search_batch(self, searches: Sequence[Search]) -> Any:
        first = searches[0]
        vectors = [search.vector for search in searches]
        return self._collection.search_batch(
            vectors, self.ground.limit, where=first.where, params=self._params(first.width), include=()
        )

    def rows(self, answer: Any) -> list[int]:
        return [int(hit.id) for hit in answer]

    def delete(self, numbers: Sequence[int]) -> None:
        self._collection.delete([_id(row) for row in numbers])

    def close(self) -> None:
        if self._db is not None:
            self._db.close()


class Served(Embedded):
    """The engine behind gRPC on this machine, in a server process of its own, as ``vectordb serve`` does by itself."""

    transport: ClassVar[str] = ""
    """The only one that is had; without one the server chooses, and has a lane."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._server: ServerProcess | None = None

    def _connect(self) -> Any:
        only = {"VECTORDB_TRANSPORT": self.transport, "VECTORDB_LANE": "0"}
        self._server = ServerProcess(self.ground.folder, environment=only if self.transport else {})
        return connect(self._server.address)

    def address(self) -> str | None:
        return None if self._server is None else self._server.address

    def attach(self, address: str) -> None:
        self._db = connect(address)
        self._collection = self._db.collection(COLLECTION)

    def pids(self) -> list[int]:
        return [] if self._server is None else [self._server.pid]

    def close(self) -> None:
        super().close()
        if self._server is not None:
            self._server.stop()


class Native(Served):
    """The same over the transport in native code."""

    transport = "native"


class Grpcio(Served):
    """The same over grpcio."""

    transport = "grpcio"


def _id(row: int) -> str:
    """Ids of equal width: equal scores then sort as rows do."""
    return f"{row:08d}"
