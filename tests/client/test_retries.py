"""What is repeated, how often, and that nothing is done twice."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest

from vectordb import errors
from vectordb_client import col, connect
from vectordb_client.transport import retry
from vectordb_client.transport.retry import Clock, RetryPolicy

LOST = (grpc.StatusCode.UNAVAILABLE, "connection reset by a test")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.01)


def keys(server: Any, rpc: str) -> list[str]:
    return [m.idempotency_key for name, m in server.servicer.calls if name == rpc]


@pytest.mark.parametrize("rpc", ["Count", "Get", "Search", "Scan", "GetStats", "ListCollections", "GetInfo", "Explain"])
def test_reads_are_repeated(server: Any, rpc: str) -> None:
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        c.upsert(["a"], [[1, 0]])
        server.servicer.before[rpc] = [LOST] * 3
        reads = {
            "Count": c.count,
            "Get": lambda: c.get("a"),
            "Search": lambda: c.search([1, 0]),
            "Scan": lambda: list(c.scan()),
            "GetStats": c.stats,
            "ListCollections": db.list_collections,
            "GetInfo": db.info,
            "Explain": lambda: c.explain([1, 0]),
        }
        assert reads[rpc]()
        assert server.servicer.count_of(rpc) == 4
        server.servicer.before[rpc] = [LOST] * 4
        with pytest.raises(errors.Unavailable, match=r"connection to .* was lost"):
            reads[rpc]()
        assert server.servicer.count_of(rpc) == 8


def test_retries_can_be_switched_off(server: Any) -> None:
    with connect(server.address, retries=0) as db:
        server.servicer.before["GetInfo"] = [LOST]
        with pytest.raises(errors.Unavailable):
            db.info()
        assert server.servicer.count_of("GetInfo") == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_repeated_write_carries_its_key_and_is_done_once(server: Any, when: str) -> None:
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        faults = getattr(server.servicer, when)
        faults["Write"] = [LOST, LOST]
        # Done twice, it would be AlreadyExists.
        result = c.insert(["a", "b"], np.eye(2))
        assert (result.count, result.version, result.ids) == (2, 1, ["a", "b"])
        assert c.count() == 2
        first = keys(server, "Write")
        assert len(first) == 3
        assert len(set(first)) == 1
        assert first[0]
        c.upsert(["a"], [[1, 0]])
        assert keys(server, "Write")[-1] != first[0]
        c.upsert(["a"], [[1, 0]], idempotency_key="mine")
        assert keys(server, "Write")[-1] == "mine"


def test_generated_ids_stay_the_same_over_repeats(server: Any) -> None:
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        server.servicer.after["Write"] = [LOST]
        ids = c.upsert(vectors=np.eye(2)).ids
        assert list(server.engine.rows["docs"]) == ids


@pytest.mark.parametrize(("rpc", "expected"), [("Delete", 2), ("UpdateMetadata", 2)])
def test_counts_are_those_of_the_first_attempt(server: Any, rpc: str, expected: int) -> None:
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        c.upsert(["a", "b", "c"], metadata=[{"n": 1}, {"n": 2}, {"n": 3}])
        server.servicer.after[rpc] = [LOST]
        where = col("n") >= 2
        n = c.delete(where=where) if rpc == "Delete" else c.update_metadata(where=where, set={"n": 0})
        assert n == expected
        assert len(set(keys(server, rpc))) == 1
        assert len(keys(server, rpc)) == 2


def test_what_might_be_done_twice_is_not_repeated(server: Any) -> None:
    with connect(server.address) as db:
        server.servicer.after["CreateCollection"] = [LOST]
        with pytest.raises(errors.Unavailable):
            db.create_collection("docs", 2)
        server.servicer.after["CreateCollection"] = [LOST]
        assert db.create_collection("docs", 2, exist_ok=True).dim == 2
        server.servicer.after["DeleteCollection"] = [LOST]
        with pytest.raises(errors.Unavailable):
            db.delete_collection("docs")
        assert server.servicer.count_of("DeleteCollection") == 1


def test_other_errors_are_not_repeated(server: Any) -> None:
    with connect(server.address) as db:
        for error in (errors.Internal("x"), errors.DeadlineExceeded("x"), errors.ResourceExhausted("x")):
            server.servicer.before["GetInfo"] = [error]
            with pytest.raises(type(error)):
                db.info()
        assert server.servicer.count_of("GetInfo") == 3


def test_a_full_server_is_asked_again_when_it_says_so(server: Any) -> None:
    with connect(server.address) as db:
        server.servicer.before["GetInfo"] = [errors.ResourceExhausted("busy; wait", retry_after=0.3)]
        began = time.monotonic()
        assert db.info().version
        assert time.monotonic() - began >= 0.3
        assert server.servicer.count_of("GetInfo") == 2


@pytest.mark.parametrize("rpc", ["Count", "Search", "Write"])
def test_the_timeout_bounds_all_attempts(server: Any, monkeypatch: pytest.MonkeyPatch, rpc: str) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.2)
    with connect(server.address, timeout=0.5, retries=50) as db:
        c = db.create_collection("docs", 2)
        ask = {
            "Count": c.count,
            "Search": lambda: c.search([1, 0]),
            "Write": lambda: c.upsert(["a"], [[1, 0]], texts=["words"]),
        }
        server.servicer.before[rpc] = [LOST] * 100
        began = time.monotonic()
        with pytest.raises(errors.Unavailable):
            ask[rpc]()
        assert time.monotonic() - began < 0.7
        sent = [m.timeout_seconds for name, m in server.servicer.calls if name == rpc]
        assert sent[0] == 0.5
        assert sent[-1] < 0.45
        assert sent == sorted(sent, reverse=True)


def test_a_restarted_server_is_found_again(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.2)
    with connect(server.address, retries=8) as db:
        c = db.create_collection("docs", 2)
        server.stop()
        threading.Timer(0.5, server.start).start()
        c.insert(["a"], [[1, 0]])
        assert c.count() == 1


def test_close_wakes_a_call_that_waits_for_its_next_attempt(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 20.0)
    monkeypatch.setattr(retry, "MAX_DELAY", 20.0)
    db = connect(server.address)
    server.servicer.before["GetInfo"] = [LOST]
    threading.Timer(0.3, db.close).start()
    began = time.monotonic()
    with pytest.raises(errors.Closed):
        db.info()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("error", "idempotent", "repeated"),
    [
        (errors.Unavailable("x"), True, True),
        (errors.Unavailable("x"), False, False),
        (errors.Unavailable("x", sent=False), False, True),
        (errors.ResourceExhausted("x"), True, False),
        (errors.ResourceExhausted("x", retry_after=0.1), True, True),
        (errors.ResourceExhausted("x", retry_after=0.1), False, False),
        (errors.DeadlineExceeded("x"), True, False),
        (errors.Internal("x"), True, False),
        (errors.Closed("x"), True, False),
    ],
)
def test_policy(error: errors.VectorDBError, idempotent: bool, repeated: bool) -> None:
    wait = RetryPolicy(1).delay(error, 1, idempotent=idempotent, clock=Clock(None))
    assert (wait is not None) == repeated
    assert RetryPolicy(1).delay(error, 2, idempotent=idempotent, clock=Clock(None)) is None


def test_waits_grow_and_stay_within_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY", 0.2)
    policy = RetryPolicy(10)
    for attempt in range(1, 11):
        longest = min(retry.MAX_DELAY, 0.2 * 2 ** (attempt - 1))
        for _ in range(50):
            wait = policy.delay(errors.Unavailable("x"), attempt, idempotent=True, clock=Clock(None))
            assert wait is not None
            assert longest / 2 <= wait <= longest
    assert policy.delay(errors.Unavailable("x"), 1, idempotent=True, clock=Clock(0.05)) is None
    assert policy.delay(errors.Unavailable("x", retry_after=9), 1, idempotent=True, clock=Clock(8)) is None
