"""From a question to an answer that can be trusted.

    guards -> retrieve -> [what is missing? -> retrieve] -> prompt -> model -> each sentence: cite, check -> guards

The model is not called where there is nothing to answer from. Every sentence is checked against the passages before
anyone sees it, also in a stream. Errors of the model carry what was found until then: ``error.passages``,
``error.trace``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vectordb.errors import InvalidArgument, VectorDBError
from vectordb.ids import generated_ids
from vectordb_client.rag.arguments import question_text
from vectordb_client.rag.asking import Event, Options, refusal
from vectordb_client.rag.checking import Checker
from vectordb_client.rag.citations import citations, parse, rendered
from vectordb_client.rag.guards import ANSWER, QUESTION, Guard
from vectordb_client.rag.llm.base import LLM, Completion
from vectordb_client.rag.llm.calls import completed, streamed
from vectordb_client.rag.prompt import Prompt, PromptTemplate, build
from vectordb_client.rag.ranking import reciprocal_rank_fusion
from vectordb_client.rag.retrieval import RetrievalOptions, Retrieved
from vectordb_client.rag.support import Judge
from vectordb_client.rag.telemetry import Telemetry
from vectordb_client.rag.templates import MISSING, OPEN
from vectordb_client.rag.trace import Action, Recorder, Verdict
from vectordb_client.rag.types import Answer, Citation, Passage
from vectordb_client.transport.retry import Clock

Retrieve = Callable[[str, RetrievalOptions], Retrieved]

_BROADEN_BOUND, _BROADEN_LIMIT = 0.8, 2
_QUERY_TOKENS = 48
_NOTHING = "NOTHING"


@dataclass(frozen=True)
class Answerer:
    """What answers questions: the parts, without any state of a question. Thread-safe as its parts are.

    Attributes:
        retrieve: From a question and options to passages.
        judge: Finds what supports each sentence: :class:`~vectordb_client.rag.support.Overlap`.
        verifier: A second judge that has to agree with each citation, such as an LLM or an NLI model.
        guards: In the order that they run.
        collection: The name of what is searched, for traces.
        configuration: Further facts for the fingerprint, such as the embedding model's identity.
    """

    retrieve: Retrieve
    llm: LLM
    judge: Judge
    verifier: Judge | None = None
    guards: tuple[Guard, ...] = ()
    telemetry: Telemetry | None = None
    collection: str = ""
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, question: str, options: Options) -> Answer:
        """The answer, or the refusal.

        Raises:
            InvalidArgument: The question is empty, or too long for the model together with its instructions.
            Unavailable, DeadlineExceeded, ResourceExhausted, ...: As retrieval and model raise them, with ``passages``.
        """
        for event in _Asked(self, question, options, streamed=False).events():
            if event.answer is not None:
                return event.answer
        raise AssertionError("the last event has the answer")

    def stream(self, question: str, options: Options) -> Iterator[Event]:
        """Passages, then checked sentences, last the answer. Closing the iterator stops the model."""
        return _Asked(self, question, options, streamed=True).events()


class _Asked:
    """One question under way."""

    def __init__(self, parts: Answerer, question: str, options: Options, *, streamed: bool) -> None:
        self._parts, self._options, self._streamed = parts, options, streamed
        self._question = question_text(question)
        self._clock = Clock(options.timeout)
        self._passages: tuple[Passage, ...] = ()
        self._below = False
        configuration = {**parts.configuration, **self._configuration()}
        self._recorder = Recorder(generated_ids(1)[0], options.request(question), configuration, parts.telemetry)

    def events(self) -> Iterator[Event]:
        telemetry = self._parts.telemetry
        with contextlib.ExitStack() as stack:
            span = None
            if telemetry is not None:
                span = stack.enter_context(telemetry.question(self._question, self._parts.collection))
            try:
                for event in self._steps():
                    if event.answer is not None and telemetry is not None:
                        telemetry.answered(span, event.answer)
                    yield event
            except VectorDBError as error:
                facts = {**error.fields, "passages": self._passages, "trace": self._recorder.trace()}
                # The first cause stays the cause: what a model of the caller's own raised.
                raise type(error)(error.message, **facts) from (error.__cause__ or error)

    def _steps(self) -> Iterator[Event]:
        question, refused = self._guarded(QUESTION, self._question)
        if refused is not None:
            yield self._refused(refused)
            return
        self._passages = self._found(question)
        if self._passages:
            self._further_rounds(question)
        elif self._options.below == "fallback_llm":
            yield from self._from_the_model_alone(question)
            return
        else:
            yield self._refused("below_min_score" if self._below else "no_passages")
            return
        yield Event("passages", passages=self._passages)
        yield from self._written(question)

    # Retrieval

    def _found(self, question: str) -> tuple[Passage, ...]:
        options = self._options
        found = self._retrieved(question, options.limit, options.min_score)
        if found or options.below != "broaden" or options.min_score is None:
            return found
        return self._retrieved(question, _BROADEN_LIMIT * options.limit, _BROADEN_BOUND * options.min_score)

    def _retrieved(self, query: str, limit: int, min_score: float | None) -> tuple[Passage, ...]:
        given = {"limit": limit, "min_score": min_score, "where": self._options.where, **self._options.retrieval}
        with self._recorder.stage("retrieve") as facts:
            facts |= {"collection": self._parts.collection, "query": query, "limit": limit, "min_score": min_score}
            found = self._parts.retrieve(query, RetrievalOptions.of({**given, "timeout": self._clock.remaining()}))
            facts["best_score"] = found.best_score
            facts["found"] = [
                {"chunk": p.chunk_id, "score": round(p.score, 4), "rerank_score": p.rerank_score}
                for p in found.passages
            ]
            facts["plan"] = [
                {"name": stage.name, "took_ms": round(stage.milliseconds, 2), **stage.details} for stage in found.stages
            ]
        self._below = self._below or (found.best_score is not None and not found.passages)
        return found.passages

    def _further_rounds(self, question: str) -> None:
        """Asks the model what is missing and retrieves that, until nothing is or the rounds are over."""
        rounds, asked = [self._passages], {question.casefold()}
        for _ in range(self._options.max_rounds - 1):
            query = self._missing(question)
            if query is None or query.casefold() in asked:
                return
            asked.add(query.casefold())
            rounds.append(self._retrieved(query, self._options.limit, self._options.min_score))
            self._passages = fused(rounds)

    def _missing(self, question: str) -> str | None:
        prompt = self._prompt(MISSING, question, self._passages, _QUERY_TOKENS)
        with self._recorder.stage("missing") as facts:
            completion = self._completed(prompt, facts, _QUERY_TOKENS)
            line = completion.text.strip().partition("\n")[0].strip().strip("\"'").strip()
            enough = not line or line.upper().startswith(_NOTHING)
            facts["missing"] = None if enough else line
        return None if enough else line

    # The model

    def _written(self, question: str) -> Iterator[Event]:
        options = self._options
        prompt = self._prompt(options.template, question, self._passages, options.max_tokens)
        shown = self._passages[: prompt.shown]
        checker = Checker((self._parts.judge, self._parts.verifier), question, shown, options, self._clock)
        held = list[str]()
        with self._recorder.stage("generate") as facts:
            pieces = self._pieces(prompt, facts)
            for text in checker.sentences(pieces, lambda: facts.get("finish_reason") == "length"):
                held.append(text)
                # Nothing is shown before something is supported, nor what a guard or the whole may still take back.
                if self._streamed and self._live and checker.grounded_any:
                    yield Event("text", text="".join(held))
                    held.clear()
        with self._recorder.stage("check") as facts:
            facts |= checker.facts()
            facts |= {"judge": self._parts.judge.name, "threshold": self._parts.judge.threshold}
        reason = checker.refusal()
        if reason is not None:
            yield self._refused(reason)
            return
        text, refused = self._guarded(ANSWER, rendered(checker.kept))
        if refused is not None:
            yield self._refused(refused)
            return
        if self._streamed and (held or not self._live):
            yield Event("text", text="".join(held) if self._live else text)
        kept = parse(text)
        # A guard may have taken sentences or markers away: only what is still there is cited.
        numbers = {number for sentence in kept for number in sentence.cited}
        found = tuple(one for one in citations(checker.kept, self._passages) if one.marker in numbers)
        yield self._finished(text, found, checker.grounded)

    def _from_the_model_alone(self, question: str) -> Iterator[Event]:
        """``below="fallback_llm"``: no passages, no citations, never grounded."""
        prompt = self._prompt(OPEN, question, (), self._options.max_tokens)
        with self._recorder.stage("generate") as facts:
            text = "".join(self._pieces(prompt, facts))
            # Without passages every marker is made up.
            text = " ".join(sentence.text for sentence in parse(text))
        text, refused = self._guarded(ANSWER, text)
        if refused is not None or not text:
            yield self._refused(refused or "not_in_passages")
            return
        if self._streamed:
            yield Event("text", text=text)
        yield self._finished(text, (), grounded=False)

    def _prompt(self, template: PromptTemplate, question: str, passages: Sequence[Passage], max_tokens: int) -> Prompt:
        with self._recorder.stage("prompt") as facts:
            prompt = build(
                template, question, passages, self._parts.llm, max_tokens=max_tokens, seed=self._options.seed
            )
            facts |= {
                "template": prompt.template,
                "hash": prompt.hash,
                "tokens": prompt.tokens,
                "passages_shown": prompt.shown,
                "passages_left_out": len(passages) - prompt.shown,
                "neutralised": prompt.neutralised,
                "cut": prompt.cut,
            }
            messages = [message.as_dict() for message in prompt.messages]
            self._recorder.prompts.append(
                {"template": prompt.template, "hash": prompt.hash, "mark": prompt.mark, "messages": messages}
            )
        return prompt

    def _pieces(self, prompt: Prompt, facts: dict[str, Any]) -> Iterator[str]:
        """What the model writes: in pieces where the answer is streamed, else at once."""
        if not self._streamed:
            yield self._completed(prompt, facts, self._options.max_tokens).text
            return
        facts |= self._asked_for(self._options.max_tokens)
        sampling = self._sampling(self._options.max_tokens)
        with contextlib.closing(streamed(self._parts.llm, prompt.messages, self._clock, **sampling)) as stream:
            for delta in stream:
                if delta.completion is not None:
                    self._note(delta.completion, facts)
                if delta.text:
                    yield delta.text

    def _completed(self, prompt: Prompt, facts: dict[str, Any], max_tokens: int) -> Completion:
        facts |= self._asked_for(max_tokens)
        completion = completed(self._parts.llm, prompt.messages, self._clock, **self._sampling(max_tokens))
        self._note(completion, facts)
        return completion

    def _sampling(self, max_tokens: int) -> dict[str, Any]:
        return {"max_tokens": max_tokens, "temperature": self._options.temperature, "seed": self._options.seed}

    def _asked_for(self, max_tokens: int) -> dict[str, Any]:
        return {"model": self._parts.llm.name, **self._sampling(max_tokens)}

    def _note(self, completion: Completion, facts: dict[str, Any]) -> None:
        usage = completion.usage
        self._recorder.used(usage.prompt_tokens, usage.completion_tokens)
        facts |= {
            "response_model": completion.model,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "text": completion.text,
            **completion.details,
        }

    # The end

    @property
    def _live(self) -> bool:
        """Whether checked sentences may be shown before the whole answer is there."""
        return self._options.unsupported != "refuse" and not any(ANSWER in guard.stages for guard in self._parts.guards)

    def _guarded(self, stage: str, text: str) -> tuple[str, str | None]:
        """The text after all guards of a stage, and the reason where one refused it."""
        guards = [guard for guard in self._parts.guards if stage in guard.stages]
        if not guards:
            return text, None
        with self._recorder.stage("guard") as facts:
            facts["stage"] = stage
            for guard in guards:
                verdict = self._verdict(guard, stage, text)
                if verdict.action is Action.REFUSE:
                    facts["refused_by"] = guard.name
                    return text, guard.name.partition("(")[0]
                if verdict.action is Action.REPLACE and verdict.text is not None:
                    text = verdict.text
        return text, None

    def _verdict(self, guard: Guard, stage: str, text: str) -> Verdict:
        verdict: Any = guard.check(stage, text)
        if not isinstance(verdict, Verdict):
            raise InvalidArgument(
                f"guard {guard.name!r} returned {type(verdict).__name__} {verdict!r:.60} from check(); it returns a "
                "Verdict(guard, stage, action, reason), such as Verdict(self.name, stage) where the text may pass",
                field="guards",
                guard=guard.name,
            )
        self._recorder.verdicts.append(verdict)
        return verdict

    def _refused(self, reason: str) -> Event:
        trace = self._recorder.trace()
        text = refusal(reason, self._options.refusals)
        answer = Answer(trace.answer_id, self._question, text, (), self._passages, False, True, reason, trace)
        return Event("answer", answer=answer)

    def _finished(self, text: str, found: tuple[Citation, ...], grounded: bool) -> Event:
        trace = self._recorder.trace()
        answer = Answer(trace.answer_id, self._question, text, found, self._passages, grounded, False, None, trace)
        return Event("answer", answer=answer)

    def _configuration(self) -> dict[str, Any]:
        parts, options = self._parts, self._options
        template = options.template
        return {
            "collection": parts.collection,
            "llm": parts.llm.name,
            "template": f"{template.name}@{template.version}:{template.hash}",
            "judge": parts.judge.name,
            "verifier": None if parts.verifier is None else parts.verifier.name,
            "guards": [guard.name for guard in parts.guards],
            "options": options.settings(),
        }


def fused(rounds: Sequence[Sequence[Passage]]) -> tuple[Passage, ...]:
    """The passages of several rounds in one order, each once, by reciprocal rank."""
    by_chunk = {passage.chunk_id: passage for found in reversed(rounds) for passage in found}
    order = reciprocal_rank_fusion([[passage.chunk_id for passage in found] for found in rounds])
    return tuple(replace(by_chunk[chunk], rank=rank) for rank, (chunk, _) in enumerate(order, 1))
