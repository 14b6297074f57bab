"""The knowledge base: documents go in, passages and answers come out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vectordb.api import Database
from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb_client.rag.addition import Addition
from vectordb_client.rag.arguments import question_text, strings
from vectordb_client.rag.asking import AnswerConfig, Event
from vectordb_client.rag.calibration import CalibrationReport, calibrated
from vectordb_client.rag.chunking import Chunker, TokenChunker
from vectordb_client.rag.desk import AnswerDesk
from vectordb_client.rag.documents import find_sources
from vectordb_client.rag.live import Live
from vectordb_client.rag.migration import Migration, MigrationReport, MigrationRequest
from vectordb_client.rag.parts import (
    check_answering,
    check_chunker,
    check_config,
    check_database,
    check_embedder,
    check_llm,
    check_reranker,
    checked_guards,
)
from vectordb_client.rag.report import AddReport
from vectordb_client.rag.retrieval import RetrievalOptions, Retrieved, Retriever
from vectordb_client.rag.store.generation import Entry
from vectordb_client.rag.store.identity import identify
from vectordb_client.rag.types import Answer, Document, Passage

if TYPE_CHECKING:
    from vectordb_client.rag.embedding.base import Embedder
    from vectordb_client.rag.evaluate import Evaluation
    from vectordb_client.rag.feedback import Replay
    from vectordb_client.rag.guards import Guard
    from vectordb_client.rag.llm.base import LLM
    from vectordb_client.rag.rerank import Reranker

DEFAULT_MAX_FILE_BYTES = 64 << 20
_MAX_NAME = 200
_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{_MAX_NAME}}}")
_RESERVED = re.compile(r"(?<=.)\.(?:answers|documents|state|g\d+)$")


class KnowledgeBase:
    """Documents of any kind in a database, found by meaning. Thread-safe; additions and migrations take turns.

    It keeps collections of its own in ``db``: ``NAME`` with one record a chunk, ``NAME.documents``, ``NAME.state``, and
    after a migration ``NAME.g2``, ... Nothing is created before something is added.

    Args:
        db: From :func:`vectordb_client.connect`: embedded or served. Not bound by a row policy that hides the
            knowledge base's own records; ``where`` bounds a question.
        name: Up to 200 of letters, digits, ``_``, ``-``, ``.``; without one of those endings.
        embedder: By default the one that wrote it where it is installed, else sentence-transformers' all-MiniLM-L6-v2
            (extra ``embed``), else the same model as ONNX (extra ``minilm``); loaded when it is first needed.
        llm: What writes answers: an :class:`~vectordb_client.rag.llm.LLM`.
        chunker: By default :class:`~vectordb_client.rag.chunking.TokenChunker`.
        reranker: A second model that reorders what was found.
        guards: Checks of questions and answers; by default :func:`~vectordb_client.rag.guards.default_guards`.
        answering: How answers are checked, kept and traced.
        config: Further options of the chunks' collection, such as ``{"index": "hnsw"}``; its metric is cosine.

    Raises:
        InvalidArgument: The name cannot be one, or a part is none: a function becomes an embedder by
            :class:`~vectordb_client.rag.embedding.FunctionEmbedder`, a language model by
            :class:`~vectordb_client.rag.llm.FunctionLLM`.
    """

    def __init__(
        self,
        db: Database,
        name: str,
        embedder: Embedder | None = None,
        llm: LLM | None = None,
        chunker: Chunker | None = None,
        reranker: Reranker | None = None,
        guards: Sequence[Guard] | None = None,
        *,
        answering: AnswerConfig | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"name is a string of 1 to {_MAX_NAME} characters, each a letter of A to Z, a digit, '_', '-' or '.', "
                f"got {name!r:.250}",
                field="name",
            )
        if (reserved := _RESERVED.search(name)) is not None:
            raise InvalidArgument(
                f"name {name!r} ends in {reserved[0]!r}, which is what knowledge base {name[: reserved.start()]!r} "
                "calls a collection of its own; choose another ending",
                field="name",
            )
        check_database(db)
        for part, check in (
            (embedder, check_embedder),
            (llm, check_llm),
            (chunker, check_chunker),
            (reranker, check_reranker),
            (answering, check_answering),
        ):
            if part is not None:
                check(part)
        check_config({} if config is None else config)
        self.db, self.name = db, name
        self.llm, self.reranker = llm, reranker
        self.guards: Sequence[Guard] | None = None if guards is None else checked_guards(guards)
        self.chunker: Chunker = chunker if chunker is not None else TokenChunker()
        self._previous_chunker: Chunker | None = None
        self._live = Live(db, name, embedder, config or {})
        self._desk = AnswerDesk(self, answering if answering is not None else AnswerConfig())

    # Documents

    def add(
        self,
        sources: Any,
        *,
        progress: bool = True,
        max_file_bytes: int = DEFAULT_MAX_FILE_BYTES,
    ) -> AddReport:
        """Parses, chunks, embeds and stores files, folders (recursively) and documents.

        What is there already and has not changed is left alone; what changed is replaced; documents whose file
        vanished from a folder that is added again are removed. A source that cannot be read is reported and holds up
        nothing else. Interrupted at any moment, even by SIGKILL, it is completed by running it again.

        Args:
            sources: A path, a :class:`Document`, or an iterable of them.
            progress: Show a progress bar.
            max_file_bytes: Larger files are reported, not read.

        Raises:
            ModelMismatch: Another embedding model wrote the knowledge base.
            FailedPrecondition: A package that reads one of the files, or the embedding model, is not installed.
        """
        with self._live.lock:
            found = find_sources(sources)
            generation = self._live.writable()
            addition = Addition(
                generation, self.embedder, self.chunker, max_file_bytes=max_file_bytes, progress=progress
            )
            return addition.run(found)

    def remove(self, ids: str | Sequence[str]) -> int:
        """Removes documents by id; returns how many were there. Adding their files again brings them back.

        Raises:
            InvalidArgument: The ids are no strings.
        """
        wanted = [ids] if isinstance(ids, str) else strings("ids", ids)
        with self._live.lock:
            live = self._live.read()
            return 0 if live is None else len(live[1].remove(wanted))

    def documents(self, where: Any = None) -> list[Entry]:
        """What is known of all documents, or of those whose metadata match; without their texts."""
        live = self._live.read()
        return [] if live is None else list(live[1].all_entries(where))

    def document(self, document_id: str) -> Document | None:
        """A document with its whole text, as it was added."""
        live = self._live.read()
        return None if live is None else live[1].document(document_id)

    # Passages

    def retrieve(
        self, question: str, limit: int = 5, where: Any = None, min_score: float | None = None, **options: Any
    ) -> list[Passage]:
        """The passages that fit a question, best first.

        Args:
            where: A filter on the documents' metadata, such as ``col("page") == 3``.
            min_score: Leave out passages below this cosine similarity; by default none are, :attr:`min_score` being
                for answers.
            **options: As :class:`~vectordb_client.rag.retrieval.RetrievalOptions` has them: ``mode``, ``diversity``,
                ``neighbours``, ``rewrite``, ``rerank``, ``candidates``, ``exact``, ``timeout``.

        Raises:
            ModelMismatch: Another embedding model wrote the knowledge base.
            DeadlineExceeded: ``timeout`` seconds are over.
        """
        asked = RetrievalOptions.of({"limit": limit, "where": where, "min_score": min_score, **options})
        return list(self.retrieved(question, asked).passages)

    def retrieved(self, question: str, options: RetrievalOptions) -> Retrieved:
        """As :meth:`retrieve`, with the queries, the stages and their times."""
        question_text(question)
        retriever = self._retriever()
        return Retrieved((), (question,), ()) if retriever is None else retriever.retrieve(question, options)

    # Answers

    def ask(self, question: str, **options: Any) -> Answer:
        """An answer with citations, or a refusal; kept for feedback and replay.

        Args:
            **options: As :class:`~vectordb_client.rag.asking.Options` has them: ``where``, ``min_score`` (by default
                and with ``None`` :attr:`min_score`; ``-1.0`` for no bound), ``max_rounds``, ``seed``, ``timeout``,
                ``limit``, ``max_tokens``, ``below``, ``unsupported``, ``template``, ``retrieval``, ...

        Raises:
            FailedPrecondition: There is no language model.
            Unavailable, DeadlineExceeded, ResourceExhausted, ...: The model failed; what was found is in
                ``error.passages``, what happened in ``error.trace``.
            PermissionDenied, ...: The answer cannot be kept; it is in ``error.answer``.
        """
        return self._desk.ask(question, options)

    def ask_stream(self, question: str, **options: Any) -> Iterator[Event]:
        """As :meth:`ask`, step by step: passages, checked sentences, last the whole answer."""
        return self._desk.stream(question, options)

    def feedback(self, answer_id: str, rating: float, comment: str = "") -> str:
        """Keeps what somebody says about an answer; higher ratings are better. Returns the feedback's id.

        Raises:
            NotFound: There is no such answer.
        """
        return self._desk.store.feedback(answer_id, rating, comment)

    def answers(self, where: Any = None) -> Iterator[dict[str, Any]]:
        """The kept answers with their feedback and traces, oldest first, as JSON-like values.

        Args:
            where: A filter on ``created, refused, refusal_reason, grounded, fingerprint``.
        """
        return self._desk.store.export(where)

    def replay(self, answer_id: str) -> Replay:
        """Asks a kept answer's question again and compares: what changed since, and why.

        Raises:
            NotFound: There is no such answer.
        """
        return self._desk.replay(answer_id)

    def evaluate(self, questions: Sequence[Any], **options: Any) -> Evaluation:
        """Measures retrieval, refusals and answers on questions whose answers are known.

        Args:
            questions: :class:`~vectordb_client.rag.evaluate.EvaluationQuestion`, mappings with ``text``, ``relevant``
                (document ids) and ``answers``, or strings that nothing here answers.
            **options: As for :meth:`ask`; ``answers=False`` measures retrieval alone; ``depth`` (10) is how
                many passages of it are measured.

        Raises:
            FailedPrecondition: The extra ``evaluate`` is not installed.
        """
        return self._desk.evaluate(questions, options)

    @property
    def min_score(self) -> float | None:
        """The similarity below which a passage hardly answers: calibrated, else the model's own, else none."""
        state = self._live.states.read()
        if state is not None and state.live.min_score is not None:
            return state.live.min_score
        return getattr(self.embedder, "min_score", None)

    def calibrate(
        self, answerable: Sequence[str], foreign: Sequence[str], *, where: Any = None, store: bool = True
    ) -> CalibrationReport:
        """Finds the :attr:`min_score` that tells questions with an answer here from those without.

        It is chosen on every other question and judged on the rest. Only a sufficient one is stored; otherwise the
        threshold stays as it was, and ``report.stored`` is false.

        Args:
            answerable: Questions that the documents answer.
            foreign: Questions that they do not.
            store: Keep it with the knowledge base, if it is sufficient.

        Raises:
            FailedPrecondition: There is nothing to search.
            InvalidArgument: Fewer than two questions of a kind, or something else than lists of strings.
        """
        own, others = strings("answerable", answerable), strings("foreign", foreign)
        with self._live.lock:
            retriever, state = self._retriever(), self._live.states.read()
            if retriever is None or state is None:
                raise FailedPrecondition(f"knowledge base {self.name!r} is empty; add documents first")
            report = calibrated(retriever.best_scores(own, where), retriever.best_scores(others, where))
            if not store or not report.sufficient:
                return report
            self._live.states.write(replace(state, live=replace(state.live, min_score=report.min_score)))
            return replace(report, stored=True)

    # The embedding model

    @property
    def embedder(self) -> Embedder:
        """The embedding model; the default one is loaded here.

        Raises:
            FailedPrecondition: None was given and none is installed.
        """
        return self._live.embedder

    def migrate(
        self,
        embedder: Embedder,
        *,
        chunker: Chunker | None = None,
        questions: Sequence[str] | None = None,
        switch: bool = True,
        progress: bool = True,
    ) -> MigrationReport:
        """Embeds everything again with another model, beside the live collection, and switches to it at once.

        Answers come from the old vectors until the switch, which is one write. Interrupted, it is resumed by calling it
        again; what was added meanwhile is taken along. :meth:`rollback` returns to the old model.

        Args:
            embedder: The new model.
            chunker: Of the new chunks; by default the knowledge base's.
            questions: For comparing the answers before and after; by default texts of the knowledge base itself.
            switch: ``False`` to see the report first; calling again with ``True`` then only switches.

        Raises:
            FailedPrecondition: There is nothing to migrate, or another process migrates it too.
            InvalidArgument: The embedder or the chunker is none, or the questions are no list of strings.
        """
        check_embedder(embedder)
        if chunker is not None:
            check_chunker(chunker)
        asked = () if questions is None else tuple(strings("questions", questions))
        with self._live.lock:
            identity = identify(embedder)
            state = self._live.states.read()
            if state is None:
                raise FailedPrecondition(f"knowledge base {self.name!r} is empty; add documents with the new embedder")
            chosen, old = chunker or self.chunker, self._live.embedder_of(state.live.model)
            migration = self._migration()
            request = MigrationRequest(embedder, identity, chosen, old, asked, progress, switch)
            report = migration.run(state, request)
            if report.switched:
                self._live.replace_embedder(embedder, identity)
                self._previous_chunker, self.chunker = self.chunker, chosen
            return report

    def rollback(self) -> None:
        """Returns to the generation before the last migration, as it was then; what was added since is not in it.

        Embedder and chunker become those that were in use before, where this object did the migration; else give the
        old ones to a new :class:`KnowledgeBase`.

        Raises:
            FailedPrecondition: There is no earlier generation.
        """
        with self._live.lock:
            state = self._live.states.read()
            if state is None or state.previous is None:
                raise FailedPrecondition(f"knowledge base {self.name!r} has no earlier generation to return to")
            self._live.states.write(replace(state, live=state.previous, previous=state.live))
            self._live.return_embedder()
            if self._previous_chunker is not None:
                self.chunker, self._previous_chunker = self._previous_chunker, self.chunker

    def discard_previous(self) -> None:
        """Deletes the generation that :meth:`rollback` would return to, and frees its space."""
        with self._live.lock:
            state = self._live.states.read()
            if state is not None:
                self._migration().sweep(self._live.states.write(replace(state, previous=None)))

    # Helpers

    def _retriever(self) -> Retriever | None:
        """For the live generation; ``None`` where nothing was added yet."""
        live = self._live.searchable()
        return None if live is None else Retriever(*live, self.reranker)

    def _migration(self) -> Migration:
        return Migration(self.db, self.name, self._live.states, self._live.config)
