"""The server's log on standard error, as text for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_SIGNS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {0x2028: "\\u2028", 0x2029: "\\u2029"}
_SIGNS |= {ord("\t"): "\t", ord("\n"): "\\n", ord("\r"): "\\r"}
"""How signs that end a line, or that a terminal obeys, are written. A tab is left as it is."""


class TextLines(logging.Formatter):
    """One line a message, whatever names and texts of clients it tells: none of them can look like a line of its own.
    Only tracebacks have more, each but the first set in."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 -- named by logging
        return super().formatMessage(record).translate(_SIGNS)

    def formatException(self, ei: Any) -> str:  # noqa: N802 -- named by logging
        lines = super().formatException(ei).split("\n")
        return "\n".join([lines[0], *(f"  {line.translate(_SIGNS)}" for line in lines[1:])])


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, ``error`` (a traceback), and what a
    record carries beside them (``extra={"fields": {...}}``)."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(level: str, form: str) -> None:
    """Sends the log to standard error.

    Args:
        level: Of this project's loggers; other libraries are only heard when something is wrong.
        form: ``text`` or ``json``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines(TEXT))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("vectordb").setLevel(level.upper())
