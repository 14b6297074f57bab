"""From a question to passages, stage by stage, within one deadline.

    rewrite -> embed -> search -> fuse -> rerank -> diversify -> extend by neighbours

What improves an answer but is not needed for one (rewriting, reranking, neighbours) gets a share of the time and is
left out when that is over; what is needed (embedding, searching) raises ``DeadlineExceeded``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.arguments import flag
from vectordb.errors import DeadlineExceeded, InvalidArgument
from vectordb.metric import Metric, prepared, scores
from vectordb.results import Hit
from vectordb_client.rag.arguments import number, scores_of, whole
from vectordb_client.rag.embedding.vectors import embedded_queries
from vectordb_client.rag.neighbours import extended
from vectordb_client.rag.ranking import maximal_marginal_relevance, reciprocal_rank_fusion
from vectordb_client.rag.rewrite import as_rewriter
from vectordb_client.rag.store.generation import PLACE, RESERVED, Generation
from vectordb_client.rag.types import Passage
from vectordb_client.transport.retry import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb_client.rag.embedding.base import Embedder
    from vectordb_client.rag.rerank import Reranker

MODES = ("vector", "hybrid", "text")
_REWRITE_SHARE, _RERANK_SHARE = 0.4, 0.7
"""Of the time left when the stage begins."""
_CANDIDATES = 4
"""So many times the limit are looked at where something reorders them."""


@dataclass(frozen=True, slots=True)
class RetrievalOptions:
    """How passages are found.

    Attributes:
        limit: At most so many passages, at least 1.
        where: A filter on the documents' metadata.
        min_score: Passages below this cosine similarity are left out; ``None`` for no bound.
        mode: ``"vector"`` by meaning, ``"text"`` by keywords (BM25), ``"hybrid"`` by both.
        fusion: How a hybrid search joins the two, as ``Collection.search`` takes it.
        candidates: How many are found before reranking and diversifying cut to ``limit``; by default four times that.
        diversity: 0 to 1: how much a passage loses by repeating a better one (maximal marginal relevance).
        neighbours: So many chunks before and after each passage are joined to its text.
        rewrite: A function of the question, or an LLM, that makes further queries; all are searched and fused.
        rerank: Whether the knowledge base's reranker is used, where it has one.
        exact: Compare with every chunk instead of using an approximate index.
        timeout: Seconds for all stages together; ``None`` for no bound.
    """

    limit: int = 5
    where: Any = None
    min_score: float | None = None
    mode: str = "vector"
    fusion: Any = "rrf"
    candidates: int | None = None
    diversity: float = 0.0
    neighbours: int = 0
    rewrite: Any = None
    rerank: bool = True
    exact: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", whole("limit", self.limit, 1))
        object.__setattr__(self, "neighbours", whole("neighbours", self.neighbours, 0))
        if self.candidates is not None:
            object.__setattr__(self, "candidates", whole("candidates", self.candidates, self.limit))
        if self.mode not in MODES:
            raise InvalidArgument(f"mode is one of {', '.join(MODES)}, got {self.mode!r}", field="mode")
        object.__setattr__(self, "diversity", number("diversity", self.diversity, "is from 0 to 1", 0.0, 1.0))
        if self.min_score is not None:
            what = "is a number, a cosine similarity, or None for no bound"
            object.__setattr__(self, "min_score", number("min_score", self.min_score, what))
        if self.timeout is not None:
            # What is left of a question's time may be nothing: the first stage says so.
            what = "is seconds, at least 0, or None for no bound"
            object.__setattr__(self, "timeout", number("timeout", self.timeout, what, 0.0))
        for name in ("rerank", "exact"):
            flag(getattr(self, name), name)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RetrievalOptions:
        """From keyword arguments.

        Raises:
            InvalidArgument: A name is not known, or a value out of range.
        """
        names = cls.__dataclass_fields__
        for name in options:
            if name not in names:
                raise InvalidArgument(f"retrieval has no option {name!r}; it has {', '.join(names)}", field=name)
        return cls(**options)


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage of a retrieval: its name, wall time in milliseconds, and facts about it."""

    name: str
    milliseconds: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What a retrieval found and how.

    Attributes:
        queries: The question, and what rewriting made of it.
        stages: In order; a stage that was left out for want of time has ``details["skipped"]``.
        best_score: The highest cosine similarity that was found, also where it is below ``min_score``; ``None`` where
            nothing was found.
    """

    passages: tuple[Passage, ...]
    queries: tuple[str, ...]
    stages: tuple[StageTime, ...]
    best_score: float | None = None


@dataclass(slots=True)
class _Candidate:
    """A chunk that was found: its best cosine similarity, what orders it, and what the reranker says."""

    hit: Hit
    score: float
    relevance: float
    rerank_score: float | None = None


class Retriever:
    """Finds passages in one generation with one model. Thread-safe."""

    def __init__(self, generation: Generation, embedder: Embedder, reranker: Reranker | None = None) -> None:
        self._generation, self._embedder, self._reranker = generation, embedder, reranker

    def retrieve(self, question: str, options: RetrievalOptions) -> Retrieved:
        """The passages for one question, best first.

        Raises:
            DeadlineExceeded: The time was over before there was an answer.
        """
        return _Run(self._generation, self._embedder, self._reranker, question, options).retrieved()

    def best_scores(self, questions: Sequence[str], where: Any = None) -> NDArray[np.float64]:
        """For each question the cosine similarity of its best passage, minus infinity without any: float64[n]."""
        if not questions:
            return np.empty(0)
        vectors = embedded_queries(self._embedder, questions)
        found = self._generation.chunks.search_batch(vectors, limit=1, where=where, exact=True, include=())
        return np.array([result[0].score if len(result) else -np.inf for result in found])


class _Run:
    """One retrieval under way."""

    def __init__(
        self,
        generation: Generation,
        embedder: Embedder,
        reranker: Reranker | None,
        question: str,
        options: RetrievalOptions,
    ) -> None:
        self._generation, self._embedder = generation, embedder
        self._reranker = reranker if options.rerank else None
        self._question, self._options = question, options
        self._clock = Clock(options.timeout)
        self._stages: list[StageTime] = []

    def retrieved(self) -> Retrieved:
        queries = self._queries()
        vectors = self._embedded(queries)
        found = self._found(queries, vectors)
        best = max((candidate.score for candidate in found), default=None)
        bound = self._options.min_score
        candidates = [c for c in found if bound is None or c.score >= bound][: self._wanted]
        self._rerank(candidates)
        chosen = self._chosen(candidates)
        passages = [_passage(candidate, rank) for rank, candidate in enumerate(chosen, start=1)]
        if self._options.neighbours and passages:
            passages = self._with_neighbours(passages)
        return Retrieved(tuple(passages), tuple(queries), tuple(self._stages), best)

    @contextmanager
    def _stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Times a stage, and checks before it that there is time left."""
        if self._clock.remaining() == 0.0:
            raise DeadlineExceeded(
                f"retrieving took longer than {self._options.timeout} s before the stage {name!r}; "
                "give it a longer timeout",
                timeout=self._options.timeout,
                stage=name,
            )
        details: dict[str, Any] = {}
        started = time.perf_counter()
        yield details
        self._stages.append(StageTime(name, 1000.0 * (time.perf_counter() - started), details))

    def _share(self, share: float) -> float | None:
        left = self._clock.remaining()
        return None if left is None else share * left

    def _queries(self) -> list[str]:
        queries = [self._question]
        if self._options.rewrite is not None:
            rewriter = as_rewriter(self._options.rewrite)
            with self._stage("rewrite") as details:
                try:
                    queries += [one for one in rewriter(self._question, self._share(_REWRITE_SHARE)) if one.strip()]
                except DeadlineExceeded:
                    details["skipped"] = "deadline"
                details["queries"] = queries[1:]
        return list(dict.fromkeys(queries))

    def _embedded(self, queries: list[str]) -> NDArray[np.float32]:
        with self._stage("embed") as details:
            details["model"] = self._embedder.name
            return embedded_queries(self._embedder, queries, self._clock.remaining())

    def _found(self, queries: list[str], vectors: NDArray[np.float32]) -> list[_Candidate]:
        with self._stage("search") as details:
            results = self._searched(queries, vectors)
            details |= {"mode": self._options.mode, "hits": [len(hits) for hits in results]}
            details["plan"] = [_plan(result) for result in results]
        best = self._best_scores(results, vectors)
        hits = {hit.id: hit for result in results for hit in result}
        if len(results) == 1:
            order = [(hit.id, hit.score) for hit in results[0]]
        else:
            order = reciprocal_rank_fusion([[hit.id for hit in result] for result in results])
        return [_Candidate(hits[one], best[one], relevance) for one, relevance in order]

    @property
    def _wanted(self) -> int:
        """How many candidates are looked at."""
        options = self._options
        if options.candidates is not None:
            return options.candidates
        reorders = self._reranker is not None or options.diversity > 0 or options.rewrite is not None
        return _CANDIDATES * options.limit if reorders else options.limit

    def _searched(self, queries: list[str], vectors: NDArray[np.float32]) -> list[Sequence[Hit]]:
        options, chunks = self._options, self._generation.chunks
        include = ["metadata", "text"]
        if options.diversity > 0 or options.mode != "vector":
            include.append("vector")
        shared: dict[str, Any] = {
            "limit": self._wanted,
            "where": options.where,
            "timeout": self._clock.remaining(),
            "include": include,
        }
        if options.mode == "text":
            search_text: Any = chunks.search_text
            return [search_text(query, **shared) for query in queries]
        shared["exact"] = options.exact
        if options.mode == "vector":
            return list(chunks.search_batch(vectors, **shared))
        search: Any = chunks.search
        return [
            search(vector, text=query, fusion=options.fusion, min_score=options.min_score, **shared)
            for query, vector in zip(queries, vectors, strict=True)
        ]

    def _best_scores(self, results: Sequence[Sequence[Hit]], vectors: NDArray[np.float32]) -> dict[str, float]:
        """The highest cosine similarity of each hit to any query; of keyword hits computed here, as the engine does."""
        best: dict[str, float] = {}
        for result, vector in zip(results, vectors, strict=True):
            if self._options.mode != "vector" and len(result):
                rows = prepared(np.stack([np.asarray(hit.vector) for hit in result]), Metric.COSINE)
                query = prepared(vector[None, :], Metric.COSINE)[0]
                similarities = scores(query, rows, Metric.COSINE).tolist()
            else:
                similarities = [hit.score for hit in result]
            for hit, similarity in zip(result, similarities, strict=True):
                best[hit.id] = max(similarity, best.get(hit.id, -np.inf))
        return best

    def _rerank(self, candidates: list[_Candidate]) -> None:
        """Orders candidates by the reranker's scores, where there is one and time for it."""
        if self._reranker is None or not candidates:
            return
        with self._stage("rerank") as details:
            details |= {"model": self._reranker.name, "candidates": len(candidates)}
            texts = [candidate.hit.text or "" for candidate in candidates]
            try:
                judged = self._reranker.scores(self._question, texts, self._share(_RERANK_SHARE))
            except DeadlineExceeded:
                details["skipped"] = "deadline"
                return
        found = scores_of(f"reranker {self._reranker.name!r}", judged, len(texts))
        for candidate, score in zip(candidates, found, strict=True):
            candidate.rerank_score = candidate.relevance = score
        candidates.sort(key=lambda candidate: (-candidate.relevance, candidate.hit.id))

    def _chosen(self, candidates: list[_Candidate]) -> list[_Candidate]:
        limit = self._options.limit
        if self._options.diversity == 0 or len(candidates) < 2:
            return candidates[:limit]
        with self._stage("diversify"):
            relevance = np.array([candidate.relevance for candidate in candidates])
            vectors = np.stack([np.asarray(candidate.hit.vector) for candidate in candidates])
            order = maximal_marginal_relevance(relevance, vectors, limit, self._options.diversity)
            return [candidates[place] for place in order]

    def _with_neighbours(self, passages: list[Passage]) -> list[Passage]:
        if self._clock.remaining() == 0.0:
            self._stages.append(StageTime("neighbours", 0.0, {"skipped": "deadline"}))
            return passages
        with self._stage("neighbours"):
            spans = extended(self._generation, passages, self._options.neighbours)
            return [replace(p, start=s.start, end=s.end, text=s.text) for p, s in zip(passages, spans, strict=True)]


def _passage(candidate: _Candidate, rank: int) -> Passage:
    metadata = candidate.hit.metadata or {}
    place = metadata[PLACE]
    return Passage(
        document_id=place["document"],
        chunk_id=candidate.hit.id,
        text=candidate.hit.text or "",
        score=candidate.score,
        start=place["start"],
        end=place["end"],
        rank=rank,
        metadata={key: value for key, value in metadata.items() if key not in RESERVED},
        rerank_score=candidate.rerank_score,
    )


def _plan(result: Any) -> list[dict[str, Any]]:
    """How the engine searched: one entry a segment."""
    return [
        {"segment": one.segment, "strategy": one.strategy, "matched": one.matched, "rows_scored": one.rows_scored}
        for one in result.plan
    ]
