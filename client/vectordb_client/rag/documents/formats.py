"""Files to documents, by suffix. A file of rows (csv, jsonl) is one document a row, any other file is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from vectordb.errors import FailedPrecondition
from vectordb_client.rag import extras
from vectordb_client.rag.chunking.strategies import markdown_sections
from vectordb_client.rag.documents import office, tables, web
from vectordb_client.rag.documents.text import Unreadable, decode
from vectordb_client.rag.types import Document

VERSION = 2
"""Part of every file's hash: raised when a parser here reads the same bytes differently."""

Parser = Callable[[str, bytes], list[Document]]


def parse_file(path: Path, file_id: str, data: bytes) -> list[Document]:
    """The documents of one file.

    Args:
        path: Its suffix chooses the parser.
        file_id: Id of its document, or what the ids of its rows begin with.

    Raises:
        Unreadable: It is broken, empty, or not what its suffix says.
        FailedPrecondition: The package that reads it is not installed.
    """
    try:
        documents = _PARSERS[path.suffix.lower()](file_id, data)
    except (Unreadable, FailedPrecondition):
        raise
    except RecursionError as error:
        raise Unreadable("is nested too deeply") from error
    except Exception as error:
        # Parsers of foreign formats raise what they like on broken files.
        raise Unreadable(f"cannot be read: {type(error).__name__}: {error}") from error
    if not any(document.text.strip() for document in documents):
        raise Unreadable("has no text" + (" (perhaps scanned pages)" if path.suffix.lower() == ".pdf" else ""))
    return documents


def require_parser(suffix: str) -> None:
    """Checks before any file is read that its kind can be.

    Raises:
        FailedPrecondition: The package that reads such files is not installed.
    """
    if module := _NEEDS.get(suffix):
        extras.load(module, "documents", f"reading {suffix} files")


def _plain(file_id: str, data: bytes) -> list[Document]:
    return [Document(file_id, decode(data), {"source": file_id})]


def _markdown(file_id: str, data: bytes) -> list[Document]:
    text = decode(data)
    return [Document(file_id, text, {"source": file_id}, tuple(markdown_sections(text)))]


_PARSERS: Mapping[str, Parser] = {
    ".txt": _plain,
    ".text": _plain,
    ".rst": _plain,
    ".log": _plain,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": web.parse_html,
    ".htm": web.parse_html,
    ".xhtml": web.parse_html,
    ".pdf": office.parse_pdf,
    ".docx": office.parse_docx,
    ".csv": tables.parse_csv,
    ".tsv": tables.parse_csv,
    ".jsonl": tables.parse_jsonl,
    ".ndjson": tables.parse_jsonl,
}
_NEEDS = {".pdf": "pypdf", ".docx": "docx", ".html": "lxml.html", ".htm": "lxml.html", ".xhtml": "lxml.html"}

SUFFIXES = frozenset(_PARSERS)
"""What can be read, in small letters with the dot."""
