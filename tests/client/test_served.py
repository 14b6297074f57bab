"""The facade over the gRPC transport: answers, errors, options."""

from __future__ import annotations

import gc
import threading
import time
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pytest

from tests.waiting import wait_until
from vectordb import errors
from vectordb.requests import SearchRequest
from vectordb_client import Record, col, connect
from vectordb_client.transport import calls
from vectordb_client.transport.calls import GRACE, PARTIAL_GRACE

VECTORS = np.eye(4, dtype=np.float32)


def fill(db: Any) -> Any:
    c = db.create_collection("docs", 4, metric="dot")
    c.upsert(["a", "b", "c"], VECTORS[:3], metadata=[{"year": 2000 + i} for i in range(3)], texts=["x", None, "z"])
    return c


def test_every_method_answers_as_the_backend_does(server: Any) -> None:
    with connect(server.address) as db:
        c = fill(db)
        assert db.list_collections() == ["docs"]
        assert db["docs"].config == c.config == server.engine.configs["docs"]
        assert db.info() == server.engine.info()
        assert c.count() == 3
        assert c.count(where=col("year") >= 2001) == 2
        result = c.search(VECTORS[1], limit=2, include=("metadata", "text", "vector"))
        assert [(h.id, h.score, h.metadata, h.text) for h in result] == [
            ("b", 1.0, {"year": 2001}, None),
            ("a", 0.0, {"year": 2000}, "x"),
        ]
        assert result[0].vector is not None
        assert result[0].vector.tolist() == VECTORS[1].tolist()
        assert result.complete
        assert c.explain(VECTORS[0]) == result.plan
        assert [r.ids[0] for r in c.search_batch(VECTORS[:3], limit=1)] == ["a", "b", "c"]
        assert [r.id for r in c.get(["c", "no", "a"])] == ["c", "a"]
        when = datetime(2026, 1, 31, 12, tzinfo=UTC)
        assert c.update_metadata(ids=["a"], set={"when": when}, unset="year") == 1
        assert c.get("a")[0] == Record("a", None, {"when": when}, "x", 1)
        assert c.insert("d", VECTORS[3]).version == 2
        assert c.update(["d"], [None]).ids == ["d"]
        assert [r.id for r in c.scan(page_size=2)] == ["a", "b", "c", "d"]
        assert c.delete(where=col("year") > 2001) == 1
        assert c.stats().rows == 3
        c.optimize()
        generated = c.upsert(vectors=VECTORS).ids
        assert len(set(generated)) == 4
        assert c.count() == 7
        db.delete_collection("docs")
        assert db.list_collections() == []


@pytest.mark.parametrize("kind", errors.BY_NAME.values(), ids=list(errors.BY_NAME))
def test_every_error_arrives_as_it_was_raised(server: Any, kind: type[errors.VectorDBError]) -> None:
    fields = {"row": 17, "ids": ["a", "é"], "ratio": 0.5, "none": None, "deep": {"a": [1]}}

    def refuse(_: object) -> None:
        raise kind("dim 384, got 768 in row 17", **fields)

    server.engine.hooks["count"] = refuse
    with connect(server.address, retries=0) as db:
        c = db.create_collection("docs", 4)
        with pytest.raises(kind) as caught:
            c.count()
    assert type(caught.value) is kind
    assert caught.value.message == str(caught.value) == "dim 384, got 768 in row 17"
    assert dict(caught.value.fields) == fields
    assert caught.value.row == 17


def test_api_key_goes_with_every_call(server: Any) -> None:
    with connect(server.address, api_key="secret-1") as db:
        db.list_collections()
        c = fill(db)
        list(c.scan())
        c.bulk_upsert([{"id": "x"}], progress=False)
    assert {m.get("authorization") for m in server.servicer.metadata} == {"Bearer secret-1"}


