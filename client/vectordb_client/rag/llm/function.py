"""A plain function as a language model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vectordb.errors import InvalidArgument
from vectordb_client.rag.arguments import whole
from vectordb_client.rag.llm.base import Completion, Delta, Message, estimated_tokens

Write = Callable[[Sequence[Message]], str]
"""From a conversation, its turns with ``role`` and ``content``, to what the model writes."""

DEFAULT_CONTEXT = 8192


class FunctionLLM:
    """Any callable that turns messages into a text. As thread-safe as the callable.

    It is not told ``max_tokens``, ``temperature``, ``seed``, ``stop`` and ``timeout``: a model that is to keep to them
    is a class with the methods of :class:`~vectordb_client.rag.llm.LLM`. What the function raises becomes
    ``Unavailable`` where it is asked, what comes too late ``DeadlineExceeded``.

    Args:
        write: From messages (``message.role``, ``message.content``, ``message.as_dict()``) to a string.
        name: Tells models apart; part of an answer's configuration fingerprint.
        context_tokens: Tokens that prompt and answer may have together.
        count_tokens: From a text to its tokens, exact or from above; without it they are estimated from above.

    Raises:
        InvalidArgument: ``write`` cannot be called, the name is empty, or ``context_tokens`` below 1.
    """

    def __init__(
        self,
        write: Write,
        *,
        name: str,
        context_tokens: int = DEFAULT_CONTEXT,
        count_tokens: Callable[[str], int] | None = None,
    ) -> None:
        for field, function in (("write", write), ("count_tokens", count_tokens or estimated_tokens)):
            if not callable(function):
                raise InvalidArgument(f"{field} is a function, got {function!r:.60}", field=field)
        if not isinstance(name, str) or not name:
            raise InvalidArgument(f"name is a string that is not empty, got {name!r:.60}", field="name")
        self._write, self.name = write, name
        self.context_tokens = whole("context_tokens", context_tokens, 1)
        self._count = count_tokens or estimated_tokens

    def count_tokens(self, text: str) -> int:
        """By the function given, else estimated from above."""
        return self._count(text)

    def complete(self, messages: Sequence[Message], **sampling: Any) -> Completion:
        """What the function writes.

        Raises:
            InvalidArgument: It returned something else than a string.
        """
        text: Any = self._write(messages)
        if not isinstance(text, str):
            if inspect.iscoroutine(text):
                text.close()
            raise InvalidArgument(
                f"the function of FunctionLLM {self.name!r} returned {type(text).__name__} {text!r:.60}; it returns a "
                "string",
                field="llm",
                model=self.name,
            )
        return Completion(text, self.name, "stop")

    def stream(self, messages: Sequence[Message], **sampling: Any) -> Iterator[Delta]:
        """What the function writes, in one piece."""
        completion = self.complete(messages)
        yield Delta(completion.text, completion)
