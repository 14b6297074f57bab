"""The seam of chunkers, and what every strategy ends with: spans that fit the model become chunks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from vectordb.errors import InvalidArgument
from vectordb_client.rag.arguments import whole
from vectordb_client.rag.types import Chunk, Document

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb_client.rag.embedding.base import Tokens

DEFAULT_SIZE = 200
"""Tokens of a chunk unless told otherwise, or unless the model's limit is lower."""

_SPACE = np.array([code for code in range(0x3001) if chr(code).isspace()], dtype=np.uint32)


class Span(NamedTuple):
    """A stretch of a text, in characters."""

    start: int
    end: int


@runtime_checkable
class Chunker(Protocol):
    """A strategy. Implementations are deterministic, thread-safe and hold no document.

    Attributes:
        name: The strategy with its settings, such as ``tokens(size=200, overlap=25)``. Documents that were chunked
            under another name are chunked again when they are added again.
    """

    @property
    def name(self) -> str: ...

    def chunk(self, document: Document, tokens: Tokens) -> list[Chunk]:
        """The document's chunks in order; none of more than ``tokens.max_tokens``, unless the strategy says so.

        Every chunk's text is ``document.text[start:end]``. A document of white space has none.

        Raises:
            InvalidArgument: The strategy cannot chunk this document.
        """
        ...


def size_for(size: int | None, tokens: Tokens) -> int:
    """Tokens of a chunk: what was asked for, never more than the model takes."""
    limit = tokens.max_tokens
    wanted = DEFAULT_SIZE if size is None else size
    return wanted if limit is None else min(wanted, limit)


def checked_size(size: int | None, overlap: int = 0) -> None:
    """Checks a strategy's settings.

    Raises:
        InvalidArgument: The size is below 1, or the overlap negative or more than half the size, or no whole number.
    """
    if size is not None:
        whole("size", size, 1)
    if whole("overlap", overlap) < 0 or (size is not None and 2 * overlap > size):
        raise InvalidArgument(
            f"overlap is in tokens, from 0 to half of size, got {overlap} with size {size}", field="overlap"
        )


def chunks_of(document: Document, spans: Iterable[Span]) -> list[Chunk]:
    """Chunks over these spans, white space at both ends left out, with the metadata of the sections they begin in."""
    text, found = document.text, list[Chunk]()
    starts = [section.start for section in document.sections]
    for span in spans:
        trimmed = trim(text, span)
        if trimmed.start >= trimmed.end:
            continue
        metadata = dict(document.metadata)
        if place := bisect_right(starts, trimmed.start):
            metadata |= document.sections[place - 1].metadata
        found.append(Chunk(document.id, len(found), *trimmed, text[trimmed.start : trimmed.end], metadata))
    return found


def trim(text: str, span: Span) -> Span:
    """The span without white space at its ends; empty where there is nothing else."""
    start, end = span
    stretch = text[start:end]
    return Span(start + len(stretch) - len(stretch.lstrip()), start + len(stretch.rstrip()))


def fitting(text: str, spans: Iterable[Span], size: int, tokens: Tokens) -> Iterator[Span]:
    """The spans, each of more than ``size`` tokens cut into pieces that are not.

    A stretch is counted as the model will see it, alone: its token count may differ by a few from its share of the
    whole text's.
    """
    for span in spans:
        found = tokens.token_spans(text[span.start : span.end])
        if len(found) <= size:
            yield span
            continue
        for piece in windows(text, span, found + span.start, size, 0):
            if span.end - span.start == piece.end - piece.start:
                yield from _halves(text, piece, size, tokens)
            else:
                yield from fitting(text, (piece,), size, tokens)


def _halves(text: str, span: Span, size: int, tokens: Tokens) -> Iterator[Span]:
    """Halving by characters: the way out where a tokenizer makes more tokens of a piece than of the text around it."""
    middle = (span.start + span.end) // 2
    if middle in span:
        yield span
        return
    for half in (Span(span.start, middle), Span(middle, span.end)):
        if len(tokens.token_spans(text[half.start : half.end])) <= size:
            yield half
        else:
            yield from _halves(text, half, size, tokens)


def windows(text: str, within: Span, spans: NDArray[np.int64], size: int, overlap: int) -> Iterator[Span]:
    """Stretches of ``size`` tokens, each beginning ``overlap`` tokens before the end of the one before it.

    Together they hold all of ``within``, also what is no token's at its ends, such as an accent of its own. A stretch
    ends before a word rather than inside it, where one begins in its last quarter; likewise its beginning is moved on
    to that of a word.
    """
    starts, count = spans[:, 0], len(spans)
    # Of the stretch alone: of a long text without words many are cut again, each in a call of its own.
    stretch = text[within.start : within.end].encode("utf-32-le", "surrogatepass")
    space = np.isin(np.frombuffer(stretch, dtype=np.uint32), _SPACE)
    places = starts - within.start
    opens = space[places] | space[places - 1] | (places == 0)
    first = 0
    while first < count:
        last = min(first + size, count)
        if last < count:
            words = np.flatnonzero(opens[last - size // 4 : last + 1])
            last = last - size // 4 + int(words[-1]) if len(words) else last
        yield Span(int(starts[first]) if first else within.start, int(starts[last]) if last < count else within.end)
        if last >= count:
            return
        following = max(last - overlap, first + 1)
        words = np.flatnonzero(opens[following : last + 1])
        first = following + int(words[0]) if len(words) else last
