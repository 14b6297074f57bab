"""What RocksDB says, turned into the errors of this library."""

from __future__ import annotations

from pathlib import Path

from vectordb.errors import (
    Closed,
    Corruption,
    DirectoryLocked,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    VectorDBError,
)


def holds_data(path: Path) -> bool:
    """Whether a folder holds RocksDB data, so that it must not be created anew over what is left of it."""
    if not path.is_dir():
        return False
    for entry in path.iterdir():
        if entry.name == "CURRENT" or entry.suffix in (".sst", ".blob"):
            return True
        if entry.suffix == ".log" and entry.stat().st_size:
            return True
    return False


def translated(error: Exception, path: Path) -> VectorDBError:
    """The one door through which RocksDB's errors (plain exceptions with text) leave the storage."""
    text = str(error)
    if isinstance(error, VectorDBError):
        return error
    if type(error).__name__ == "DbClosedError":
        return Closed(f"the storage at '{path}' is closed; open it again to use it", path=str(path))
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return ResourceExhausted(
            f"no space left on the device of '{path}': free some, then open the database again ({text})", path=str(path)
        )
    if "Too many open files" in text:
        return ResourceExhausted(
            f"'{path}' cannot be read: too many files are open; raise the limit (ulimit -n) ({text})", path=str(path)
        )
    if "/LOCK:" in text:
        return DirectoryLocked(f"another process has '{path}' open: close it first ({text})", path=str(path))
    if text.startswith("Not implemented") and "read only" in text:
        return FailedPrecondition(f"'{path}' was opened read-only: open it for writing to change it", path=str(path))
    if text.startswith("Corruption") or ("IO error" in text and "No such file" in text) or "/CURRENT" in text:
        return Corruption(
            f"the RocksDB folder '{path}' is damaged: {text}. Restore it from a backup, or run `vectordb verify`",
            path=str(path),
        )
    return Internal(f"RocksDB failed at '{path}': {text}", path=str(path))


def no_more_writes(failure: str, path: Path) -> FailedPrecondition:
    """For writes and syncs after one that failed: the kernel may have dropped what it could not write, and would say
    nothing of it at the next sync."""
    return FailedPrecondition(
        f"'{path}' takes no writes since one failed ({failure}); mend the cause, then open it again",
        path=str(path),
        reason=failure,
    )


def threads_missing(path: Path) -> FailedPrecondition:
    """For what would have to be done in the background, in a process that was forked beside an open database."""
    return FailedPrecondition(
        f"'{path}' is open in a process that was forked while its parent had a database open, and RocksDB has no "
        "threads here to write its tables: start it by 'spawn' or 'forkserver', close databases before forking, or "
        "connect to a server",
        path=str(path),
    )
