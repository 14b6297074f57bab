"""A reindex that is asked for over the wire and by asynchronous callers, who may stop waiting for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.engine.reindex.gate import Gate
from tests.engine.reindex.small import DIM, HNSW, SEGMENT, SMALL, fill, vectors_of
from tests.waiting import Call, wait_until
from vectordb import errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb.types import QuantizationSpec
from vectordb_client import connect, connect_async


def test_served_and_asynchronous(tmp_path: Path, gate: Gate) -> None:
    server = Server(lambda: Engine(tmp_path / "db"), load({"data": str(tmp_path), "listen": "127.0.0.1:0"}, None, {}))
    address = server.start()

    async def other() -> None:
        async with await connect_async(address) as db:
            collection = await db.collection("c")
            task = asyncio.create_task(collection.reindex(gate.index()))
            while (await collection.stats()).optimizer.state != "reindexing":
                await asyncio.sleep(0.01)
            assert collection.index.kind == "hnsw"
            # Nobody waits any more; the work goes on, and the server has its thread back.
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            while len(server._streams):
                await asyncio.sleep(0.01)
            assert (await collection.stats()).optimizer.state == "reindexing"
            with pytest.raises(errors.InvalidArgument, match="btree"):
                await collection.reindex("btree")
            assert await collection.cancel_reindex() is True
            assert await collection.cancel_reindex() is False
            index = gate.index(tag=1)
            gate.let(2, tag=1)
            await collection.reindex(index, "sq8")
            assert (collection.index.kind, collection.quantization) == ("slow", QuantizationSpec("sq8"))

    with connect(address) as db:
        collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
        fill(collection, 2)
        asyncio.run(other())
        assert collection.index.kind == "hnsw"
        stats = collection.stats()
        assert (stats.index, stats.quantization) == (collection.index, collection.quantization)
        assert collection.index.params["tag"] == 1
        collection.reindex("flat", "none")
        assert (collection.index.kind, collection.quantization) == ("flat", None)
        waiting = Call(lambda: collection.reindex(gate.index()))
        wait_until(lambda: collection.stats().optimizer.state == "reindexing")
        assert collection.cancel_reindex() is True
        assert "was cancelled" in str(waiting.over())
        with pytest.raises(errors.Internal, match="RuntimeError; the log has it"):
            collection.reindex({"kind": "slow", "fails": True})
        assert collection.stats().optimizer.state == "failed"
    server.stop()


def test_asynchronous_embedded() -> None:
    async def main() -> None:
        async with await connect_async(":memory:") as db:
            collection = await db.create_collection("c", DIM, index="flat", **SMALL)
            await collection.upsert([str(i) for i in range(SEGMENT)], vectors_of(SEGMENT))
            await collection.optimize()
            await collection.reindex(HNSW)
            stats = await collection.stats()
            assert (stats.index, stats.indexed_rows) == (collection.index, SEGMENT)
            assert await collection.cancel_reindex() is False

    asyncio.run(main())
