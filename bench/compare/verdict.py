"""How this engine stands: the bounds that the project set itself, row by row, against the best of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from bench.compare.arena import ALL

Result = Mapping[str, Any]
EMBEDDED, SERVED = "vectordb", ("vectordb served", "vectordb native", "vectordb grpcio")
HALF, FULL = "raw faiss fp16", "raw faiss f32"
SHORT_OF = 0.002
"""Recall may be so far below the target, since slow systems are tuned with fewer queries; else it does not count."""


class Verdict(NamedTuple):
    """One row: our figure, its bound, whose figure the bound comes from, and whether more or less is better."""

    row: str
    figure: float
    bound: float
    source: str
    unit: str
    at_most: bool = True

    @property
    def holds(self) -> bool:
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound

    def cells(self) -> list[str]:
        sign = "≤" if self.at_most else "≥"
        return [
            self.row, f"{_short(self.figure)} {self.unit}", f"{sign} {_short(self.bound)} {self.unit}", self.source,
            "yes" if self.holds else "**no**",
        ]  # fmt: skip


def verdicts(result: Result) -> list[Verdict]:
    """All rows whose figures are there."""
    systems = {name: entry for name, entry in result["systems"].items() if "search" in entry}
    if EMBEDDED not in systems:
        return []
    found: list[Verdict] = []
    targets = [str(target) for target in result["plan"]["targets"]]
    for target in targets:
        found += _single(systems, target)
    found += _batches(systems)
    for condition in systems[EMBEDDED]["search"]:
        if condition != ALL:
            found += _filtered(systems, condition, targets[0])
    found += _writing(systems, targets[0])
    found += _held(systems, result["data"]["shape"])
    return found


def _single(systems: Result, target: str) -> Iterator[Verdict]:
    p50 = {name: value for name in systems if (value := _p50(systems[name], ALL, target)) is not None}
    ours, raw = p50.get(EMBEDDED), p50.get(HALF)
    label = f"single search @{target}"
    if ours is not None:
        if raw is not None:
            yield Verdict(f"{label}, embedded against raw", ours, max(1.4 * raw, raw + 60.0), HALF, "us")
        if best := _least(p50, systems, ("peer", "server")):
            yield Verdict(f"{label}, embedded against peers", ours, 0.55 * best[0], f"0.55 x {best[1]}", "us")
        p99 = systems[EMBEDDED]["search"][ALL][target]["p99_us"]
        yield Verdict(f"{label}, embedded, p99", p99, 3.0 * ours, "3 x own p50", "us")
    for name in SERVED:
        if name in p50 and (best := _least(p50, systems, ("server",))):
            yield Verdict(f"{label}, {name} against servers", p50[name], 0.5 * best[0], f"0.5 x {best[1]}", "us")


def _batches(systems: Result) -> Iterator[Verdict]:
    def rate(name: str, size: str) -> float | None:
        found = systems.get(name, {}).get("throughput", {}).get(size)
        return None if found is None else float(found["qps"])

    ours = rate(EMBEDDED, "batch 500")
    for raw, factor in ((HALF, 0.85), (FULL, 1.3)):
        base = rate(raw, "batch 500")
        if ours is not None and base is not None:
            yield Verdict("batch throughput, embedded", ours, factor * base, f"{factor} x {raw}", "/s", False)
    embedded = rate(EMBEDDED, "batch 100")
    for name in SERVED:
        served = rate(name, "batch 100")
        if embedded is not None and served is not None:
            yield Verdict(f"batch of 100, {name}", served, 0.85 * embedded, "0.85 x embedded", "/s", False)


def _filtered(systems: Result, condition: str, target: str) -> Iterator[Verdict]:
    p50 = {name: value for name in systems if (value := _p50(systems[name], condition, target)) is not None}
    peer, raw = _least(p50, systems, ("peer", "server")), _least(p50, systems, ("raw",))
    if EMBEDDED in p50 and (peer or raw):
        bounds = [(0.8 * peer[0], f"0.8 x {peer[1]}")] if peer else []
        bounds += [(raw[0] + 80.0, f"{raw[1]} + 80 us")] if raw else []
        bound, source = max(bounds)
        yield Verdict(f"filter {condition}, embedded", p50[EMBEDDED], bound, source, "us")
    for name in SERVED:
        if name in p50 and (best := _least(p50, systems, ("server",))):
            yield Verdict(f"filter {condition}, {name}", p50[name], 0.5 * best[0], f"0.5 x {best[1]}", "us")


def _writing(systems: Result, target: str) -> Iterator[Verdict]:
    rates = {name: entry["ingest"]["rows_per_s"] for name, entry in systems.items() if "ingest" in entry}
    synced = {n: r for n, r in rates.items() if systems[n]["synced"] and systems[n]["family"] in ("peer", "server")}
    if EMBEDDED in rates and synced:
        best = max(synced, key=lambda name: synced[name])
        yield Verdict("durable ingest, embedded", rates[EMBEDDED], 1.5 * synced[best], f"1.5 x {best}", "rows/s", False)
    for name in SERVED:
        if name in rates and EMBEDDED in rates:
            bound = 0.7 * rates[EMBEDDED]
            yield Verdict(f"durable ingest, {name}", rates[name], bound, "0.7 x embedded", "rows/s", False)
    ours = _p50(systems[EMBEDDED], ALL, target)
    totals = {
        name: entry["ingest"]["seconds"] + entry["finish"]["seconds"]
        for name, entry in systems.items()
        if "ingest" in entry and "finish" in entry
        and (name == EMBEDDED or entry["family"] in ("peer", "server"))
        and ours is not None and (_p50(entry, ALL, target) or float("inf")) <= 3.0 * ours
    }  # fmt: skip
    others = {name: total for name, total in totals.items() if name != EMBEDDED}
    if EMBEDDED in totals and others:
        best = min(others, key=lambda name: others[name])
        yield Verdict("ingest to indexed, embedded", totals[EMBEDDED], 0.85 * others[best], f"0.85 x {best}", "s")
    for name in (EMBEDDED, *SERVED):
        if "beside" in systems.get(name, {}):
            yield Verdict(f"p99 beside writes, {name}", systems[name]["beside"]["p99_us"] / 1e3, 10.0, "fixed", "ms")


def _held(systems: Result, shape: list[int]) -> Iterator[Verdict]:
    entry = systems[EMBEDDED]
    if "reopen" in entry:
        yield Verdict("reopen to first answer, embedded", entry["reopen"]["first_answer_s"], 0.3, "fixed", "s")
    held = {name: sum(size.values()) / 1e6 for name, one in systems.items() if (size := less_empty(one)) is not None}
    best = _least(held, systems, ("peer", "server"), lambda name: bool(systems[name]["width"]))
    if EMBEDDED in held and best:
        yield Verdict("memory, embedded", held[EMBEDDED], best[0], f"{best[1]} (indexed peers)", "MB")
    if "finish" in entry:
        disk = entry["finish"]["disk_bytes"] / (4 * shape[0] * shape[1])
        yield Verdict("disk after optimize, embedded", disk, 2.8, "fixed", "x raw")
    if "delete" in entry:
        before, after = entry["delete"]["before"]["p50_us"], entry["delete"]["after"]["p50_us"]
        yield Verdict("search after deleting 10 %, embedded", after, 1.05 * before, "before, and 5 %", "us")


def reached(found: Mapping[str, Any]) -> bool:
    """Whether a search's recall on the reported queries is its target, but for what chance may take."""
    return bool(found["recall"] >= found["target"] - SHORT_OF)


def less_empty(entry: Mapping[str, Any]) -> dict[str, float] | None:
    """Resident bytes above those of the empty database: ``anonymous``, ``file``."""
    if "memory" not in entry or "empty" not in entry:
        return None
    return {part: entry["memory"][part] - entry["empty"][part] for part in ("anonymous", "file")}


def _p50(entry: Result, condition: str, target: str) -> float | None:
    """The median where the recall was reached, else None."""
    found = entry.get("search", {}).get(condition, {}).get(target)
    return float(found["p50_us"]) if found and reached(found) else None


def _least(
    values: Mapping[str, float],
    systems: Result,
    families: tuple[str, ...],
    also: Callable[[str], bool] = lambda _: True,
) -> tuple[float, str] | None:
    """The least figure of the families, and whose it is."""
    return min(
        ((v, name) for name, v in values.items() if systems[name]["family"] in families and also(name)), default=None
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
