"""The audit log: one line of JSON for each write, each change of a collection, and each call that was refused.

    {"time": "2026-01-31T12:00:00.123456+00:00", "peer": "ipv4:10.0.0.7:51234", "key": "ingest", "call": "delete",
     "collection": "docs", "outcome": "ok"}

The peer of a call over the lane is named by its process and user: ``unix:pid=4711,uid=1000``. The log names keys and
collections; it never holds a key, a vector, a filter's values or a record.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vectordb.errors import InvalidArgument, VectorDBError

_log = logging.getLogger("vectordb.server")


class _File(logging.handlers.WatchedFileHandler):
    """Only this user can read it, also where it was made anew because the one before was moved away."""

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=_private)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            # It was moved away, and no other can be made.
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- named by logging
        """The call was carried out or refused already, whoever cannot note it: the server's log gets the line."""
        _log.error("audit_log: cannot write %s: %s; the line is %s", self.baseFilename, sys.exc_info()[1], record.msg)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class AuditLog:
    """Appends to one file, which may be moved away at any time (``logrotate``). Thread-safe.

    Raises:
        InvalidArgument: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = _File(path, encoding="utf-8")
            path.chmod(0o600)
        except OSError as error:
            raise InvalidArgument(f"audit_log: cannot write {path}: {error.strerror}", field="audit_log") from None
        self._file.setFormatter(logging.Formatter("%(message)s"))

    def note(self, peer: str, key: str | None, call: str, collection: str | None, error: VectorDBError | None) -> None:
        """Writes a line about a call that was carried out (``error`` is None) or was not."""
        line = {
            "time": datetime.now(UTC).isoformat(),
            "peer": peer,
            "key": key,
            "call": call,
            "collection": collection,
            "outcome": "ok" if error is None else type(error).__name__,
        }
        self._file.handle(logging.LogRecord("vectordb.audit", logging.INFO, "", 0, json.dumps(line), None, None))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
