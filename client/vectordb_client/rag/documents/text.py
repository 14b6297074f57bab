"""Bytes to text: encodings, and files that only claim to be text."""

from __future__ import annotations

import codecs
import re

from vectordb_client.rag import extras


class Unreadable(Exception):
    """A file that cannot become documents; the message says why. It never leaves the ingestion: it is reported."""


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 1 << 18
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_TOLERATED = 0.001
"""Share of control characters (such as form feeds gone wrong) that a text may have."""


def decode(data: bytes) -> str:
    """The text of a file: by its byte order mark, as UTF-8, or in the encoding that its bytes suggest.

    Line ends become ``\\n``.

    Raises:
        Unreadable: It is empty, or does not look like text in any encoding.
        FailedPrecondition: It is not UTF-8, and ``charset-normalizer`` is not installed.
    """
    if not data.strip():
        raise Unreadable("is empty")
    text = _decoded(data)
    sample = text[:_SAMPLE]
    if len(_CONTROL.findall(sample)) > _TOLERATED * len(sample):
        raise Unreadable("is binary: it has control characters that no text has")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(data, encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _guessed(data)


def _guessed(data: bytes) -> str:
    normalizer = extras.load("charset_normalizer", "documents", "reading text that is not UTF-8")
    best = normalizer.from_bytes(data[:_SAMPLE]).best()
    if best is None:
        raise Unreadable("is binary: it is no text in any encoding")
    return _strict(data, best.encoding)


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not text: byte {error.start} is not {encoding}") from error
