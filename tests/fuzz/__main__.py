"""Runs the fuzzers, each for a while in a child process; exits 1 if one found something.

    python -m tests.fuzz --minutes 1                  all of them, one minute each: the form for CI
    python -m tests.fuzz --minutes 60 --ledger fuzz.json      an hour each; run again, it goes on where it was
    python -m tests.fuzz --seconds 1 --inside                 all of them, in this process: for a quick look
    python -m tests.fuzz --only messages --case 4711          one case again, in this process

A case is named by target, seed and number. What counts as found: an exception that is not one of
``vectordb.errors`` (or is ``Internal``), a wrong answer, a child that dies by a signal or does not end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import Mutator

TARGETS = {
    "messages": "tests.fuzz.messages:Messages",
    "json-filters": "tests.fuzz.texts:JsonFilters",
    "wire-filters": "tests.fuzz.texts:WireFilters",
    "config": "tests.fuzz.texts:Config",
    "keys": "tests.fuzz.texts:Keys",
    "segments": "tests.fuzz.files:Segments",
    "loaders": "tests.fuzz.files:Loaders",
    "backups": "tests.fuzz.files:Backups",
    "pages": "tests.fuzz.files:Pages",
}
_SLICE = 60.0
_HANGING = 120.0
_MOST_FINDINGS = 20


def target(name: str, folder: Path) -> Any:
    """The fuzzer of this name, set up in a folder of its own."""
    module, _, kind = TARGETS[name].partition(":")
    return getattr(importlib.import_module(module), kind)(folder)


def one(fuzzer: Any, mutator: Mutator) -> str | None:
    """What a case found, or None."""
    from vectordb.errors import Internal, VectorDBError

    try:
        fuzzer.case(mutator)
    except VectorDBError as error:
        return f"{type(error).__name__}: {error}" if isinstance(error, Internal) else None
    except Exception:
        return traceback.format_exc()
    return None


def child(name: str, seed: int, start: int, seconds: float, status: Path) -> None:
    """Runs cases for a parent, which finds the number of the running one in ``status`` if this process dies."""
    with status.open("r+b", buffering=0) as file:
        told = cases(name, seed, start, seconds, lambda number: os.pwrite(file.fileno(), struct.pack("<q", number), 0))
    print(json.dumps(told))


def cases(name: str, seed: int, start: int, seconds: float, running: Callable[[int], object]) -> dict[str, Any]:
    """Runs cases until the time is over; ``running`` is told the number of each before it runs."""
    findings: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vectordb-fuzz-") as folder:
        fuzzer = target(name, Path(folder))
        number, end = start, time.monotonic() + seconds
        while time.monotonic() < end and len(findings) < _MOST_FINDINGS:
            running(number)
            found = one(fuzzer, Mutator(name, seed, number))
            if found is not None:
                findings.append({"case": number, "found": found})
            number += 1
        fuzzer.close()
    return {"next": number, "findings": findings}


def run(name: str, seed: int, seconds: float, ledger: dict[str, Any]) -> dict[str, Any]:
    """Runs one fuzzer in children until its time is over; returns its entry of the ledger."""
    entry: dict[str, Any] = ledger.setdefault(name, {"seed": seed, "next": 0, "seconds": 0.0, "findings": []})
    with tempfile.NamedTemporaryFile(prefix="vectordb-fuzz-", suffix=".status") as status:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and len(entry["findings"]) < _MOST_FINDINGS:
            started, share = time.monotonic(), min(left, _SLICE)
            status.seek(0)
            status.write(struct.pack("<q", entry["next"]))
            status.flush()
            command = [sys.executable, "-m", "tests.fuzz", "--child", "--only", name, "--seed", str(entry["seed"])]
            command += ["--start", str(entry["next"]), "--seconds", str(share), "--status", status.name]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=share + _HANGING)
                died = None if done.returncode == 0 else f"ended with {done.returncode}:\n{done.stderr[-3000:]}"
            except subprocess.TimeoutExpired:
                died = f"did not end within {share + _HANGING:.0f} s"
            if died is None:
                told = json.loads(done.stdout.splitlines()[-1])
                entry["next"] = told["next"]
                entry["findings"] += told["findings"]
            else:
                status.seek(0)
                (number,) = struct.unpack("<q", status.read(8))
                entry["findings"].append({"case": number, "found": died})
                entry["next"] = number + 1
            entry["seconds"] += time.monotonic() - started
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, help="minutes for each fuzzer")
    parser.add_argument("--seconds", type=float, default=10.0, help="the same in seconds; default 10")
    parser.add_argument("--only", action="append", choices=sorted(TARGETS), help="this fuzzer; may be repeated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ledger", type=Path, help="file to go on from and to note the counts in")
    parser.add_argument("--case", type=int, help="run this case alone, in this process")
    parser.add_argument("--inside", action="store_true", help="without child processes")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--status", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.only or list(TARGETS)
    if given.child:
        child(names[0], given.seed, given.start, given.seconds, given.status)
        return
    if given.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            fuzzer = target(names[0], Path(folder))
            found = one(fuzzer, Mutator(names[0], given.seed, given.case))
            fuzzer.close()
        print(found or "nothing found")
        sys.exit(found is not None)
    ledger: dict[str, Any] = {}
    if given.ledger is not None and given.ledger.exists():
        ledger = json.loads(given.ledger.read_text())
    seconds = given.seconds if given.minutes is None else 60 * given.minutes
    failed = False
    for name in names:
        if given.inside:
            told = cases(name, given.seed, 0, seconds, int)
            entry = ledger[name] = {"seed": given.seed, "seconds": seconds, **told}
        else:
            entry = run(name, given.seed, seconds, ledger)
        print(
            f"{name:14} {entry['next']:9} cases in {entry['seconds']:7.0f} s, {len(entry['findings'])} findings",
            flush=True,
        )
        for finding in entry["findings"]:
            print(f"  case {finding['case']}: {finding['found']}")
        failed = failed or bool(entry["findings"])
        if given.ledger is not None:
            given.ledger.write_text(json.dumps(ledger, indent=1))
    sys.exit(failed)


if __name__ == "__main__":
    main()
