"""From documents to chunks: strategies behind one seam, to choose from and to compare."""

from vectordb_client.rag.chunking.base import Chunker
from vectordb_client.rag.chunking.strategies import (
    HeadingChunker,
    SemanticChunker,
    SentenceChunker,
    TokenChunker,
    WholeDocument,
)

__all__ = ["Chunker", "HeadingChunker", "SemanticChunker", "SentenceChunker", "TokenChunker", "WholeDocument"]
