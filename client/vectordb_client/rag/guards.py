"""Guards: what looks at a question before anything is done with it, and at an answer before anyone sees it.

A guard is anything with a ``name`` and a ``check``. Its verdict may let the text pass, mark it, replace it or refuse
it; every verdict stands in the answer's trace. Guards run in the order given, each on what the one before it left.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from vectordb.errors import InvalidArgument
from vectordb_client.rag.arguments import number, scores_of, whole
from vectordb_client.rag.extras import load
from vectordb_client.rag.trace import Action, Verdict

QUESTION = "question"
ANSWER = "answer"
STAGES = (QUESTION, ANSWER)

MAX_QUESTION = 4000
"""Characters of a question unless told otherwise."""

Classifier = Callable[[Sequence[str]], Sequence[float]]
"""From texts to the probability of each that it is what the classifier looks for."""


@runtime_checkable
class Guard(Protocol):
    """Checks texts. Implementations are thread-safe and keep nothing of what they see.

    Attributes:
        name: Names the verdict; up to a bracket it is the ``refusal_reason`` of answers that it refuses. It has the
            settings that change what it decides, since it is a part of the configuration's fingerprint.
        stages: What it looks at: :data:`QUESTION`, :data:`ANSWER`, or both.
    """

    @property
    def name(self) -> str: ...

    @property
    def stages(self) -> tuple[str, ...]: ...

    def check(self, stage: str, text: str) -> Verdict:
        """What to do with a text of one of its stages."""
        ...


class MaxLength:
    """Refuses questions of more than so many characters, before a model has to read them."""

    stages = (QUESTION,)

    def __init__(self, limit: int = MAX_QUESTION) -> None:
        self._limit = whole("limit", limit, 1)

    @property
    def name(self) -> str:
        return f"max_length({self._limit})"

    def check(self, stage: str, text: str) -> Verdict:
        """Refuses a question that is too long."""
        if len(text) <= self._limit:
            return Verdict(self.name, stage, score=len(text))
        reason = f"the question has {len(text)} characters, {self._limit} are allowed"
        return Verdict(self.name, stage, Action.REFUSE, reason, len(text))


class Toxicity:
    """Refuses texts that a classifier finds offensive.

    Args:
        classifier: From texts to probabilities; by default the linear model that ``alt-profanity-check`` carries
            (English; loaded with the first text, a second or two).
        threshold: From this probability on. None of the 574 questions of the shipped corpus reaches 0.5 by default.
        stages: What it looks at.

    Raises:
        FailedPrecondition: No classifier is given and the extra ``guards`` is not installed.
    """

    def __init__(
        self, classifier: Classifier | None = None, threshold: float = 0.9, stages: Sequence[str] = (QUESTION,)
    ) -> None:
        self.stages = _checked(stages)
        self._label = "alt-profanity-check" if classifier is None else _label(classifier)
        self._classifier = _Lazily(_profanity) if classifier is None else classifier
        if classifier is None and not have_profanity_check():
            load("profanity_check", "guards", "the toxicity guard")
        self._threshold = number("threshold", threshold, "is a probability, a number")

    @property
    def name(self) -> str:
        return f"toxicity({self._label}, {self._threshold})"

    def check(self, stage: str, text: str) -> Verdict:
        """Refuses what reaches the threshold."""
        (score,) = scores_of(f"classifier {self._label!r}", self._classifier([text]), 1)
        if score < self._threshold:
            return Verdict(self.name, stage, score=score)
        return Verdict(self.name, stage, Action.REFUSE, f"the {stage} reads as offensive", score)


EMAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
PHONE = r"(?<![\w.])\+\d[\d ()/.-]{7,}\d(?!\w)"
CARD = r"(?<![\d.])(?:\d[ -]?){12,18}\d(?!\d)"
IBAN = r"\b[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){2,7}(?: ?[A-Z\d]{1,4})?\b"


class PersonalData:
    """Masks or refuses texts with personal data, by patterns: a hook, not a promise to find everything.

    Args:
        patterns: Regular expressions by the name that replaces what they find; by default e-mail addresses, phone
            numbers with a country code, card numbers (by their check digit) and IBANs.
        action: ``replace`` puts ``[EMAIL]`` and the like in place; ``refuse`` and ``mark`` leave the text alone.

    Raises:
        InvalidArgument: A pattern is no regular expression, the action none of these, or a stage not known.
    """

    def __init__(
        self,
        patterns: Mapping[str, str] = MappingProxyType({"EMAIL": EMAIL, "IBAN": IBAN, "CARD": CARD, "PHONE": PHONE}),
        action: str | Action = Action.REPLACE,
        stages: Sequence[str] = STAGES,
    ) -> None:
        self.stages = _checked(stages)
        if not isinstance(patterns, Mapping):
            raise InvalidArgument(
                f'patterns is a mapping, such as {{"EMAIL": EMAIL}}, got {patterns!r:.60}', field="patterns"
            )
        self._patterns: dict[str, re.Pattern[str]] = {}
        for name, pattern in patterns.items():
            try:
                self._patterns[name] = re.compile(pattern)
            except (re.error, TypeError) as error:
                raise InvalidArgument(
                    f"patterns[{name!r}] is no regular expression: {error}", field="patterns", pattern=name
                ) from error
        if action not in list(Action):
            raise InvalidArgument(f"action is one of {', '.join(Action)}, got {action!r:.60}", field="action")
        self._action = Action(action)

    @property
    def name(self) -> str:
        return f"personal_data({', '.join(self._patterns)}: {self._action.value})"

    def check(self, stage: str, text: str) -> Verdict:
        """Finds the patterns one after the other."""
        masked, found = text, list[str]()
        for name, pattern in self._patterns.items():
            masked, count = _masked(name, pattern, masked)
            found += [name] * count
        if not found:
            return Verdict(self.name, stage, score=0)
        reason = "found " + ", ".join(sorted(set(found)))
        replaced = masked if self._action is Action.REPLACE else None
        return Verdict(self.name, stage, self._action, reason, len(found), replaced)


def default_guards() -> tuple[Guard, ...]:
    """A limit of length, and toxicity of the question where ``alt-profanity-check`` is installed."""
    return (MaxLength(), Toxicity()) if have_profanity_check() else (MaxLength(),)


def have_profanity_check() -> bool:
    """Whether the package is installed; it is not loaded."""
    return importlib.util.find_spec("profanity_check") is not None


def _masked(name: str, pattern: re.Pattern[str], text: str) -> tuple[str, int]:
    if pattern.pattern != CARD:
        return pattern.subn(f"[{name}]", text)
    cards = 0

    def mask(found: re.Match[str]) -> str:
        nonlocal cards
        if not _luhn(found[0]):
            return found[0]
        cards += 1
        return f"[{name}]"

    return pattern.sub(mask, text), cards


def _luhn(number: str) -> bool:
    """Whether the check digit of a card number is right (ISO/IEC 7812)."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


class _Lazily:
    """A classifier that is made when it is first asked. Thread-safe."""

    def __init__(self, make: Callable[[], Classifier]) -> None:
        self._make = make
        self._made: Classifier | None = None
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> Sequence[float]:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return self._made(texts)


def _profanity() -> Classifier:
    predict: Any = load("profanity_check", "guards", "the toxicity guard").predict_prob
    return lambda texts: [float(probability) for probability in predict(list(texts))]


def _label(classifier: Any) -> str:
    return str(getattr(classifier, "__name__", None) or type(classifier).__name__)


def _checked(stages: Sequence[str]) -> tuple[str, ...]:
    for stage in stages:
        if stage not in STAGES:
            raise InvalidArgument(f"stage {stage!r} is none of {', '.join(STAGES)}", field="stages")
    return tuple(stages)
