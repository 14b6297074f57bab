"""Bulk loads over one stream: order, pipelining, and nothing lost or doubled when it breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from vectordb import errors
from vectordb_client import connect
from vectordb_client.transport import bulk, retry

LOST = (grpc.StatusCode.UNAVAILABLE, "connection reset by a test")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)


def records(n: int) -> Iterator[dict[str, Any]]:
    for i in range(n):
        # Every id comes several times: the last one must win, so order is kept.
        yield {"id": str(i % 7) if i % 2 else f"r{i}", "vector": [1.0, i], "metadata": {"i": i}}


def expected(n: int) -> dict[str, int]:
    return {r["id"]: r["metadata"]["i"] for r in records(n)}


def stored(server: Any) -> dict[str, int]:
    return {i: r.metadata["i"] for i, r in server.engine.rows["docs"].items()}


def writes(server: Any) -> list[str]:
    return [r.idempotency_key for name, r in server.engine.log if name == "write"]


def test_batches_go_over_one_stream_in_order(server: Any) -> None:
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        result = c.bulk_upsert(records(100), batch_size=3, progress=False)
        assert result.count == 100
        assert result.version == 34
        assert result.ids == [r["id"] for r in records(100)]
        with pytest.raises(errors.InvalidArgument, match="batch_size"):
            c.bulk_upsert(records(100), batch_size=0, progress=False)
    assert stored(server) == expected(100)
    assert server.servicer.count_of("BulkWrite") == 34
    assert server.servicer.count_of("Write") == 0
    assert len(set(writes(server))) == 34


def test_a_handle_that_is_closed_as_a_load_begins_says_so(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    db = connect(server.address)
    c = db.create_collection("docs", 2)
    monkeypatch.setattr(db._backend, "check_open", db.close)
    with pytest.raises(errors.Closed, match="connect again"):
        c.bulk_upsert(records(3), progress=False)


def test_the_next_batches_are_made_while_the_server_works(server: Any) -> None:
    made = 0
    seen: list[int] = []

    def source() -> Iterator[dict[str, Any]]:
        nonlocal made
        for record in records(10):
            made += 1
            yield record

    def look(_: Any) -> None:
        time.sleep(0.05)
        seen.append(made)

    server.engine.hooks["write"] = look
    with connect(server.address) as db:
        db.create_collection("docs", 2).bulk_upsert(source(), batch_size=1, progress=False)
    assert seen[0] == bulk.MAX_IN_FLIGHT
    assert all(ahead <= done + bulk.MAX_IN_FLIGHT for done, ahead in enumerate(seen))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_broken_stream_loses_and_doubles_nothing(server: Any, when: str) -> None:
    faults = getattr(server.servicer, when)
    faults["BulkWrite"] = [None] * 5 + [LOST] + [None] * 9 + [LOST]
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        result = c.bulk_upsert(records(100), batch_size=3, progress=False)
        assert result.count == 100
        assert result.ids == [r["id"] for r in records(100)]
    assert stored(server) == expected(100)
    assert server.engine.version == 34
    assert server.servicer.count_of("Write") > 0
    # A new stream carries on.
    assert server.servicer.count_of("BulkWrite") > 20


def test_a_server_without_a_free_stream_gets_unary_writes(server: Any) -> None:
    server.servicer.before["BulkWrite"] = [errors.ResourceExhausted("streams are capped", retry_after=0.1)]
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        assert c.bulk_upsert(records(20), batch_size=3, progress=False).count == 20
    assert stored(server) == expected(20)
    assert server.servicer.count_of("Write") == 7


def test_without_retries_a_broken_stream_is_an_error(server: Any) -> None:
    server.servicer.before["BulkWrite"] = [None, LOST]
    with connect(server.address, retries=0) as db:
        c = db.create_collection("docs", 2)
        with pytest.raises(errors.Unavailable):
            c.bulk_upsert(records(20), batch_size=3, progress=False)
    assert server.servicer.count_of("Write") == 0


def test_a_refused_batch_ends_the_load_with_its_own_error(server: Any) -> None:
    server.servicer.before["BulkWrite"] = [None, None, errors.InvalidVector("row 1 holds NaN", row=1)]
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        with pytest.raises(errors.InvalidVector, match="row 7 holds") as caught:
            c.bulk_upsert(records(60), batch_size=3, progress=False)
        assert caught.value.row == 7
    assert len(writes(server)) == 2


def test_a_failing_source_shows_its_error_and_ends_the_stream(server: Any) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from records(5)
        raise KeyError("the user's own")

    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        with pytest.raises(KeyError, match="the user's own"):
            c.bulk_upsert(source(), batch_size=1, progress=False)
        assert c.count() == len(expected(5))
    end = time.monotonic() + 5
    while any("consume" in t.name.lower() for t in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any("consume" in t.name.lower() for t in threading.enumerate())


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_on_its_way_survives_a_broken_stream_when_the_source_fails(server: Any, when: str) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from records(8)
        raise KeyError("the user's own")

    getattr(server.servicer, when)["BulkWrite"] = [None] * 2 + [LOST]
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        with pytest.raises(KeyError, match="the user's own"):
            c.bulk_upsert(source(), batch_size=2, progress=False)
    assert stored(server) == expected(8)
    assert server.engine.version == 4


def test_an_interrupted_source_waits_for_nothing(server: Any) -> None:
    release = threading.Event()

    def source() -> Iterator[dict[str, Any]]:
        yield from records(2)
        raise KeyboardInterrupt

    server.engine.hooks["write"] = lambda _: release.wait(30)
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        with pytest.raises(KeyboardInterrupt):
            c.bulk_upsert(source(), batch_size=1, progress=False)
        assert not release.is_set()
        release.set()


def test_the_source_is_read_in_the_callers_thread(server: Any) -> None:
    threads = set()

    def source() -> Iterator[dict[str, Any]]:
        for record in records(30):
            threads.add(threading.get_ident())
            yield record

    with connect(server.address) as db:
        db.create_collection("docs", 2).bulk_upsert(source(), batch_size=2, progress=False)
    assert threads == {threading.get_ident()}


def test_an_idle_stream_is_replaced(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "IDLE_SECONDS", 0.05)
    streams = []
    original = bulk._Stream.__init__
    monkeypatch.setattr(bulk._Stream, "__init__", lambda self, backend: (streams.append(1), original(self, backend))[1])

    def source() -> Iterator[dict[str, Any]]:
        for n, record in enumerate(records(6)):
            if n == 3:
                time.sleep(0.2)
            yield record

    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        assert c.bulk_upsert(source(), batch_size=1, progress=False).count == 6
    assert len(streams) == 2
    assert stored(server) == expected(6)


def test_a_large_batch_travels_alone(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MAX_BYTES_IN_FLIGHT", 10)
    seen: list[int] = []
    made = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal made
        for record in records(6):
            made += 1
            yield record

    server.engine.hooks["write"] = lambda _: (time.sleep(0.02), seen.append(made))
    with connect(server.address) as db:
        db.create_collection("docs", 2).bulk_upsert(source(), batch_size=1, progress=False)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_progress_bar(server: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with connect(server.address) as db:
        db.create_collection("docs", 2).bulk_upsert(list(records(20)), batch_size=5)
    assert "20/20" in capfd.readouterr().err
