"""Checks of the parts that a knowledge base is made of, when it is made: not of a question an hour later."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from vectordb.api import Database
from vectordb.errors import InvalidArgument
from vectordb_client.rag.asking import AnswerConfig, Options
from vectordb_client.rag.guards import Guard
from vectordb_client.rag.telemetry import Telemetry

_EMBEDDER = ("name", "revision", "dim", "embed_documents", "embed_queries")
_LLM = ("name", "context_tokens", "count_tokens", "complete", "stream")
_CHUNKER = ("name", "chunk")
_RERANKER = ("name", "scores")
_DECIDED = {
    "metric": "a knowledge base compares by cosine: leave it out",
    "dim": "it is the embedder's: leave it out",
    "name": "it is the knowledge base's: leave it out",
    "exist_ok": "what is there is opened always: leave it out",
}
_JUDGE = ("name", "threshold", "scores")


def check_database(db: Any) -> None:
    """Raises InvalidArgument where it is no database."""
    if not isinstance(db, Database):
        _refuse("db", db, 'is what connect() returns: KnowledgeBase(connect("./data"), ...)')


def check_config(config: Any) -> None:
    """Raises InvalidArgument where it is no mapping, or has what the knowledge base decides by itself."""
    if not isinstance(config, Mapping):
        raise InvalidArgument(f'config is a mapping, such as {{"index": "hnsw"}}, got {config!r:.60}', field="config")
    for name, why in _DECIDED.items():
        # All scores and thresholds are cosine similarities: by a distance the best passages would be the last.
        if name in config and not (name == "metric" and config[name] == "cosine"):
            raise InvalidArgument(f"config has {name!r}; {why}", field="config")


def check_embedder(embedder: Any, name: str = "embedder") -> None:
    """Raises InvalidArgument where it is no embedding model. Nothing is loaded."""
    _check(name, embedder, _EMBEDDER, "is a model such as MiniLM(), or a function as FunctionEmbedder(fn, name=...)")


def check_llm(llm: Any) -> None:
    """Raises InvalidArgument where it is no language model."""
    wanted = "is a model such as OpenAICompatible(model, base_url=...), or a function as FunctionLLM(fn, name=...)"
    _check("llm", llm, _LLM, wanted)


def check_chunker(chunker: Any) -> None:
    """Raises InvalidArgument where it is no chunker."""
    _check("chunker", chunker, _CHUNKER, "is a strategy such as TokenChunker()")


def check_reranker(reranker: Any) -> None:
    """Raises InvalidArgument where it is no reranker."""
    _check("reranker", reranker, _RERANKER, "is a model such as CrossEncoderReranker(model)")


def checked_guards(guards: Any) -> tuple[Guard, ...]:
    """The guards.

    Raises:
        InvalidArgument: Something in them is no guard.
    """
    if not isinstance(guards, Iterable):
        _refuse("guards", guards, "is a list of guards, such as [MaxLength()]")
    found = tuple(guards)
    for guard in found:
        if isinstance(guard, type) or not isinstance(guard, Guard):
            shown = f"the class {guard.__name__}" if isinstance(guard, type) else type(guard).__name__
            raise InvalidArgument(f"guards are objects with name, stages and check, got {shown}", field="guards")
    return found


def check_answering(config: Any) -> None:
    """Raises InvalidArgument where it is no AnswerConfig, or a part or an option of it is none."""
    if not isinstance(config, AnswerConfig):
        _refuse("answering", config, "is an AnswerConfig: AnswerConfig(keep=False)")
    for name in ("judge", "verifier"):
        if (judge := getattr(config, name)) is not None:
            _check(name, judge, _JUDGE, "is a judge such as Overlap(embedder) or LLMJudge(llm)")
    if config.telemetry is not None and not isinstance(config.telemetry, Telemetry):
        _refuse("telemetry", config.telemetry, "is a Telemetry")
    if not isinstance(config.options, Mapping):
        _refuse("options", config.options, 'is a mapping, such as {"limit": 3}')
    Options.of(config.options)


def _check(name: str, part: Any, members: tuple[str, ...], wanted: str) -> None:
    if isinstance(part, type):
        raise InvalidArgument(f"{name} is the class {part.__name__}; give one of it: {part.__name__}(...)", field=name)
    missing = [member for member in members if not _has(part, member)]
    if missing:
        _refuse(name, part, wanted, f" (it has no {', '.join(missing)})")


def _has(part: Any, member: str) -> bool:
    # A property is not asked for its value: that of an endpoint's dim is a call over the network.
    return inspect.getattr_static(part, member, None) is not None or hasattr(part, member)


def _refuse(name: str, part: Any, wanted: str, lack: str = "") -> NoReturn:
    raise InvalidArgument(f"{name} {wanted}; got {type(part).__name__} {part!r:.60}{lack}", field=name)
