"""The asynchronous face, over gRPC and over an engine in this process."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from tests.waiting import wait_until
from vectordb import errors
from vectordb.types import IndexSpec
from vectordb_client import AsyncCollection, AsyncDatabase, Collection, Database, aio, col, connect, connect_async
from vectordb_client.transport import retry
from vectordb_client.transport.local import EngineRegistry, LocalBackend
from vectordb_client.transport.threads import ThreadedBackend

VECTORS = np.eye(4, dtype=np.float32)
LOST = (grpc.StatusCode.UNAVAILABLE, "connection reset by a test")

Opened = Callable[[], contextlib.AbstractAsyncContextManager[tuple[AsyncDatabase, Any]]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)


@pytest.fixture(params=["served", "embedded"])
def opened(request: pytest.FixtureRequest, fake_engine: Any) -> Opened:
    """Opens a database inside the running loop: ``(AsyncDatabase, the engine behind it)``."""

    @contextlib.asynccontextmanager
    async def served() -> AsyncIterator[tuple[AsyncDatabase, Any]]:
        server = request.getfixturevalue("server")
        async with await connect_async(server.address) as db:
            yield db, server.engine

    @contextlib.asynccontextmanager
    async def embedded() -> AsyncIterator[tuple[AsyncDatabase, Any]]:
        engine = fake_engine()
        registry = EngineRegistry(lambda folder, options: engine)
        async with AsyncDatabase(ThreadedBackend(LocalBackend(registry, ":memory:", {})), timeout=30.0) as db:
            yield db, engine

    return served if request.param == "served" else embedded


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


async def fill(db: AsyncDatabase) -> AsyncCollection:
    c = await db.create_collection("docs", 4, metric="dot")
    await c.upsert(
        ["a", "b", "c"], VECTORS[:3], metadata=[{"year": 2000 + i} for i in range(3)], texts=["x", None, "z"]
    )
    return c


@pytest.mark.parametrize(("sync", "asynchronous"), [(Collection, AsyncCollection), (Database, AsyncDatabase)])
def test_every_public_method_has_its_twin(sync: type, asynchronous: type) -> None:
    public = {name for name, _ in inspect.getmembers(sync) if not name.startswith("_")}
    assert public - set(vars(asynchronous)) == set()
    for name in public:
        ours, theirs = getattr(asynchronous, name), getattr(sync, name)
        if isinstance(inspect.getattr_static(sync, name), property):
            assert isinstance(inspect.getattr_static(asynchronous, name), property)
            continue
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name
        for ours_p, theirs_p in zip(
            inspect.signature(ours).parameters.values(), inspect.signature(theirs).parameters.values(), strict=True
        ):
            assert (ours_p.kind, ours_p.default) == (theirs_p.kind, theirs_p.default), (name, ours_p)
        assert ours.__doc__, name
        if name == "scan":
            assert inspect.isasyncgenfunction(ours)
        elif name in ("with_policy", "search_stream"):
            # They make a handle, or an async generator, and no call.
            assert not inspect.iscoroutinefunction(ours)
        else:
            assert inspect.iscoroutinefunction(ours), name


def test_connect_async_takes_what_connect_takes() -> None:
    assert inspect.signature(connect).parameters == inspect.signature(connect_async).parameters


def test_every_method(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as (db, engine):
            c = await fill(db)
            assert (c.name, c.dim, c.metric, c.index.kind, c.config) == (
                "docs",
                4,
                "dot",
                "auto",
                engine.configs["docs"],
            )
            assert repr(c).startswith("<AsyncCollection 'docs'")
            assert (await db["docs"]).config == (await db.collection("docs")).config == c.config
            assert await db.list_collections() == ["docs"]
            assert (await db.info()).collections == ("docs",)
            assert await c.count() == 3
            assert await c.count(where=col("year") >= 2001) == 2
            result = await c.search(VECTORS[1], limit=2)
            assert [(h.id, h.score, h.metadata) for h in result] == [
                ("b", 1.0, {"year": 2001}),
                ("a", 0.0, {"year": 2000}),
            ]
            assert [r.ids for r in await c.search_batch(VECTORS[:2], limit=1)] == [["a"], ["b"]]
            assert (await c.explain(VECTORS[0], analyze=True)).segments == result.plan.segments
            assert [r.id for r in await c.get(["c", "a"])] == ["c", "a"]
            assert (await c.insert("d", VECTORS[3])).ids == ["d"]
            assert (await c.update("d", VECTORS[3])).count == 1
            assert await c.update_metadata(ids="d", set={"year": 1990}) == 1
            assert [r.id async for r in c.scan(page_size=2)] == ["a", "b", "c", "d"]
            assert [r.id async for r in c.scan(col("year") < 2000)] == ["d"]
            assert await c.delete(ids=["d"]) == 1
            assert (await c.stats()).rows == 3
            await c.optimize()
            await c.reindex({"kind": "hnsw", "m": 8})
            assert (c.index, c.quantization) == (IndexSpec("hnsw", {"m": 8}), None)
            assert await c.cancel_reindex() is False
            await db.delete_collection("docs")
            with pytest.raises(errors.CollectionNotFound):
                await c.count()
            with pytest.raises(errors.DimensionMismatch, match="got 3"):
                await c.search([1, 2, 3])

    run(main())


def test_calls_overlap(opened: Opened) -> None:
    barrier = threading.Barrier(5, timeout=10)

    async def main() -> None:
        async with opened() as (db, engine):
            c = await fill(db)
            engine.hooks["count"] = lambda _: barrier.wait()
            assert await asyncio.gather(*[c.count() for _ in range(5)]) == [3] * 5

    run(main())


def test_closed(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as (db, _):
            c = await fill(db)
            await db.close()
            await db.close()
            for call in (db.list_collections(), c.count(), c.search(VECTORS[0]), c.upsert("z", VECTORS[0])):
                with pytest.raises(errors.Closed):
                    await call
            with pytest.raises(errors.Closed):
                [r async for r in c.scan()]

    run(main())


def test_scan_left_early_releases_its_snapshot(opened: Opened) -> None:
    async def main() -> None:
        async with opened() as (db, engine):
            c = await fill(db)
            scan = c.scan(page_size=1)
            assert (await anext(scan)).id == "a"
            assert engine.open_scans == 1
            await scan.aclose()  # type: ignore[attr-defined]
            await asyncio.to_thread(wait_until, lambda: engine.open_scans == 0)

    run(main())


def test_scan_cancelled_inside_a_page_releases_its_snapshot(fake_engine: Any) -> None:
    entered = threading.Event()

    def slow(start: int) -> None:
        if start:
            entered.set()
            time.sleep(0.2)

    async def main() -> None:
        engine = fake_engine()
        async with AsyncDatabase(ThreadedBackend(engine)) as db:
            c = await fill(db)
            engine.hooks["page"] = slow

            async def read() -> list[str]:
                async with contextlib.aclosing(c.scan(page_size=1)) as scan:  # type: ignore[type-var]
                    return [r.id async for r in scan]

            task = asyncio.create_task(read())
            await asyncio.to_thread(entered.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # A thread is still inside the iterator.
            assert engine.open_scans == 1
            await asyncio.to_thread(wait_until, lambda: engine.open_scans == 0)

    run(main())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_bulk_upsert(opened: Opened, asynchronous: bool) -> None:
    def source() -> Iterator[dict[str, Any]]:
        for i in range(50):
            yield {"id": str(i % 20), "vector": VECTORS[i % 4], "metadata": {"i": i}}

    async def asource() -> AsyncIterator[dict[str, Any]]:
        for record in source():
            await asyncio.sleep(0)
            yield record

    async def main() -> None:
        async with opened() as (db, engine):
            c = await db.create_collection("docs", 4)
            result = await c.bulk_upsert(asource() if asynchronous else source(), batch_size=7, progress=False)
            assert (result.count, result.version, len(result.ids)) == (50, 8, 50)
            assert {r.id: r.metadata["i"] for r in engine.rows["docs"].values()} == {str(i % 20): i for i in range(50)}
            with pytest.raises(errors.InvalidArgument, match="batch_size"):
                await c.bulk_upsert(source(), batch_size=0, progress=False)

    run(main())


def test_bulk_upsert_stops_at_the_first_failure(opened: Opened) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from ({"id": str(i)} for i in range(20))
        raise KeyError("the user's own")

    async def main() -> None:
        async with opened() as (db, engine):
            c = await db.create_collection("docs", 4)
            with pytest.raises(KeyError, match="the user's own"):
                await c.bulk_upsert(source(), batch_size=5, progress=False)
            assert len(engine.rows["docs"]) == 20
            engine.hooks["write"] = _refuse
            with pytest.raises(errors.InvalidVector):
                await c.bulk_upsert(({"id": str(i)} for i in range(20)), batch_size=5, progress=False)

    run(main())


def _refuse(_: Any) -> None:
    raise errors.InvalidVector("row 1 holds NaN", row=1)


def test_cancelling_a_task_cancels_the_call(server: Any) -> None:
    ended = threading.Event()

    def hold(context: Any) -> None:
        context.add_callback(ended.set)
        ended.wait(10)

    async def main() -> None:
        async with await connect_async(server.address) as db:
            c = await fill(db)
            server.servicer.before["Search"] = [hold]
            task = asyncio.create_task(c.search(VECTORS[0]))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(ended.wait, 5)
            assert server.servicer.count_of("Search") == 1

    run(main())


def test_retries_and_deadlines(server: Any) -> None:
    async def main() -> None:
        async with await connect_async(server.address, timeout=10) as db:
            c = await fill(db)
            server.servicer.after["Write"] = [LOST, LOST]
            assert (await c.insert("d", VECTORS[3])).version == 2
            keys = [m.idempotency_key for name, m in server.servicer.calls if name == "Write"]
            assert len(set(keys[1:])) == 1
            assert len(keys) == 4
            server.servicer.before["Count"] = [LOST] * 4
            with pytest.raises(errors.Unavailable, match="was lost"):
                await c.count()
            server.engine.hooks["search"] = lambda _: time.sleep(1)
            with pytest.raises(errors.DeadlineExceeded, match=r"0\.1 s"):
                await c.search(VECTORS[0], timeout=0.1)
            small = await db.create_collection("small", 4, max_write_bytes=10)
            with pytest.raises(errors.ResourceExhausted, match="max_write_bytes"):
                await small.upsert("a", VECTORS[0])

    run(main())


def test_close_ends_calls_on_their_way(server: Any) -> None:
    async def main() -> None:
        db = await connect_async(server.address)
        c = await fill(db)
        server.servicer.before["Count"] = [lambda _: time.sleep(0.5)]
        call = asyncio.create_task(c.count())
        await asyncio.sleep(0.1)
        await db.close()
        with pytest.raises(errors.Closed):
            await call

    run(main())


def test_nobody_there() -> None:
    async def main() -> None:
        async with await connect_async("127.0.0.1:1") as db:
            with pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1"):
                await db.info()

    run(main())


def test_embedded_work_runs_in_threads_of_its_own(fake_engine: Any) -> None:
    names: set[str] = set()

    async def main() -> None:
        engine = fake_engine()
        engine.hooks["info"] = lambda _: names.add(threading.current_thread().name)
        async with AsyncDatabase(ThreadedBackend(engine)) as db:
            await asyncio.gather(*[db.info() for _ in range(10)])

    run(main())
    assert all(name.startswith("vectordb-async") for name in names)
    assert not [t for t in threading.enumerate() if t.name.startswith("vectordb-async")]


def test_arrays_may_change_while_a_write_is_on_its_way(server: Any) -> None:
    async def main() -> None:
        async with await connect_async(server.address) as db:
            c = await db.create_collection("docs", 2)
            vectors = np.array([[3.0, 4.0]], np.float32)
            server.servicer.before["Write"] = [LOST]
            write = asyncio.ensure_future(c.upsert(["a"], vectors))
            while not server.servicer.count_of("Write"):
                await asyncio.sleep(0.01)
            vectors[:] = 0.0
            await write
            [record] = await c.get(["a"], include=("vector",))
            assert record.vector.tolist() == [3.0, 4.0]

    run(main())


def test_unused_answers_do_not_call(server: Any) -> None:
    """A coroutine that is never awaited sends nothing and warns, as coroutines do."""

    async def main() -> None:
        async with await connect_async(server.address) as db:
            with pytest.warns(RuntimeWarning, match="never awaited"):
                db.info()
        assert server.servicer.count_of("GetInfo") == 0

    run(main())
    assert aio.AsyncDatabase is AsyncDatabase


def test_what_needs_a_call_is_no_operator() -> None:
    async def main() -> None:
        async with await connect_async(":memory:") as db:
            with pytest.raises(TypeError, match="not iterable"):
                list(db)  # type: ignore[call-overload]
            with pytest.raises(TypeError, match="container"):
                assert "docs" in db  # type: ignore[operator]

    asyncio.run(main())
