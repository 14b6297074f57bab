"""Metrics, logs, health, and the commands of docker-compose.yml."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import wait_until
from vectordb import errors
from vectordb.cli import open_files
from vectordb.cli.main import main
from vectordb.cli.notify import notify
from vectordb.cli.process import ServerProcess
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import SETTINGS, load
from vectordb.server.logs import TEXT, JsonLines, TextLines
from vectordb.server.recall import Recall
from vectordb_client import connect

ROOT = Path(__file__).parents[2]


def scraped(address: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def test_metrics() -> None:
    settings = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
    server = Server(lambda: Engine(":memory:"), load(settings, environment={}))
    address = server.start()
    try:
        with connect(address) as db:
            docs = db.create_collection("docs", 2)
            docs.upsert(["a", "b"], [[1, 0], [0, 1]])
            docs.delete(["b"])
            docs.search([1, 0])
            docs.bulk_upsert([{"id": "c", "vector": [1, 1]}], progress=False)
            with pytest.raises(errors.CollectionNotFound):
                db.collection("missing")
        assert server._metrics is not None
        server._metrics.recall = lambda: {"docs": Recall(0.97, 4), "gone": Recall(1.0, 1)}
        metrics = server._metrics.address
        # The client hangs up a stream as soon as it has its answers; then the server's part ends.
        wait_until(lambda: scraped(metrics).get('vectordb_rpc_seconds_count{call="BulkWrite",code="OK"}') == 1)
        found = scraped(metrics)
    finally:
        server.stop()
    assert found['vectordb_rows{collection="docs"}'] == 2
    assert found['vectordb_tail_rows{collection="docs"}'] == 3
    assert found['vectordb_rpc_seconds_count{call="Search",code="OK"}'] == 1
    assert found['vectordb_rpc_seconds_count{call="BulkWrite",code="OK"}'] == 1
    assert found['vectordb_rpc_seconds_count{call="GetCollection",code="NOT_FOUND"}'] == 1
    assert found['vectordb_rpc_running{call="Search"}'] == 0
    assert found["vectordb_wal_syncs_total"] == 3
    assert found['vectordb_build_lag_seconds{collection="docs"}'] == 0
    assert found['vectordb_recall_estimate{collection="docs"}'] == 0.97
    assert found['vectordb_recall_samples_total{collection="docs"}'] == 4
    assert not any("gone" in name for name in found)
    assert found["vectordb_read_only"] == 0
    assert found["vectordb_calls_running"] == found["vectordb_calls_waiting"] == found["vectordb_queue_seconds"] == 0
    assert found['vectordb_memory_kind_bytes{kind="tail"}'] > 0
    assert found["process_resident_memory_bytes"] > 1e6


def test_metrics_where_they_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load({"listen": "127.0.0.1:0", "metrics_listen": "203.0.113.1:1"}, environment={})
    with pytest.raises(errors.FailedPrecondition, match="metrics cannot be served"):
        Server(lambda: Engine(":memory:"), config).start()
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(errors.FailedPrecondition, match=r"vectordb-engine\[metrics\]"):
        Server(lambda: Engine(":memory:"), config)


def test_json_lines() -> None:
    record = logging.LogRecord("vectordb.server", logging.WARNING, "", 0, "slow %s", ("ünï",), None)
    record.fields = {"collection": "docs"}
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["message"], line["collection"]) == ("warning", "slow ünï", "docs")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    try:
        raise ValueError("inside")
    except ValueError:
        failed = logging.LogRecord("vectordb", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    assert "ValueError: inside" in json.loads(JsonLines().format(failed))["error"]


def test_health(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ServerProcess(tmp_path / "db") as server:
        with pytest.raises(SystemExit) as ended:
            main(["health", server.address])
        assert (ended.value.code, capsys.readouterr().out) == (0, "serving\n")
        with pytest.raises(SystemExit) as ended:
            main(["health", f"grpc://{server.address}"])
        assert (ended.value.code, capsys.readouterr().out) == (0, "serving\n")
    for no_server in ("./data", ":memory:", "http://localhost:1", "localhost:99999"):
        with pytest.raises(SystemExit) as ended:
            main(["health", no_server])
        assert (ended.value.code, "InvalidArgument" in capsys.readouterr().err) == (1, True)
    with pytest.raises(SystemExit) as ended:
        main(["health", server.address, "--timeout", "1"])
    assert ended.value.code == 1
    assert "does not answer" in capsys.readouterr().err


def test_a_server_may_open_more_files_than_a_shell_lets_its_programs(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))  # which the server inherits
    try:
        with ServerProcess(tmp_path / "db") as server:
            allowed, _ = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            assert allowed == (open_files.WANTED if hard == resource.RLIM_INFINITY else min(open_files.WANTED, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_docker_compose_runs(tmp_path: Path) -> None:
    """The service's very command, environment and health check, on a folder and ports of this machine."""
    service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["vectordb"]
    assert service["read_only"] is True
    assert service["user"] not in ("0", "root")
    image = (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).read_text()
    assert 'ENTRYPOINT ["vectordb"]' in image
    copied = re.findall(r"COPY (.+) /src", image)
    assert all((ROOT / name).exists() for line in copied for name in line.split())
    assert service["volumes"] == [f"data:{service['environment']['VECTORDB_DATA']}"]
    here = {
        **service["environment"],
        "VECTORDB_DATA": str(tmp_path / "data"),
        "VECTORDB_LISTEN": "127.0.0.1:0",
        "VECTORDB_METRICS_LISTEN": "127.0.0.1:0",
    }
    command = [sys.executable, "-m", "vectordb.cli.main", *service["command"]]
    with subprocess.Popen(
        command, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(p for p in sys.path if p), **here},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        (_, name, *probe) = service["healthcheck"]["test"]
        assert name == "vectordb"
        asked = [address if ":" in word else word for word in probe]
        done = subprocess.run([sys.executable, "-m", "vectordb.cli.main", *asked], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "serving\n"), done.stderr
        process.terminate()
        _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert [json.loads(line)["level"] for line in log.splitlines()]


