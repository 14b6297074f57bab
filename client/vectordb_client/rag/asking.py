"""How a question is asked, and what comes back on the way: options, events, the wording of refusals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vectordb.arguments import flag
from vectordb.errors import InvalidArgument
from vectordb.filter import as_filter
from vectordb_client.rag.arguments import number, whole
from vectordb_client.rag.prompt import NO_ANSWER, PromptTemplate
from vectordb_client.rag.templates import ANSWER
from vectordb_client.rag.types import Answer, Passage

if TYPE_CHECKING:
    from vectordb_client.rag.support import Judge
    from vectordb_client.rag.telemetry import Telemetry

BELOW = ("refuse", "broaden", "fallback_llm")
UNSUPPORTED = ("mark", "drop", "refuse")

REFUSALS: Mapping[str, str] = MappingProxyType(
    {
        "no_passages": "There is nothing here to answer that from.",
        "below_min_score": "Nothing here is close enough to the question to answer it.",
        "not_in_passages": NO_ANSWER,
        "unsupported": "What was found does not support an answer.",
        "max_length": "The question is too long.",
        "toxicity": "I do not answer questions in that tone.",
    }
)
"""What a refused answer says, by its reason."""

_DECLINED = {"i do not know", "i don't know", "i cannot answer", "i can't answer", "unknown", "n/a"}
_EDGES = re.compile(r"^\W+|\W+$")


@dataclass(frozen=True, slots=True)
class Options:
    """How one question is answered.

    Attributes:
        where: A filter on the documents' metadata.
        min_score: Nothing below this cosine similarity is answered from; ``None`` for the knowledge base's own
            threshold (:attr:`KnowledgeBase.min_score`), ``-1.0``, which everything reaches, for no bound in this call.
        max_rounds: Above 1 the model says what is missing after each retrieval, and that is retrieved too.
        seed, temperature: Of the model; 0 and one seed give one answer as far as the model can.
        timeout: Seconds for everything together; ``None`` for the model's own.
        limit: Passages of each retrieval.
        max_tokens: Of the answer.
        below: What happens where nothing reaches ``min_score``: ``refuse`` without calling the model; ``broaden``
            retrieves twice as many at 0.8 of the bound and refuses if that finds nothing either (``where`` always
            holds); ``fallback_llm`` lets the model answer without passages, never grounded.
        unsupported: What happens to sentences that no passage supports: ``mark`` keeps them (``grounded`` is false
            then), ``drop`` takes them out, ``refuse`` refuses the whole. An answer of which nothing is supported is
            refused always.
        add_citations: Whether sentences that the model gave no source get the passages that support them.
        template: The prompt.
        retrieval: Further options of the retrieval, such as ``{"mode": "hybrid", "neighbours": 1}``.
        refusals: Other wordings, by reason.
    """

    where: Any = None
    min_score: float | None = None
    max_rounds: int = 1
    seed: int | None = 0
    temperature: float = 0.0
    timeout: float | None = None
    limit: int = 5
    max_tokens: int = 256
    below: str = "refuse"
    unsupported: str = "mark"
    add_citations: bool = True
    template: PromptTemplate = ANSWER
    retrieval: Mapping[str, Any] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_rounds", "limit", "max_tokens"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1))
        for name, known in (("below", BELOW), ("unsupported", UNSUPPORTED)):
            if getattr(self, name) not in known:
                raise InvalidArgument(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}", field=name)
        if self.min_score is not None:
            what = "is a number, a cosine similarity, or None for the knowledge base's own threshold"
            object.__setattr__(self, "min_score", number("min_score", self.min_score, what))
        if self.timeout is not None:
            what = "is seconds greater than 0, or None"
            object.__setattr__(self, "timeout", number("timeout", self.timeout, what, math.ulp(0.0)))
        object.__setattr__(self, "temperature", number("temperature", self.temperature, "is a number, at least 0", 0.0))
        if self.seed is not None:
            object.__setattr__(self, "seed", whole("seed", self.seed))
        flag(self.add_citations, "add_citations")
        if not isinstance(self.template, PromptTemplate):
            raise InvalidArgument(
                f"template is a PromptTemplate(name, version, system, user), got {self.template!r:.60}",
                field="template",
            )
        for name, example in (("retrieval", '{"mode": "hybrid"}'), ("refusals", '{"no_passages": "Ask the office."}')):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise InvalidArgument(f"{name} is a mapping, such as {example}, got {value!r:.60}", field=name)
        for reason, wording in self.refusals.items():
            if not isinstance(wording, str):
                raise InvalidArgument(f"refusals[{reason!r}] is a string, got {wording!r:.60}", field="refusals")

    @classmethod
    def of(cls, options: Mapping[str, Any], further: tuple[str, ...] = ()) -> Options:
        """From keyword arguments.

        Args:
            further: Options that the caller has taken out already, for the message.

        Raises:
            InvalidArgument: A name is not known, or a value out of range.
        """
        names = cls.__dataclass_fields__
        known = ", ".join((*names, *further))
        for name in options:
            if name not in names:
                raise InvalidArgument(f"asking has no option {name!r}; it has {known}", field=name)
        return cls(**options)

    def request(self, question: str) -> dict[str, Any]:
        """What was asked for, JSON-like: enough to ask it again."""
        where = as_filter(self.where)
        asked = {
            "question": question,
            "where": None if where is None else where.to_json(),
            "min_score": self.min_score,
            "max_rounds": self.max_rounds,
            "seed": self.seed,
        }
        return asked | self.settings()

    def settings(self) -> dict[str, Any]:
        """The settings that do not belong to one question, JSON-like."""
        return {
            "temperature": self.temperature,
            "limit": self.limit,
            "max_tokens": self.max_tokens,
            "below": self.below,
            "unsupported": self.unsupported,
            "add_citations": self.add_citations,
            "retrieval": {
                name: value if isinstance(value, str | int | float | bool | None) else repr(value)
                for name, value in self.retrieval.items()
            },
        }


@dataclass(frozen=True, slots=True)
class AnswerConfig:
    """How a knowledge base answers, beside its model and guards.

    Attributes:
        judge: What finds the support of each sentence; by default words and embeddings
            (:class:`~vectordb_client.rag.support.Overlap`).
        verifier: A second judge that has to agree with every citation, such as
            :class:`~vectordb_client.rag.support.LLMJudge`.
        telemetry: Where spans go.
        keep: Whether answers, with questions and passages word for word, are kept in the collection ``NAME.answers``:
            what feedback, export and replay need.
        options: Defaults of :class:`Options`.
    """

    judge: Judge | None = None
    verifier: Judge | None = None
    telemetry: Telemetry | None = None
    keep: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A step of a streamed answer.

    Attributes:
        kind: ``passages`` (what was found), ``text`` (checked sentences with their markers), ``answer`` (the end).
        text: The texts of all events together are the answer's text, unless it is refused in the end.
    """

    kind: str
    text: str = ""
    passages: tuple[Passage, ...] = ()
    answer: Answer | None = None


def refusal(reason: str, wordings: Mapping[str, str]) -> str:
    """What a refused answer says."""
    default = f"This was refused by the guard {reason!r}."
    return wordings.get(reason) or REFUSALS.get(reason) or default


def declines(sentence: str) -> bool:
    """Whether a sentence says that the passages do not answer."""
    bare = _EDGES.sub("", sentence).casefold()
    return bare.startswith(_EDGES.sub("", NO_ANSWER).casefold()) or bare in _DECLINED
