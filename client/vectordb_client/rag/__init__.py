"""Asking a database in words: documents in, passages and answers out."""

from vectordb_client.rag.asking import AnswerConfig, Event
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
from vectordb_client.rag.evaluate import Evaluation, EvaluationQuestion
from vectordb_client.rag.feedback import Replay
from vectordb_client.rag.guards import Guard
from vectordb_client.rag.knowledge_base import KnowledgeBase
from vectordb_client.rag.llm import LLM, FunctionLLM, LlamaCpp, OpenAICompatible, TransformersPipeline
from vectordb_client.rag.prompt import PromptTemplate
from vectordb_client.rag.report import AddReport, Failure
from vectordb_client.rag.rerank import CrossEncoderReranker, Reranker
from vectordb_client.rag.types import Answer, Chunk, Citation, Document, Passage, Section

__all__ = [
    "AddReport",
    "Answer",
    "AnswerConfig",
    "CachedEmbedder",
    "Chunk",
    "Chunker",
    "Citation",
    "CrossEncoderReranker",
    "Document",
    "Embedder",
    "Evaluation",
    "EvaluationQuestion",
    "Event",
    "Failure",
    "FunctionEmbedder",
    "FunctionLLM",
    "Guard",
    "HeadingChunker",
    "KnowledgeBase",
    "LLM",
    "LlamaCpp",
    "MiniLM",
    "OpenAICompatible",
    "OpenAIEmbedder",
    "Passage",
    "PromptTemplate",
    "Replay",
    "Reranker",
    "Section",
    "SemanticChunker",
    "SentenceChunker",
    "SentenceTransformerEmbedder",
    "TokenChunker",
    "TransformersPipeline",
    "WholeDocument",
]
