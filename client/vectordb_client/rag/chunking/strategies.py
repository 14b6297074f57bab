"""The strategies. All but :class:`WholeDocument` cut what is larger than the embedding model takes; none loses text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from vectordb.errors import InvalidArgument
from vectordb_client.rag import extras
from vectordb_client.rag.arguments import whole
from vectordb_client.rag.chunking.base import Span, checked_size, chunks_of, fitting, size_for, windows
from vectordb_client.rag.chunking.sentences import sentence_spans
from vectordb_client.rag.types import Chunk, Document, Section

if TYPE_CHECKING:
    from vectordb_client.rag.embedding.base import Tokens

# Fenced code comes first, so that its comments are not taken for headings.
_HEADING = re.compile(
    r"^(?P<fence>```|~~~)[\s\S]*?(?:^(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|^(?P<level>#{1,6})[ \t]+(?P<title>.+?)[ \t]*#*[ \t]*$",
    re.MULTILINE,
)


class TokenChunker:
    """Stretches of equally many tokens of the embedding model, with an overlap: the default.

    Args:
        size: Tokens of a chunk; by default 200, or the model's limit where that is lower.
        overlap: Tokens that two neighbours share; by default an eighth of the size.
    """

    def __init__(self, size: int | None = None, overlap: int | None = None) -> None:
        checked_size(size, 0 if overlap is None else overlap)
        self._size, self._overlap = size, overlap

    @property
    def name(self) -> str:
        return f"tokens(size={self._size}, overlap={self._overlap})"

    def chunk(self, document: Document, tokens: Tokens) -> list[Chunk]:
        size = size_for(self._size, tokens)
        overlap = size // 8 if self._overlap is None else min(self._overlap, size // 2)
        all_of_it = Span(0, len(document.text))
        spans = windows(document.text, all_of_it, tokens.token_spans(document.text), size, overlap)
        return chunks_of(document, fitting(document.text, spans, size, tokens))


class SentenceChunker:
    """As many whole sentences as fit in ``size`` tokens; the next chunk repeats the last ``overlap`` sentences.

    Args:
        size: Tokens of a chunk; by default 200, or the model's limit where that is lower.
        overlap: Sentences that two neighbours share.
    """

    def __init__(self, size: int | None = None, overlap: int = 0) -> None:
        checked_size(size)
        self._size, self._overlap = size, whole("overlap", overlap, 0)

    @property
    def name(self) -> str:
        return f"sentences(size={self._size}, overlap={self._overlap})"

    def chunk(self, document: Document, tokens: Tokens) -> list[Chunk]:
        size = size_for(self._size, tokens)
        sentences = list(fitting(document.text, sentence_spans(document.text), size, tokens))
        return chunks_of(document, self._packed(document.text, sentences, size, tokens))

    def _packed(self, text: str, sentences: list[Span], size: int, tokens: Tokens) -> Iterator[Span]:
        weights = [len(tokens.token_spans(text[s.start : s.end])) for s in sentences]
        first = 0
        while first < len(sentences):
            last, total = first + 1, weights[first]
            while last < len(sentences) and total + weights[last] <= size:
                total += weights[last]
                last += 1
            # Together they may have a few tokens more, for the white space between them.
            while (
                last > first + 1
                and len(tokens.token_spans(text[sentences[first].start : sentences[last - 1].end])) > size
            ):
                last -= 1
            yield Span(sentences[first].start, sentences[last - 1].end)
            if last == len(sentences):
                return
            first = max(last - self._overlap, first + 1)


class HeadingChunker:
    """One chunk a section: a heading with the text under it; long sections are cut at sentences.

    The sections are the document's own (html, docx and markdown files have them), else the headings that its text
    marks in markdown's way, ``## like this``.

    Args:
        size: Tokens of a chunk; by default 200, or the model's limit where that is lower.
    """

    def __init__(self, size: int | None = None) -> None:
        self._sentences = SentenceChunker(size)
        self._size = size

    @property
    def name(self) -> str:
        return f"headings(size={self._size})"

    def chunk(self, document: Document, tokens: Tokens) -> list[Chunk]:
        sections = document.sections or markdown_sections(document.text)
        edges = sorted({0, *(section.start for section in sections), len(document.text)})
        text, size = document.text, size_for(self._size, tokens)
        spans = list[Span]()
        for start, end in pairwise(edges):
            if len(tokens.token_spans(text[start:end])) <= size:
                spans.append(Span(start, end))
                continue
            inside = self._sentences.chunk(Document(document.id, text[start:end]), tokens)
            spans.extend(Span(start + piece.start, start + piece.end) for piece in inside)
        return chunks_of(Document(document.id, text, document.metadata, tuple(sections)), spans)


class SemanticChunker:
    """Cuts at the largest unit of meaning that fits: sections, paragraphs, sentences, words.

    Uses ``semantic-text-splitter``, which reads markdown's structure where ``markdown`` is true.

    Args:
        size: Tokens of a chunk; by default 200, or the model's limit where that is lower.

    Raises:
        FailedPrecondition: The package is not installed.
    """

    def __init__(self, size: int | None = None, *, markdown: bool = False) -> None:
        checked_size(size)
        splitter = extras.load("semantic_text_splitter", "documents", "the semantic chunker")
        self._kind = splitter.MarkdownSplitter if markdown else splitter.TextSplitter
        self._size, self._markdown = size, markdown

    @property
    def name(self) -> str:
        return f"semantic(size={self._size}, markdown={self._markdown})"

    def chunk(self, document: Document, tokens: Tokens) -> list[Chunk]:
        size = size_for(self._size, tokens)
        splitter = self._kind.from_callback(lambda text: len(tokens.token_spans(text)), size)
        pieces = splitter.chunk_indices(document.text)
        spans = (Span(start, start + len(piece)) for start, piece in pieces)
        return chunks_of(document, fitting(document.text, spans, size, tokens))


class WholeDocument:
    """One chunk a document, for texts that are short already, such as the rows of a table.

    Args:
        too_long: What becomes of a document beyond the model's limit: ``"split"`` it like :class:`TokenChunker` without
            overlap, raise an ``"error"``, or ``"truncate"``: the vector then stands for its beginning only, and the
            report of the addition counts it.
    """

    def __init__(self, too_long: str = "split") -> None:
        if too_long not in ("split", "error", "truncate"):
            raise InvalidArgument(
                f"too_long is 'split', 'error' or 'truncate', got {too_long!r}", field="too_long", got=too_long
            )
        self._too_long = too_long

    @property
    def truncates(self) -> bool:
        """Whether chunks may be longer than the model takes; of other strategies none is."""
        return self._too_long == "truncate"

    @property
    def name(self) -> str:
        return f"whole(too_long={self._too_long})"

    def chunk(self, document: Document, tokens: Tokens) -> list[Chunk]:
        whole, limit = Span(0, len(document.text)), tokens.max_tokens
        if limit is None or self._too_long == "truncate":
            return chunks_of(document, [whole])
        if self._too_long == "split":
            return chunks_of(document, fitting(document.text, [whole], limit, tokens))
        if (count := len(tokens.token_spans(document.text))) > limit:
            raise InvalidArgument(
                f"document {document.id!r} has {count} tokens, the embedding model takes {limit}; "
                "choose another chunker, or WholeDocument(too_long='split')",
                document=document.id,
                got=count,
                limit=limit,
            )
        return chunks_of(document, [whole])


def markdown_sections(text: str) -> list[Section]:
    """The headings of a markdown text (ATX: ``## like this``), those inside fenced code left out.

    Each section's ``heading`` is the path to it: ``"Installing > From source"``.
    """
    path: list[tuple[int, str]] = []
    sections: list[Section] = []
    for found in _HEADING.finditer(text):
        if found["fence"] is not None:
            continue
        level = len(found["level"])
        path = [*((depth, title) for depth, title in path if depth < level), (level, found["title"])]
        sections.append(Section(found.start(), {"heading": " > ".join(title for _, title in path)}))
    return sections
