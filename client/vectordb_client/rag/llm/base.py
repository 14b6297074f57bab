"""What writes answers: the seam between the RAG layer and any language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class Role(StrEnum):
    """Who speaks in a conversation."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """The turn as the OpenAI protocol writes it."""
        return {"role": self.role.value, "content": self.content}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the model counted them; ``None`` where it does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote.

    Attributes:
        model: The name that the endpoint gave.
        finish_reason: ``stop`` (it was done), ``length`` (``max_tokens`` were used up), ``content_filter``, ...
        details: What else the endpoint said, such as its ``system_fingerprint``.
    """

    text: str
    model: str
    finish_reason: str
    usage: Usage = Usage()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed completion. Only the last one has the ``completion``, with the whole text."""

    text: str
    completion: Completion | None = None


@runtime_checkable
class LLM(Protocol):
    """A language model that follows instructions. Implementations are thread-safe.

    Temperature 0 and one ``seed`` give one text for one conversation, as far as the model can promise it.

    Attributes:
        name: The model's name; part of an answer's configuration fingerprint.
        context_tokens: Tokens that prompt and completion may have together.

    Both calls raise:
        Unavailable: The endpoint is down, or broke off; what it wrote before is in ``error.partial``.
        DeadlineExceeded: ``timeout`` seconds are over, retries included; ``error.partial`` likewise.
        ResourceExhausted: Too many requests, or a prompt beyond the model's context.
        Unauthenticated, PermissionDenied, NotFound, InvalidArgument: The endpoint refuses key, model or request.
    """

    @property
    def name(self) -> str: ...

    @property
    def context_tokens(self) -> int: ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, exact or from above."""
        ...

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Completion:
        """The whole answer."""
        ...

    def stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Iterator[Delta]:
        """The answer in pieces as they are written; closing the iterator stops the model."""
        ...


def estimated_tokens(text: str) -> int:
    """Tokens of a text by a model whose tokenizer is not at hand: one for three bytes of UTF-8, rounded up.

    English has about four bytes a token in byte-pair encodings of 32,000 entries and more, so this is from above.
    """
    return -(-len(text.encode("utf-8", "replace")) // 3)
