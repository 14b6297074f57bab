"""``python -m bench rag``: what the answering layer retrieves, refuses, answers and cites, on real questions.

    retrieval   chunkers, embedders and modes in one table and a plot: nDCG@10, reciprocal rank, recall
    refusals    questions of the other corpus, with a threshold calibrated on half of the questions and judged on others
    answers     a real language model: citation recall and precision, token F1 beside its own with the gold paragraph

``xquad`` is shipped; ``cranfield`` and its refusals need ``$VECTORDB_TEST_DATA`` or ``../shared/data``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from bench import report
from vectordb.cli.knowledge import choose
from vectordb_client import connect
from vectordb_client.rag import (
    CachedEmbedder,
    Chunker,
    Document,
    Embedder,
    KnowledgeBase,
    MiniLM,
    SentenceChunker,
    TokenChunker,
    WholeDocument,
)
from vectordb_client.rag.asking import AnswerConfig
from vectordb_client.rag.corpus import load
from vectordb_client.rag.evaluate import Evaluation, EvaluationQuestion, Row
from vectordb_client.rag.llm import LLM
from vectordb_client.rag.metrics import contains, token_f1
from vectordb_client.rag.prompt import PromptTemplate, build
from vectordb_client.rag.templates import ANSWER
from vectordb_client.rag.types import Passage

PARTS = ("retrieval", "refusals", "answers")
CHUNKERS: dict[str, Callable[[], Chunker]] = {
    "whole": WholeDocument,
    "tokens(200)": TokenChunker,
    "tokens(64)": lambda: TokenChunker(64),
    "sentences": lambda: SentenceChunker(64),
}


@dataclass(frozen=True)
class Questions:
    """Documents, and questions with what answers them."""

    name: str
    documents: tuple[Document, ...]
    questions: tuple[EvaluationQuestion, ...]


def main(arguments: Sequence[str]) -> None:
    """Runs the parts that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench rag", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", choices=["xquad", "cranfield"], default="xquad")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--questions", type=int, help="only so many, evenly spread")
    parser.add_argument("--chunkers", nargs="+", choices=list(CHUNKERS), default=list(CHUNKERS))
    parser.add_argument("--llm", default="small", help="as for `vectordb ask`")
    parser.add_argument("--limit", type=int, default=3, help="passages that an answer is made from")
    parser.add_argument("--out", type=Path, help="JSON file; by default under bench/results/local")
    options = parser.parse_args(arguments)
    data = read(options.data)
    model = CachedEmbedder(MiniLM())
    result: dict[str, Any] = {"machine": report.machine(), "data": options.data}
    name = f"rag-{data.name}-{date.today().isoformat()}.json"
    path = options.out or Path(__file__).parent / "results" / "local" / name
    if "retrieval" in options.parts:
        asked = spread(data.questions, options.questions)
        chosen = replace(data, questions=tuple(asked))
        result["retrieval"] = compare(chosen, model, options.chunkers, path.with_suffix(".png"))
    if "refusals" in options.parts:
        try:
            result["refusals"] = refusals(data, read("cranfield" if data.name == "xquad" else "xquad"), model)
        except FileNotFoundError as error:
            print(f"refusals left out: {error}")
    if "answers" in options.parts:
        result["answers"] = answers(data, model, options)
    report.write(path, result)
    print(f"\nwritten to {path}")


def read(name: str) -> Questions:
    """One of the corpora.

    Raises:
        FileNotFoundError: Cranfield's files are not there.
    """
    if name == "xquad":
        corpus = load()
        asked = [EvaluationQuestion(q.id, q.text, {q.document_id: 1.0}, q.answers) for q in corpus.questions]
        return Questions(name, tuple(Document(d.id, d.text, d.metadata) for d in corpus.documents), tuple(asked))
    folder = Path(os.environ.get("VECTORDB_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")) / name
    relevant: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        relevant.setdefault(query, {})[document] = float(grade)
    documents = [
        Document(row["_id"], f"{row['title']} {row['text']}".strip()) for row in _rows(folder / "corpus.jsonl.gz")
    ]
    asked = [EvaluationQuestion(q["_id"], q["text"], relevant[q["_id"]]) for q in _rows(folder / "queries.jsonl.gz")]
    return Questions(name, tuple(d for d in documents if d.text), tuple(asked))


def compare(data: Questions, model: Embedder, chunkers: Sequence[str], plot: Path) -> dict[str, Any]:
    """Retrieval by every chunker, embedder and mode."""
    embedders: dict[str, Callable[[], Embedder]] = {"minilm-int8": lambda: model}
    try:
        from vectordb_client.rag import SentenceTransformerEmbedder

        reference = SentenceTransformerEmbedder()
        embedders["minilm-f32"] = lambda: reference
    except Exception as error:  # torch is not a part of the bench's own extra
        print(f"without sentence-transformers: {error}")
    found: dict[str, Evaluation] = {}
    for embedder_name, make in embedders.items():
        for chunker_name in chunkers:
            with connect(":memory:") as db:
                kb = KnowledgeBase(db, "bench", make(), chunker=CHUNKERS[chunker_name]())
                kb.add(data.documents, progress=False)
                for mode in modes(kb):
                    name = f"{embedder_name}, {chunker_name}, {mode}"
                    settings = {"mode": mode, "exact": True}
                    found[name] = kb.evaluate(data.questions, answers=False, retrieval=settings)
                    print(f"{name:40} {_line(found[name].retrieval)}", flush=True)
    draw({name: one.retrieval for name, one in found.items()}, plot, data.name)
    return {name: one.as_dict() for name, one in found.items()}


