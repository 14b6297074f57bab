"""The audit log: one line of JSON for each write, each change of a collection, and each call that was refused.

    {"time": "2026-01-31T12:00:00.123456+00:00", "peer": "ipv4:10.0.0.7:51234", "key": "ingest", "call": "delete",
     "collection": "docs", "outcome": "ok"}

It names keys and collections; it never holds a key, a vector, a filter's values or a record.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
from datetime import UTC, datetime
from pathlib import Path

from vectordb.errors import InvalidArgument, VectorDBError


class AuditLog:
    """Appends to one file, which may be moved away at any time (``logrotate``). Thread-safe.

    Raises:
        InvalidArgument: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = logging.handlers.WatchedFileHandler(path, encoding="utf-8")
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
