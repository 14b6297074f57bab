"""Prompts: versioned templates, filled in a sandbox, with as many passages as the model has room for.

A template's text cannot be reached by what it is filled with: jinja2's immutable sandbox renders it, retrieved text is
made neutral first (:mod:`~vectordb_client.rag.fence`) and stands between two lines that it cannot contain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

from vectordb.errors import InvalidArgument, ResourceExhausted, VectorDBError
from vectordb_client.rag.arguments import whole
from vectordb_client.rag.chunking.sentences import sentence_spans
from vectordb_client.rag.extras import load
from vectordb_client.rag.fence import mark_for, neutralised
from vectordb_client.rag.llm.base import LLM, Message, Role
from vectordb_client.rag.types import Passage

NO_ANSWER = "I cannot answer that from the passages."
"""What the templates tell the model to say when the passages do not answer."""

_TURN_TOKENS = 8
"""What a chat template adds to a message, from above."""
_PREAMBLE_TOKENS = 32
"""What it puts before them: some add a system message of their own where there is none."""


@dataclass(frozen=True)
class PromptTemplate:
    """A system and a user message as jinja2 templates. Immutable and hashable; thread-safe.

    They see ``question``, ``passages`` (with ``number`` and ``text``, neutral already), ``mark`` (the fence's word) and
    ``no_answer``. A name that is none of these is an error, not an empty string.

    Attributes:
        version: Raise it with every change of the wording: it is kept in each answer, with the hash.
    """

    name: str
    version: int
    system: str
    user: str

    @cached_property
    def hash(self) -> str:
        """What tells two wordings apart: 16 hexadecimal digits of BLAKE2b."""
        return blake2b(f"{self.system}\0{self.user}".encode(), digest_size=8).hexdigest()

    @cached_property
    def _compiled(self) -> tuple[Any, Any]:
        sandbox = load("jinja2.sandbox", "llm", "filling a prompt")
        undefined = load("jinja2", "llm", "filling a prompt").StrictUndefined
        environment = sandbox.ImmutableSandboxedEnvironment(undefined=undefined, autoescape=False, trim_blocks=True)
        return environment.from_string(self.system), environment.from_string(self.user)

    def messages(self, **values: Any) -> tuple[Message, ...]:
        """The filled template; an empty system message is left out.

        Raises:
            InvalidArgument: The template uses a name that is not there, or does what the sandbox forbids.
        """
        try:
            system, user = (part.render(**values).strip() for part in self._compiled)
        except VectorDBError:
            raise
        except Exception as error:  # of jinja2, or what an expression of the template raises
            raise InvalidArgument(f"prompt template {self.name!r}: {error}", field="template") from error
        turns = (Message(Role.SYSTEM, system), Message(Role.USER, user))
        return tuple(turn for turn in turns if turn.content)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the model.

    Attributes:
        template, hash: Name with version, and hash of the template.
        mark: The fence's word; empty where nothing is fenced.
        shown: How many passages, from the first on, found room.
        tokens: Of all messages, exact or from above.
        neutralised: Places of the passages and the question that were changed to fence them.
        cut: The only passage shown had to be shortened.
    """

    messages: tuple[Message, ...]
    template: str
    hash: str
    mark: str
    shown: int
    tokens: int
    neutralised: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Slot:
    """A passage as templates see it."""

    number: int
    text: str


def build(
    template: PromptTemplate, question: str, passages: Sequence[Passage], llm: LLM, *, max_tokens: int, seed: int | None
) -> Prompt:
    """The prompt with as many of the passages, best first, as fit beside ``max_tokens`` of answer.

    Passages keep their numbers: the n-th is ``[n]``. One that is too long for the model all by itself is cut at the end
        of a
    sentence.

    Raises:
        ResourceExhausted: Not even the question has room.
        InvalidArgument: The model's ``context_tokens`` is no whole number.
    """
    room = whole("context_tokens", llm.context_tokens, 1) - max_tokens
    asked, changes = neutralised(question)
    slots: list[Slot] = []
    for number, passage in enumerate(passages, 1):
        text, count = neutralised(passage.text)
        slots.append(Slot(number, text))
        changes += count
    mark = mark_for([asked, *(slot.text for slot in slots)], seed) if slots else ""
    fixed = {"question": asked, "mark": mark, "no_answer": NO_ANSWER}

    def filled(shown: Sequence[Slot]) -> Prompt:
        messages = template.messages(passages=shown, **fixed)
        tokens = _PREAMBLE_TOKENS + sum(llm.count_tokens(message.content) + _TURN_TOKENS for message in messages)
        name = f"{template.name}@{template.version}"
        return Prompt(messages, name, template.hash, mark, len(shown), tokens, changes)

    bare = filled(())
    if bare.tokens > room:
        raise ResourceExhausted(
            f"the question and its instructions have {bare.tokens} tokens and the answer {max_tokens}; "
            f"{llm.name!r} takes {llm.context_tokens} in all",
            limit=llm.context_tokens,
            got=bare.tokens + max_tokens,
        )
    # Token counts add up to within a few, so the last word has the whole prompt.
    used, count = bare.tokens, 0
    for slot in slots:
        used += llm.count_tokens(slot.text) + _TURN_TOKENS
        if used > room:
            break
        count += 1
    while count > 0:
        prompt = filled(slots[:count])
        if prompt.tokens <= room:
            return prompt
        count -= 1
    if not slots:
        return bare
    return _cut(slots[0], room, filled)


def _cut(slot: Slot, room: int, filled: Any) -> Prompt:
    """The prompt with the beginning of one passage: as many of its sentences as fit, in a few halvings."""
    ends = [span.end for span in sentence_spans(slot.text)]
    low, high, best = 0, len(ends) - 1, filled(())
    while low <= high:
        middle = (low + high) // 2
        prompt = filled((Slot(slot.number, slot.text[: ends[middle]]),))
        if prompt.tokens <= room:
            best, low = replace(prompt, cut=True), middle + 1
        else:
            high = middle - 1
    return best  # type: ignore[no-any-return]
