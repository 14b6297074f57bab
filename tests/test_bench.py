"""The bench runs, and its figures are made of what it says they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:faiss")


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_the_whole_run(tmp_path: Path, data: ModuleType) -> None:
    out = tmp_path / "result.json"
    name, rows = ("wordnet20k", "3000") if data.have_shared_data() else ("corpus", "500")
    arguments = ["--data", name, "--rows", rows, "--queries", "40", "--rounds", "1", "--ef", "64"]
    command = [sys.executable, "-m", "bench", *arguments, "--disk", str(tmp_path), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert result["data"]["shape"][0] <= int(rows)
    names = ["raw faiss", "embedded", "embedded +metadata", "served"]
    plain = [one for one in result["searches"] if one["condition"] == "none"]
    assert [one["system"] for one in plain] == names
    for one in result["searches"]:
        assert 0 < one["cpu_us"] < 1e6
        assert 0 < one["p50_us"] <= one["p99_us"]
        if one["system"] != "raw faiss":
            assert one["recall"] >= 0.9, one
            assert one["short"] == 0.0, one
            assert one["strategies"]
    embedded, metadata, served = (
        [one["recall"] for one in result["searches"] if one["system"] == n] for n in names[1:]
    )
    assert embedded == metadata == served
    assert set(result["loading"]) == {"raw rocksdb", "raw faiss", "embedded", "served"}
    assert result["loading"]["embedded"]["rows_per_s"] > 100
    assert 0 < result["reopening"]["embedded_first_answer_s"] < 30
    assert "raw faiss" in done.stdout


def test_truth_is_exact_under_a_filter() -> None:
    from bench.datasets import Condition, Dataset

    rng = np.random.default_rng(2)
    base = rng.standard_normal((300, 6)).astype(np.float32)
    mask = rng.random(300) < 0.1
    data = Dataset("made up", "l2", base, base[:60] + 0.1, [{}] * 300, real=False)
    condition = Condition("some", {"field": "u", "op": "<", "value": 1}, mask)
    found = data.truth(10, condition)
    for query, rows in zip(data.queries, found, strict=True):
        far = ((base - query) ** 2).sum(axis=1)
        assert rows.tolist() == sorted(np.flatnonzero(mask).tolist(), key=lambda row: far[row])[:10]


def test_shares_are_exact(data: ModuleType) -> None:
    from bench.datasets import load

    if data.have_shared_data():
        assert [c.matches for c in load("wordnet20k").conditions][:4] == [10_000, 2_000, 200, 20]
    else:
        with pytest.raises(SystemExit, match="VECTORDB_TEST_DATA"):
            load("wordnet20k")


def test_unknown_data_is_told() -> None:
    from bench.datasets import load

    with pytest.raises(SystemExit, match="unknown data set 'glove'"):
        load("glove")


def test_processor_time_of_another_process() -> None:
    from bench.systems.base import memory, process_cpu

    code = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        assert 0.3 <= process_cpu(busy.pid) < 2.0
        assert memory(busy.pid)["RssAnon"] > 1 << 20
    assert abs(process_cpu(os.getpid()) - time.process_time()) < 0.1
