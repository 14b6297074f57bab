"""Checking an answer while it is written: sentence by sentence against the passages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from vectordb_client.rag.arguments import scores_of
from vectordb_client.rag.asking import Options, declines
from vectordb_client.rag.citations import Cited, Sentence, decide, parse, relevant, rendered, without
from vectordb_client.rag.support import Judge, Pair
from vectordb_client.rag.types import Passage
from vectordb_client.transport.retry import Clock

_UNFINISHED_MARKER = re.compile(r"\[[\d\s,;\u2013-]*$")


class Checker:
    """Takes a model's text in pieces, gives it back in sentences with the sources that hold. Not thread-safe.

    Attributes:
        raw: What the model wrote.
        kept: The sentences of the answer so far.
        declined: The model said that the passages do not answer.
        grounded_any: A sentence so far has a source.
    """

    def __init__(
        self,
        judges: tuple[Judge, Judge | None],
        question: str,
        passages: Sequence[Passage],
        options: Options,
        clock: Clock,
    ) -> None:
        self.raw = ""
        self.kept: list[Cited] = []
        self.declined = False
        self.grounded_any = False
        self._judge, self._verifier = judges
        self._question, self._options, self._clock = question, options, clock
        self._texts = [passage.text for passage in passages]
        self._addable = relevant(passages) if options.add_citations else ()
        self._dropped: list[Cited] = []
        self._refuted: list[dict[str, Any]] = []
        self._seen: set[str] = set()
        self._repeated = 0
        self._cut = False

    def sentences(self, pieces: Iterable[str], was_cut: Callable[[], bool]) -> Iterator[str]:
        """The checked sentences, each as soon as the next one begins, with the white space before it.

        Args:
            pieces: What the model writes.
            was_cut: Whether it stopped for want of tokens: known when the pieces are over.
        """
        done = 0
        for piece in pieces:
            self.raw += piece
            found = parse(_UNFINISHED_MARKER.sub("", self.raw))
            for sentence in found[done:-1]:
                yield from self._checked(sentence)
            done = max(done, len(found) - 1)
        rest = parse(self.raw)[done:]
        # Half a sentence claims what nobody wrote; a whole one before it is an answer without it.
        if len(rest) and was_cut() and self.kept and not rest[-1].text.endswith((".", "!", "?")):
            rest, self._cut = rest[:-1], True
        for sentence in rest:
            yield from self._checked(sentence)

    def refusal(self) -> str | None:
        """Why the answer as a whole cannot stand, or ``None``."""
        if self.declined:
            return "not_in_passages"
        unsupported = any(not one.grounded for one in self.kept)
        if not self.grounded_any or (unsupported and self._options.unsupported == "refuse"):
            return "unsupported"
        return None

    @property
    def grounded(self) -> bool:
        """Every claim of the answer has a source that supports it."""
        return self.grounded_any and all(one.grounded for one in self.kept)

    def facts(self) -> dict[str, Any]:
        """For the trace: what was decided about each sentence."""
        return {
            "sentences": [_facts(one, kept=True) for one in self.kept]
            + [_facts(one, kept=False) for one in self._dropped],
            "refuted": self._refuted,
            "repeated": self._repeated,
            "cut_off": self._cut,
            "declined": self.declined,
        }

    def _checked(self, sentence: Sentence) -> Iterator[str]:
        key = sentence.text.casefold()
        if self.declined or key in self._seen:
            self._repeated += not self.declined
            return
        self._seen.add(key)
        if declines(sentence.text):
            self.declined = not self.grounded_any
            return
        cited = self._verified(self._decided(sentence))
        if not cited.grounded and self._options.unsupported == "drop":
            self._dropped.append(cited)
            return
        first = not self.kept
        self.kept.append(cited)
        self.grounded_any = self.grounded_any or bool(cited.accepted)
        yield ("" if first else sentence.gap) + rendered([cited])

    def _decided(self, sentence: Sentence) -> Cited:
        pairs = [Pair(sentence.text, text) for text in self._texts]
        support = np.asarray([self._scores(self._judge, pairs)], dtype=np.float32)
        return decide([sentence], support, self._judge.threshold, self._addable)[0]

    def _verified(self, cited: Cited) -> Cited:
        """Takes out the sources that the second judge does not see."""
        if self._verifier is None or not cited.accepted:
            return cited
        pairs = [Pair(cited.sentence.text, self._texts[number - 1]) for number in cited.accepted]
        scores = self._scores(self._verifier, pairs)
        refuted = tuple(n for n, score in zip(cited.accepted, scores, strict=True) if score < self._verifier.threshold)
        self._refuted += [{"sentence": cited.sentence.text, "passage": number} for number in refuted]
        return without(cited, refuted)

    def _scores(self, judge: Judge, pairs: list[Pair]) -> list[float]:
        found = judge.scores(self._question, pairs, self._clock.remaining())
        return scores_of(f"judge {judge.name!r}", found, len(pairs))


def _facts(cited: Cited, *, kept: bool) -> dict[str, Any]:
    return {
        "text": cited.sentence.text,
        "kept": kept,
        "claims": cited.sentence.claims,
        "cited": list(cited.sentence.cited),
        "accepted": list(cited.accepted),
        "added": list(cited.added),
        "unknown": list(cited.unknown),
        "unsupported": list(cited.unsupported),
        "support": round(cited.score, 4),
    }
