"""Any endpoint that speaks the OpenAI chat protocol: a cloud, vLLM, Ollama, llama.cpp, LM Studio."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vectordb.arguments import flag
from vectordb.errors import InvalidArgument, Unavailable, VectorDBError
from vectordb_client.rag.arguments import number, whole
from vectordb_client.rag.extras import load
from vectordb_client.rag.llm.base import Completion, Delta, Message, Usage, estimated_tokens
from vectordb_client.rag.llm.failures import broke_off, out_of_time, translated
from vectordb_client.rag.llm.pump import Pump
from vectordb_client.transport.retry import Clock, RetryPolicy

DEFAULT_TIMEOUT = 60.0


class OpenAICompatible:
    """A model behind an OpenAI-compatible endpoint, through the ``openai`` package. Thread-safe.

    Every call is streamed, so that its time is bounded as a whole: an endpoint that drips one token after another is
    cut off at ``timeout`` too. Calls that failed before anything was shown are repeated within their time, with
    backoff, as the endpoint's ``Retry-After`` asks.

    Args:
        model: The model's name at the endpoint.
        base_url: Such as ``http://localhost:11434/v1`` (Ollama); by default ``OPENAI_BASE_URL`` or OpenAI's own.
        api_key: By default ``OPENAI_API_KEY``; local servers take any.
        timeout: Default seconds of a call, retries included.
        retries: How often a failed call is repeated.
        options: ``context_tokens`` (8192 unless told), ``usage`` (``False`` for old servers that know no
            ``stream_options``), ``extra`` (a dict added to every request's body).

    Raises:
        FailedPrecondition: The extra ``llm`` is not installed.
        InvalidArgument: An option is unknown or out of range.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = 2,
        **options: Any,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidArgument(f"model is a string that is not empty, got {model!r:.60}", field="model")
        self._context = whole("context_tokens", options.pop("context_tokens", 8192), 1)
        self._usage = flag(options.pop("usage", True), "usage")
        extra: Any = options.pop("extra", {})
        if not isinstance(extra, Mapping):
            raise InvalidArgument(f"extra is a mapping, got {extra!r:.60}", field="extra")
        self._extra = dict(extra)
        if options:
            known = "context_tokens, usage, extra"
            raise InvalidArgument(f"unknown option {min(options)!r}; known are {known}", field=min(options))
        self._timeout = number("timeout", timeout, "is seconds greater than 0", math.ulp(0.0))
        self._policy = RetryPolicy(whole("retries", retries, 0))
        self._openai = load("openai", "llm", "an OpenAI-compatible language model")
        key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
        # Repeating is done here: the package's own retries know nothing of a call's whole time.
        self._client = self._openai.OpenAI(base_url=base_url, api_key=key, max_retries=0)
        self._model = model

    @property
    def name(self) -> str:
        return self._model

    @property
    def context_tokens(self) -> int:
        return self._context

    @property
    def address(self) -> str:
        """The endpoint's URL."""
        return str(self._client.base_url)

    def count_tokens(self, text: str) -> int:
        """Estimated from above: the endpoint's tokenizer is not known."""
        return estimated_tokens(text)

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
        """The whole answer; also a call that broke off in the middle is repeated. Errors as :class:`LLM` says."""
        body = self._body(messages, max_tokens, temperature, seed, stop)
        clock = Clock(self._timeout if timeout is None else timeout)
        attempt = 0
        while True:
            try:
                for delta in self._attempt(body, clock):
                    if delta.completion is not None:
                        return delta.completion
                raise Unavailable(f"{self._model!r} at {self.address} answered nothing", endpoint=self.address)
            except VectorDBError as error:
                attempt += 1
                self._wait(error, attempt, clock)

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
        """The answer in pieces; nothing is repeated once a piece was given. Errors as :class:`LLM` says."""
        body = self._body(messages, max_tokens, temperature, seed, stop)
        clock = Clock(self._timeout if timeout is None else timeout)
        attempt, shown = 0, False
        while True:
            try:
                for delta in self._attempt(body, clock):
                    shown = True
                    yield delta
                return
            except VectorDBError as error:
                if shown:
                    raise
                attempt += 1
                self._wait(error, attempt, clock)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _body(
        self, messages: Sequence[Message], max_tokens: int, temperature: float, seed: int | None, stop: Sequence[str]
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [message.as_dict() for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stream": True,
        }
        if self._usage:
            body["stream_options"] = {"include_usage": True}
        if seed is not None:
            body["seed"] = seed
        if stop:
            body["stop"] = list(stop)
        if self._extra:
            body["extra_body"] = self._extra
        return body

    def _wait(self, error: VectorDBError, attempt: int, clock: Clock) -> None:
        """Sleeps before the next attempt, or raises the error that ends the call."""
        wait = self._policy.delay(error, attempt, idempotent=True, clock=clock)
        if wait is None:
            raise error
        time.sleep(wait)

    def _attempt(self, body: dict[str, Any], clock: Clock) -> Iterator[Delta]:
        """One request: its pieces, the last with the completion."""
        parts: list[str] = []
        model, reason, usage, details = self._model, None, Usage(), dict[str, Any]()
        try:
            with Pump(lambda: self._client.chat.completions.create(**body, timeout=clock.remaining())) as pump:
                for chunk in pump.items(clock):
                    model = chunk.model or model
                    if chunk.usage is not None:
                        usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                    if getattr(chunk, "system_fingerprint", None):
                        details["system_fingerprint"] = chunk.system_fingerprint
                    for choice in chunk.choices[:1]:
                        reason = choice.finish_reason or reason
                        if choice.delta is not None and choice.delta.content:
                            parts.append(choice.delta.content)
                            yield Delta(choice.delta.content)
        except TimeoutError:
            raise out_of_time(self._model, self.address, clock.timeout, "".join(parts)) from None
        except VectorDBError:
            raise
        except GeneratorExit:
            raise
        except Exception as error:
            raise translated(self._openai, error, self._model, self.address, "".join(parts), clock.timeout) from error
        if reason is None:
            # A stream that just ends looks like a finished one; only the reason tells them apart.
            raise broke_off(self._model, self.address, "".join(parts))
        yield Delta("", Completion("".join(parts), model, reason, usage, details))
