"""Counting tokens: with the model's own tokenizer, or, where nobody knows it, with pieces that bound it from above."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb_client.rag.embedding.base import Embedder, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIECE_BYTES = 4
"""UTF-8 bytes of the longest piece."""

_STRIDE = 1 << 16
_PIECE = re.compile(r" ?[A-Za-z0-9]{1,3}|[ \t\n\r\f\v]{1,4}|.", re.DOTALL)


class Pieces:
    """Tokens of an unknown tokenizer, estimated: pieces of at most four bytes that cover the whole text.

    Tokenizers of the byte-pair, WordPiece and unigram kinds make at most one token of a byte. So a text of at most
    ``max_tokens / 4`` pieces is never cut. English has about 1.8 pieces a word, where byte-pair encodings have 1.3
    tokens.

    Args:
        max_tokens: The model's limit in its own tokens, or ``None`` where it has none.
    """

    def __init__(self, max_tokens: int | None) -> None:
        self._max_tokens = None if max_tokens is None else max(1, max_tokens // PIECE_BYTES)

    @property
    def max_tokens(self) -> int | None:
        """The limit in pieces."""
        return self._max_tokens

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """The spans of all pieces: int64[n, 2]."""
        ends = np.fromiter((found.end() for found in _PIECE.finditer(text)), dtype=np.int64)
        return np.stack([np.concatenate([[0], ends[:-1]]) if len(ends) else ends, ends], axis=1)


def tokens_of(embedder: Embedder) -> Tokens:
    """The embedder's own tokens where it knows them, else pieces without a limit."""
    return embedder if isinstance(embedder, Tokens) else Pieces(None)


def tokenizer_spans(tokenizer: Any, text: str) -> NDArray[np.int64]:
    """Spans by a ``tokenizers.Tokenizer`` without truncation and markers, long texts in stretches: int64[n, 2].

    A stretch ends at white space wherever there is any, so that no word is cut and no text, however long, needs more
    than a few megabytes.
    """
    parts: list[NDArray[np.int64]] = []
    start = 0
    while start < len(text):
        end = min(start + _STRIDE, len(text))
        if end < len(text):
            end = max(text.rfind(" ", start, end), text.rfind("\n", start, end), start) + 1
            end = end if end > start + 1 else start + _STRIDE
        spans = _spans(tokenizer.encode(text[start:end], add_special_tokens=False).offsets)
        parts.append(spans[spans[:, 1] > spans[:, 0]] + start)
        start = end
    return np.concatenate(parts) if parts else _spans([])


def _spans(pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
