"""The bench runs, and its figures are made of what it says they are."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:faiss")


def test_the_whole_run(tmp_path: Path, data: ModuleType) -> None:
    out = tmp_path / "result.json"
    name, rows = ("wordnet20k", "2000") if data.have_shared_data() else ("corpus", "500")
    arguments = ["--data", name, "--rows", rows, "--queries", "40", "--rounds", "1", "--ef", "64", "--turn", "0.5"]
    command = [sys.executable, "-m", "bench", *arguments, "--disk", str(tmp_path), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert result["data"]["shape"][0] <= int(rows)
    names = ["raw faiss", "embedded", "embedded +metadata", "served grpcio", "served native", "served lane"]
    limits = ["raw grpcio", "raw native", "raw lane"]
    plain = [one for one in result["searches"] if one["condition"] == "none"]
    assert [one["system"] for one in plain] == names + limits
    for one in result["searches"]:
        assert 0 < one["cpu_us"] < 1e6
        assert 0 < one["p50_us"] <= one["p99_us"]
        if not one["system"].startswith("raw"):
            assert one["recall"] >= 0.9, one
            assert one["short"] == 0.0, one
            assert one["strategies"]
    recall = {n: [one["recall"] for one in result["searches"] if one["system"] == n] for n in names + limits}
    for name in names[2:]:
        assert recall[name] == recall["embedded"]
    for name in limits:
        assert recall[name] == recall["raw faiss"][:1]
    assert set(result["loading"]) == {"raw rocksdb", "raw faiss", "embedded", *names[3:]}
    assert set(result["throughput"]) == {*names[3:], *limits}
    for one in result["throughput"].values():
        assert one["qps"] > 1
        assert 0 < one["cpu_us"] < 1e6
    assert result["loading"]["embedded"]["rows_per_s"] > 100
    assert 0 < result["reopening"]["embedded_first_answer_s"] < 30
    assert "raw faiss" in done.stdout


def test_wordnet_is_read_from_its_files(tmp_path: Path) -> None:
    from bench import wordnet

    licence = "  1 This software and database is being provided to you\n"
    noun = "00017222 03 n 03 plant 0 flora 0 plant_life 0 001 @ 00004475 n 0000 | (botany) a living organism  \n"
    adjective = '00001740 00 a 01 able(p) 0 000 | having skill; "able to swim"; "she was able"  \n'
    (tmp_path / "data.noun").write_text(licence + noun)
    (tmp_path / "data.adj").write_text(licence + adjective)
    ((text, plant),) = wordnet.parsed(tmp_path / "data.noun", "noun")
    assert text == "plant, flora, plant life: (botany) a living organism"
    assert (plant["lexname"], plant["n_words"], plant["n_pointers"]) == ("noun.Tops", 3, 1)
    ((_, able),) = wordnet.parsed(tmp_path / "data.adj", "adj")
    assert (able["word"], able["pos"], able["gloss_length"]) == ("able", "adj", 44)


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


@pytest.fixture
def few(data: ModuleType) -> list[str]:
    """Arguments that make a bench short."""
    return ["--data", "wordnet20k", "--rows", "1500"] if data.have_shared_data() else ["--data", "corpus"]


def _result(module: str, arguments: list[str], out: Path) -> dict[str, Any]:
    importlib.import_module(module).main([*arguments, "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text())
    assert found["machine"]["cores"] >= 1
    return found


def test_commands_are_found_by_name() -> None:
    command = [sys.executable, "-m", "bench", "filters", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "filter_mode" in done.stdout


def test_filters(tmp_path: Path, few: list[str]) -> None:
    rows = _result("bench.filters", [*few, "--queries", "6", "--rounds", "1"], tmp_path / "out.json")["filters"]
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert {row["correlated"] for row in rows} == {False, True}
    assert rows[-1]["matches"] == 0
    for row in rows:
        for mode, figures in row["modes"].items():
            assert figures["short"] == 0, (row["filter"], mode)
            assert figures["recall"] >= 0.9, (row["filter"], mode)
            assert figures["p50_us"] > 0


def test_indexes(tmp_path: Path, few: list[str]) -> None:
    arguments = [*few, "--queries", "10", "--kinds", "flat", "hnsw", "--quantizations", "none", "--disk", str(tmp_path)]
    flat, hnsw = _result("bench.indexes", arguments, tmp_path / "out.json")["indexes"]
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert (flat["kind"], hnsw["kind"]) == ("flat", "hnsw")
    assert [point["recall"] for point in flat["points"]] == [1.0]
    assert len(hnsw["points"]) == 8
    assert hnsw["disk_bytes"] > flat["disk_bytes"] > 0
    assert hnsw["resident_bytes"]["RssAnon"] != 0


def test_deletes(tmp_path: Path, few: list[str]) -> None:
    arguments = [*few, "--queries", "10", "--shares", "0", "0.9"]
    none, most = _result("bench.deletes", arguments, tmp_path / "out.json")["deletes"]
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert most["living"] == pytest.approx(0.1 * none["living"], abs=1)
    for row in (none, most):
        assert min(row["before"]["recall"], row["after"]["recall"]) >= 0.9
        assert row["after"]["dead_rows"] == 0


def test_deadlines(tmp_path: Path, few: list[str]) -> None:
    rows = _result("bench.deadlines", [*few, "--repeats", "2", "--batch", "20"], tmp_path / "out.json")["deadlines"]
    assert len(rows) == 3
    assert all(row["exceeded"] + row["partial"] + row["complete"] == 2 for row in rows)


def test_calibrate(tmp_path: Path, few: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import calibrate
    from vectordb.query import costs

    monkeypatch.setattr(calibrate, "REPEATS", 3)
    found = _result("bench.calibrate", [*few, "--kinds", "hnsw"], tmp_path / "out.json")
    assert all(getattr(costs, name) > 0 <= value for name, value in found["costs"].items())
    # Of so few rows a wide beam compares all, which flattens the curve.
    assert 0.0 < found["efforts"]["hnsw"]["fit"]["exponent"] < 1.2
