"""``vectordb ingest``, ``ask`` and ``chat``, as a user runs them; the language model is an endpoint of the test."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.server.credentials import keys_file
from vectordb.cli.main import main
from vectordb.cli.process import ServerProcess
from vectordb_client import connect, errors
from vectordb_client.rag import KnowledgeBase, MiniLM, OpenAICompatible


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vectordb.cli.main", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """As ``run``, in this process: what it imports takes it longer than all else that it does."""

    def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        shown = capsys.readouterr()
        code = ended.value.code
        return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 0, shown.out, shown.err)

    return run


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two notes ingested, to be copied."""
    folder = tmp_path_factory.mktemp("ingested")
    notes = folder / "notes"
    notes.mkdir()
    (notes / "tower.md").write_text("# Tower\n\nThe tower was finished in 1889. It is 330 metres high.\n")
    (notes / "soup.txt").write_text("Onion soup wants an hour and plenty of butter.\n")
    (notes / "empty.txt").write_text("")
    told = run("ingest", str(folder / "db"), str(notes))
    assert told.returncode == 0, told.stderr
    assert "2 added" in told.stdout
    assert "empty.txt is empty" in told.stderr
    return folder / "db"


@pytest.fixture
def asked(ingested: Path, tmp_path: Path, endpoint: Any, endpoints: ModuleType) -> tuple[str, list[str]]:
    """A folder with two notes ingested, and the options that name the model."""
    shutil.copytree(ingested, tmp_path / "db")
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1]. It is red.")]
    return str(tmp_path / "db"), ["--llm", f"scripted@{endpoint.url}"]


def test_one_question(asked: tuple[str, list[str]], endpoint: Any, run_here: Any) -> None:
    target, model = asked
    told = run("ask", target, "How high is the tower?", *model)
    assert told.returncode == 0, told.stderr
    answer, source, note = told.stdout.splitlines()
    assert answer == "The tower is 330 metres high [1]. It is red."
    assert source.startswith("  [1] tower.md, characters 0-")
    assert "not everything" in note
    told = run_here("ask", target, "Who won the football match yesterday?", *model)
    assert told.returncode == 3, told.stderr
    assert told.stdout == "Nothing here is close enough to the question to answer it.\n"
    assert len(endpoint.requests) == 1
    where = json.dumps({"field": "source", "op": "==", "value": "nowhere"})
    told = run_here("ask", target, "How high is the tower?", "--json", "--where", where, *model)
    assert told.returncode == 3, told.stderr
    assert json.loads(told.stdout)["refusal_reason"] == "no_passages"


@pytest.mark.parametrize("question", [("ask", "why?"), ("chat",)], ids=["ask", "chat"])
def test_a_question_to_nothing_makes_nothing_and_looks_for_no_model(
    asked: tuple[str, list[str]], tmp_path: Path, question: tuple[str, ...], run_here: Any
) -> None:
    command, *rest = question
    told = run_here(command, str(tmp_path / "typo"), *rest, "--llm", str(tmp_path / "no model"))
    assert (told.returncode, told.stderr.startswith("NotFound: there is no database in the folder")) == (1, True)
    assert not (tmp_path / "typo").exists()
    told = run_here(command, asked[0], *rest, "--kb", "typo", "--llm", str(tmp_path / "no model"))
    assert (told.returncode, told.stderr.startswith("NotFound: there is no knowledge base 'typo'")) == (1, True)


def test_an_endpoint_that_is_down(asked: tuple[str, list[str]], run_here: Any) -> None:
    told = run_here("ask", asked[0], "How high is the tower?", "--llm", "m@http://127.0.0.1:9/v1")
    assert told.returncode == 1
    assert told.stderr.startswith("Unavailable: 'm' at http://127.0.0.1:9/v1/ cannot be reached")


def test_a_conversation(asked: tuple[str, list[str]], tmp_path: Path) -> None:
    target, model = asked
    lines = ["/good", "How high is the tower?", "/why", "/bad it is painted", "/huh", "", "Who won the match?", "/quit"]
    told = run("chat", target, *model, text="\n".join(lines))
    assert told.returncode == 0, told.stderr
    shown = told.stdout
    assert "there is no answer yet" in shown
    assert "The tower is 330 metres high [1]. It is red." in shown
    assert "[1] tower.md, characters" in shown
    assert "generate" in shown
    assert "thank you" in shown
    assert "Nothing here is close enough" in shown
    with connect(target) as db:
        kept = list(KnowledgeBase(db, "documents").answers())
    assert [one["refused"] for one in kept] == [False, True]
    assert [(said["rating"], said["comment"]) for said in kept[0]["feedback"]] == [(-1.0, "it is painted")]


def test_an_empty_path_is_not_this_folder(tmp_path: Path, run_here: Any) -> None:
    told = run_here("ingest", str(tmp_path / "db"), "")
    assert told.returncode == 1
    assert told.stderr.startswith('InvalidArgument: sources[0] is an empty path; write "." for this folder')


def test_a_key_that_only_reads_is_answered_though_nothing_is_kept(
    asked: tuple[str, list[str]], tmp_path: Path, endpoint: Any, run_here: Any
) -> None:
    reads, writes = keys_file(
        tmp_path / "keys.toml", {"name": "reads", "role": "read"}, {"name": "writes", "role": "write"}
    )
    with ServerProcess(Path(asked[0]), environment={"VECTORDB_API_KEYS": str(tmp_path / "keys.toml")}) as server:
        told = run_here("ask", server.address, "How high is the tower?", *asked[1], "--api-key", reads)
        assert told.returncode == 0, told.stderr
        assert told.stdout.startswith("The tower is 330 metres high [1].")
        assert told.stderr.startswith("not kept: key 'reads' has role 'read'")
        lines = "How high is the tower?\n/good\n/why\n/quit\n"
        told = run_here("chat", server.address, *asked[1], "--api-key", reads, text=lines)
        assert told.returncode == 0, told.stderr
        assert "[1] tower.md, characters" in told.stdout
        assert "NotFound: no answer" in told.stdout
        assert "generate" in told.stdout
        with connect(server.address, api_key=writes) as db:
            model = OpenAICompatible("scripted", base_url=endpoint.url)
            base = KnowledgeBase(db, "documents", MiniLM(), model)
            with pytest.raises(errors.PermissionDenied, match=r"needs 'admin'; AnswerConfig\(keep=False\)") as caught:
                base.ask("How high is the tower?")
            assert caught.value.answer.text.startswith("The tower is 330 metres high [1].")
            model.close()
    # Where an administrator has asked once, a key that writes is enough.
    assert run_here("ask", asked[0], "How high is the tower?", *asked[1]).returncode == 0
    with ServerProcess(Path(asked[0]), environment={"VECTORDB_API_KEYS": str(tmp_path / "keys.toml")}) as server:
        told = run_here("ask", server.address, "How high is the tower?", *asked[1], "--api-key", writes)
        assert (told.returncode, told.stderr) == (0, "")


def test_the_language_model_is_named_in_the_environment(
    asked: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, run_here: Any
) -> None:
    monkeypatch.setitem(os.environ, "VECTORDB_LLM", asked[1][1])
    assert run_here("ask", asked[0], "How high is the tower?").returncode == 0
    assert run_here("ask", asked[0], "How high is the tower?", "--llm", "/no/model.gguf").returncode == 1
