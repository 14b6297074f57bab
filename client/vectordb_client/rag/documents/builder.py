"""Building a document from pieces while noting where its sections begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vectordb_client.rag.types import Document, Section


class TextBuilder:
    """Blocks of text, a blank line between two, and the pages or headings that they belong to."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._length = 0
        self._sections: list[Section] = []
        self._path: list[tuple[int, str]] = []

    def block(self, text: str) -> None:
        """Adds a paragraph; one without text is left out."""
        if text := text.strip():
            self._length += len(text) + (2 if self._blocks else 0)
            self._blocks.append(text)

    def heading(self, level: int, title: str) -> None:
        """Adds a heading: a paragraph, and the section of what follows it."""
        if title := " ".join(title.split()):
            self._path = [*((depth, name) for depth, name in self._path if depth < level), (level, title)]
            self.section({"heading": " > ".join(name for _, name in self._path)})
            self.block(title)

    def section(self, metadata: Mapping[str, Any]) -> None:
        """What is added from here on belongs to a new section."""
        start = self._length + 2 if self._blocks else 0
        if self._sections and self._sections[-1].start == start:
            self._sections.pop()
        self._sections.append(Section(start, metadata))

    def document(self, document_id: str, metadata: Mapping[str, Any]) -> Document:
        """The document so far."""
        text = "\n\n".join(self._blocks)
        return Document(document_id, text, metadata, tuple(s for s in self._sections if s.start < len(text)))
