"""An embedding model that needs no weights: words hashed to signed places, so that texts that share words are similar.

For tests that are about the way of documents, not about meaning; loaded by ``conftest.py`` and by scripts.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np

from vectordb_client.rag import FunctionEmbedder

_WORD = re.compile(r"\w+")


def hashing_embedder(dim: int = 64, *, name: str = "hashing", max_tokens: int | None = 4096, seed: int = 0) -> Any:
    """Words to vectors of unit length; ``.calls`` counts the texts that it embedded as documents.

    Source: Weinberger et al. 2009 (feature hashing).
    """

    def embed(texts: list[str]) -> np.ndarray:
        vectors = np.full((len(texts), dim), 1e-6, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in _WORD.findall(text.lower()):
                digest = zlib.crc32(word.encode(), seed)
                vectors[row, digest % dim] += 1.0 if digest & (1 << 30) else -1.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def counted(texts: list[str]) -> np.ndarray:
        model.calls += len(texts)
        return embed(texts)

    model: Any = FunctionEmbedder(counted, embed, name=name, dim=dim, max_tokens=max_tokens)
    model.calls = 0
    return model
