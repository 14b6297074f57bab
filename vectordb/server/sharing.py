"""One folder for many processes: the owner's door.

Only one process owns a folder. The owner keeps a *door*: a Unix socket that costs a thread and nothing else until
somebody knocks. The first knock starts a gRPC server on a second socket beside it, and every knock is answered with
that server's address; whoever knocked then speaks the protocol like any client (``transport/folder.py`` of the client).
The LOCK file names the door.

Both sockets lie in a folder that only this user can enter: ``DIR/door`` where its path is short enough for a socket
(108 bytes), else a temporary folder. So who may open the door is who may open the folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectordb import arguments
from vectordb.errors import FailedPrecondition

if TYPE_CHECKING:
    from vectordb.engine.database import Engine
    from vectordb.server.app import Server

_log = logging.getLogger("vectordb.server")
_LONGEST_PATH = 107
_KNOCK, _SERVE = "knock", "serve"
_PATIENCE = 5.0


class _Lent:
    """The engine as the door's server sees it: not the server's to close, nor to announce."""

    announce = None

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Left to the owner."""


class Door:
    """The door of one open folder; closes with the engine. Thread-safe.

    Args:
        engine: Opened with ``shared=True``; it announces the door and closes it first when it closes itself.
        folder: The database's folder.

    Raises:
        FailedPrecondition: No socket can be made here; the engine then goes on without a door.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._server: Server | None = None  # guarded by self._lock
        self._closed = False  # guarded by self._lock
        self._pid = os.getpid()
        self._folder = _private_folder(folder)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(str(self._folder / _KNOCK))
            self._socket.listen(64)
        except OSError as error:
            self._socket.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise FailedPrecondition(f"cannot share {folder} with other processes: {error}", path=str(folder)) from None
        _DOORS.add(self)
        self._thread = threading.Thread(target=self._answer, name="vectordb-door", daemon=True)
        self._thread.start()
        engine.at_close(self.close)
        engine.announce(door=str(self._folder / _KNOCK))

    def _answer(self) -> None:
        while True:
            try:
                knocker, _ = self._socket.accept()
            except OSError:
                return  # closed
            with knocker:
                try:
                    knocker.settimeout(_PATIENCE)
                    answer = {"address": self._served()}
                    knocker.sendall(json.dumps(answer).encode() + b"\n")
                except Exception:
                    _log.exception("a process that knocked at %s was not let in", self._folder)

    def _served(self) -> str:
        """The address of the server behind the door, started by the first who asks."""
        from vectordb.server.app import Server
        from vectordb.server.config import load

        with self._lock:
            if self._closed:
                raise FailedPrecondition("the database is being closed")
            if self._server is None:
                # The native transport's threads are nothing to start in a process that is somebody else's.
                flags = {
                    "listen": f"unix:{self._folder / _SERVE}",
                    "backup_to": "*",
                    "drain_seconds": 1.0,
                    "transport": "grpcio",
                }
                server = Server(lambda: _Lent(self._engine), load(flags, environment={}))
                server.start()
                self._server = server
            return self._server.address

    def close(self) -> None:
        """Lets running calls of others end, for a moment, and takes the door away. Idempotent."""
        with self._lock:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
            server = self._server
        # Wakes the thread that waits for knocks, which closing alone does not.
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            _log.debug("the door's socket was shut already")
        self._socket.close()
        self._thread.join(_PATIENCE)
        if server is not None:
            server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def open_shared(folder: str | os.PathLike[str], **options: Any) -> Engine:
    """The engine of a folder, with a door where it is shared (``shared=True``) and sockets can be made here.

    Args:
        **options: Of :class:`~vectordb.engine.database.Engine`.

    Raises:
        DirectoryLocked, FailedPrecondition, Corruption: As the engine does.
    """
    from vectordb.engine.care.care import MEMORY
    from vectordb.engine.database import Engine

    engine = Engine(folder, **options)
    if os.fspath(folder) != MEMORY and options.get("shared"):
        try:
            Door(engine, arguments.folder(folder))
        except FailedPrecondition as error:
            # A folder without a door is a folder all the same: other processes get DirectoryLocked.
            _log.warning("%s", error.message)
    return engine


def _private_folder(folder: Path) -> Path:
    """An empty folder for the sockets that only this user can enter."""
    wanted = folder / "door"
    if len(os.fsencode(wanted / _KNOCK)) <= _LONGEST_PATH:
        # The lock is held: what is there is of an owner that is gone.
        shutil.rmtree(wanted, ignore_errors=True)
        wanted.mkdir(mode=0o700)
        return wanted
    made = Path(tempfile.mkdtemp(prefix="vectordb-"))
    if len(os.fsencode(made / _KNOCK)) <= _LONGEST_PATH:
        return made
    made.rmdir()
    return Path(tempfile.mkdtemp(prefix="vectordb-", dir="/tmp"))


_DOORS: weakref.WeakSet[Door] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """In a forked child: else knocks would wait for a thread that is not there, once the parent is gone."""
    for door in list(_DOORS):
        door._socket.close()
    _DOORS.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
