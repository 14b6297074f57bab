"""A model of the ``transformers`` package in this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from vectordb.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from vectordb_client.rag.extras import load
from vectordb_client.rag.llm.base import Completion, Delta, Message, Usage
from vectordb_client.transport.retry import Clock

_CONTEXT = 4096


class TransformersPipeline:
    """A chat model run by a ``text-generation`` pipeline. Thread-safe: calls take turns.

    Args:
        model: A pipeline that is there already, or the name or folder of a model to make one of; whatever else is
            given goes to ``transformers.pipeline`` (such as ``device``).
        context_tokens: Prompt and completion together; by default what the model's configuration says.
        timeout: Default seconds of a call.

    Raises:
        FailedPrecondition: A name was given and ``transformers`` is not installed.
    """

    def __init__(
        self, model: Any, *, context_tokens: int | None = None, timeout: float = 300.0, **options: Any
    ) -> None:
        if isinstance(model, str):
            transformers = load("transformers", "transformers", "a transformers pipeline")
            model = transformers.pipeline("text-generation", model=model, **options)
        self._model = model.model
        self._tokenizer = model.tokenizer
        if getattr(self._tokenizer, "chat_template", None) is None:
            raise InvalidArgument("the model has no chat template; give one that follows instructions", field="model")
        stated = getattr(self._model.config, "max_position_embeddings", None)
        self._context = context_tokens or stated or _CONTEXT
        self._timeout = timeout
        self._lock = threading.Lock()  # generation keeps its state in the model

    @property
    def name(self) -> str:
        return str(getattr(self._model.config, "_name_or_path", "") or type(self._model).__name__)

    @property
    def context_tokens(self) -> int:
        return int(self._context)

    def count_tokens(self, text: str) -> int:
        """Exact, by the model's tokenizer."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

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
        """The whole answer; errors as :class:`LLM` says."""
        for delta in self.stream(
            messages, max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stop, timeout=timeout
        ):
            if delta.completion is not None:
                return delta.completion
        raise Unavailable(f"{self.name!r} wrote nothing", model=self.name, partial="")

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
        """The answer in pieces; errors as :class:`LLM` says. Generation stops at the next token when it is left."""
        transformers = load("transformers", "transformers", "a transformers pipeline")
        clock = Clock(self._timeout if timeout is None else timeout)
        inputs = self._tokenizer.apply_chat_template(
            [message.as_dict() for message in messages],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        ).to(self._model.device)
        prompt_tokens = int(inputs["input_ids"].shape[-1])
        if prompt_tokens + max_tokens > self._context:
            raise ResourceExhausted(
                f"{self.name!r} takes {self._context} tokens, the prompt has {prompt_tokens} and max_tokens is "
                f"{max_tokens}",
                limit=self._context,
                got=prompt_tokens + max_tokens,
            )
        streamer = transformers.TextIteratorStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        stopped = threading.Event()
        arguments = {
            **inputs,
            "max_new_tokens": max_tokens,
            "do_sample": temperature > 0,
            "streamer": streamer,
            "stopping_criteria": [lambda ids, scores, **_: stopped.is_set()],
        }
        if temperature > 0:
            arguments["temperature"] = temperature
        if stop:
            arguments |= {"stop_strings": list(stop), "tokenizer": self._tokenizer}
        failures: list[Exception] = []
        thread = threading.Thread(
            target=self._generate, args=(transformers, arguments, seed, failures), name="llm-generate", daemon=True
        )
        thread.start()
        parts: list[str] = []
        try:
            yield from self._pieces(streamer, clock, parts)
        finally:
            stopped.set()
        thread.join()
        if failures:
            raise Unavailable(
                f"{self.name!r} failed after {len(''.join(parts))} characters: {failures[0]}",
                model=self.name,
                partial="".join(parts),
            ) from failures[0]
        text = "".join(parts)
        for word in stop:
            text = text.split(word)[0]
        written = self.count_tokens(text)
        reason = "length" if written >= max_tokens else "stop"
        yield Delta("", Completion(text, self.name, reason, Usage(prompt_tokens, written)))

    def _generate(
        self, transformers: Any, arguments: dict[str, Any], seed: int | None, failures: list[Exception]
    ) -> None:
        try:
            with self._lock:
                if seed is not None:
                    transformers.set_seed(seed)
                self._model.generate(**arguments)
        except Exception as error:  # handed to the caller, whatever it is
            failures.append(error)
            arguments["streamer"].end()

    def _pieces(self, streamer: Any, clock: Clock, parts: list[str]) -> Iterator[Delta]:
        while True:
            # The streamer's own iterator has one timeout for each piece; its queue can be asked with what is left.
            try:
                piece = streamer.text_queue.get(timeout=clock.remaining())
            except queue.Empty:
                raise DeadlineExceeded(
                    f"{self.name!r} did not finish within {clock.timeout} s",
                    timeout=clock.timeout,
                    model=self.name,
                    partial="".join(parts),
                ) from None
            if piece == streamer.stop_signal:
                return
            if piece:
                parts.append(piece)
                yield Delta(piece)
