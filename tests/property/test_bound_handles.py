"""Handles bound by a row policy, whatever way they reach the engine: guests of a folder, asyncio, bare requests."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import grpc
import pytest

from vectordb.cli.process import ServerProcess
from vectordb.engine.database import Engine
from vectordb.errors import InvalidArgument, InvalidFilter, PermissionDenied
from vectordb.filter import col
from vectordb.server.app import Server
from vectordb.server.calls import Call
from vectordb.server.config import load
from vectordb.wire.filters import POLICY_KEY, policy_to_bytes
from vectordb_client import connect, connect_async
from vectordb_proto.v1.service_pb2 import CountRequest
from vectordb_proto.v1.service_pb2_grpc import VectorDBServiceStub


def test_guests_of_a_folder_are_bound_too(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "db"), connect(tmp_path / "db") as guest:
        _check_bound(guest)


def _check_bound(db: Any) -> None:
    whole = db.create_collection("docs", 2)
    whole.upsert(["mine", "other"], [[1, 0], [1, 0]], [{"t": "a"}, {"t": "b"}])
    with db.with_policy(col("t") == "a") as bound:
        docs = bound["docs"]
        assert [r.id for r in docs.scan(page_size=1)] == ["mine"]
        assert [r.id for r in docs.get(["other", "mine"])] == ["mine"]
        with pytest.raises(PermissionDenied):
            docs.upsert(["other"], [[1, 0]], [{"t": "a"}])
        with pytest.raises(PermissionDenied):
            docs.stats()
    assert db["docs"].count() == 2


async def _check_bound_asynchronously(target: str) -> None:
    async with await connect_async(target) as db:
        whole = await db.create_collection("async", 2)
        await whole.upsert(["mine", "other"], [[1, 0], [1, 0]], [{"t": "a"}, {"t": "b"}])
        async with db.with_policy(col("t") == "a").with_policy(~(col("t") == "c")) as bound:
            docs = await bound["async"]
            assert [r.id async for r in docs.scan(page_size=1)] == ["mine"]
            assert (await docs.search([1, 0])).ids == ["mine"]
            with pytest.raises(PermissionDenied):
                await docs.upsert(["other"], [[1, 0]], [{"t": "a"}])
        assert await (await db["async"]).count() == 2


def test_asynchronous_handles_are_bound_too() -> None:
    asyncio.run(_check_bound_asynchronously(":memory:"))
    server = Server(lambda: Engine(":memory:"), load({"listen": "127.0.0.1:0"}, environment={}))
    try:
        asyncio.run(_check_bound_asynchronously(server.start()))
    finally:
        server.stop()


def test_a_policy_of_a_request_that_cannot_be_read() -> None:
    """It must refuse the call: passing it over would show everything."""
    server = Server(lambda: Engine(":memory:"), load({"listen": "127.0.0.1:0"}, environment={}))
    address = server.start()
    try:
        with connect(address) as db, grpc.insecure_channel(address) as channel:
            db.create_collection("docs", 2).upsert(["a", "b"], [[1, 0]] * 2, [{"t": "a"}, {"t": "b"}])
            ask = VectorDBServiceStub(channel).Count
            message = CountRequest(collection="docs")
            bound, other = policy_to_bytes(col("t") == "a"), policy_to_bytes(col("t") == "b")
            assert ask(message, metadata=[(POLICY_KEY, bound)]).count == 1
            # A proxy's is not undone by the client's.
            assert ask(message, metadata=[(POLICY_KEY, bound), (POLICY_KEY, other)]).count == 0
            for broken in (b"\xff\xff", b"", bound[:-1]):
                with pytest.raises(grpc.RpcError) as refused:
                    ask(message, metadata=[(POLICY_KEY, broken)])
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert Call("Count", [(POLICY_KEY, base64.b64encode(bound).decode().rstrip("="))]).policy == (col("t") == "a")
        for broken_text in ("%%%", "AAAA"):
            with pytest.raises(InvalidFilter):
                assert Call("Count", [(POLICY_KEY, broken_text)]).policy
    finally:
        server.stop()
    with connect(address) as db, pytest.raises(InvalidArgument, match="bind it to an API key"):
        db.with_policy(col("t").isin([f"tenant {i}" for i in range(1000)]))
