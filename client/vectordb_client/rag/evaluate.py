"""Measuring a knowledge base: what it retrieves, what it answers, what it refuses.

Retrieval is measured over documents (a document ranks where its best chunk does) by ``ir-measures``; answers by
:mod:`~vectordb_client.rag.metrics`. Citation recall: of the answered questions whose document was retrieved, how many
cite it. Citation precision: of all sources cited, how many are documents that answer the question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from statistics import fmean, median
from typing import Any

from vectordb.errors import InvalidArgument
from vectordb_client.rag.asking import Options
from vectordb_client.rag.extras import load
from vectordb_client.rag.metrics import contains, exact_match, rouge_l, token_f1
from vectordb_client.rag.retrieval import RetrievalOptions, Retrieved
from vectordb_client.rag.types import Answer

MEASURES = ("nDCG@10", "RR@10", "R@1", "R@5", "R@10")
"""Of retrieval, by the names of ir-measures; cut-offs above the depth are left out."""


_MAX_GRADE = 1000
"""The evaluator counts the documents of every grade up to the highest."""


@dataclass(frozen=True, slots=True)
class EvaluationQuestion:
    """A question whose answer is known.

    Attributes:
        relevant: Documents that answer it, with their grades (1 where there are none; 0 and below: it does not answer);
            empty where nothing does.
        answers: Wordings that count as right.
    """

    id: str
    text: str
    relevant: Mapping[str, float] = field(default_factory=dict)
    answers: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        return bool(self.relevant)


@dataclass(frozen=True, slots=True)
class Row:
    """One question's figures; those of its answer are ``None`` where there is none.

    Attributes:
        documents: What was retrieved, best first.
        retrieved: Whether a document that answers it is among the passages that the answer was made from.
        refused: By the answer, or where nothing was asked by retrieval alone: nothing reached ``min_score``.
        cited: The documents that the answer cites.
        supported: The fraction of the answer's claims that have a source.
    """

    question: EvaluationQuestion
    documents: tuple[str, ...]
    best_score: float | None
    refused: bool
    retrieved: bool | None = None
    answer: Answer | None = None
    cited: tuple[str, ...] = ()
    most_sources: int = 0
    supported: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures, each the mean over its questions; ``nan`` never: what cannot be measured is left out."""

    questions: int
    retrieval: Mapping[str, float]
    refusals: Mapping[str, float]
    answers: Mapping[str, float]
    rows: tuple[Row, ...] = field(repr=False, default=())

    def as_dict(self) -> dict[str, Any]:
        """The figures without the rows."""
        return {key: value for key, value in asdict(replace(self, rows=())).items() if key != "rows"}

    def __str__(self) -> str:
        lines = [f"{self.questions} questions"]
        for title in ("retrieval", "refusals", "answers"):
            figures: Mapping[str, float] = getattr(self, title)
            if figures:
                shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
                lines.append(f"{title + ':':11}{shown}")
        return "\n".join(lines)


class Evaluator:
    """Runs questions through retrieval and, where ``ask`` is given, through the whole of answering."""

    def __init__(
        self,
        retrieve: Callable[[str, RetrievalOptions], Retrieved],
        ask: Callable[[str], Answer] | None,
        options: Options,
        depth: int,
    ) -> None:
        self._retrieve, self._ask, self._options = retrieve, ask, options
        self._depth = depth

    def run(self, questions: Sequence[Any], *, progress: bool = True) -> Evaluation:
        """The figures of all questions.

        Raises:
            InvalidArgument: It is no list, empty, or something in it is no question.
            FailedPrecondition: The extra ``evaluate`` is not installed.
        """
        from tqdm import tqdm

        if isinstance(questions, str | Mapping) or not isinstance(questions, Iterable):
            raise InvalidArgument(
                f"questions is a list of questions, got {type(questions).__name__} {questions!r:.60}; write [question]",
                field="questions",
            )
        asked = [as_question(question, place) for place, question in enumerate(questions)]
        if not asked:
            raise InvalidArgument("questions is empty; give at least one", field="questions")
        rows = [
            self._row(question)
            for question in tqdm(asked, unit="question", disable=None if progress else True, leave=False)
        ]
        return Evaluation(
            len(rows), retrieval_figures(rows, self._depth), refusal_figures(rows), answer_figures(rows), tuple(rows)
        )

    def _row(self, question: EvaluationQuestion) -> Row:
        given = {"limit": self._depth, "where": self._options.where, **self._options.retrieval}
        # The order is measured without the bound: what would be refused is measured beside it.
        found = self._retrieve(question.text, RetrievalOptions.of(given))
        documents = tuple(dict.fromkeys(passage.document_id for passage in found.passages))
        bound = self._options.min_score
        refused = not found.passages or (bound is not None and (found.best_score is None or found.best_score < bound))
        row = Row(question, documents, found.best_score, refused)
        return row if self._ask is None else _answered(row, self._ask(question.text))


