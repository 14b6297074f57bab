"""The comparison: exact truth, tuned widths, figures of a run over what the development install has, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
DATA = "generated:rows=2500,dim=24,clusters=40,intrinsic=8"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:faiss")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def arena(cache: Path) -> Any:
    from bench.compare.arena import prepare

    return prepare(DATA, None, 60, 10, cache)


def test_the_arena_is_exact_and_kept(arena: Any, cache: Path) -> None:
    from bench.compare.arena import ALL, LIVING, deleted, prepare

    assert prepare(DATA, None, 60, 10, cache).folder == arena.folder
    masks = {name: arena.mask(name) for name in arena.conditions} | {ALL: np.ones(2_500, bool)}
    masks[LIVING] = masks[ALL].copy()
    masks[LIVING][deleted(2_500)] = False
    assert masks[LIVING].sum() == 2_250
    for name, mask in masks.items():
        rows = np.flatnonzero(mask)
        scores = arena.queries @ arena.base[rows].T
        found = arena.truth(name)
        assert found.shape == (60, min(10, len(rows)))
        best = -np.sort(-scores, axis=1)[:, : found.shape[1]]
        np.testing.assert_allclose(np.einsum("qd,qkd->qk", arena.queries, arena.base[found]), best, rtol=1e-5)
        assert mask[found].all()
    batch = arena.rows(10, 13)
    assert batch.numbers == [10, 11, 12]
    assert batch.metadata[0]["topic"] == arena.columns["topic"][10]
    more = arena.more(200, 5)
    assert more.numbers == list(range(2_700, 2_705))
    np.testing.assert_allclose(np.linalg.norm(more.vectors, axis=1), 1.0, rtol=1e-5)


def test_exact_truth_of_euclidean_distance_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.compare import arena

    monkeypatch.setattr(arena, "_BLOCK", 64)
    rng = np.random.default_rng(1)
    base, queries = rng.standard_normal((300, 5)).astype(np.float32), rng.standard_normal((7, 5)).astype(np.float32)
    few = np.zeros(300, bool)
    few[[3, 70, 299]] = True
    found = arena.exact(base, queries, 10, "l2", {"all": np.ones(300, bool), "few": few})
    far = ((queries[:, None] - base[None]) ** 2).sum(axis=2)
    assert (found["all"] == np.argsort(far, axis=1)[:, :10]).all()
    assert (np.sort(found["few"], axis=1) == [3, 70, 299]).all()


def test_generated_rows_are_the_first_of_more(arena: Any, cache: Path) -> None:
    from bench.compare.arena import prepare

    fewer = prepare(DATA, 1_000, 60, 10, cache)
    assert (fewer.base[:] == arena.base[:1_000]).all()
    assert (fewer.columns["topic"] == arena.columns["topic"][:1_000]).all()
    about = arena.about["generated"]
    assert about["correlation"] == 0.9
    assert 3 < about["two_nn_dimension"] < 24
    with pytest.raises(SystemExit, match="'rosw'"):
        prepare("generated:rosw=3", None, 10, 10, cache)


def test_a_topic_is_correlated_with_the_vectors(arena: Any) -> None:
    """Of the neighbours of a query with many neighbours of one topic, far more than its share have that topic."""
    topics = arena.columns["topic"][arena.truth("none")]
    agreeing = np.mean([(row == max(set(row), key=list(row).count)).mean() for row in topics])
    assert agreeing > 0.7


def _tuner(recall: Any, low: int = 10, high: int = 1_000) -> tuple[Any, list[int]]:
    from bench.compare.tuning import Point, Tuner

    asked: list[int] = []

    def evaluate(width: int) -> Point:
        asked.append(width)
        return Point(width, recall(width), float(width), 100)

    return Tuner(evaluate, low, high, 60.0), asked


@pytest.mark.parametrize("least", [10, 11, 37, 40, 41, 500, 1_000])
def test_bisection_finds_the_least_width(least: int) -> None:
    tuner, asked = _tuner(lambda width: min(1.0, 0.95 * width / least))
    found = tuner.reach(0.95)
    assert found["reached"]
    assert least <= found["width"] <= max(least + 1, 1.07 * least)
    assert len(asked) <= 12
    assert len(set(asked)) == len(asked)
    # A second target starts from what is known.
    before = len(asked)
    second = tuner.reach(0.96)
    assert second["width"] >= found["width"]
    assert len(asked) - before <= 8


def test_bisection_that_never_reaches_takes_the_best() -> None:
    tuner, asked = _tuner(lambda width: width / 2_000)
    assert tuner.reach(0.95) == {"width": 1_000, "reached": False, "recall": 0.5, "complete": True}
    assert asked[-1] == 1_000
    exact, asked = _tuner(lambda width: 1.0, 0, 0)
    assert exact.reach(0.95)["width"] == 0
    assert asked == [0]


def _compare(cache: Path, out: Path, *more: str) -> list[str]:
    arguments = ["--data", DATA, "--queries", "60", "--cache", str(cache), "--out", str(out), "--rounds", "2"]
    return [sys.executable, "-m", "bench", "compare", *arguments, "--turn", "0.05", "--stream", "0.5", *more]


def test_a_whole_comparison(arena: Any, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    systems = ["vectordb", "vectordb served", "raw faiss fp16", "raw faiss exact"]
    command = _compare(cache, out, "--systems", *systems[:2], systems[2])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert list(result["systems"]) == systems[:3]
    assert result["data"]["name"] == "generated"
    for name, entry in result["systems"].items():
        assert entry["failed"] == {}, (name, entry["failed"])
        assert entry["done"]
        assert entry["reopen"]["first_answer_s"] > 0
        assert entry["memory"]["anonymous"] > 0
        for condition, found in entry["search"].items():
            for target, figures in found.items():
                assert 0 < figures["p50_min_us"] <= figures["p50_us"] <= figures["p50_max_us"] < 1e6
                assert figures["p50_us"] <= figures["p99_us"]
                if name.startswith("vectordb") or condition == "none":
                    assert figures["recall"] >= float(target) - 0.05, (name, condition, target)
    served = result["systems"]["vectordb served"]
    assert served["search"]["none"]["0.95"]["server_cpu_us"] > 0
    assert served["throughput"]["8 clients"]["qps"] > 0
    assert served["beside"]["written"]["rows_per_s"] > 100
    embedded = result["systems"]["vectordb"]
    assert embedded["ingest"]["rows"] == 2_500
    assert embedded["delete"]["after"]["recall"] > 0.8
    text = out.with_suffix(".md").read_text()
    for title in ("Single searches", "Filtered searches", "Writing", "Opening, memory, disk", "against the goals"):
        assert title in text
    assert "| raw faiss fp16 |" in text
    assert out.with_suffix(".png").stat().st_size > 20_000

    # Going on with it measures only what is new.
    command = _compare(cache, tmp_path / "more.json", "--systems", "vectordb", "raw faiss exact", "--resume", str(out))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    more = json.loads((tmp_path / "more.json").read_text())
    assert set(more["systems"]) == set(systems)
    assert more["systems"]["vectordb"] == embedded
    assert more["systems"]["raw faiss exact"]["search"]["none"]["0.99"]["recall"] == 1.0
    assert len(more["runs"]) == 2


def _left(scratch: Path) -> list[str]:
    """Command lines of processes that work below a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(scratch) in line:
            found.append(line)
    return found


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_keeps_what_it_has(
    arena: Any, cache: Path, tmp_path: Path, by: signal.Signals
) -> None:
    out, scratch = tmp_path / "out.json", tmp_path / "scratch"
    scratch.mkdir()
    systems = ["--systems", "vectordb served", "vectordb", "--disk", str(scratch)]
    process = subprocess.Popen(
        _compare(cache, out, *systems),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background job, which these tests may be, hands down that the signal is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 120
    while not (out.is_file() and '"finish"' in out.read_text()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(by)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "interrupted" in text
    result = json.loads(out.read_text())
    assert result["interrupted"]
    assert result["systems"]["vectordb served"]["ingest"]["rows"] == 2_500
    assert out.with_suffix(".md").is_file()
    assert list(scratch.iterdir()) == []
    # A worker that was just being started ends by itself: nobody tells it anything any more.
    wait_until(lambda: _left(scratch) == [])


def test_a_system_that_dies_or_hangs_is_told(arena: Any, tmp_path: Path) -> None:
    from bench.compare.child import Child, Failed

    (tmp_path / "a").mkdir()
    with Child("vectordb", arena.folder, tmp_path / "a") as child:
        child.ask("create", 60.0)
        with pytest.raises(Failed, match="TimeoutError: writing stopped"):
            child.ask("ingest", 60.0, seconds=0.0)
        child.pause()
        assert child.ask("ingest", 60.0, rows=1_000)["rows"] == 1_000
        child.tell("search_for", width=32, seconds=30.0)
        os.kill(child._process.pid, signal.SIGKILL)
        with pytest.raises(Failed, match="died of SIGKILL during 'search_for'"):
            child.answer(30.0, "search_for")
        with pytest.raises(Failed, match="died of SIGKILL"):
            child.ask("finish", 1.0)
    (tmp_path / "b").mkdir()
    with Child("raw faiss fp16", arena.folder, tmp_path / "b") as child:
        child.ask("create", 60.0)
        child.ask("ingest", 60.0)
        child.ask("finish", 60.0)
        with pytest.raises(Failed, match="killed: no answer to 'search_for' within 0 s"):
            child.ask("search_for", 0.2, width=32, seconds=30.0)
    assert _left(tmp_path) == []


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.compare import command, peers

    known = peers.Known("engine", "Embedded", ("no-such-package-here",), "peer")
    monkeypatch.setitem(peers.PEERS, "elsewhere", known)
    found, absent = command.installed(["vectordb", "elsewhere"])
    assert found == ["vectordb"]
    assert absent == {"elsewhere": "no-such-package-here is not installed"}


def test_verdicts_compare_with_the_best_that_reaches_the_recall() -> None:
    from bench.compare.verdict import verdicts

    def entry(family: str, p50: float, recall: float) -> dict[str, Any]:
        found = {"p50_us": p50, "p99_us": 2 * p50, "recall": recall, "target": 0.95}
        return {"family": family, "search": {"none": {"0.95": found}}, "synced": True, "width": "ef"}

    systems = {
        "vectordb": entry("ours", 100.0, 0.951),
        "raw faiss fp16": entry("raw", 60.0, 0.95),
        "quick but wrong": entry("peer", 1.0, 0.9),
        "slow": entry("peer", 300.0, 0.96),
        "slower": entry("server", 900.0, 0.96),
    }
    result = {"systems": systems, "plan": {"targets": [0.95]}, "data": {"shape": [10, 4]}}
    found = {one.row: one for one in verdicts(result)}
    against = found["single search @0.95, embedded against peers"]
    assert against.bound == pytest.approx(165.0)
    assert against.source == "0.55 x slow"
    assert against.holds
    raw = found["single search @0.95, embedded against raw"]
    assert raw.bound == 120.0
    assert raw.holds


def test_growth(cache: Path, tmp_path: Path) -> None:
    from bench import growth

    out = tmp_path / "growth.json"
    arguments = ["--dim", "16", "--queries", "40", "--cache", str(cache), "--out", str(out), "--disk", str(tmp_path)]
    growth.main(["--rows", "500", *arguments])
    first = json.loads(out.read_text())
    growth.main(["--rows", "500,2000", *arguments])
    both = json.loads(out.read_text())
    assert both["sizes"][0] == first["sizes"][0]
    assert [one["rows"] for one in both["sizes"]] == [500, 2_000]
    assert 0.5 < both["fits"]["disk, MB"]["exponent"] < 1.5
    assert all(one["searched"]["none"]["recall"] >= 0.9 for one in both["sizes"])
    assert out.with_suffix(".png").stat().st_size > 10_000
    with pytest.raises(SystemExit, match="holds another measurement"):
        growth.main(["--rows", "500", *arguments, "--quantization", "fp16"])


def test_fits_are_powers() -> None:
    from bench.growth import fits

    sizes = [{"rows": n, "figures": {"t": 3.0 * n**0.5, "none": 0.0}} for n in (100, 10_000, 1_000_000)]
    found = fits(sizes)
    assert found["t"] == pytest.approx({"factor": 3.0, "exponent": 0.5})
    assert found["none"] == {}
