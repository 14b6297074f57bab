"""PDF by pypdf, docx by python-docx."""

from __future__ import annotations

import io
import logging
import re
import warnings
from typing import Any

from vectordb_client.rag import extras
from vectordb_client.rag.documents.builder import TextBuilder
from vectordb_client.rag.documents.text import Unreadable
from vectordb_client.rag.types import Document

_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
_HYPHEN = re.compile(r"(?<=[a-z])-\n(?=[a-z])")


def parse_pdf(file_id: str, data: bytes) -> list[Document]:
    """One document; its sections are the pages, numbered from 1. Words broken at line ends are joined.

    Raises:
        Unreadable: It is encrypted, or no pdf.
    """
    pypdf = extras.load("pypdf", "documents", "reading .pdf files")
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # It logs a warning for each oddity of a file.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("is encrypted with a password")
        title = reader.metadata.title if reader.metadata else None
        builder = TextBuilder()
        for number, page in enumerate(reader.pages, start=1):
            builder.section({"page": number})
            # Fonts without a proper map yield lone surrogates, which no UTF-8 can hold.
            text = page.extract_text().encode("utf-8", "replace").decode("utf-8")
            builder.block(_HYPHEN.sub("", text))
    return [builder.document(file_id, {"source": file_id} | ({"title": str(title)[:1000]} if title else {}))]


def parse_docx(file_id: str, data: bytes) -> list[Document]:
    """One document; its sections are the headings, by style. Tables become lines of cells joined by ``|``."""
    docx = extras.load("docx", "documents", "reading .docx files")
    file = docx.Document(io.BytesIO(data))
    builder = TextBuilder()
    for item in file.iter_inner_content():
        if hasattr(item, "rows"):
            builder.block("\n".join(_row(row) for row in item.rows))
        elif level := _level(item):
            builder.heading(level, item.text)
        else:
            builder.block(item.text)
    title = file.core_properties.title
    return [builder.document(file_id, {"source": file_id} | ({"title": title[:1000]} if title else {}))]


def _level(paragraph: Any) -> int:
    style = (paragraph.style.name or "") if paragraph.style is not None else ""
    if style == "Title":
        return 1
    found = _HEADING.match(style)
    return int(found[1]) if found else 0


def _row(row: Any) -> str:
    cells: list[str] = []
    for cell in row.cells:
        text = " ".join(cell.text.split())
        # A merged cell is there once for each column that it spans.
        if not cells or cells[-1] != text:
            cells.append(text)
    return " | ".join(cells)