def test_unix_socket(make_server: Any, tmp_path: Any) -> None:
    server = make_server(address=f"unix:{tmp_path}/s")
    with connect(f"unix:{tmp_path}/s") as db:
        assert fill(db).count() == 3
    assert server.servicer.count_of("Count") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"durability": "async"}, "is for folders"),
        ({"retries": -1}, "retries"),
        ({"retries": True}, "retries"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": "two words"}, "api_key"),
        ({"tls": {"chain": "x"}}, "unknown keys"),
        ({"tls": {"cert": "x"}}, "together"),
        ({"tls": {"ca": 7}}, "path of a PEM file"),
        ({"tls": "/does/not/exist.pem"}, "cannot read 'ca'"),
    ],
)
def test_wrong_options(options: dict[str, Any], told: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=told):
        connect("localhost:1", **options)


def test_scheme_and_tls_must_agree() -> None:
    with pytest.raises(errors.InvalidArgument, match="contradict"):
        connect("grpc://localhost:1", tls=True)
    with pytest.raises(errors.InvalidArgument, match="contradict"):
        connect("grpcs://localhost:1", tls=False)


def test_nobody_there_is_told_fast_and_named() -> None:
    began = time.monotonic()
    with connect("127.0.0.1:1") as db, pytest.raises(errors.Unavailable, match=r"127\.0\.0\.1:1") as caught:
        db.list_collections()
    assert time.monotonic() - began < 4
    assert caught.value.sent is False


def test_closed_handle(server: Any) -> None:
    db = connect(server.address)
    c = fill(db)
    scan = c.scan(page_size=1)
    next(scan)
    db.close()
    db.close()
    for call in (db.list_collections, c.count, lambda: c.search(VECTORS[0]), lambda: list(scan)):
        with pytest.raises(errors.Closed, match="connect again"):
            call()


def test_deadline_reaches_the_server_and_ends_the_call(server: Any) -> None:
    with connect(server.address, timeout=20.0) as db:
        c = fill(db)
        c.search(VECTORS[0])
        c.search(VECTORS[0], timeout=5.0, allow_partial=True)
        sent = [m.timeout_seconds for name, m in server.servicer.calls if name == "Search"]
        assert sent == [20.0, 5.0]
        # The header rounds deadlines up, by some per cent.
        assert 19 < server.servicer.remaining[-2] <= (20 + GRACE) * 1.05
        assert 5 < server.servicer.remaining[-1] <= (5 + PARTIAL_GRACE) * 1.05
        server.engine.hooks["search"] = lambda _: time.sleep(1.5)
        began = time.monotonic()
        with pytest.raises(errors.DeadlineExceeded, match=r"within 0\.1 s") as caught:
            c.search(VECTORS[0], timeout=0.1)
        assert time.monotonic() - began < 1.2
        assert caught.value.timeout == 0.1


def test_no_deadline_for_scans_bulk_loads_and_waiting(server: Any) -> None:
    with connect(server.address, timeout=1.0) as db:
        c = fill(db)
        server.servicer.remaining.clear()
        list(c.scan(page_size=1))
        c.bulk_upsert([{"id": "x"}], progress=False)
        c.optimize(wait=True)
        c.reindex("hnsw")
        # grpc tells a call without a deadline that it has centuries left.
        assert all(left is None or left > 1e8 for left in server.servicer.remaining)
        for call in (lambda: c.optimize(wait=False), lambda: c.reindex("flat", wait=False), c.cancel_reindex):
            call()
            assert server.servicer.remaining[-1] <= 1.05
        assert c.index.kind == "flat"


def test_message_over_the_servers_limit_names_the_fix(make_server: Any) -> None:
    server = make_server(max_message_bytes=10_000)
    with connect(server.address) as db:
        c = db.create_collection("docs", 4)
        with pytest.raises(errors.ResourceExhausted, match="bulk_upsert") as caught:
            c.upsert(vectors=np.ones((5000, 4), np.float32))
    assert caught.value.limit == 10_000
    assert caught.value.got > 80_000