def modes(kb: KnowledgeBase) -> list[str]:
    """How this release can search: keywords need an engine that indexes them."""
    return ["vector", "text", "hybrid"] if hasattr(kb.db[kb.name], "search_text") else ["vector"]


def refusals(data: Questions, other: Questions, model: Embedder) -> dict[str, Any]:
    """How many of the other corpus's questions are refused, at the shipped threshold and at a calibrated one."""
    with connect(":memory:") as db:
        kb = KnowledgeBase(db, "bench", model)
        kb.add(data.documents, progress=False)
        foreign = [EvaluationQuestion(one.id, one.text) for one in other.questions]
        shipped = kb.evaluate([*data.questions, *foreign], answers=False, depth=1)
        print(f"\n{other.name} asked of {data.name}, threshold {kb.min_score}: {_line(shipped.refusals)}")
        calibrated = kb.calibrate([one.text for one in data.questions], [one.text for one in foreign], store=False)
        print(f"calibrated on half, judged on the rest: {calibrated}")
        return {
            "threshold": kb.min_score,
            "shipped": dict(shipped.refusals),
            "calibrated": {name: getattr(calibrated, name) for name in calibrated.__slots__},
        }


def answers(data: Questions, model: Embedder, options: argparse.Namespace) -> dict[str, Any]:
    """Answers by a real language model, beside its own with the gold paragraph given."""
    chosen = choose(options.llm)
    given = {**chosen.options, "limit": options.limit}
    asked = spread(data.questions, options.questions)
    with connect(":memory:") as db:
        kb = KnowledgeBase(db, "bench", model, chosen.llm, WholeDocument(), answering=AnswerConfig(options=given))
        kb.add(data.documents, progress=False)
        result = kb.evaluate(asked)
        print(f"\n{chosen.llm.name}, {options.limit} passages\n{result}")
        print(f"verbatim: {verbatim(kb, result.rows):.1%} of the citations")
    texts = {document.id: document.text for document in data.documents}
    answered = [row.question for row in result.rows if not row.refused]
    alone = gold(chosen.llm, given.get("template", ANSWER), asked, texts, answered)
    print(f"the model alone with the gold paragraph: {_line(alone)}")
    return {"llm": chosen.llm.name, "limit": options.limit, **result.as_dict(), "gold": alone}


def gold(
    llm: LLM,
    template: PromptTemplate,
    asked: Sequence[EvaluationQuestion],
    texts: Mapping[str, str],
    answered: Sequence[EvaluationQuestion],
) -> dict[str, float]:
    """The model's own token F1 with only the right paragraph in its prompt: of all questions, and of those answered."""
    found: dict[str, tuple[float, float]] = {}
    for question in tqdm(asked, unit="question", leave=False, disable=None):
        document = next(iter(question.relevant))
        passage = Passage(document, document, texts[document], 1.0, 0, len(texts[document]), 1)
        prompt = build(template, question.text, [passage], llm, max_tokens=64, seed=0)
        text = llm.complete(prompt.messages, max_tokens=64, seed=0).text
        found[question.id] = token_f1(text, question.answers), contains(text, question.answers)
    return {
        "token_f1": fmean(f1 for f1, _ in found.values()),
        "contains": fmean(held for _, held in found.values()),
        "token_f1_where_answered": fmean([found[one.id][0] for one in answered] or [0.0]),
    }


def verbatim(kb: KnowledgeBase, rows: Sequence[Row]) -> float:
    """The share of all citations that stand at their place in their document, to the letter."""
    held = []
    for row in rows:
        for citation in row.answer.citations if row.answer is not None else ():
            document = kb.document(citation.document_id)
            held.append(document is not None and document.text[citation.start : citation.end] == citation.text)
    return fmean(held) if held else 1.0


def spread(questions: Sequence[EvaluationQuestion], count: int | None) -> Sequence[EvaluationQuestion]:
    """So many of them, evenly spread."""
    if count is None or count >= len(questions):
        return questions
    return [questions[place * len(questions) // count] for place in range(count)]


def draw(figures: Mapping[str, Mapping[str, float]], path: Path, title: str) -> None:
    """Bars of every measure, one group a variant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measures = list(next(iter(figures.values())))
    height = 0.8 / len(measures)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.6 * len(figures)), layout="constrained")
    for place, measure in enumerate(measures):
        rows = [row + place * height for row in range(len(figures))]
        axes.barh(rows, [one[measure] for one in figures.values()], height, label=measure)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(figures))], list(figures))
    axes.invert_yaxis()
    low = min(value for one in figures.values() for value in one.values())
    axes.set_xlim(max(0.0, low - 0.1), 1.0)
    axes.set_title(f"Retrieval, {title}")
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    print(f"plot: {path}")


def _line(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()]
