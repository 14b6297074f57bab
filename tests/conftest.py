"""Fixtures that every test folder may ask for."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

# Helpers whose assertions are to tell what was compared, as those of tests do.
pytest.register_assert_rewrite("tests.crash.oracle", "tests.recall.measured")

# hnswlib and annoy have to be compiled: without a compiler these files have nothing to test.
collect_ignore = (
    []
    if all(importlib.util.find_spec(module) for module in ("hnswlib", "annoy", "scann", "svs"))
    else ["unit/index/test_other_kinds.py", "recall/test_other_kinds_recall.py"]
)


@pytest.fixture(scope="session")
def data() -> ModuleType:
    """The module ``tests/data.py``: ``brute_force``, ``clustered``, ``have_shared_data`` and the loaders."""
    from tests import data

    return data


@pytest.fixture(scope="session")
def wordnet(data: ModuleType) -> Any:
    """20,000 WordNet glosses (``data.WordNet``): base, queries, truth, ids, metadata, texts, filters, ..."""
    return data.wordnet()


@pytest.fixture(scope="session")
def wordnet5k(data: ModuleType) -> Any:
    """5,000 of them, evenly spread, with their own truth: for tests that write them many times."""
    return data.wordnet(5_000)


@pytest.fixture(scope="session")
def wordnet8k(data: ModuleType) -> Any:
    """8,000 of them, evenly spread, with their own truth: for tests that build many indexes of them."""
    return data.wordnet(8_000)


@pytest.fixture(scope="session")
def mnist(data: ModuleType) -> Any:
    """5,000 MNIST digits (``data.Mnist``): base, labels, queries, truth under Euclidean distance."""
    return data.mnist()


@pytest.fixture(scope="session")
def xquad(data: ModuleType) -> Any:
    """The shipped corpus (``data.Xquad``): documents, questions, relevant, reference vectors or ``None``."""
    return data.xquad()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests marked ``slow`` unless ``-m`` says what to run; those take as long as they take."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    if config.getoption("-m"):
        for item in slow:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(0))
    elif slow:
        config.hook.pytest_deselected(items=slow)
        left_out = set(slow)
        items[:] = [item for item in items if item not in left_out]


class Round(NamedTuple):
    """One run of a test that is run many times: all that is random in it comes from its seed."""

    number: int
    seed: int
    rng: random.Random


class Rounds:
    """The rounds of one test: so many as its marker says, or until ``--seconds`` are over.

    With ``--ledger FILE`` each round that ended well is appended there, and the next run goes on after the last one.
    """

    def __init__(self, name: str, count: int, config: pytest.Config) -> None:
        self.name = name
        self.count = count
        ledger: str | None = config.getoption("--ledger")
        self._ledger = None if ledger is None else Path(ledger)
        self._seconds: float | None = config.getoption("--seconds")
        self._seed: int | None = config.getoption("--seed")

    def __iter__(self) -> Iterator[Round]:
        began = time.monotonic()
        for number in range(_reached(self._ledger)[self.name] if self._ledger else 0, self.count):
            if self._seconds is not None and time.monotonic() - began > self._seconds:
                return
            seed = random.SystemRandom().randrange(10**9) if self._seed is None else self._seed
            print(f"round {number} of {self.count}, --seed {seed}")
            yield Round(number, seed, random.Random(seed))
            if self._ledger is not None:
                with self._ledger.open("a") as file:
                    file.write(json.dumps({"test": self.name, "round": number, "seed": seed}) + "\n")


def _reached(ledger: Path) -> Counter[str]:
    """Rounds that ended well, by test."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return Counter(json.loads(line)["test"] for line in lines if line.endswith("}"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rounds", "tests that run many random rounds (with -m slow: the long counts)")
    group.addoption("--ledger", help="file of finished rounds, to go on from")
    group.addoption("--seconds", type=float, help="begin no more rounds of a test after so long")
    group.addoption("--seed", type=int, help="the seed of all rounds, to repeat one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("rounds")
    if marker is not None:
        short, long = marker.args
        at_length = pytest.param(long, id="long", marks=pytest.mark.slow)
        metafunc.parametrize("rounds", [pytest.param(short, id="short"), at_length], indirect=True)


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Rounds:
    """For tests marked ``rounds(short, long)``: ``for round in rounds: ...``"""
    name = request.node.nodeid.rpartition("/")[2]
    for variant in ("short-", "long-", "-short", "-long", "[short]", "[long]"):
        name = name.replace(variant, "")
    return Rounds(name, request.param, request.config)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    ledger: str | None = config.getoption("--ledger")
    if ledger is not None:
        terminalreporter.section(f"rounds in {ledger}")
        for name, count in sorted(_reached(Path(ledger)).items()):
            terminalreporter.write_line(f"{count:7,}  {name}")


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """An empty folder in memory where there is such a place: for tests of which the disk's speed is no part."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="vectordb-test-", dir=shared if os.access(shared, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs ``vectordb`` with these arguments in this process: its exit code, and all it printed."""
    from vectordb.cli.main import main

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), captured.out + captured.err

    return run


@pytest.fixture
def slow_kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the distribution ``tests/slow_kind``, installed for the test, also for processes that it starts."""
    from vectordb.index import registry

    folder = str(Path(__file__).with_name("slow_kind"))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
    registry.clear_cache()
    module = importlib.import_module("slow_kind")
    module.BUILDS.clear()
    yield module
    registry.clear_cache()
