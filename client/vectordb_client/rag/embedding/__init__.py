"""Embedding models: the seam :class:`Embedder` and the models behind it, loaded when they are asked for."""

from vectordb_client.rag.embedding.base import Embedder, Tokens
from vectordb_client.rag.embedding.cache import CachedEmbedder
from vectordb_client.rag.embedding.default import default_embedder
from vectordb_client.rag.embedding.endpoint import OpenAIEmbedder
from vectordb_client.rag.embedding.function import FunctionEmbedder
from vectordb_client.rag.embedding.minilm import MiniLM
from vectordb_client.rag.embedding.sentence_transformer import SentenceTransformerEmbedder

__all__ = [
    "CachedEmbedder",
    "Embedder",
    "FunctionEmbedder",
    "MiniLM",
    "OpenAIEmbedder",
    "SentenceTransformerEmbedder",
    "Tokens",
    "default_embedder",
]
