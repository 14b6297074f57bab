"""The order of a comparison: build one by one, tune one by one, then search in turns; the rest one by one again.

Every step of every system has a bound of time and leaves its figures, or why there are none, in the result, which is
written to disk after each: an interrupted run loses one step.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.compare.arena import ALL, LIVING, Arena
from bench.compare.child import Child, Failed
from bench.compare.peers import PEERS

BATCHES = (100, 500)
STREAM_RATE = 2_000
_LONGEST_BATCH = 5.0
"""Seconds on one thread: longer batches are left out."""


@dataclass(frozen=True)
class Plan:
    """How long and how often.

    Attributes:
        targets: Recalls to reach without a filter; under filters it is the first.
        rounds: Turns of each system in each measurement.
        budget: Seconds for everything; builds may take 60 % of it.
        build_cap: Seconds of one system's build.
        step_cap: Seconds after which a system is not tried further at one tuning.
        turn: Seconds that one turn of a system takes at most, about.
    """

    targets: tuple[float, ...] = (0.95, 0.99)
    rounds: int = 3
    budget: float = 1_500.0
    build_cap: float = 240.0
    step_cap: float = 6.0
    turn: float = 0.5
    stream: float = 5.0
    threads: int = 2


@dataclass
class Comparison:
    """One run. ``save`` is called after every step; ``systems`` is what it saves."""

    arena: Arena
    plan: Plan
    scratch: Path
    save: Callable[[], None]
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    _children: dict[str, Child] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)

    def run(self, names: Sequence[str]) -> None:
        try:
            for name in names:
                self._build(name)
            self._children = {name: self._children[name] for name in names if name in self._children}
            for name in list(self._children):
                self._tune(name)
            self._search()
            self._throughput()
            for name in list(self._children):
                self._finish(name)
        finally:
            for child in self._children.values():
                child.kill("the run ended")
                child.close()
            self._children.clear()

    def left(self, share: float = 1.0) -> float:
        """Seconds until that share of the budget is gone."""
        return self.plan.budget * share - (time.monotonic() - self._started)

    # Each phase.

    def _build(self, name: str) -> None:
        entry = self.systems[name] = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "failed": {}}
        folder = self._folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cap = min(self.plan.build_cap, self.left(0.6))
        if cap < 5.0:
            self._note(name, "build", "no time left in the budget")
            return
        with suppress(Failed):
            self._step(name, "start", lambda: self._begin(name, folder))
            child = self._children[name]
            entry |= child.about
            source = PEERS[name].copies
            if source is not None and "finish" in self.systems.get(source, {}):
                # A copy of a running system's folder may be torn: that of a closed one is whole.
                self._step(name, "copy", lambda: self._copy(name, str(source)))
                return
            self._step(name, "create", lambda: child.ask("create", 60.0))
            self._step(name, "ingest", lambda: child.ask("ingest", cap + 30.0, seconds=cap))
            self._step(name, "finish", lambda: child.ask("finish", max(10.0, cap - entry["ingest"]["seconds"])))
            child.pause()
            return
        self._drop(name)

    def _copy(self, name: str, source: str) -> dict[str, Any]:
        self._children[source].ask("close", 60.0)
        self._children.pop(source).close()
        shutil.copytree(self._folder(source) / "db", self._folder(name) / "db")
        self._begin(source, self._folder(source))
        self._children[source].ask("reopen", 60.0)
        self._children[source].pause()
        self._children[name].ask("reopen", 60.0)
        self._children[name].pause()
        return {"from": source}

    def _tune(self, name: str) -> None:
        entry, cap = self.systems[name], self.plan.step_cap
        if "copy" in entry:
            # The same index: what the one was tuned to fits the other.
            entry["tuning"] = self.systems[entry["copy"]["from"]].get("tuning", {})
            return
        entry["tuning"] = {}
        conditions = [ALL, *(self.arena.conditions if entry["can_filter"] else ())]
        for condition in conditions:
            targets = self.plan.targets if condition == ALL else self.plan.targets[:1]
            with suppress(Failed):
                asked = {"condition": condition, "targets": targets, "seconds": cap}
                entry["tuning"][condition] = self._step(
                    name, f"tune {condition}", lambda asked=asked: self._ask(name, "tune", 8 * cap + 60.0, **asked)
                )
        self._pause(name)

    def _search(self) -> None:
        """Blocks of single searches, the systems in turn."""
        for condition in (ALL, *self.arena.conditions):
            for target in self.plan.targets if condition == ALL else self.plan.targets[:1]:
                turns: dict[str, list[dict[str, Any]]] = {}
                for turn in range(self.plan.rounds):
                    for name in list(self._children):
                        if (tuned := self._tuned(name, condition, target)) is None:
                            continue
                        count = self._count(tuned)
                        asked = {"condition": condition, "width": tuned["width"], "start": turn * count, "count": count}
                        with suppress(Failed):
                            label = f"search {condition} @{target}"
                            turns.setdefault(name, []).append(
                                self._step(name, label, lambda n=name, a=asked: self._ask(n, "block", 60.0, **a))
                            )
                            self._pause(name)
                for name, blocks in turns.items():
                    width = self._tuned(name, condition, target)
                    figures = summary(blocks, self.arena.truth(condition).shape[1])
                    found = self.systems[name].setdefault("search", {}).setdefault(condition, {})
                    found[str(target)] = {"width": width and width["width"], "target": target, **figures}
                self.save()

    def _throughput(self) -> None:
        """Batches with all threads, and eight clients at once for servers, at the first target, in turns."""
        target = self.plan.targets[0]
        rates: dict[tuple[str, str], list[float]] = {}
        recalls: dict[str, float] = {}
        for _ in range(self.plan.rounds):
            for name in list(self._children):
                if (tuned := self._tuned(name, ALL, target)) is None:
                    continue
                with suppress(Failed):
                    for size in BATCHES:
                        if size * tuned["p50_us"] > _LONGEST_BATCH * 1e6:
                            continue
                        asked = {"width": tuned["width"], "size": size, "seconds": self.plan.turn / 2}
                        found = self._step(name, "batch", lambda n=name, a=asked: self._ask(n, "batch", 90.0, **a))
                        rates.setdefault((name, f"batch {size}"), []).extend(found["qps"])
                        recalls[name] = found["recall"]
                    if "server" in self.systems[name]["family"]:
                        asked = {"width": tuned["width"], "count": 8, "seconds": 2 * self.plan.turn}
                        found = self._step(name, "clients", lambda n=name, a=asked: self._ask(n, "clients", 60.0, **a))
                        rates.setdefault((name, "8 clients"), []).append(found["qps"])
                self._pause(name)
        for (name, label), values in rates.items():
            spread = {"qps": statistics.median(values), "min": min(values), "max": max(values)}
            self.systems[name].setdefault("throughput", {})[label] = {**spread, "recall": recalls[name]}
        self.save()

    def _finish(self, name: str) -> None:
        """Deletes, opening again, memory, writes beside searches; then the system is done with."""
        entry = self.systems[name]
        tuned = self._tuned(name, ALL, self.plan.targets[0])
        if self.left() < 5.0:
            self._note(name, "rest", "no time left in the budget")
        elif tuned is not None:
            width = tuned["width"]
            if entry["can_delete"]:
                with suppress(Failed):
                    self._step(name, "delete", lambda: self._delete(name, tuned))
            with suppress(Failed):
                self._step(name, "empty", lambda: self._empty(name, width))
                self._step(name, "reopen", lambda: self._reopen(name))
                asked = {"searches": 1_000, "width": width, "seconds": 5.0}
                entry["memory"] = self._step(name, "memory", lambda: self._ask(name, "memory", 60.0, **asked))
                if entry["can_write_beside"]:
                    self._step(name, "beside", lambda: self._beside(name, width))
            entry["done"] = not entry["failed"]
        self._drop(name)
        self.save()

    def _delete(self, name: str, tuned: dict[str, Any]) -> dict[str, Any]:
        limit, count, width = self.arena.truth(ALL).shape[1], self._count(tuned), tuned["width"]

        def blocks(condition: str) -> dict[str, Any]:
            asked = {"condition": condition, "width": width, "count": count}
            return summary([self._ask(name, "block", 60.0, start=i * count, **asked) for i in range(3)], limit)

        before = blocks(ALL)
        took = self._ask(name, "delete_tenth", 120.0)
        return {"before": before, "after": blocks(LIVING), **took}

    def _empty(self, name: str, width: int) -> dict[str, Any]:
        """Memory of the same system with a hundred rows: its libraries and buffers."""
        folder = self.scratch / "empty"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._pause(name)
        with Child(name, self.arena.folder, folder, self.plan.threads) as child:
            child.ask("create", 60.0)
            child.ask("ingest", 60.0, rows=100)
            child.ask("finish", 60.0)
            found: dict[str, Any] = child.ask("memory", 60.0, searches=100, width=width, seconds=3.0)
            return found

    def _reopen(self, name: str) -> dict[str, Any]:
        """In a fresh process, libraries imported, files in the page cache."""
        self._ask(name, "close", 120.0)
        self._children.pop(name).close()
        self._begin(name, self._folder(name))
        found: dict[str, Any] = self._ask(name, "reopen", 120.0)
        return found

    def _beside(self, name: str, width: int) -> dict[str, Any]:
        """A server is written to from a process of its own; embedded, it is another thread."""
        seconds, timeout = self.plan.stream, 8 * self.plan.stream + 60.0
        address = self._ask(name, "address", 10.0)
        if address is None:
            asked = {"width": width, "rate": STREAM_RATE, "seconds": seconds}
            found: dict[str, Any] = self._ask(name, "search_beside", timeout, **asked)
            return found
        child = self._children[name]
        with Child(name, self.arena.folder, self._folder(name), self.plan.threads) as writer:
            writer.ask("attach", 60.0, address=address)
            writer.tell("write_beside", rate=STREAM_RATE, seconds=seconds)
            found = child.ask("search_for", timeout, width=width, seconds=seconds)
            return {**found, "written": writer.answer(timeout, "write_beside")}

    # Helpers.

    def _folder(self, name: str) -> Path:
        return self.scratch / name.replace(" ", "-")

    def _begin(self, name: str, folder: Path) -> None:
        self._children[name] = Child(name, self.arena.folder, folder, self.plan.threads)

    def _ask(self, name: str, command: str, timeout: float, **arguments: Any) -> Any:
        if self.left() < 0.0:
            raise Failed("no time left in the budget")
        child = self._children.get(name)
        if child is None:
            raise Failed("not running")
        return child.ask(command, timeout, **arguments)

    def _pause(self, name: str) -> None:
        if name in self._children:
            self._children[name].pause()

    def _drop(self, name: str) -> None:
        """Ends a system and frees its disk, unless another still takes it over."""
        child = self._children.pop(name, None)
        if child is not None:
            child.close()
        shutil.rmtree(self._folder(name), ignore_errors=True)

    def _tuned(self, name: str, condition: str, target: float) -> dict[str, Any] | None:
        found = self.systems[name].get("tuning", {}).get(condition)
        return None if found is None else found["targets"].get(str(target))

    def _count(self, tuned: dict[str, Any]) -> int:
        """Searches of a turn: as many as the time of a turn has room for, a share of the queries, ten at least."""
        most = -(-len(self.arena.queries) // 2)
        return int(np.clip(self.plan.turn * 1e6 / tuned["p50_us"], 10, most))

    def _step(self, name: str, step: str, run: Callable[[], Any]) -> Any:
        """Runs it; its figures or its failure are in the system's entry, and a line on the screen says so."""
        started = time.monotonic()
        try:
            found = run()
        except Failed as failure:
            self._note(name, step, str(failure))
            child = self._children.get(name)
            if child is not None and child.dead is not None:
                self._drop(name)
            raise
        took = time.monotonic() - started
        entry = self.systems[name]
        entry.setdefault("seconds", {})
        entry["seconds"][step] = entry["seconds"].get(step, 0.0) + took
        if step in ("ingest", "finish", "copy", "delete", "empty", "reopen", "beside"):
            entry[step] = found
            self.save()
        if took > 1.0:
            print(f"{max(0.0, self.left()):6.0f} s left  {name:<16} {step:<32} {took:6.1f} s", flush=True)
        return found

    def _note(self, name: str, step: str, reason: str) -> None:
        self.systems[name].setdefault("failed", {})[step] = reason
        print(f"{max(0.0, self.left()):6.0f} s left  {name:<16} {step:<32} FAILED: {reason}", flush=True)
        self.save()


def summary(blocks: Sequence[dict[str, Any]], truth: int) -> dict[str, Any]:
    """One figure of several turns: quantiles over all searches, and the least and greatest median of a turn."""
    walls = [wall for block in blocks for wall in block["walls_us"]]
    medians = [statistics.median(block["walls_us"]) for block in blocks]
    return {
        "p50_us": statistics.median(medians),
        "p50_min_us": min(medians),
        "p50_max_us": max(medians),
        "p99_us": float(np.percentile(walls, 99)),
        "client_cpu_us": statistics.median(block["client_cpu_us"] for block in blocks),
        "server_cpu_us": statistics.median(block["server_cpu_us"] for block in blocks),
        "recall": sum(block["hits"] for block in blocks) / (len(walls) * truth),
        "short": sum(block["short"] for block in blocks) / len(walls),
        "searches": len(walls),
    }
