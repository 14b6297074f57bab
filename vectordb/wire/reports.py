"""Reports of checks, repairs and erasures as messages and back."""

from __future__ import annotations

from typing import Any

from vectordb.reports import CheckedCollection, Erasure, Lost, Problem, RepairReport, VerifyReport
from vectordb.wire.values import optional
from vectordb_proto.v1 import types_pb2

_CHECKED = ("name", "version", "records", "segments", "searches")
_ERASED = ("collection", "version", "rows", "started", "finished")
_ERASED_LISTS = ("ids", "segments", "files", "remaining")


def verify_to_message(report: VerifyReport, message: types_pb2.VerifyReport) -> None:
    """Writes the outcome of a check."""
    message.path, message.files, message.bytes = report.path, report.files, report.bytes
    _problems_to_message(report.problems, message.problems)
    message.notes.extend(report.notes)
    for checked in report.collections:
        entry = message.collections.add(**{name: getattr(checked, name) for name in _CHECKED})
        if checked.recall is not None:
            entry.recall = checked.recall


def verify_from_message(message: types_pb2.VerifyReport) -> VerifyReport:
    """The outcome of a check."""
    return VerifyReport(
        path=message.path,
        problems=_problems_from_message(message.problems),
        notes=tuple(message.notes),
        collections=tuple(
            CheckedCollection(**{name: getattr(entry, name) for name in _CHECKED}, recall=optional(entry, "recall"))
            for entry in message.collections
        ),
        files=message.files,
        bytes=message.bytes,
    )


def repair_to_message(report: RepairReport, message: types_pb2.RepairReport) -> None:
    """Writes what a repair did."""
    message.path, message.dry_run = report.path, report.dry_run
    message.rebuilt.extend(report.rebuilt)
    message.quarantined.extend(report.quarantined)
    for lost in report.lost:
        entry = message.lost.add(kind=lost.kind, message=lost.message, ids=lost.ids)
        for name in ("collection", "count"):
            if getattr(lost, name) is not None:
                setattr(entry, name, getattr(lost, name))
    _problems_to_message(report.problems, message.problems)


def repair_from_message(message: types_pb2.RepairReport) -> RepairReport:
    """What a repair did."""
    return RepairReport(
        path=message.path,
        dry_run=message.dry_run,
        rebuilt=tuple(message.rebuilt),
        quarantined=tuple(message.quarantined),
        lost=tuple(
            Lost(entry.kind, entry.message, optional(entry, "collection"), optional(entry, "count"), tuple(entry.ids))
            for entry in message.lost
        ),
        problems=_problems_from_message(message.problems),
    )


def erasure_to_message(erasure: Erasure, message: types_pb2.Erasure) -> None:
    """Writes the receipt of an erasure."""
    message.count = erasure.count
    for name in _ERASED:
        setattr(message, name, getattr(erasure, name))
    for name in _ERASED_LISTS:
        getattr(message, name).extend(getattr(erasure, name))


def erasure_from_message(message: types_pb2.Erasure) -> Erasure:
    """The receipt of an erasure."""
    facts: dict[str, Any] = {name: getattr(message, name) for name in _ERASED}
    return Erasure(message.count, {**facts, **{name: list(getattr(message, name)) for name in _ERASED_LISTS}})


def _problems_to_message(problems: tuple[Problem, ...], entries: Any) -> None:
    for problem in problems:
        entry = entries.add(kind=problem.kind, message=problem.message)
        for name in ("collection", "subject"):
            if getattr(problem, name) is not None:
                setattr(entry, name, getattr(problem, name))


def _problems_from_message(entries: Any) -> tuple[Problem, ...]:
    return tuple(
        Problem(entry.kind, entry.message, optional(entry, "collection"), optional(entry, "subject"))
        for entry in entries
    )
