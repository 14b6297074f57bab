"""``vectordb demo``: the main job on real text, from an empty folder to a server that was killed and came back."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vectordb.cli import demo_answers
from vectordb.cli.process import ServerProcess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.api.collection import Collection
    from vectordb.results import SearchResult
    from vectordb_client.rag import Embedder
    from vectordb_client.rag.corpus import Corpus

NAME = "demo_xquad"
_BATCH = 10


class Report:
    """What the user sees, and whether everything held."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self._started = time.perf_counter()
        self._width = max(60, min(110, shutil.get_terminal_size().columns))

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def step(self, title: str) -> None:
        typer.secho(f"\n{title}", bold=True)

    def say(self, text: str) -> None:
        typer.echo(textwrap.fill(text, self._width, initial_indent="  ", subsequent_indent="    "))

    def short(self, text: str, indent: int) -> str:
        """As much of a text as fits into the rest of one line."""
        return textwrap.shorten(text, self._width - indent, placeholder=" ...")

    def check(self, holds: bool, what: str) -> None:
        mark = typer.style("ok  ", fg="green") if holds else typer.style("FAIL", fg="red", bold=True)
        typer.echo(f"  {mark} {what}")
        if not holds:
            self.failed.append(what)


def command(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the database; a temporary one by default.", envvar="VECTORDB_DEMO_DATA"),
    ] = None,
    questions: Annotated[
        int, typer.Option(help="How many questions to show.", min=1, max=50, envvar="VECTORDB_DEMO_QUESTIONS")
    ] = 4,
) -> None:
    """Shows the main job on real text: serve, embed, write, search, filter, kill, restart, find everything, answer."""
    report = Report()
    with ExitStack() as stack:
        if data is None:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vectordb-demo-")))
        _run(report, data, questions, stack)
    verdict = "Everything held" if not report.failed else f"{len(report.failed)} checks failed"
    typer.secho(f"\n{verdict} ({report.seconds:.0f} s).", bold=True, fg="red" if report.failed else "green")
    if report.failed:
        raise typer.Exit(1)


def _run(report: Report, folder: Path, shown: int, stack: ExitStack) -> None:
    from vectordb_client import connect
    from vectordb_client.rag import CachedEmbedder, MiniLM
    from vectordb_client.rag.corpus import load

    report.step("1. A server on an empty folder" if not _any_file(folder) else "1. A server on your folder")
    model = CachedEmbedder(MiniLM())
    server = stack.enter_context(ServerProcess(folder))
    report.say(f"process {server.pid} serves {folder} on {server.address}")

    corpus = load()
    with connect(server.address) as db:
        collection = db.create_collection(NAME, dim=model.dim, metric="cosine", exist_ok=True)
        _write(report, collection, model, corpus)
        vectors = model.embed_queries([question.text for question in corpus.questions])
        before = _search(report, collection, corpus, vectors, shown)
        _filter(report, collection, corpus, vectors)
        # The last write before the kill: nothing but its acknowledgement says that it is safe.
        marked = collection.update_metadata(ids=[corpus.documents[0].id], set={"last_words": True})
        report.check(marked == 1, "one more write acknowledged")

    report.step("4. Kill the server and start it again")
    server.kill()
    report.say(f"process {server.pid} got SIGKILL right after that acknowledgement")
    started = time.perf_counter()
    again = stack.enter_context(ServerProcess(folder))
    with connect(again.address) as db:
        collection = db.collection(NAME)
        found = collection.search(vectors[0], limit=5)
        report.say(
            f"process {again.pid} answered its first search {time.perf_counter() - started:.1f} s after its start"
        )
        _compare(report, collection, found, before, vectors)
        demo_answers.show(report, db, model, corpus)
    code = again.stop()
    report.check(code == 0, f"the server stopped cleanly on SIGTERM (exit code {code})")


def _any_file(folder: Path) -> bool:
    """Whether the folder is there and holds anything."""
    return folder.is_dir() and any(folder.iterdir())


