"""A plain function as an embedding model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb_client.rag.embedding.tokens import Pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

Embed = Callable[[list[str]], Any]
"""From texts to anything that numpy turns into float32[n, dim]."""


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
        self._documents, self._queries = documents, queries if queries is not None else documents
        self.name, self.revision, self.min_score = name, revision, min_score
        self._dim = dim
        self._tokenizer = tokenizer
        self._pieces = Pieces(max_tokens)
        self._max_tokens = max_tokens if tokenizer is not None else self._pieces.max_tokens

    @property
    def dim(self) -> int:
        if self._dim is None:
            self._dim = int(np.asarray(self._documents(["dimension"])).shape[-1])
        return self._dim

    @property
    def max_tokens(self) -> int | None:
        return self._max_tokens

    def token_spans(self, text: str) -> NDArray[np.int64]:
        return self._pieces.token_spans(text) if self._tokenizer is None else self._tokenizer(text)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(self._documents(list(texts)), dtype=np.float32).reshape(len(texts), -1)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(self._queries(list(texts)), dtype=np.float32).reshape(len(texts), -1)
