"""Answering for one knowledge base: puts the parts together, keeps the answers, asks again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vectordb.arguments import flag
from vectordb.errors import FailedPrecondition, VectorDBError
from vectordb_client.rag.answering import Answerer
from vectordb_client.rag.arguments import whole
from vectordb_client.rag.asking import AnswerConfig, Event, Options
from vectordb_client.rag.evaluate import Evaluation, Evaluator
from vectordb_client.rag.feedback import AnswerStore, Replay, compared, replayed_retrieval
from vectordb_client.rag.guards import Guard, default_guards
from vectordb_client.rag.parts import check_llm, checked_guards
from vectordb_client.rag.support import Judge, Overlap
from vectordb_client.rag.types import Answer

if TYPE_CHECKING:
    from vectordb_client.rag.embedding.base import Embedder
    from vectordb_client.rag.knowledge_base import KnowledgeBase

_REPLAYED = ("where", "min_score", "max_rounds", "seed", "temperature", "limit", "max_tokens", "below", "unsupported",
             "add_citations")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Default:
    """The default judge, and the embedder that it was made for."""

    embedder: Embedder
    judge: Overlap


class AnswerDesk:
    """Answers questions for a knowledge base. Thread-safe."""

    def __init__(self, kb: KnowledgeBase, config: AnswerConfig) -> None:
        self._kb, self._config = kb, config
        self._lock = threading.Lock()
        self._default: _Default | None = None  # guarded by self._lock
        self._guards: tuple[Guard, ...] | None = None
        self.store = AnswerStore(kb.db, kb.name)

    def ask(self, question: str, options: Mapping[str, Any]) -> Answer:
        """The answer, kept where the configuration says so."""
        answer = self.answerer().answer(question, self.options(options))
        self._keep(answer)
        return answer

    def stream(self, question: str, options: Mapping[str, Any]) -> Iterator[Event]:
        """The steps of an answer; it is kept when it is complete."""
        # Checked at the call, not at the first step.
        answerer, asked = self.answerer(), self.options(options)
        return self._kept(answerer.stream(question, asked))

    def replay(self, answer_id: str) -> Replay:
        """Asks a kept answer's question again, with its options; the new answer is not kept."""
        before = self.store.get(answer_id)
        request = before["trace"]["request"]
        given = {name: request[name] for name in _REPLAYED if name in request}
        given["retrieval"] = replayed_retrieval(request["retrieval"], self.options({}).retrieval)
        return compared(before, self.answerer().answer(request["question"], self.options(given)))

    def evaluate(self, questions: Sequence[Any], options: Mapping[str, Any]) -> Evaluation:
        """Measures retrieval, and answers where there is a model; nothing is kept."""
        given = dict(options)
        answers = given.pop("answers", self._kb.llm is not None)
        depth, progress = whole("depth", given.pop("depth", 10), 1), given.pop("progress", True)
        flag(answers, "answers")
        asked = self.options(given, ("answers", "depth", "progress"))
        ask: Callable[[str], Answer] | None = None
        if answers:
            answerer = self.answerer()

            def ask(question: str) -> Answer:
                return answerer.answer(question, asked)

        return Evaluator(self._kb.retrieved, ask, asked, depth).run(questions, progress=progress)

    def options(self, given: Mapping[str, Any], further: tuple[str, ...] = ()) -> Options:
        """The call's options over the configuration's over the defaults; ``min_score`` is the knowledge base's own.

        Args:
            further: Options of the call that are none of answering, for the message about an unknown one.
        """
        merged = {**self._config.options, **given}
        if merged.get("min_score") is None:
            merged["min_score"] = self._kb.min_score
        return Options.of(merged, further)

    def answerer(self) -> Answerer:
        """The parts as they are now.

        Raises:
            FailedPrecondition: The knowledge base has no language model.
        """
        kb, config = self._kb, self._config
        if kb.llm is None:
            raise FailedPrecondition(
                f"knowledge base {kb.name!r} has no language model; give it one: "
                "KnowledgeBase(db, name, llm=OpenAICompatible(...)) or llm=LlamaCpp()",
                knowledge_base=kb.name,
            )
        check_llm(kb.llm)  # it may have been set after the knowledge base was made
        return Answerer(
            kb.retrieved,
            kb.llm,
            config.judge or self._judge(),
            config.verifier,
            self._checked_guards(),
            config.telemetry,
            kb.name,
            {"embedder": f"{kb.embedder.name}@{kb.embedder.revision}"},
        )

    def _judge(self) -> Judge:
        embedder = self._kb.embedder
        with self._lock:
            if self._default is None or self._default.embedder is not embedder:
                self._default = _Default(embedder, Overlap(embedder))
            return self._default.judge

    def _checked_guards(self) -> tuple[Guard, ...]:
        with self._lock:
            if self._guards is None:
                given = self._kb.guards
                self._guards = default_guards() if given is None else checked_guards(given)
            return self._guards

    def _keep(self, answer: Answer) -> None:
        if not self._config.keep:
            return
        try:
            self.store.keep(answer)
        except VectorDBError as error:
            # What a model was paid for must not be lost with it.
            raise type(error)(
                f"the answer, which is in error.answer, cannot be kept: {error.message}; "
                "AnswerConfig(keep=False) keeps none",
                **{**error.fields, "answer": answer},
            ) from error

    def _kept(self, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if event.answer is not None:
                self._keep(event.answer)
            yield event
