"""Asking a database in words: documents in, passages and answers out."""

from vectordb_client.rag.chunking import (
    Chunker,
    HeadingChunker,
    SemanticChunker,
    SentenceChunker,
    TokenChunker,
    WholeDocument,
)
from vectordb_client.rag.embedding import (
    CachedEmbedder,
    Embedder,
    FunctionEmbedder,
    MiniLM,
    OpenAIEmbedder,
    SentenceTransformerEmbedder,
)
from vectordb_client.rag.knowledge_base import KnowledgeBase
from vectordb_client.rag.report import AddReport, Failure
from vectordb_client.rag.rerank import CrossEncoderReranker, Reranker
from vectordb_client.rag.types import Answer, Chunk, Citation, Document, Passage, Section

__all__ = [
    "AddReport",
    "Answer",
    "CachedEmbedder",
    "Chunk",
    "Chunker",
    "Citation",
    "CrossEncoderReranker",
    "Document",
    "Embedder",
    "Failure",
    "FunctionEmbedder",
    "HeadingChunker",
    "KnowledgeBase",
    "MiniLM",
    "OpenAIEmbedder",
    "Passage",
    "Reranker",
    "Section",
    "SemanticChunker",
    "SentenceChunker",
    "SentenceTransformerEmbedder",
    "TokenChunker",
    "WholeDocument",
]