def _write(report: Report, collection: Collection, model: Embedder, corpus: Corpus) -> None:
    from tqdm import tqdm

    documents = corpus.documents
    report.step(f"2. Embed {len(documents)} paragraphs of Wikipedia with {model.name} and write them over gRPC")
    started = time.perf_counter()
    with tqdm(total=len(documents), unit="paragraph", leave=False, ncols=80, disable=None) as bar:
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            texts = [document.text for document in batch]
            collection.upsert(
                [document.id for document in batch],
                model.embed_documents(texts),
                metadata=[dict(document.metadata) for document in batch],
                texts=texts,
            )
            bar.update(len(batch))
    count = collection.count()
    report.say(f"embedded and durably written in {time.perf_counter() - started:.1f} s")
    report.check(count == len(documents), f"count() says {count} paragraphs")


def _search(
    report: Report, collection: Collection, corpus: Corpus, vectors: NDArray[np.float32], shown: int
) -> list[SearchResult]:
    questions = corpus.questions
    report.step(f"3. Ask {len(questions)} questions that people wrote about these paragraphs")
    # Spread over the corpus, so that they are about different articles.
    for position in range(0, len(questions), -(-len(questions) // shown)):
        question = questions[position]
        best = collection.search(vectors[position], limit=1, include=("metadata", "text"))[0]
        right = best.id == question.document_id
        verdict = typer.style("right", fg="green") if right else typer.style(f"not {question.document_id}", fg="yellow")
        typer.echo(f"  Q     {report.short(question.text, 8)}")
        typer.echo(f"  {best.score:.3f} {report.short(best.text or '', 24)} [{best.id}] {verdict}")
    started = time.perf_counter()
    answers = collection.search_batch(vectors, limit=10)
    seconds = time.perf_counter() - started
    ranks = [_rank(answer, question.document_id) for answer, question in zip(answers, questions, strict=True)]
    at_1, at_5 = (sum(rank is not None and rank <= k for rank in ranks) / len(ranks) for k in (1, 5))
    mrr = sum(1.0 / rank for rank in ranks if rank is not None) / len(ranks)
    report.say(f"all {len(questions)} in one search_batch: {seconds * 1000:.0f} ms")
    report.check(at_1 >= 0.88, f"the right paragraph comes first for {at_1:.1%} of the questions (recall@1)")
    report.check(at_5 >= 0.97, f"it is among the first five for {at_5:.1%} (recall@5)")
    report.check(mrr >= 0.92, f"mean reciprocal rank {mrr:.3f}")
    return answers


def _rank(answer: SearchResult, wanted: str) -> int | None:
    ids = answer.ids
    return ids.index(wanted) + 1 if wanted in ids else None


def _filter(report: Report, collection: Collection, corpus: Corpus, vectors: NDArray[np.float32]) -> None:
    from vectordb_client import col

    question = corpus.questions[-1]
    article = next(d.metadata["article"] for d in corpus.documents if d.id == question.document_id)
    where = (col("article") == article) & col("paragraph").between(2, 4)
    expected = {
        document.id
        for document in corpus.documents
        if document.metadata["article"] == article and 2 <= document.metadata["paragraph"] <= 4
    }
    found = collection.search(vectors[-1], limit=10, where=where)
    report.say(f'with the filter (col("article") == {article}) & col("paragraph").between(2, 4):')
    typer.echo(f"  Q     {report.short(question.text, 8)}")
    for hit in found:
        metadata = hit.metadata or {}
        typer.echo(f"  {hit.score:.3f} [{hit.id}] article {metadata['article']}, paragraph {metadata['paragraph']}")
    report.check(set(found.ids) == expected, f"exactly the {len(expected)} matching paragraphs, nearest first")
    counted = collection.count(where=where)
    report.check(counted == len(expected), f"count(where) says {counted}")


def _compare(
    report: Report,
    collection: Collection,
    first: SearchResult,
    before: Sequence[SearchResult],
    vectors: NDArray[np.float32],
) -> None:
    from vectordb_client import col
    from vectordb_client.rag.corpus import load

    expected = len(load().documents)
    count = collection.count()
    report.check(count == expected, f"count() still says {count} paragraphs")
    report.check(first.ids == before[0].ids[:5], "the first search finds the same five paragraphs")
    after = collection.search_batch(vectors, limit=10)
    same = sum(new.ids == old.ids and new.scores == old.scores for new, old in zip(after, before, strict=True))
    report.check(
        same == len(before), f"{same} of {len(before)} answers equal those before, to the last bit of the score"
    )
    kept = collection.count(where=col("last_words") == True)  # noqa: E712 - a condition, not a comparison
    report.check(kept == 1, "the write acknowledged just before the kill is there")
