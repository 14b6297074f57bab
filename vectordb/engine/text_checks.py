"""What can be wrong with the keyword half of a search: its texts, and how they are fused with vectors."""

from __future__ import annotations

import math

from vectordb.errors import InvalidArgument
from vectordb.requests import Fusion, Rrf, SearchRequest

MAX_QUERY_TEXT = 65_536
"""Characters of one query's text."""
MOST_WEIGHT = 1e30
"""Of a leg of a hybrid search: fused scores are rounded to single precision, which must hold them."""


def check_texts(request: SearchRequest) -> None:
    """Checks the texts of a search, that they go with its vectors, and its fusion.

    Raises:
        InvalidArgument: ``field`` is ``text``, ``fusion`` or ``vectors``.
    """
    texts, fusion = request.texts, request.fusion
    if fusion is not None and not texts:
        raise InvalidArgument("fusion joins vector and keyword search; give text too, or no fusion", field="fusion")
    if fusion is not None and request.vectors is None:
        raise InvalidArgument("fusion joins vector and keyword search; give a vector too, or no fusion", field="fusion")
    if request.vectors is None and not texts:
        raise InvalidArgument("a search needs vectors, texts, or both", field="vectors")
    if request.vectors is not None and len(texts) != len(request.vectors):
        raise InvalidArgument(
            f"the search has {len(request.vectors)} vectors and {len(texts)} texts; give one text a vector",
            field="text",
        )
    for row, text in enumerate(texts):
        _check_text(text, row)
    if fusion is not None:
        _check_fusion(fusion)


def _check_text(text: object, row: int) -> None:
    try:
        if not isinstance(text, str):
            raise TypeError
        text.encode()
    except (TypeError, UnicodeEncodeError):
        raise InvalidArgument(f"text in row {row} is no text in UTF-8: {text!r:.60}", field="text", row=row) from None
    if not text.strip():
        raise InvalidArgument(f"text in row {row} is empty; give words to search for", field="text", row=row)
    if len(text) > MAX_QUERY_TEXT:
        raise InvalidArgument(
            f"text in row {row} has {len(text)} characters, at most {MAX_QUERY_TEXT} are allowed", field="text", row=row
        )


def _check_fusion(fusion: Fusion) -> None:
    if isinstance(fusion, Rrf):
        if not (math.isfinite(fusion.k) and fusion.k > 0):
            raise InvalidArgument(f"fusion: k of 'rrf' is a number above 0, got {fusion.k!r}", field="fusion")
        return
    weights = fusion.weights
    if len(weights) != 2 or not all(0 <= w <= MOST_WEIGHT for w in weights) or not any(weights):
        raise InvalidArgument(
            "fusion: 'weights' are two numbers, for vectors and for texts, not negative, not both 0 and at most "
            f"{MOST_WEIGHT:g}; got {list(weights)}",
            field="fusion",
        )
