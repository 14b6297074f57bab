"""Embedding models: the seam :class:`Embedder` and the models behind it, loaded when they are asked for."""

from vectordb_client.rag.embedding.base import Embedder
from vectordb_client.rag.embedding.minilm import MiniLM

__all__ = ["Embedder", "MiniLM"]
