"""Language models: the seam :class:`LLM` and the models behind it, loaded when they are asked for."""

from vectordb_client.rag.llm.base import LLM, Completion, Delta, Message, Role, Usage
from vectordb_client.rag.llm.function import FunctionLLM
from vectordb_client.rag.llm.llama_cpp import LlamaCpp
from vectordb_client.rag.llm.openai_compatible import OpenAICompatible
from vectordb_client.rag.llm.transformers_pipeline import TransformersPipeline

__all__ = [
    "LLM",
    "Completion",
    "Delta",
    "FunctionLLM",
    "LlamaCpp",
    "Message",
    "OpenAICompatible",
    "Role",
    "TransformersPipeline",
    "Usage",
]
