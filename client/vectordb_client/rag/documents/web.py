"""HTML by lxml: what a reader sees, with headings as sections."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from vectordb_client.rag import extras
from vectordb_client.rag.documents.builder import TextBuilder
from vectordb_client.rag.documents.text import Unreadable, decode
from vectordb_client.rag.types import Document

_UNSEEN = frozenset(
    ("script", "style", "noscript", "template", "head", "nav", "svg", "iframe", "button", "select", "form")
)
_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_DECLARED = re.compile(rb"\A\s*<\?xml[^>]*\sencoding\s*=\s*[\"']([^\"'>]+)")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset"),
        *("figcaption", "figure", "footer", "header", "hr", "html", "li", "main", "ol", "p", "pre", "section"),
        *("summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul", *_HEADINGS),
    )
)


def parse_html(file_id: str, data: bytes) -> list[Document]:
    """One document: headings, paragraphs, list items and table rows, without scripts, navigation and forms.

    Raises:
        Unreadable: There is nothing to parse.
    """
    html = extras.load("lxml.html", "documents", "reading .html files")
    text = _text(data)
    # Without huge_tree what follows the 256th level is left out, and nobody told.
    parser = html.HTMLParser(huge_tree=True)
    root = html.document_fromstring(text, parser=parser) if _has_tags(data) else None
    if root is None:
        raise Unreadable("is no HTML: it has no tags")
    title = " ".join((root.findtext(".//title") or "").split())
    builder = TextBuilder()
    pending: list[str] = []
    _walk(root, builder, pending)
    _flush(builder, pending)
    return [builder.document(file_id, {"source": file_id} | ({"title": title[:1000]} if title else {}))]


def _text(data: bytes) -> str | bytes:
    """The text, or the bytes where lxml has to look for what the document declares in its ``meta``."""
    if _is_unicode(data):
        # lxml refuses a text that declares its encoding as XML does: it is decoded already.
        return _DECLARATION.sub("", decode(data), count=1)
    if found := _DECLARED.match(data):
        # lxml passes this over.
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            return _DECLARATION.sub("", data.decode(found[1].decode("ascii", "replace")), count=1)
    return data


def _is_unicode(data: bytes) -> bool:
    """Whether the bytes say themselves how they are encoded; else lxml looks for what the document declares."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return True


def _has_tags(data: bytes) -> bool:
    return b"<" in data


def _walk(element: Any, builder: TextBuilder, pending: list[str]) -> None:
    """Adds what is inside an element. What is nested deeper than Python's stack is an error, and reported."""
    name = element.tag if isinstance(element.tag, str) else None
    if name is None or name in _UNSEEN:
        return
    if level := _HEADINGS.get(name):
        _flush(builder, pending)
        builder.heading(level, element.text_content())
        return
    if name == "pre":
        _flush(builder, pending)
        builder.block(element.text_content())
        return
    block = name in _BLOCKS
    # The cells of a row stay on one line.
    if block and name not in ("td", "th"):
        _flush(builder, pending)
    begun = any(part.strip() for part in pending)
    pending.append(" | " if name in ("td", "th") and begun else "\n" if name == "br" else "")
    pending.append(element.text or "")
    for child in element:
        _walk(child, builder, pending)
        pending.append(child.tail or "")
    if block and name not in ("td", "th"):
        _flush(builder, pending)


def _flush(builder: TextBuilder, pending: list[str]) -> None:
    """Ends a paragraph: white space collapses, breaks stay."""
    lines = ("".join(pending)).replace("\xa0", " ").split("\n") if pending else []
    builder.block(" ".join(" ".join(line.split()) for line in lines if line.strip()))
    pending.clear()
