"""Calling a language model that anybody may have written: in time, of the right type, failing with typed errors."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

from vectordb.errors import DeadlineExceeded, InvalidArgument, Unavailable, VectorDBError
from vectordb_client.rag.llm.base import LLM, Completion, Delta, Message
from vectordb_client.transport.retry import Clock

_END = object()


def completed(llm: LLM, messages: Sequence[Message], clock: Clock, **sampling: Any) -> Completion:
    """The whole answer.

    Raises:
        InvalidArgument: What it returned is no completion.
        DeadlineExceeded: The time was over when it returned.
        Unavailable: It raised what is no error of this library; that is the cause.
    """
    with _failing(llm, clock, []):
        found: Any = llm.complete(messages, **sampling, timeout=clock.remaining())
    if not isinstance(found, Completion) or not isinstance(found.text, str):
        wanted = "a Completion(text, model, finish_reason) with a string as its text"
        _wrong(llm, "complete", found, wanted)
    if clock.remaining() == 0.0:
        raise _late(llm, clock, found.text)
    return replace(found, text=_whole(found.text))


def streamed(llm: LLM, messages: Sequence[Message], clock: Clock, **sampling: Any) -> Generator[Delta, None, None]:
    """The answer in pieces; closing the iterator closes the model's. Errors as :func:`completed`, between pieces."""
    came: list[str] = []
    with contextlib.ExitStack() as stack:
        with _failing(llm, clock, came):
            stream: Any = llm.stream(messages, **sampling, timeout=clock.remaining())
        if not isinstance(stream, Iterable) or isinstance(stream, str):
            _wrong(llm, "stream", stream, "an iterator of Delta(text)")
        if hasattr(stream, "close"):
            stack.callback(stream.close)
        pieces = iter(stream)
        while True:
            with _failing(llm, clock, came):
                delta: Any = next(pieces, _END)
            if delta is _END:
                return
            if not isinstance(delta, Delta) or not isinstance(delta.text, str):
                _wrong(llm, "stream", delta, "an iterator of Delta(text)", "yielded")
            done: Any = delta.completion
            if done is not None and not (isinstance(done, Completion) and isinstance(done.text, str)):
                _wrong(llm, "stream", done, "a Completion with a string as its text in its last Delta", "gave")
            came.append(delta.text)
            if clock.remaining() == 0.0:
                raise _late(llm, clock, "".join(came))
            yield Delta(_whole(delta.text), None if done is None else replace(done, text=_whole(done.text)))


def _whole(text: str) -> str:
    """The text with U+FFFD for each half of a character: no store and no terminal takes those."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@contextmanager
def _failing(llm: LLM, clock: Clock, came: list[str]) -> Iterator[None]:
    try:
        yield
    except VectorDBError:
        raise
    except TimeoutError as error:
        raise _late(llm, clock, "".join(came)) from error
    except Exception as error:
        raise Unavailable(
            f"language model {llm.name!r} failed: {type(error).__name__}: {error}; ask again, or mend the model",
            model=llm.name,
            partial="".join(came),
        ) from error


def _late(llm: LLM, clock: Clock, text: str) -> DeadlineExceeded:
    allowed = "its time" if clock.timeout is None else f"{clock.timeout} s"
    return DeadlineExceeded(
        f"language model {llm.name!r} did not finish within {allowed} ({len(text)} characters came); give it a longer "
        "timeout or fewer max_tokens",
        timeout=clock.timeout,
        model=llm.name,
        partial=text,
    )


def _wrong(llm: LLM, method: str, found: Any, wanted: str, verb: str = "returned") -> NoReturn:
    if inspect.iscoroutine(found):
        found.close()
    shown = "a Completion without a text" if isinstance(found, Completion) else f"{type(found).__name__} {found!r:.60}"
    raise InvalidArgument(
        f"language model {llm.name!r}: {method}() {verb} {shown}; it returns {wanted}. A function from messages to a "
        "string becomes a model by FunctionLLM(fn, name=...)",
        field="llm",
        model=llm.name,
    )
