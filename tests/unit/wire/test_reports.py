"""Reports of checks, repairs and erasures survive the wire whole."""

from __future__ import annotations

from vectordb.reports import CheckedCollection, Erasure, Lost, Problem, RepairReport, VerifyReport
from vectordb.requests import DeleteRequest, EraseRequest
from vectordb.stats import CollectionStats, OptimizerStats, ScrubStats
from vectordb.types import IndexSpec
from vectordb.wire import reports, requests, stats
from vectordb_proto.v1 import types_pb2

PROBLEMS = (Problem("storage", "a block"), Problem("index", "a file", "docs", "seg/index-1"))


def test_a_check() -> None:
    checked = (CheckedCollection("docs", 7, 100, 2, 16, 0.98), CheckedCollection("empty", 0, 0, 0))
    report = VerifyReport("/data", PROBLEMS, ("a note",), checked, 12, 1 << 40)
    message = types_pb2.VerifyReport()
    reports.verify_to_message(report, message)
    assert reports.verify_from_message(message) == report
    assert report.as_json()["problems"][1]["subject"] == "seg/index-1"
    assert not report.ok
    assert str(PROBLEMS[1]) == "collection 'docs': a file"


def test_a_repair() -> None:
    lost = (Lost("records", "gone", "docs", 2, ("a", "b")), Lost("versions", "some"))
    report = RepairReport("/data", True, ("segments",), ("quarantine/x",), lost, PROBLEMS)
    message = types_pb2.RepairReport()
    reports.repair_to_message(report, message)
    assert reports.repair_from_message(message) == report


def test_a_receipt() -> None:
    facts = {
        "collection": "docs", "ids": ("a",), "version": 9, "rows": 3, "segments": ("s",), "files": ("f", "g"),
        "remaining": ("quarantine",), "started": "2026-01-31T12:00:00+00:00", "finished": "2026-01-31T12:00:01+00:00",
    }  # fmt: skip
    receipt = Erasure(1, facts)
    message = types_pb2.Erasure()
    reports.erasure_to_message(receipt, message)
    back = reports.erasure_from_message(message)
    assert (back, back.as_json()) == (receipt, receipt.as_json())
    assert receipt.as_json() == {"count": 1, **facts}
    assert "Erasure of 1 records from 'docs' up to version 9" in repr(receipt)


def test_what_is_asked() -> None:
    for delete in (None, DeleteRequest(["a"], None, 3, "key", 1.5)):
        request = EraseRequest(delete, 2.5)
        assert requests.erase_from_message(requests.erase_to_message("docs", request)) == request


def test_what_scrubbing_found() -> None:
    for scrub in (ScrubStats(), ScrubStats(3, 1 << 33, 2, 1, "a block")):
        found = CollectionStats(1, 0, 0, 1, 1, 0, 0, IndexSpec("flat"), (), OptimizerStats("idle"), scrub=scrub)
        message = types_pb2.CollectionStats()
        stats.stats_to_message(found, message)
        assert stats.stats_from_message(message).scrub == scrub