def as_question(given: Any, place: int = 0) -> EvaluationQuestion:
    """A question from what users give.

    Args:
        given: An :class:`EvaluationQuestion`, one of the shipped corpus, a mapping, or a string that nothing answers.
            One string as ``relevant`` is one id, as ``answers`` one wording.

    Raises:
        InvalidArgument: It is none of these, or something in it has another type.
    """
    question = _as_question(given, place)
    text: Any = question.text
    relevant: Any = question.relevant
    answers: Any = question.answers
    problem = None
    if not isinstance(text, str) or not text.strip():
        problem = "has no text"
    elif not isinstance(relevant, Mapping):
        problem = f"has {relevant!r:.60} as relevant; give a mapping of document ids to grades"
    elif wrong := [one for one in relevant if not isinstance(one, str) or not one]:
        problem = f"has {wrong[0]!r:.60} in relevant; document ids are strings"
    elif wrong := [one for one in relevant.values() if not _is_grade(one)]:
        problem = f"has {wrong[0]!r:.60} as a grade of relevant; grades are numbers up to {_MAX_GRADE}"
    elif not isinstance(answers, tuple | list) or not all(isinstance(one, str) for one in answers):
        problem = f"has {answers!r:.60} as answers; give a list of strings"
    if problem is not None:
        raise InvalidArgument(f"questions[{place}] {problem}", field="questions", row=place)
    # Judgements list by 0 what was looked at and does not answer.
    return replace(question, relevant={document: grade for document, grade in relevant.items() if grade > 0})


def _is_grade(value: Any) -> bool:
    number: Any = value
    return isinstance(value, Real) and not isinstance(number, bool) and bool(number <= _MAX_GRADE)


def _as_question(given: Any, place: int) -> EvaluationQuestion:
    if isinstance(given, EvaluationQuestion):
        return given
    if isinstance(given, str):
        return EvaluationQuestion(str(place), given)
    if hasattr(given, "document_id") and hasattr(given, "answers"):
        return EvaluationQuestion(given.id, given.text, {given.document_id: 1.0}, tuple(given.answers))
    if isinstance(given, Mapping) and isinstance(given.get("text"), str):
        relevant = _several(given.get("relevant", {}), "relevant", place)
        graded = dict(relevant) if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1.0)
        answers = tuple(_several(given.get("answers", ()), "answers", place))
        return EvaluationQuestion(str(given.get("id", place)), given["text"], graded, answers)
    raise InvalidArgument(
        f"questions[{place}] is {type(given).__name__}; give a string or a mapping with text, relevant and answers",
        field="questions",
        row=place,
    )


def _several(given: Any, name: str, place: int) -> Mapping[Any, Any] | list[Any]:
    if isinstance(given, Mapping):
        return given
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Iterable):
        raise InvalidArgument(
            f"questions[{place}] has {given!r:.60} as {name}; give a list of strings", field="questions", row=place
        )
    return list(given)


