"""The real engine behind every kind of target: one script, equal answers and equal errors."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.client.forks import in_child
from vectordb import errors
from vectordb.engine import jobs
from vectordb_client import Database, col, connect, connect_async

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((300, 16)).astype(np.float32)
IDS = [f"r{i}" for i in range(300)]
METADATA = [{"year": 1900 + i % 50, "tags": ["even" if i % 2 == 0 else "odd"]} for i in range(300)]


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    """The addresses of real servers around real engines in memory, by transport."""
    from vectordb.engine.database import Engine
    from vectordb.server.app import Server
    from vectordb.server.config import load

    settings = {"listen": "127.0.0.1:0"}
    servers = {
        name: Server(lambda: Engine(":memory:"), load({**settings, "transport": name}, environment={}))
        for name in ("grpcio", "native")
    }
    yield {name: server.start() for name, server in servers.items()}
    for server in servers.values():
        server.stop()


@pytest.fixture(params=["memory", "folder", "grpcio", "native"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param in ("grpcio", "native"):
        address: str = request.getfixturevalue("served")[request.param]
        return address
    return ":memory:" if request.param == "memory" else str(tmp_path / "data")


def refusals(db: Database) -> list[tuple[str, str, dict[str, Any]]]:
    """Class, message and fields of what bad calls raise."""
    c = db["docs"]
    calls = [
        lambda: db["nope"],
        lambda: db.create_collection("docs", 16),
        lambda: db.create_collection("docs", 17, exist_ok=True),
        lambda: db.create_collection("bad name", 3),
        lambda: db.create_collection("x", 0),
        lambda: db.delete_collection("nope"),
        lambda: c.upsert(["x"], np.zeros((1, 3))),
        lambda: c.upsert(["x"], np.full((1, 16), np.nan)),
        lambda: c.upsert(["x"], np.zeros((1, 16))),
        lambda: c.upsert(["x", "x"], VECTORS[:2]),
        lambda: c.upsert([""], VECTORS[:1]),
        lambda: c.upsert([]),
        lambda: c.upsert(["i" * (1 << 20)], VECTORS[:1]),
        lambda: c.insert(["r3"], VECTORS[:1]),
        lambda: c.update(["nope"], VECTORS[:1]),
        lambda: c.upsert(["r3"], VECTORS[:1], if_version=77),
        lambda: c.delete(),
        lambda: c.update_metadata(set={"a": 1}),
        lambda: c.update_metadata(ids="r3"),
        lambda: c.search(VECTORS[0], limit=0),
        lambda: c.search(VECTORS[0], limit=10**9),
        lambda: c.search(VECTORS[0], timeout=-0.5),
        lambda: c.search(VECTORS[0], timeout=float("nan")),
        lambda: c.search(VECTORS[0], filter_mode="sideways"),
        lambda: c.search(VECTORS[0], include="nothing"),
        lambda: c.search(VECTORS[0], where={"field": "a", "op": "~", "value": 1}),
        lambda: c.search(np.full(16, np.inf)),
        lambda: c.count(timeout=0.0),
        lambda: c.optimize(timeout=0.0),
        lambda: c.optimize(wait=False, timeout=-1),
        lambda: c.optimize(timeout=float("nan")),
        lambda: c.scan(page_size=0),
        lambda: c.scan(include=["nothing"]),
    ]
    return [refusal(n, call) for n, call in enumerate(calls)]


def refusal(n: int, call: Callable[[], Any]) -> tuple[str, str, dict[str, Any]]:
    try:
        answer = call()
    except errors.VectorDBError as error:
        return type(error).__name__, error.message, dict(error.fields)
    pytest.fail(f"call {n} was not refused but answered {answer!r:.100}")


def answers(db: Database) -> list[Any]:
    c = db.create_collection("docs", 16, index="flat")
    c.upsert(IDS, VECTORS, metadata=METADATA, texts=["t" + i for i in IDS])
    even = col("tags").contains("even") & (col("year") < 1940)
    return [
        c.config,
        c.count(),
        c.count(where=even),
        [list(c.search(v, limit=7, include=("metadata", "text"))) for v in VECTORS[:5]],
        [r.ids for r in c.search_batch(VECTORS[:3], where=even, min_score=0.2)],
        c.get(["r7", "no", "r3"]),
        [(r.id, r.version) for r in c.scan(where=even, order_by="-year", page_size=11)],
        c.update_metadata(where=even, set={"seen": True}),
        c.delete(ids=["r1", "r2"], where=col("year") == 1901),
        c.bulk_upsert(({"id": f"b{i}", "vector": v} for i, v in enumerate(VECTORS)), 100, progress=False).count,
        c.stats().rows,
        refusals(db),
        c.count(),
    ]


def test_equal_answers_and_errors(target: str) -> None:
    with connect(":memory:") as db:
        expected = answers(db)
    with connect(target) as db:
        found = answers(db)
        db.delete_collection("docs")
    for n, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours == theirs, n


def test_asynchronous(target: str) -> None:
    async def main() -> None:
        async with await connect_async(target) as db:
            c = await db.create_collection("docs", 16, index="flat")
            assert (await c.upsert(IDS, VECTORS, metadata=METADATA)).count == 300
            assert (await c.search(VECTORS[5]))[0].id == "r5"
            assert [r.id async for r in c.scan(page_size=70)] == IDS
            with pytest.raises(errors.InvalidVector):
                await c.upsert(["x"], np.zeros((1, 16)))
            await db.delete_collection("docs")

    asyncio.run(main())


def test_who_waited_long_enough_for_optimize_is_told_that_it_goes_on(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal, go = jobs.seal, threading.Event()

    def held(*arguments: Any, **options: Any) -> Any:
        assert go.wait(60)
        return seal(*arguments, **options)

    async def asynchronous() -> None:
        async with await connect_async(target) as again:
            c = await again.collection("held")
            with pytest.raises(errors.DeadlineExceeded, match="the work goes on"):
                await c.optimize(timeout=0.2)

    monkeypatch.setattr(jobs, "seal", held)
    # The connection's time is none for what waits.
    with connect(target, timeout=10.0) as db:
        c = db.create_collection("held", 16, index="flat")
        try:
            c.upsert(IDS, VECTORS)
            with pytest.raises(errors.DeadlineExceeded, match="the work goes on"):
                c.optimize(timeout=0.2)
            if target != ":memory:":
                asyncio.run(asynchronous())
            assert (c.stats().tail_rows, c.count()) == (300, 300)
        finally:
            go.set()
        c.optimize(timeout=60.0)
        assert c.stats().tail_rows == 0
        db.delete_collection("held")


def test_after_close_and_after_a_fork_every_call_says_closed(target: str) -> None:
    db = connect(target)
    c = db.create_collection("closed", 16)

    def refused(match: str) -> None:
        calls = [
            db.list_collections,
            c.count,
            lambda: c.upsert(IDS, VECTORS),
            lambda: c.bulk_upsert([{"id": "x", "vector": VECTORS[0]}], progress=False),
            lambda: c.bulk_upsert([{"id": "x", "vector": VECTORS[0]}] * 3, batch_size=1, progress=False),
            lambda: list(c.scan()),
            lambda: c.search(VECTORS[0]),
            lambda: list(c.search_stream(VECTORS)),
            c.optimize,
        ]
        for call in calls:
            with pytest.raises(errors.Closed, match=match):
                call()

    c.upsert(IDS, VECTORS)
    begun = c.search_stream(VECTORS, batch_size=10)
    next(begun)

    def goes_on() -> None:
        # What was under way is so in a thread that is not there: it was waited for without end.
        with pytest.raises(errors.Closed, match="begun before a fork"):
            list(begun)

    assert in_child(goes_on) == 0
    assert len(list(begun)) == 299
    c.delete(IDS)
    assert in_child(lambda: refused("before a fork")) == 0
    assert c.count() == 0
    db.delete_collection("closed")
    db.close()
    refused("connect again")


def test_a_folder_is_shared_in_a_process_and_locked_for_its_children(tmp_path: Path) -> None:
    first, second = connect(tmp_path / "data"), connect(os.path.relpath(tmp_path / "data"), durability="sync")
    first.create_collection("docs", 16)
    assert second.list_collections() == ["docs"]
    with pytest.raises(errors.FailedPrecondition, match="already open in this process"):
        connect(tmp_path / "data", durability="async")
    with pytest.raises(errors.InvalidArgument, match="no option 'durabilty'"):
        connect(tmp_path / "data", durabilty="async")

    def child() -> None:
        with pytest.raises(errors.Closed, match="fork"):
            first["docs"]
        with pytest.raises(errors.DirectoryLocked) as caught:
            connect(tmp_path / "data", share=False)
        assert caught.value.pid == os.getppid()
        with connect(":memory:") as own:
            assert own.create_collection("mine", 16).count() == 0

    assert in_child(child) == 0
    first.close()
    assert second["docs"].upsert(IDS, VECTORS).count == 300
    second.close()
    with connect(tmp_path / "data") as db:
        assert db["docs"].count() == 300
