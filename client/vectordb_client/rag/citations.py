"""Citations: from the ``[n]`` in a model's text to spans of documents, and sources for sentences without one.

A marker is accepted when its passage exists, was shown to the model, and supports the sentence that it stands in.
Others are taken out of the text and stand in the trace. Sentences that are left without a source get the passages that
support them best, also recorded: models, small ones above all, forget to cite. A judge gives the scores.

Source: Gao et al. 2023, "Enabling Large Language Models to Generate Text with Citations" (ALCE); Rashkin et al. 2023
(attribution to identified sources).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vectordb_client.rag.chunking.sentences import sentence_spans
from vectordb_client.rag.support import content_words
from vectordb_client.rag.types import Citation, Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_SOURCES = 2
"""Sources of one sentence."""
NEARLY = 0.9
"""A second source is added where its support is at least this share of the best one's."""
RELEVANT = 0.9
"""A source is added only where its passage is nearly as close to the question as the closest one."""

_MARKER = re.compile(r"\[\s*(\d{1,4}(?:\s*(?:[,;]|-|\u2013)\s*\d{1,4})*)\s*\]")
_MARKER_AND_SPACE = re.compile(rf"\s*{_MARKER.pattern}")
_PART = re.compile(r"(\d{1,4})(?:\s*[-\u2013]\s*(\d{1,4}))?")
_ENDING = re.compile(r"""[\s.!?:;\u2026\u3002\uff01\uff1f\u0964"'\u2019\u201d)\u00bb]*$""")
_LEAD = re.compile(r"^\s*(?:answer|the answer is)\s*:\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of an answer.

    Attributes:
        text: As the model wrote it, without its markers.
        cited: The numbers of its markers in order, each once, whether or not there is such a passage.
        gap: White space between it and the sentence before.
        claims: Whether it claims anything: it has words of its own, and is no question.
    """

    text: str
    cited: tuple[int, ...]
    gap: str = " "

    @property
    def claims(self) -> bool:
        bare = _LEAD.sub("", self.text)
        return not bare.endswith(("?", ":")) and bool(content_words(bare))


@dataclass(frozen=True, slots=True)
class Cited:
    """A sentence with what was decided about its sources.

    Attributes:
        accepted: Passage numbers that it is given, best first, at most :data:`MAX_SOURCES`.
        added: Those of them that the model did not write.
        unknown: Numbers that it wrote and no passage has.
        unsupported: Numbers that it wrote of passages that do not say so, or beyond the second.
        score: The best support that it has, 0 to 1.
    """

    sentence: Sentence
    accepted: tuple[int, ...] = ()
    added: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    unsupported: tuple[int, ...] = ()
    score: float = 0.0

    @property
    def grounded(self) -> bool:
        """It claims nothing, or has a source."""
        return bool(self.accepted) or not self.sentence.claims


def parse(text: str) -> tuple[Sentence, ...]:
    """The sentences of an answer and the passage numbers that each cites: ``[1]``, ``[1][2]``, ``[1, 2]``, ``[1-3]``.

    A marker behind a sentence's full stop belongs to that sentence.
    """
    blank = _MARKER.sub(lambda found: " " * len(found[0]), text)
    spans = list(sentence_spans(blank))
    if not spans:
        return ()
    markers = [(found.start(), _numbers(found[1])) for found in _MARKER.finditer(text)]
    found: list[Sentence] = []
    for place, span in enumerate(spans):
        until = spans[place + 1].start if place + 1 < len(spans) else len(text) + 1
        since = 0 if place == 0 else span.start
        cited = [number for start, numbers in markers if since <= start < until for number in numbers]
        body = _MARKER_AND_SPACE.sub("", text[span.start : span.end]).strip()
        gap = blank[spans[place - 1].end : span.start] if place else ""
        found.append(Sentence(body, tuple(dict.fromkeys(cited)), "\n\n" if gap.count("\n") > 1 else gap[:1]))
    return tuple(found)


def relevant(passages: Sequence[Passage]) -> tuple[bool, ...]:
    """Which passages may be added as sources: those about as close to the question as the closest.

    A sentence that says what a remote passage says may be true there and still no answer here. What the model cites of
    its own accord needs support alone.
    """
    best = max((passage.score for passage in passages), default=0.0)
    return tuple(passage.score >= RELEVANT * best for passage in passages)


def decide(
    sentences: Sequence[Sentence], support: NDArray[np.float32], threshold: float, addable: Sequence[bool] = ()
) -> tuple[Cited, ...]:
    """Which sources each sentence is given.

    Args:
        support: float32[sentences, passages]: how well each passage that the model saw supports each sentence.
        threshold: From this support on a source is accepted.
        addable: One a passage: whether sentences may get it that the model gave no source; empty for none.
    """
    found = []
    for row, sentence in enumerate(sentences):
        scores = support[row]
        known = [number for number in sentence.cited if 1 <= number <= len(scores)]
        unknown = tuple(number for number in sentence.cited if not 1 <= number <= len(scores))
        good = sorted((n for n in known if scores[n - 1] >= threshold), key=lambda n: (-scores[n - 1], n))
        accepted = good[:MAX_SOURCES]
        added: list[int] = []
        if sentence.claims and not accepted:
            others = [n for n, may in enumerate(addable, 1) if may and scores[n - 1] >= threshold]
            others.sort(key=lambda n: (-scores[n - 1], n))
            added = [n for n in others[:MAX_SOURCES] if scores[n - 1] >= NEARLY * scores[others[0] - 1]]
            accepted = added
        unsupported = tuple(number for number in known if number not in accepted)
        top = float(scores.max()) if len(scores) else 0.0
        found.append(Cited(sentence, tuple(accepted), tuple(added), unknown, unsupported, top))
    return tuple(found)


def without(cited: Cited, numbers: Sequence[int]) -> Cited:
    """The sentence without some of its sources."""
    if not numbers:
        return cited
    return replace(
        cited,
        accepted=tuple(number for number in cited.accepted if number not in numbers),
        added=tuple(number for number in cited.added if number not in numbers),
        unsupported=(*cited.unsupported, *(number for number in numbers if number not in cited.added)),
    )


def rendered(cited: Sequence[Cited]) -> str:
    """The answer's text: each sentence with its accepted markers before its closing punctuation."""
    parts = []
    for place, one in enumerate(cited):
        text = one.sentence.text
        if one.accepted:
            end = _ENDING.search(text)
            cut = end.start() if end is not None and end.start() > 0 else len(text)
            markers = "".join(f"[{number}]" for number in sorted(one.accepted))
            text = f"{text[:cut]} {markers}{text[cut:].rstrip()}"
        parts.append((one.sentence.gap if place else "") + text)
    return "".join(parts)


def citations(cited: Sequence[Cited], passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """One citation for each passage that a sentence was given, in the order of the text."""
    numbers = dict.fromkeys(number for one in cited for number in sorted(one.accepted))
    return tuple(
        Citation(number, passage.document_id, passage.chunk_id, passage.start, passage.end, passage.text)
        for number in numbers
        for passage in (passages[number - 1],)
    )


def _numbers(inside: str) -> list[int]:
    """``1, 3-5`` as numbers; a range of more than ten is taken for its ends."""
    found: list[int] = []
    for first, last in _PART.findall(inside):
        low, high = int(first), int(last or first)
        found += list(range(low, high + 1)) if low <= high < low + 10 else [low, high]
    return found