def test_write_over_max_write_bytes_is_not_sent(server: Any) -> None:
    with connect(server.address) as db:
        c = db.create_collection("docs", 4, max_write_bytes=1000)
        c.upsert(["a"], VECTORS[:1], metadata=[{"k": "v" * 900}])
        for handle in (c, db["docs"]):
            with pytest.raises(errors.ResourceExhausted, match="bulk_upsert") as caught:
                handle.upsert(["a"], VECTORS[:1], metadata=[{"k": "v" * 900}], texts=["t" * 100])
            assert caught.value.limit == 1000
        assert caught.value.got == len("a") + 16 + len(b"\x81\xa1k\xda\x03\x84") + 900 + 100
    assert server.servicer.count_of("Write") == 1


def test_one_atomic_write_of_many_megabytes(server: Any) -> None:
    rows = np.zeros((40_000, 256), np.float32)
    rows[:, 0] = 1.0
    with connect(server.address) as db:
        c = db.create_collection("docs", 256)
        assert c.upsert(vectors=rows).count == 40_000
        assert len(c.get(list(server.engine.rows["docs"]), include="vector")) == 40_000
    assert server.servicer.count_of("Write") == 1


def test_scan_left_early_releases_the_servers_snapshot(server: Any) -> None:
    with connect(server.address) as db:
        c = fill(db)
        scan = c.scan(page_size=1)
        assert next(scan).id == "a"
        never_begun = c.scan(page_size=1)
        assert server.engine.open_scans == 2
        del scan, never_begun
        wait_until(lambda: server.engine.open_scans == 0)
        assert server.servicer.count_of("CloseScan") == 2
        list(c.scan(page_size=1))
        assert server.servicer.count_of("CloseScan") == 2
        last = c.scan(page_size=1)
        del last
    assert server.servicer.count_of("CloseScan") == 3
    assert server.engine.open_scans == 0
    assert not [t for t in threading.enumerate() if t.name == "vectordb-release"]


def test_an_unclosed_connection_leaves_no_thread(server: Any) -> None:
    db = connect(server.address)
    scan = fill(db).scan(page_size=1)
    del scan, db
    gc.collect()
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "vectordb-release"])


def test_scan_is_of_the_moment_of_its_call(server: Any) -> None:
    with connect(server.address) as db:
        c = fill(db)
        scan = c.scan(page_size=1)
        c.upsert(["later"], VECTORS[:1])
        assert [r.id for r in scan] == ["a", "b", "c"]
        assert list(c.scan(where=col("year") > 3000)) == []
        db.delete_collection("docs")
        with pytest.raises(errors.CollectionNotFound):
            c.scan()


def test_scan_released_by_the_server(server: Any) -> None:
    with connect(server.address) as db:
        scan = fill(db).scan(page_size=1)
        next(scan)
        server.servicer.release()
        with pytest.raises(errors.FailedPrecondition, match="60 s"):
            next(scan)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNKNOWN, errors.Internal),
        (grpc.StatusCode.UNIMPLEMENTED, errors.FailedPrecondition),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
        (grpc.StatusCode.INTERNAL, errors.Internal),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.ResourceExhausted),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
    ],
)
def test_status_without_our_details(server: Any, code: grpc.StatusCode, kind: type[Exception]) -> None:
    server.servicer.before["ListCollections"] = [(code, "said a proxy")]
    with connect(server.address, retries=0) as db:
        with pytest.raises(kind) as caught:
            db.list_collections()
        assert type(caught.value) is kind
        assert db.list_collections() == []


@pytest.mark.parametrize("answer", [None, b"", b"\x0a\x00"])
def test_an_answer_that_is_none_of_a_search_is_the_servers_fault(answer: bytes | None) -> None:
    call = calls.search("docs", SearchRequest(np.ones((2, 3), np.float32)))
    with pytest.raises(errors.Internal, match=r"no message|with \d results|not well formed"):
        call.answer(answer)