def test_the_systemd_unit(tmp_path: Path) -> None:
    """Its variables are settings, systemd finds nothing wrong with it, and what it starts tells systemd its state."""
    unit = (ROOT / "docs" / "vectordb.service").read_text()
    variables = dict(re.findall(r"(VECTORDB_[A-Z_]+)=(\S+)", unit))
    assert set(variables) <= {setting.variable for setting in SETTINGS}
    assert re.search(r"^ExecStart=/opt/vectordb/bin/vectordb serve$", unit, re.MULTILINE)
    if shutil.which("systemd-analyze"):
        installed = tmp_path / "vectordb.service"
        installed.write_text(unit.replace("/opt/vectordb/bin/vectordb", sys.executable))
        done = subprocess.run(["systemd-analyze", "verify", str(installed)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    name = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(name))
        told.settimeout(60)
        with ServerProcess(tmp_path / "db", environment={"NOTIFY_SOCKET": str(name)}) as server:
            assert told.recv(100) == b"READY=1"
            assert server.stop() == 0
        assert told.recv(100) == b"STOPPING=1"


def test_no_text_of_a_client_looks_like_a_line_of_the_log() -> None:
    forged = "x\n2026-01-01 ERROR vectordb: forged\r\x1b[2J\u2028\ty"
    try:
        raise ValueError(forged)
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("vectordb.server", logging.ERROR, "", 0, "field %s", (forged,), error)
    text = TextLines(TEXT).format(record)
    first, *others = text.split("\n")
    assert first.endswith(r"vectordb.server: field x\n2026-01-01 ERROR vectordb: forged\r\x1b[2J\u2028" + "\ty")
    assert others[0] == "Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in others[1:])
    assert not {"\r", "\x1b", "\u2028"} & set(text)


def test_a_server_serves_where_nobody_hears_its_state(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "db", environment={"NOTIFY_SOCKET": str(tmp_path / "none")}) as server:
        with connect(server.address) as db:
            assert db.list_collections() == []
        assert server.stop() == 0


def test_states_for_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        name = f"vectordb-{os.getpid()}"
        told.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("READY=1")
        assert told.recv(100) == b"READY=1"
