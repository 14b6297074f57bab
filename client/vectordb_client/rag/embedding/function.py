"""A plain function as an embedding model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vectordb.errors import InvalidArgument
from vectordb_client.rag.arguments import number, whole
from vectordb_client.rag.embedding.tokens import Pieces
from vectordb_client.rag.embedding.vectors import vectors_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Embed = Callable[[list[str]], Any]
"""From a list of n texts to anything that numpy turns into float32[n, dim]: a row of numbers a text."""


class FunctionEmbedder:
    """Any callable that turns a list of texts into vectors. As thread-safe as the callable.

    Args:
        documents: Embeds texts that are searched.
        queries: Embeds texts to search with; by default the same.
        name, revision: Tell models apart; change the revision with the weights.
        dim: Length of the vectors; by default found out by embedding one text.
        max_tokens: What the model takes, where it has a limit: chunks are made to fit.
        tokenizer: From a text to the spans of its tokens, int64[n, 2]; without it tokens are estimated from above.
        min_score: The similarity below which a passage hardly answers.

    Raises:
        InvalidArgument: A function cannot be called, the name is empty, or a number out of range; later, where a
            function returns something else than vectors.
    """

    def __init__(
        self,
        documents: Embed,
        queries: Embed | None = None,
        *,
        name: str,
        revision: str = "",
        dim: int | None = None,
        max_tokens: int | None = None,
        tokenizer: Callable[[str], NDArray[np.int64]] | None = None,
        min_score: float | None = None,
    ) -> None:
        for field, function in (("documents", documents), ("queries", queries), ("tokenizer", tokenizer)):
            if not callable(function) and (function is not None or field == "documents"):
                raise InvalidArgument(f"{field} is a function, got {function!r:.60}", field=field)
        if not isinstance(name, str) or not name:
            raise InvalidArgument(f"name is a string that is not empty, got {name!r:.60}", field="name")
        if not isinstance(revision, str):
            raise InvalidArgument(f"revision is a string, got {revision!r:.60}", field="revision")
        dim, max_tokens = (
            None if value is None else whole(field, value, 1)
            for field, value in (("dim", dim), ("max_tokens", max_tokens))
        )
        if min_score is not None:
            min_score = number("min_score", min_score, "is a number, a cosine similarity")
        self._documents, self._queries = documents, queries if queries is not None else documents
        self.name, self.revision, self.min_score = name, revision, min_score
        self._dim = dim
        self._tokenizer = tokenizer
        self._pieces = Pieces(max_tokens)
        self._max_tokens = max_tokens if tokenizer is not None else self._pieces.max_tokens

    @property
    def dim(self) -> int:
        if self._dim is None:
            self._dim = vectors_of(self._documents(["dimension"]), 1, self.name).shape[1]
        return self._dim

    @property
    def max_tokens(self) -> int | None:
        return self._max_tokens

    def token_spans(self, text: str) -> NDArray[np.int64]:
        return self._pieces.token_spans(text) if self._tokenizer is None else self._tokenizer(text)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return vectors_of(self._documents(list(texts)), len(texts), self.name)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return vectors_of(self._queries(list(texts)), len(texts), self.name)
