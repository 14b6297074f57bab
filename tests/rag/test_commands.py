"""``vectordb ingest``, ``ask`` and ``chat``, as a user runs them; the language model is an endpoint of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.server.credentials import keys_file
from vectordb.cli.process import ServerProcess
from vectordb_client import connect, errors
from vectordb_client.rag import KnowledgeBase, MiniLM, OpenAICompatible


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vectordb.cli.main", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def asked(tmp_path: Path, endpoint: Any, endpoints: ModuleType) -> tuple[str, list[str]]:
    """A folder with two notes ingested, and the options that name the model."""
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "tower.md").write_text("# Tower\n\nThe tower was finished in 1889. It is 330 metres high.\n")
    (notes / "soup.txt").write_text("Onion soup wants an hour and plenty of butter.\n")
    (notes / "empty.txt").write_text("")
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1]. It is red.")]
    target = str(tmp_path / "db")
    told = run("ingest", target, str(notes))
    assert told.returncode == 0, told.stderr
    assert "2 added" in told.stdout
    assert "empty.txt is empty" in told.stderr
    return target, ["--llm", f"scripted@{endpoint.url}"]


def test_one_question(asked: tuple[str, list[str]], endpoint: Any) -> None:
    target, model = asked
    told = run("ask", target, "How high is the tower?", *model)
    assert told.returncode == 0, told.stderr
    answer, source, note = told.stdout.splitlines()
    assert answer == "The tower is 330 metres high [1]. It is red."
    assert source.startswith("  [1] tower.md, characters 0-")
    assert "not everything" in note
    told = run("ask", target, "Who won the football match yesterday?", *model)
    assert told.returncode == 3, told.stderr
    assert told.stdout == "Nothing here is close enough to the question to answer it.\n"
    assert len(endpoint.requests) == 1
    where = json.dumps({"field": "source", "op": "==", "value": "nowhere"})
    told = run("ask", target, "How high is the tower?", "--json", "--where", where, *model)
    assert told.returncode == 3, told.stderr
    assert json.loads(told.stdout)["refusal_reason"] == "no_passages"


@pytest.mark.parametrize("question", [("ask", "why?"), ("chat",)], ids=["ask", "chat"])
def test_a_question_to_nothing_makes_nothing_and_looks_for_no_model(
    asked: tuple[str, list[str]], tmp_path: Path, question: tuple[str, ...]
) -> None:
    command, *rest = question
    told = run(command, str(tmp_path / "typo"), *rest, "--llm", str(tmp_path / "no model"))
    assert (told.returncode, told.stderr.startswith("NotFound: there is no database in the folder")) == (1, True)
    assert not (tmp_path / "typo").exists()
    told = run(command, asked[0], *rest, "--kb", "typo", "--llm", str(tmp_path / "no model"))
    assert (told.returncode, told.stderr.startswith("NotFound: there is no knowledge base 'typo'")) == (1, True)


def test_an_endpoint_that_is_down(asked: tuple[str, list[str]]) -> None:
    told = run("ask", asked[0], "How high is the tower?", "--llm", "m@http://127.0.0.1:9/v1")
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


def test_an_empty_path_is_not_this_folder(tmp_path: Path) -> None:
    told = run("ingest", str(tmp_path / "db"), "")
    assert told.returncode == 1
    assert told.stderr.startswith('InvalidArgument: sources[0] is an empty path; write "." for this folder')


def test_a_key_that_only_reads_is_answered_though_nothing_is_kept(
    asked: tuple[str, list[str]], tmp_path: Path, endpoint: Any
) -> None:
    reads, writes = keys_file(
        tmp_path / "keys.toml", {"name": "reads", "role": "read"}, {"name": "writes", "role": "write"}
    )
    with ServerProcess(Path(asked[0]), environment={"VECTORDB_API_KEYS": str(tmp_path / "keys.toml")}) as server:
        told = run("ask", server.address, "How high is the tower?", *asked[1], "--api-key", reads)
        assert told.returncode == 0, told.stderr
        assert told.stdout.startswith("The tower is 330 metres high [1].")
        assert told.stderr.startswith("not kept: key 'reads' has role 'read'")
        lines = "How high is the tower?\n/good\n/why\n/quit\n"
        told = run("chat", server.address, *asked[1], "--api-key", reads, text=lines)
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
    assert run("ask", asked[0], "How high is the tower?", *asked[1]).returncode == 0
    with ServerProcess(Path(asked[0]), environment={"VECTORDB_API_KEYS": str(tmp_path / "keys.toml")}) as server:
        told = run("ask", server.address, "How high is the tower?", *asked[1], "--api-key", writes)
        assert (told.returncode, told.stderr) == (0, "")


def test_the_language_model_is_named_in_the_environment(
    asked: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "VECTORDB_LLM", asked[1][1])
    assert run("ask", asked[0], "How high is the tower?").returncode == 0
    assert run("ask", asked[0], "How high is the tower?", "--llm", "/no/model.gguf").returncode == 1
