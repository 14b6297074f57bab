"""RocksDB's background threads, and what becomes of them in a forked child.

They belong to the process and not to a database: they begin with the first one that is opened, and stay when the last
one is closed. A child has none of them but inherits RocksDB's count, by which they are there: what a database that the
child opens hands to them is never done, and closing it would wait for that for ever.

Where no database is open they are therefore sent home before a fork, which takes a moment, and begin again with the
next database, in the parent and in the child. Where one is open they cannot be: what is waiting for them then would be
done by the child's, too, in the parent's files. Such a child has to do without (:func:`are_missing`): it can read, and
write as much as the memtables hold.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import rocksdict

from vectordb.storage.rocks_errors import threads_missing

T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds that a fork waits for them at most. They have nothing to do then."""
_PAUSE = 0.0005
_TASKS = Path("/proc/self/task")
_NAMES = ("rocksdb:low", "rocksdb:high")


class _Threads:
    """Those of this process.

    Attributes:
        missing: Whether they are counted and not there.
        left: Whether they were there when this process forked last.
        begun: Whether a database was ever opened.
        open: How many databases are.
        lock: Held while one is opened or closed, and around a fork.
    """

    def __init__(self, *, missing: bool = False) -> None:
        self.missing = missing
        self.left = False
        self.begun = False
        self.open = 0
        self.lock = threading.RLock()  # a signal's handler may fork, too

    def send_home(self) -> None:
        if not self.begun:
            return
        self.left = True
        if not self.open:
            environment = rocksdict.Env()
            environment.set_high_priority_background_threads(0)
            environment.set_background_threads(0)
            end = time.monotonic() + _PATIENCE
            while (left := _are_there()) and time.monotonic() < end:
                time.sleep(_PAUSE)
            self.left = left


_threads = _Threads()


def are_missing() -> bool:
    """Whether this process has no such threads and can have none."""
    return _threads.missing


def need(path: Path, families: Iterable[Any] | None = None) -> None:
    """Before what waits for them; of families only where these have something to write out.

    Raises:
        FailedPrecondition: They are missing.
    """
    if _threads.missing and (families is None or would_wait(families)):
        raise threads_missing(path)


def would_wait(families: Iterable[Any]) -> bool:
    """Whether closing a database would wait for them for ever: entries of its families are in no table yet."""
    names = ("rocksdb.num-entries-active-mem-table", "rocksdb.num-immutable-mem-table")
    return _threads.missing and any(family.property_int_value(name) for family in families for name in names)


def opened(open_it: Callable[[], T]) -> T:
    """What ``open_it`` gives: one more open database."""
    with _threads.lock:
        _threads.begun = True
        made = open_it()
        _threads.open += 1
        return made


def closed() -> None:
    """One is closed, to the end of all that it had to do."""
    with _threads.lock:
        _threads.open -= 1


def _are_there() -> bool:
    for task in _TASKS.iterdir() if _TASKS.is_dir() else ():
        try:
            if (task / "comm").read_text().startswith(_NAMES):
                return True
        except OSError:  # it ended meanwhile
            continue
    return False


def _before_fork() -> None:
    _threads.lock.acquire()
    _threads.send_home()


def _in_parent() -> None:
    _threads.lock.release()


def _in_child() -> None:
    global _threads
    _threads = _Threads(missing=_threads.missing or _threads.left)


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