def retrieval_figures(rows: Sequence[Row], depth: int) -> dict[str, float]:
    """nDCG, reciprocal rank and recall over the answerable questions."""
    judged = [row for row in rows if row.question.answerable]
    if not judged:
        return {}
    measures = load("ir_measures", "evaluate", "measuring retrieval")
    # Not by ``parse_measure``, which needs what Python 3.14 takes out of ``ast``.
    named = [(getattr(measures, name), int(cut)) for name, _, cut in (each.partition("@") for each in MEASURES)]
    wanted = [measure @ cut for measure, cut in named if cut <= depth]
    ids = [str(place) for place in range(len(judged))]  # the same id twice would be one question
    qrels = [
        measures.Qrel(one, document, max(1, round(grade)))
        for one, row in zip(ids, judged, strict=True)
        for document, grade in row.question.relevant.items()
    ]
    run = [
        measures.ScoredDoc(one, document, float(len(row.documents) - rank))
        for one, row in zip(ids, judged, strict=True)
        for rank, document in enumerate(row.documents)
    ]
    # Questions for which nothing was found count as zero.
    found = measures.calc_aggregate(wanted, qrels, run) if run else dict.fromkeys(wanted, 0.0)
    return {str(measure): float(found[measure]) for measure in wanted}


def refusal_figures(rows: Sequence[Row]) -> dict[str, float]:
    """Precision and recall of refusing what cannot be answered, and how much of the rest is refused too."""
    refused = [row for row in rows if row.refused]
    foreign = [row for row in rows if not row.question.answerable]
    known = [row for row in rows if row.question.answerable]
    figures = {}
    if foreign:
        figures["recall"] = fmean(row.refused for row in foreign)
        if refused:
            figures["precision"] = fmean(not row.question.answerable for row in refused)
    if known:
        figures["answerable_refused"] = fmean(row.refused for row in known)
    return figures


def answer_figures(rows: Sequence[Row]) -> dict[str, float]:
    """What the answers are worth; text measures over the answerable questions with an answer."""
    asked = [row for row in rows if row.answer is not None]
    answered = [row for row in asked if not row.refused]
    if not asked:
        return {}
    figures = {"answered": len(answered) / len(asked)}
    for name in ("exact_match", "token_f1", "rouge_l", "contains"):
        found = [row.scores[name] for row in answered if name in row.scores]
        if found:
            figures[name] = fmean(found)
    if answered:
        figures["grounded"] = fmean(row.answer.grounded for row in answered if row.answer is not None)
        # Where the model alone wrote all answers, nothing was checked.
        if supported := [row.supported for row in answered if row.supported is not None]:
            figures["faithfulness"] = fmean(supported)
        figures["most_sources_a_sentence"] = max(row.most_sources for row in answered)
    could = [row for row in answered if row.retrieved]
    if could:
        figures["citation_recall"] = fmean(_cites(row) for row in could)
    sources = [source in row.question.relevant for row in answered if row.question.answerable for source in row.cited]
    if sources:
        figures["citation_precision"] = fmean(sources)
    figures["median_ms"] = median(row.answer.trace.took_ms for row in asked if row.answer is not None)
    return figures


def _cites(row: Row) -> bool:
    return any(document in row.question.relevant for document in row.cited)


def _answered(row: Row, answer: Answer) -> Row:
    check = answer.trace.stage("check")
    sentences = [] if check is None else [one for one in check.facts["sentences"] if one["kept"]]
    claims = [bool(one["accepted"]) for one in sentences if one["claims"]]
    scores = {}
    if row.question.answers and not answer.refused:
        scores = {
            measure.__name__: measure(answer.text, row.question.answers)
            for measure in (exact_match, token_f1, rouge_l, contains)
        }
    return replace(
        row,
        answer=answer,
        refused=answer.refused,
        retrieved=any(passage.document_id in row.question.relevant for passage in answer.passages),
        cited=tuple(dict.fromkeys(citation.document_id for citation in answer.citations)),
        most_sources=max((len(one["accepted"]) for one in sentences), default=0),
        supported=fmean(claims) if claims else None,
        scores=scores,
    )
