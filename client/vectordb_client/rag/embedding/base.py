"""What turns text into vectors: the seams between the RAG layer and any embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@runtime_checkable
class Embedder(Protocol):
    """An embedding model. Implementations are thread-safe and deterministic: one text, one vector.

    An embedder that knows its tokens is a :class:`Tokens` too; chunks then fit the model to the token. One that
    recommends a threshold has a ``min_score``: the cosine similarity below which a passage hardly answers a question.

    Attributes:
        name: The model's name, such as ``all-MiniLM-L6-v2-int8``.
        revision: What tells two versions of the weights apart, such as a prefix of their SHA-256. Vectors of another
            name or revision must not be compared with each other.
        dim: Length of every vector.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def dim(self) -> int: ...

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts that are searched, in their order: float32[n, dim].

        A model that may have to be waited for can take ``timeout: float | None = None``, here and below: the seconds
        that are left.
        """
        ...

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts to search with, in their order: float32[n, dim]. Many models prefix them differently."""
        ...


@runtime_checkable
class Tokens(Protocol):
    """Where the tokens of a text lie: what chunkers measure with. Thread-safe.

    Attributes:
        max_tokens: Tokens of a text that one vector can stand for, markers and prompt not counted; ``None`` for no
            limit.
    """

    @property
    def max_tokens(self) -> int | None: ...

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """The spans of all tokens in characters, in ascending order: int64[n, 2]. Nothing is cut off."""
        ...
