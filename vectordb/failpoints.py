"""Named places where tests let things go wrong: the process dies, the disk refuses, time passes, somebody looks.

A place is one line, ``failpoints.hit("commit.synced")``, which costs one look at a global while nothing is armed. A
test arms places in its own process by :func:`arm`; a process that it starts reads ``VECTORDB_FAILPOINTS`` when it
imports this module: ``name=action@n``, several with ``;`` between, where ``action`` is ``kill``, ``errno:28`` or
``sleep:0.5``, and ``n`` (1 without it) is the first hit that it happens at.

:data:`NAMES` is the list of all places. ``tests/crash/test_failpoints.py`` kills a process at each of them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

VARIABLE = "VECTORDB_FAILPOINTS"

NAMES: Mapping[str, str] = {
    "storage.write": "before a batch is given to RocksDB",
    "storage.written": "a batch was applied and not synced",
    "storage.sync": "before the log is synced",
    "storage.synced": "the log was synced",
    "acked.torn": "the newer slot of the ACKED page is written, all but its checksum",
    "acked.replace": "before a new ACKED page takes the place of the old one",
    "commit.piece": "between the pieces of a large group",
    "commit.written": "all of a group is written, nothing synced",
    "commit.synced": "a group is synced and not in the ACKED page",
    "commit.acked": "a group is in the ACKED page and not visible",
    "commit.published": "a group is visible and its callers were not told",
    "create.synced": "a new collection is synced and not in the ACKED page",
    "delete.written": "a collection's removal is written and not synced",
    "delete.synced": "a collection's removal is synced and still in the ACKED page",
    "delete.acked": "a collection is gone, its segments are there",
    "files.write": "before a new file of a segment is synced",
    "publish.synced": "all files of a segment or index are synced under a temporary name",
    "publish.renamed": "they have their name, and no manifest has it",
    "manifest.write": "before a manifest is written",
    "manifest.synced": "a manifest is synced, readers see the state before",
    "seal.built": "a sealed tail is published and not in the manifest",
    "merge.built": "a merged segment is published and not in the manifest",
    "index.built": "an index is published and not in the manifest",
    "swap.done": "readers see a new segment, those that it replaces are on disk",
    "remove.renamed": "a folder was renamed to be removed",
    "sweep.write": "before rows that no snapshot needs leave storage",
    "reindex.begun": "the target of a reindex is durable",
    "reindex.built": "an index of the new form is published and not in the manifest",
    "reindex.named": "it is in the manifest and not in memory",
    "reindex.swap": "all is built, the new form does not serve",
    "reindex.swapped": "the new form is durable, readers see the old one",
    "reindex.dropped": "a reindex was taken back durably, what it built is on disk",
    "backup.checkpointed": "storage is linked for a backup, the segments are not",
    "backup.staged": "all is linked for a backup, nothing is copied",
    "backup.copied": "the contents of a backup are stored, its list is not",
    "restore.fetched": "a restored folder is complete under a temporary name",
    "erase.rewritten": "no segment holds what is erased, rows in storage do",
    "erase.swept": "rows were deleted from storage, log and tables hold them",
    "erase.flushed": "the log begins anew, tables hold them",
    "erase.compacted": "no table in use holds them, the manifest names their keys",
    "erase.manifest": "nothing in use holds them, files of before may still lie there",
    "erase.discarded": "all is erased, and there is no receipt",
    "repair.format": "a FORMAT file that cannot be read was moved aside, there is none",
    "repair.moved": "something damaged was moved aside, its new place is not synced",
    "repair.written": "a fresh store is whole, MAINTENANCE does not say so",
    "repair.marked": "MAINTENANCE says so, the damaged store is in its place",
    "repair.replaced": "the fresh store is in its place, MAINTENANCE is still there",
    "repair.unmarked": "MAINTENANCE is gone, segments are not made anew",
    "open.locked": "the folder's lock is held, nothing is open",
    "open.storage": "storage is open, its losses are not looked at",
    "open.done": "a folder is open, no collection is",
    "recover.begin": "before a collection is read back",
    "recover.undo": "before an unfinished commit is taken back",
    "recover.quarantined": "a damaged folder was set aside and is not rebuilt",
    "recover.manifest": "before the manifest names what was rebuilt",
}

Action = Callable[[], None]


@dataclass(slots=True)
class _Armed:
    action: Action
    at: int
    times: int | None
    hits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self) -> bool:
        with self.lock:
            self.hits += 1
            return self.hits >= self.at and (self.times is None or self.hits < self.at + self.times)


_armed: dict[str, _Armed] | None = None


def hit(name: str) -> None:
    """This is the place ``name``. Thread-safe. Raises what the armed action raises: an ``OSError``, say."""
    if _armed is not None and (armed := _armed.get(name)) is not None and armed.is_due():
        armed.action()


def arm(name: str, action: Action, *, at: int = 1, times: int | None = 1) -> None:
    """Has ``action`` done at the hits ``at``, ``at + 1``, ... of a place, ``times`` times; ``None``: from then on."""
    global _armed
    if name not in NAMES:
        raise ValueError(f"there is no failpoint {name!r}")
    _armed = {**(_armed or {}), name: _Armed(action, at, times)}


def disarm() -> None:
    """Nothing happens anywhere any more."""
    global _armed
    _armed = None


@contextmanager
def armed(name: str, action: Action, *, at: int = 1, times: int | None = 1) -> Iterator[None]:
    """:func:`arm` for a ``with`` block, after which nothing is armed."""
    arm(name, action, at=at, times=times)
    try:
        yield
    finally:
        disarm()


def kill() -> None:
    """SIGKILL to this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # the signal may take a moment; nothing after this line is to happen


def fail(number: int) -> Action:
    """Raises the ``OSError`` of an error number, such as ``errno.ENOSPC``."""

    def action() -> None:
        raise OSError(number, os.strerror(number))

    return action


def sleep(seconds: float) -> Action:
    """Lets time pass."""
    return lambda: time.sleep(seconds)


def arm_from(text: str) -> None:
    """Arms what ``VECTORDB_FAILPOINTS`` says; raises ``ValueError`` where it cannot be read."""
    for part in filter(None, text.split(";")):
        name, _, rest = part.partition("=")
        told, _, at = rest.partition("@")
        kind, _, value = told.partition(":")
        if kind == "kill":
            action: Action = kill
        elif kind == "errno":
            action = fail(int(value))
        elif kind == "sleep":
            action = sleep(float(value))
        else:
            raise ValueError(f"failpoint action {told!r} is unknown: kill, errno:NUMBER or sleep:SECONDS")
        arm(name, action, at=int(at or 1))


arm_from(os.environ.get(VARIABLE, ""))
