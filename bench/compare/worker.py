"""One system in a process of its own: takes commands on standard input and answers on a pipe, a JSON object a line.

``python -m bench.compare.worker JSON`` with ``system, arena, folder, threads, form`` and the pipe ``answers``.
What systems print goes to the log that standard output and error are.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.compare import processes
from bench.compare.arena import ALL, LIVING, Arena, Rows, deleted
from bench.compare.peers import PEERS, peer_class, versions
from bench.compare.peers.base import Ground, Peer, Search, folder_bytes
from bench.compare.tuning import Point, Tuner

TUNE, REPORT = "tune", "report"
"""Even queries choose the width, odd ones are reported."""

_FEWEST = 40
_WARM, _WARM_SECONDS = 10, 1.0


class Worker:
    """The commands; each public method is one, its arguments are the command's and its result the answer."""

    def __init__(self, system: str, arena: Arena, folder: Path, threads: int, form: dict[str, Any]) -> None:
        self._arena = arena
        self._family = PEERS[system].family
        columns = {name: "int" if column.dtype.kind in "iu" else "str" for name, column in arena.columns.items()}
        ground = Ground(
            folder / "db", arena.base.shape[1], arena.about["metric"], columns, len(arena.base),
            arena.about["limit"], threads, form.get("index"), form.get("quantization"),
        )  # fmt: skip
        self._peer: Peer = peer_class(system)(ground)
        self._folder = folder / "db"
        self._versions = versions(system)
        self._filters: dict[str, Any] = {}
        self._tuners: dict[str, Tuner] = {}

    def about(self) -> dict[str, Any]:
        peer = self._peer
        return {
            "versions": self._versions, "family": self._family, "width": peer.width, "build": peer.build,
            "durable": peer.durable, "synced": peer.synced, "can_filter": peer.can_filter,
            "can_delete": peer.can_delete, "can_write_beside": peer.can_write_beside,
        }  # fmt: skip

    def create(self) -> None:
        self._peer.create()

    def reopen(self) -> dict[str, float]:
        """Seconds until the folder is open, and until the first answer."""
        started = time.perf_counter()
        self._peer.reopen()
        opened = time.perf_counter() - started
        found = self._peer.rows(self._peer.search(self._search(0, self._default_width(), ALL)))
        if not found:
            raise RuntimeError("the first search after reopening found nothing")
        return {"open_s": opened, "first_answer_s": time.perf_counter() - started}

    def attach(self, address: str) -> None:
        self._peer.attach(address)

    def address(self) -> str | None:
        return self._peer.address()

    def ingest(self, rows: int | None = None, seconds: float = 1e9) -> dict[str, Any]:
        """Writes the arena in batches, each acknowledged: rows a second, and milliseconds of a batch.

        Raises:
            TimeoutError: It takes longer than ``seconds``; looked at after each batch.
        """
        total = len(self._arena.base) if rows is None else rows
        step, took = self._peer.write_batch, []
        for start in range(0, total, step):
            batch = self._arena.rows(start, min(start + step, total))
            before = time.perf_counter()
            self._peer.write(batch)
            took.append(time.perf_counter() - before)
            if sum(took) > seconds:
                raise TimeoutError(f"writing stopped after {seconds:.0f} s at {start + step:,} of {total:,} rows")
        return {
            "rows": total, "seconds": sum(took), "rows_per_s": total / sum(took), "batch": step,
            "batch_p50_ms": float(np.percentile(took, 50)) * 1e3, "batch_p99_ms": float(np.percentile(took, 99)) * 1e3,
        }  # fmt: skip

    def finish(self) -> dict[str, float]:
        started = time.perf_counter()
        self._peer.finish()
        return {"seconds": time.perf_counter() - started, "disk_bytes": folder_bytes(self._folder)}

    def tune(
        self, condition: str, targets: Sequence[float], seconds: float, start: int | None = None
    ) -> dict[str, Any]:
        """For each target the narrowest width, and the curve that was found on the way.

        The width is bisected on the tuning queries. Where the reported ones, by chance, fall short of the target with
        it, it is widened by a twelfth until they do not: no system is compared at less recall than was asked.
        """
        low, high = self._peer.widths if self._peer.width else (0, 0)
        tuner = self._tuners.setdefault(
            condition, Tuner(lambda width: self._evaluate(condition, width, seconds / 6, TUNE), low, high, seconds)
        )
        found = {}
        for target in sorted(targets):
            chosen = tuner.reach(target, start)
            until = time.monotonic() + seconds
            point = self._evaluate(condition, chosen["width"], seconds / 6, REPORT)
            while point.recall < target and point.width < high and time.monotonic() < until:
                wider = min(high, max(point.width + 1, round(point.width * 1.08)))
                point = self._evaluate(condition, wider, seconds / 6, REPORT)
            found[str(target)] = {**chosen, "width": point.width, "p50_us": point.p50_us}
            start = chosen["width"]
        return {"targets": found, "curve": tuner.curve()}

    def block(self, condition: str, width: int, start: int, count: int) -> dict[str, Any]:
        """Single searches with the report queries from ``start`` on, round and round: times in microseconds, recall."""
        asked = self._queries(REPORT)
        chosen = [asked[(start + i) % len(asked)] for i in range(count)]
        searches = [self._search(query, width, condition) for query in chosen]
        self._peer.use(width)
        search, servers = self._peer.search, self._servers()
        answers, walls = [], []
        # Other systems ran since the last block: caches and clocks are to be warm again, and memory is to be there that
        # the machine took back meanwhile (DAMON pages out what nobody used for two minutes; then a search takes 10 ms).
        until = time.monotonic() + _WARM_SECONDS
        for i, one in enumerate(searches):
            if i > min(_WARM, count // 5) and time.monotonic() > until:
                break
            search(one)
        gc.collect()
        gc.disable()
        client, server = time.process_time(), processes.cpu(servers)
        for one in searches:
            before = time.perf_counter()
            answer = search(one)
            walls.append(time.perf_counter() - before)
            answers.append(answer)
        client, server = time.process_time() - client, processes.cpu(servers) - server
        gc.enable()
        hits, short = self._score(chosen, answers, condition)
        return {
            "walls_us": [round(wall * 1e6, 1) for wall in walls], "hits": hits, "short": short,
            "truth": self._arena.truth(condition).shape[1],
            "client_cpu_us": client / count * 1e6, "server_cpu_us": server / count * 1e6,
        }  # fmt: skip

    def batch(self, width: int, size: int, seconds: float) -> dict[str, Any]:
        """Batches until the time is over, at least two: searches a second of each."""
        asked = self._queries(REPORT)
        searches = [self._search(asked[i % len(asked)], width, ALL) for i in range(size)]
        self._peer.use(width)
        self._peer.search_batch(searches[:_WARM])
        rates: list[float] = []
        until = time.monotonic() + seconds
        while len(rates) < 2 or time.monotonic() < until:
            before = time.perf_counter()
            answers = self._peer.search_batch(searches)
            rates.append(size / (time.perf_counter() - before))
        hits, _ = self._score([asked[i % len(asked)] for i in range(size)], list(answers), ALL)
        return {"qps": rates, "recall": hits / (size * self._arena.truth(ALL).shape[1])}

    def clients(self, width: int, count: int, seconds: float) -> dict[str, float]:
        """Threads that search at once, each on its own: searches a second of all."""
        asked = self._queries(REPORT)
        self._peer.use(width)
        until = time.monotonic() + seconds

        def run(thread: int) -> int:
            done = 0
            while time.monotonic() < until:
                self._peer.search(self._search(asked[(thread + done * count) % len(asked)], width, ALL))
                done += 1
            return done

        with ThreadPoolExecutor(count) as pool:
            before = time.perf_counter()
            done = sum(pool.map(run, range(count)))
            return {"qps": done / (time.perf_counter() - before)}

    def write_beside(self, rate: float, seconds: float, first: int = 0) -> dict[str, float]:
        """Writes rows that are not in the arena at a steady rate, 100 at a time: what was reached."""
        size, took, written = 100, [], 0
        batches: list[Rows] = [self._arena.more(first + i * size, size) for i in range(int(rate * seconds / size))]
        started = time.perf_counter()
        for i, batch in enumerate(batches):
            time.sleep(max(0.0, started + i * size / rate - time.perf_counter()))
            before = time.perf_counter()
            if before - started > seconds:
                break
            self._peer.write(batch)
            took.append(time.perf_counter() - before)
            written += len(batch.numbers)
        spent = max(time.perf_counter() - started, seconds)
        return {"rows_per_s": written / spent, "batch_p99_ms": float(np.percentile(took, 99)) * 1e3}

    def search_for(self, width: int, seconds: float) -> dict[str, Any]:
        """Single searches until the time is over, with short rests, so that their number does not decide the rate."""
        asked = self._queries(REPORT)
        self._peer.use(width)
        walls: list[float] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            search = self._search(asked[len(walls) % len(asked)], width, ALL)
            before = time.perf_counter()
            self._peer.search(search)
            walls.append(time.perf_counter() - before)
            time.sleep(0.001)
        return {
            "searches": len(walls), "p50_us": float(np.percentile(walls, 50)) * 1e6,
            "p99_us": float(np.percentile(walls, 99)) * 1e6, "max_us": max(walls) * 1e6,
        }  # fmt: skip

    def search_beside(self, width: int, rate: float, seconds: float) -> dict[str, Any]:
        """Searches of this thread beside the writes of another of the same process."""
        written: dict[str, float] = {}
        failed: list[str] = []

        def write() -> None:
            try:
                written.update(self.write_beside(rate, seconds))
            except Exception as error:
                failed.append(f"{type(error).__name__}: {error}")

        writer = threading.Thread(target=write)
        writer.start()
        found = self.search_for(width, seconds)
        writer.join()
        if failed:
            raise RuntimeError(f"writing beside searches failed: {failed[0]}")
        return {**found, "written": written}

    def delete_tenth(self) -> dict[str, float]:
        numbers = deleted(len(self._arena.base)).tolist()
        started = time.perf_counter()
        self._peer.delete(numbers)
        return {"seconds": time.perf_counter() - started}

    def settle(self) -> dict[str, float]:
        """What :meth:`finish` takes once more, after deletes."""
        return self.finish()

    def memory(self, searches: int, width: int, seconds: float) -> dict[str, Any]:
        """Resident bytes after so many searches: the server's, or this process's with all that it started."""
        asked = self._queries(REPORT)
        self._peer.use(width)
        until, done = time.monotonic() + seconds, 0
        while done < searches and time.monotonic() < until:
            self._peer.search(self._search(asked[done % len(asked)], width, ALL))
            done += 1
        gc.collect()
        pids = self._servers() if "server" in self._family else processes.tree(os.getpid())
        return {**processes.memory(pids), "searches": done}

    def close(self) -> None:
        self._peer.close()

    def _servers(self) -> list[int]:
        """Everything that this process started, and what it names besides."""
        started = processes.tree(os.getpid())[1:]
        return started + [pid for root in self._peer.pids() for pid in processes.tree(root) if pid not in started]

    def _default_width(self) -> int:
        low, high = self._peer.widths
        return min(high, 4 * low)

    def _queries(self, part: str) -> list[int]:
        return list(range(0 if part == TUNE else 1, len(self._arena.queries), 2))

    def _search(self, query: int, width: int, condition: str) -> Search:
        where = None
        if condition not in (ALL, LIVING):
            if condition not in self._filters:
                given = self._arena.conditions[condition]
                self._filters[condition] = self._peer.filter(given, self._arena.mask(condition))
            where = self._filters[condition]
        return Search(self._arena.queries[query], width, where)

    def _score(self, queries: Sequence[int], answers: Sequence[Any], condition: str) -> tuple[int, int]:
        """How many of the exact nearest were found, and how many answers were short."""
        truth, hits, short = self._arena.truth(condition), 0, 0
        for query, answer in zip(queries, answers, strict=True):
            found = self._peer.rows(answer)
            hits += len(set(found) & set(truth[query].tolist()))
            short += len(found) < truth.shape[1]
        return hits, short

    def _evaluate(self, condition: str, width: int, seconds: float, part: str) -> Point:
        """Recall over half of the queries, or over as many as the time allows, :data:`_FEWEST` at least."""
        asked, walls, answers = self._queries(part), [], []
        self._peer.use(width)
        until = time.monotonic() + seconds
        for query in asked:
            search = self._search(query, width, condition)
            before = time.perf_counter()
            answers.append(self._peer.search(search))
            walls.append(time.perf_counter() - before)
            if len(walls) >= _FEWEST and time.monotonic() > until:
                break
        hits, _ = self._score(asked[: len(answers)], answers, condition)
        recall = hits / (len(answers) * self._arena.truth(condition).shape[1])
        return Point(width, recall, float(np.percentile(walls, 50)) * 1e6, len(walls))


def main() -> None:
    told = json.loads(sys.argv[1])
    threads = told["threads"]
    processes.die_with_parent()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers = os.fdopen(told["answers"], "w")

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    worker: Worker | None = None
    try:
        worker = Worker(told["system"], Arena(Path(told["arena"])), Path(told["folder"]), threads, told["form"])
        say({"result": worker.about()})
    except Exception as error:
        say({"error": _told(error)})
        return
    for line in sys.stdin:
        asked = json.loads(line)
        command: Callable[..., Any] = getattr(worker, asked.pop("command"))
        try:
            say({"result": command(**asked)})
        except Exception as error:
            traceback.print_exc()
            say({"error": _told(error)})


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error).strip() else ''}"


if __name__ == "__main__":
    main()
