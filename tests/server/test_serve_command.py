"""``vectordb serve`` as a process: what it prints, how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest

from vectordb.cli.main import COMMANDS, main
from vectordb.errors import InvalidArgument
from vectordb.requests import CreateRequest, Rows, WriteMode, WriteRequest
from vectordb.server.config import SETTINGS, load
from vectordb.types import CollectionConfig
from vectordb.wire import requests
from vectordb_client import connect
from vectordb_proto.v1 import service_pb2 as pb
from vectordb_proto.v1 import service_pb2_grpc


def command(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "vectordb.cli.main", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )  # fmt: skip


@pytest.fixture
def serving(tmp_path):
    """Starts ``vectordb serve`` on a folder and waits for its line; gives (process, address)."""
    processes = []

    def start(**environment):
        process = command("serve", "--data", str(tmp_path / "db"), "--listen", "127.0.0.1:0", **environment)
        processes.append(process)
        match = re.fullmatch(r"listening on (127\.0\.0\.1:\d+)\n", process.stdout.readline())
        assert match, process.stderr.read()
        return process, match[1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_and_stops_cleanly(serving, number):
    process, address = serving()
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.VectorDBServiceStub(channel)
        stub.CreateCollection(requests.create_to_message(CreateRequest(CollectionConfig("docs", 2))))
        rows = Rows(["a", "b"], np.eye(2, dtype=np.float32))
        stub.Write(requests.write_to_message("docs", WriteRequest(WriteMode.UPSERT, rows)))
    process.send_signal(number)
    began = time.monotonic()
    out, log = process.communicate(timeout=10)
    assert process.returncode == 0, log
    assert out == "", "one line and no more"
    assert "Traceback" not in log
    assert time.monotonic() - began < 5
    _, address = serving()
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.VectorDBServiceStub(channel)
        assert stub.Count(pb.CountRequest(collection="docs")).count == 2


def test_a_clients_key_given_to_a_server_is_pointed_out(serving):
    process, _ = serving(VECTORDB_API_KEY="vdb_0123")
    process.terminate()
    log = process.communicate(timeout=10)[1]
    assert "VECTORDB_API_KEY is a client's; this server has no api_keys" in log
    assert "0123" not in log


def test_a_second_server_on_the_folder_is_told_where_the_first_serves(serving, tmp_path):
    _, address = serving()
    other = command("serve", "--data", str(tmp_path / "db"), "--listen", "127.0.0.1:0")
    out, log = other.communicate(timeout=20)
    assert (other.returncode, out) == (1, "")
    assert re.fullmatch(rf"DirectoryLocked: .*{re.escape(address)}.*\n", log)


def test_a_taken_port_is_one_line_on_stderr(serving, tmp_path):
    _, address = serving()
    other = command("serve", "--data", str(tmp_path / "other"), VECTORDB_LISTEN=address)
    out, log = other.communicate(timeout=20)
    assert (other.returncode, out) == (1, "")
    assert re.fullmatch(rf"FailedPrecondition: cannot listen on {re.escape(address)}: .*in use\n", log)


def test_bad_settings_are_one_line_and_touch_nothing(tmp_path):
    file = tmp_path / "v.toml"
    file.write_text(f"data = '{tmp_path / 'db'}'\nlisten = '127.0.0.1:0'\n[engine]\ncolour = 'red'\n")
    process = command("serve", "--config", str(file))
    out, log = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(r"InvalidArgument: the engine has no option 'colour'; known are .*\n", log)
    assert not (tmp_path / "db").exists()


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return caught.value.code, *capsys.readouterr()


def test_help_and_usage(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)
    assert run(capsys, "--version")[:2] == (0, "0.1.0\n")
    code, out, log = run(capsys, "fly")
    assert (code, out) == (2, "")
    assert "unknown command 'fly'" in log
    assert run(capsys)[0] == 2
    assert run(capsys, "serve", "--fly")[0] == 2
    assert "--max-message-bytes" in run(capsys, "serve", "--help")[1]


def test_config_show_tells_value_and_origin(capsys, monkeypatch, tmp_path):
    file = tmp_path / "v.toml"
    file.write_text("max_scans = 7\n")
    monkeypatch.setenv("VECTORDB_LISTEN", "unix:/x")
    code, out, _ = run(capsys, "config", "show", "--config", str(file))
    assert code == 0
    assert f"max_scans = 7  # file {file}\n" in out
    assert 'listen = "unix:/x"  # environment VECTORDB_LISTEN\n' in out
    assert 'durability = "sync"  # default\n' in out
    monkeypatch.setenv("VECTORDB_MAX_WORKERS", "none")
    code, _, log = run(capsys, "config", "show")
    assert code == 1
    assert log.count("\n") == 1
    assert "VECTORDB_MAX_WORKERS" in log


def test_config_show_tells_the_engines_own_options(capsys, monkeypatch, tmp_path):
    file = tmp_path / "v.toml"
    file.write_text('[engine]\ndurability = "async"\nbuild_threads = 2\nday = 2026-01-31\n')
    monkeypatch.setenv("VECTORDB_CONFIG", str(file))
    code, out, _ = run(capsys, "config", "show")
    assert code == 0
    assert f'durability = "async"  # file {file}, table [engine]\n' in out
    assert f"engine.build_threads = 2  # file {file}\n" in out
    assert f'engine.day = "2026-01-31"  # file {file}\n' in out


def test_limits_reach_the_engine_and_are_shown_with_their_origins(serving, capsys, monkeypatch):
    _, address = serving(VECTORDB_MAX_LIMIT="5", VECTORDB_MEMORY_LIMIT="512 MiB", VECTORDB_MIN_FREE_DISK="0.1%")
    with connect(address) as db:
        docs = db.create_collection("docs", 2)
        docs.upsert(["a"], [[1, 0]])
        assert len(docs.search([1, 0], limit=5)) == 1
        with pytest.raises(InvalidArgument, match=r"1 to 5, got 6 \(max_limit\)"):
            docs.search([1, 0], limit=6)
    monkeypatch.setenv("VECTORDB_MAX_LIMIT", "5")
    code, out, _ = run(capsys, "config", "show")
    shown = out.splitlines()
    assert code == 0
    assert "max_limit = 5  # environment VECTORDB_MAX_LIMIT" in shown
    for setting in SETTINGS:
        assert any(line.startswith(f"{setting.name} = ") for line in shown)
    for wrong in ({"memory_limit": "1 KiB"}, {"min_free_disk": "some"}, {"max_dim": "0"}, {"max_id_bytes": 513}):
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            load(wrong, environment={})
