"""How well a passage supports a claim: judges of faithfulness.

The default needs no further model: the share of the claim's words that the passage has, weighed, and the likeness of
    their
embeddings. It sees what was made up (names, numbers, topics that the passage lacks), not whether a statement that uses
only the passage's words is true; a language model or an NLI model as the judge looks closer, for a call each.

Source: Maynez et al. 2020 (faithfulness), Gao et al. 2023 (citation recall and precision), Honovich et al. 2022 (NLI
    judges).
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from vectordb_client.rag.arguments import scores_of
from vectordb_client.rag.chunking.sentences import sentence_spans
from vectordb_client.rag.embedding.vectors import embedded_documents
from vectordb_client.rag.llm.calls import completed
from vectordb_client.rag.prompt import PromptTemplate, build
from vectordb_client.rag.templates import JUDGE
from vectordb_client.rag.types import Passage
from vectordb_client.transport.retry import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb_client.rag.embedding.base import Embedder
    from vectordb_client.rag.llm.base import LLM

_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Thai, kana and Han are written without spaces: a character counts as a word."""
_WORD = re.compile(rf"\d+(?:[.,]\d+)*|[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+(?:['\u2019][^\W\d_]+)?")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a about after all also an and any are as at be because been before being between both but by can could did do "
        "does for from had has have he her here his how i if in into is it its just like may more most no not of on "
        "one only or other our out over she should so some such than that the their them then there these they this "
        "those through to under up was we were what when where which while who whom whose why will with would you your "
        "answer question text passage passages according following called known",
    )
)
_SUFFIXES = ("ingly", "edly", "ing", "ed", "es", "ly", "s")
_COVERED = 0.4
"""Weight of the words against the embeddings; with the threshold chosen on the shipped corpus."""
_CACHE = 4096


class Pair(NamedTuple):
    """A claim, and a passage that may support it."""

    claim: str
    passage: str


