"""Asking a database in words: embedding models and the corpus that the project ships."""

from vectordb_client.rag.embedding import Embedder, MiniLM

__all__ = ["Embedder", "MiniLM"]
