"""One owner a folder: a kernel lock on ``DIR/LOCK``, whose text tells others who the owner is.

The lock (``flock``) goes with the process, however it ends, so a stale file never blocks anyone; the text is only for
the error message. It is taken on an open file and therefore also keeps out a second open in the same process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from pathlib import Path

from vectordb.errors import DirectoryLocked, FailedPrecondition, refused

COMING = ""
"""The door of an owner that has not opened it yet."""


class DirectoryLock:
    """The held lock of one folder.

    Args:
        shared: Others are told that a door is to come, by which they may enter (``server/sharing.py``).

    Raises:
        DirectoryLocked: Another process, or another engine of this process, owns the folder.
        FailedPrecondition: It cannot be written. ResourceExhausted: Its disk is full.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._folder = folder
        self._address: str | None = None
        self._door: str | None = COMING if shared else None
        path = folder / "LOCK"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FailedPrecondition(
                f"cannot open {path}: {error.strerror}; the folder must be writable by this user", path=str(path)
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = self._read_owner()
            os.close(self._fd)
            raise _locked(folder, owner) from None
        try:
            self.announce()
        except OSError as error:
            # Else nobody of this process could open the folder until it ends.
            self.release()
            raise refused(f"cannot write {path}", error, path=str(path)) from error

    def announce(self, *, address: str | None = None, door: str | None = None) -> None:
        """Writes who owns the folder, where it serves and at which door others may knock; ``None``: as before."""
        self._address = address or self._address
        self._door = door or self._door
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "address": self._address,
            "door": self._door,
        }
        # In one step, blanks over what is left of a longer text: who reads meanwhile must not find a lock of nobody.
        os.pwrite(self._fd, json.dumps(owner).encode().ljust(os.fstat(self._fd).st_size), 0)

    def _read_owner(self) -> dict[str, object]:
        try:
            owner = json.loads(os.pread(self._fd, 4096, 0))
        except (OSError, ValueError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def release(self) -> None:
        """Gives the folder up. Idempotent."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # the text is only for messages
                os.ftruncate(self._fd, 0)
            # Explicitly: a forked child may hold the descriptor open, and with it the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def abandon(self) -> None:
        """In a forked child: lets go of the descriptor; the parent goes on owning the folder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _locked(folder: Path, owner: dict[str, object]) -> DirectoryLocked:
    pid, host, address = owner.get("pid"), owner.get("host"), owner.get("address")
    who = f"process {pid} on {host}" if pid else "another process"
    if pid == os.getpid() and host == socket.gethostname():
        who = f"this process ({pid})"
    served = f", which serves it at {address}: connect there" if address else "; close it there, or serve the folder"
    return DirectoryLocked(
        f"folder {folder} is in use by {who}{served}",
        path=str(folder),
        pid=pid,
        host=host,
        address=address,
        door=owner.get("door"),
    )