@runtime_checkable
class Judge(Protocol):
    """Scores how well passages support claims. Thread-safe.

    Attributes:
        name: With its settings; part of the configuration's fingerprint.
        threshold: From this score on a claim counts as supported.
    """

    @property
    def name(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    def scores(self, question: str, pairs: Sequence[Pair], timeout: float | None = None) -> list[float]:
        """One score a pair, 0 (not at all) to 1."""
        ...


def stem(word: str) -> str:
    """A word without the commonest English endings; other languages keep most of theirs, alike on both sides."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def content_words(text: str) -> dict[str, str]:
    """The words that carry meaning, by their stem, as they were written last."""
    found = {}
    for word in _WORD.findall(text):
        small = word.casefold().removesuffix("'s").removesuffix("\u2019s")
        if small not in _STOP:
            found[stem(small.replace(",", ""))] = word
    return found


class Overlap:
    """The default: words and embeddings. Deterministic; about one embedding a sentence, remembered.

    Args:
        embedder: The collection's model; without one only the words count.
        threshold: From this score on a passage supports a claim.
    """

    def __init__(self, embedder: Embedder | None = None, threshold: float = 0.55) -> None:
        self._embedder = embedder
        self._threshold = threshold
        self._vectors: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()  # guarded by self._lock
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        model = "words" if self._embedder is None else f"{self._embedder.name}@{self._embedder.revision}"
        return f"overlap({model}, {self._threshold})"

    @property
    def threshold(self) -> float:
        return self._threshold

    def scores(self, question: str, pairs: Sequence[Pair], timeout: float | None = None) -> list[float]:
        """0 to 1 a pair. A claim with a number that neither passage nor question has stays below the threshold."""
        asked = content_words(question)
        words = {text: content_words(text) for text in {text for pair in pairs for text in pair}}
        alike = self._likeness(question, pairs, words, timeout)
        found = []
        for pair, likeness in zip(pairs, alike, strict=True):
            claim, passage = words[pair.claim], words[pair.passage]
            covered = _coverage(claim, passage, asked)
            score = covered if likeness is None else _COVERED * covered + (1.0 - _COVERED) * likeness
            if any(stemmed[0].isdigit() and stemmed not in passage and stemmed not in asked for stemmed in claim):
                score = min(score, 0.9 * self._threshold)
            found.append(float(score))
        return found

    def _likeness(
        self, question: str, pairs: Sequence[Pair], words: dict[str, dict[str, str]], timeout: float | None
    ) -> list[float | None]:
        """For each pair, the best likeness of the claim with any one or two neighbouring sentences, 0 to 1."""
        if self._embedder is None:
            return [None] * len(pairs)
        asked = content_words(question)
        # A claim of a word or two says nothing without its question.
        claims = {
            claim: claim if len(words[claim]) > len(asked) / 2 else f"{question} {claim}"
            for claim in {pair.claim for pair in pairs}
        }
        windows = {passage: _windows(passage) for passage in {pair.passage for pair in pairs}}
        texts = [*claims.values(), *(window for found in windows.values() for window in found)]
        vectors = self._embedded(list(dict.fromkeys(texts)), timeout)
        found: list[float | None] = []
        for pair in pairs:
            near = np.stack([vectors[window] for window in windows[pair.passage]]) @ vectors[claims[pair.claim]]
            found.append(float(np.clip(near.max(), 0.0, 1.0)))
        return found

    def _embedded(self, texts: list[str], timeout: float | None) -> dict[str, NDArray[np.float32]]:
        """Unit vectors by text, from memory where they are there."""
        assert self._embedder is not None
        keys = {text: blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts}
        with self._lock:
            found = {text: self._vectors[key] for text, key in keys.items() if key in self._vectors}
        missing = [text for text in texts if text not in found]
        if missing:
            made = embedded_documents(self._embedder, missing, timeout)
            lengths = np.linalg.norm(made, axis=1, keepdims=True)
            unit = (made / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
            found |= dict(zip(missing, unit, strict=True))
            with self._lock:
                self._vectors.update((keys[text], found[text]) for text in missing)
                while len(self._vectors) > _CACHE:
                    self._vectors.popitem(last=False)
        return found


class LLMJudge:
    """Asks a language model, a call a pair, whether the passage says it. As good as the model."""

    threshold = 0.5

    def __init__(self, llm: LLM, template: PromptTemplate = JUDGE) -> None:
        self._llm = llm
        self._template = template

    @property
    def name(self) -> str:
        return f"llm({self._llm.name}, {self._template.name}@{self._template.version})"

    def scores(self, question: str, pairs: Sequence[Pair], timeout: float | None = None) -> list[float]:
        """1 where the model's answer begins with yes, else 0. Errors as the model raises them."""
        clock, found = Clock(timeout), []
        for pair in pairs:
            passage = Passage("", "", pair.passage, 0.0, 0, len(pair.passage), 1)
            prompt = build(self._template, pair.claim, [passage], self._llm, max_tokens=4, seed=0)
            said = completed(self._llm, prompt.messages, clock, max_tokens=4, seed=0).text
            found.append(1.0 if said.strip().casefold().startswith("yes") else 0.0)
        return found


class NLIJudge:
    """Asks a model of natural-language inference.

    Args:
        entails: From (premise, hypothesis) pairs to the probability of each that the premise entails the hypothesis,
            such as a cross-encoder's ``predict``.
        name: The model's.
        threshold: From this probability on.
    """

    def __init__(
        self, entails: Callable[[Sequence[tuple[str, str]]], Sequence[float]], name: str, threshold: float = 0.5
    ) -> None:
        self._entails = entails
        self._name = name
        self._threshold = threshold

    @property
    def name(self) -> str:
        return f"nli({self._name}, {self._threshold})"

    @property
    def threshold(self) -> float:
        return self._threshold

    def scores(self, question: str, pairs: Sequence[Pair], timeout: float | None = None) -> list[float]:
        """The model's probabilities."""
        if not pairs:
            return []
        return scores_of(
            f"judge {self.name!r}", self._entails([(pair.passage, pair.claim) for pair in pairs]), len(pairs)
        )


def _coverage(claim: dict[str, str], passage: dict[str, str], asked: dict[str, str]) -> float:
    """The share of the claim's words that the passage has. What the question did not say already counts most."""
    weights = {
        stemmed: (0.5 if stemmed in asked else 1.0) * (2.0 if word[0].isdigit() or word[0].isupper() else 1.0)
        for stemmed, word in claim.items()
    }
    total = sum(weights.values())
    return sum(weight for stemmed, weight in weights.items() if stemmed in passage) / total if total else 0.0


def _windows(text: str) -> list[str]:
    """A passage's sentences, and each two neighbours; the whole text where it has none."""
    spans = list(sentence_spans(text))
    if not spans:
        return [text]
    pairs = pairwise(spans)
    return [text[span.start : span.end] for span in spans] + [text[a.start : b.end] for a, b in pairs]
