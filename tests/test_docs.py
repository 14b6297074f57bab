"""Every Python snippet of the documents runs, in order, and prints what the text block after it says.

The blocks of one document share their names, as a reader would paste them one after the other. ``localhost:50051`` is a
server that the test starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vectordb.cli.main import COMMANDS
from vectordb.cli.process import ServerProcess

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [path for path in (ROOT / "README.md", ROOT / "vectordb" / "ARCHITECTURE.md") if path.exists()] + sorted(
    (ROOT / "docs").rglob("*.md")
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A Python block, the line it begins at, and the text block right after it or ``None``."""

    line: int
    code: str
    output: str | None


def snippets(document: Path) -> Iterator[Snippet]:
    """The Python blocks of a document."""
    text = document.read_text()
    blocks = list(_BLOCK.finditer(text))
    for block, following in zip(blocks, [*blocks[1:], None], strict=False):
        if block[1] != "python":
            continue
        shown = following is not None and following[1] == "text" and not text[block.end() : following.start()].strip()
        yield Snippet(text.count("\n", 0, block.start(2)) + 1, block[2], following[2] if shown and following else None)


WITH_CODE = [document for document in DOCUMENTS if list(snippets(document))]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "served") as process:
        yield process


@pytest.mark.parametrize("document", WITH_CODE, ids=lambda path: path.name)
def test_snippets_run_and_print_what_they_say(
    document: Path,
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    names: dict[str, Any] = {"__name__": "snippet"}
    for snippet in snippets(document):
        code = snippet.code.replace("localhost:50051", server.address)
        # The line numbers of the document stand in tracebacks.
        exec(compile("\n" * (snippet.line - 1) + code, str(document), "exec"), names)
        printed = capsys.readouterr().out
        if snippet.output is not None:
            assert printed == snippet.output, f"{document.name}, line {snippet.line}"


def test_the_readme_has_code() -> None:
    assert ROOT / "README.md" in WITH_CODE
    assert sum(snippet.output is not None for snippet in snippets(ROOT / "README.md")) >= 5


def test_named_commands_exist() -> None:
    shell = "".join(block[2] for block in _BLOCK.finditer((ROOT / "README.md").read_text()) if block[1] == "bash")
    named = set(re.findall(r"(?:^|[\s/])vectordb (\w+)", shell))
    assert {"serve", "demo", "info", "verify", "config"} <= named
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_the_repository_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_guarantee_names_a_test_that_exists() -> None:
    guarantees = ROOT / "docs" / "guarantees.md"
    rows = [line for line in guarantees.read_text().splitlines() if line.startswith("| ") and "| test |" not in line]
    assert len(rows) >= 20
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`\]\(([^)]+)\)", row)
        assert named, row
        for file, function, link in named:
            path = guarantees.parent / link
            assert path.name == file
            assert f"def {function}" in path.read_text(), f"{file} has no {function}"


def test_the_bench_has_the_options_shown() -> None:
    readme = (ROOT / "README.md").read_text()
    main = (ROOT / "bench" / "__main__.py").read_text()
    shown = [line for line in readme.splitlines() if line.startswith(".venv/bin/python -m bench ")]
    options = {option for line in shown for option in re.findall(r" (--[a-z-]+)", line)}
    assert {"--data", "--rows", "--disk"} <= options
    assert all(f'"{option}"' in main for option in options)
