"""A comparison as Markdown: what was measured, figures by system, and how this engine stands in each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.compare.arena import ALL
from bench.compare.verdict import less_empty, reached, verdicts

Result = Mapping[str, Any]

_NOTES = {
    "Single searches": "Median us (least to greatest turn), 99th percentile, recall and width; processor us of a "
    "search, client + server.",
    "Throughput": "Searches a second at the first target, all cores: batches of 100 and 500, eight clients at once.",
    "Filtered searches": "Median us @recall at the first target; the share of matching rows heads the column.",
    "Writing": "Batches as each acknowledges them; seconds until everything is indexed.",
    "Beside writes, after deletes": "99th percentile in ms while rows are written, 2,000 a second being asked for; "
    "median us before and after a tenth of the rows is deleted.",
    "Opening, memory, disk": "First answer of a fresh process; resident MB after 1,000 searches less that of an empty "
    "database; disk as a multiple of the raw vectors.",
    "This engine against the goals": "Each row's bound as the project set it.",
    "Systems": "All graphs are built with the same M and efConstruction; the width is each system's own parameter, "
    "bisected on one half of the queries and widened where the other half falls short.",
}


def markdown(result: Result) -> str:
    """The whole report."""
    systems = {name: entry for name, entry in result["systems"].items() if entry.get("versions")}
    sections = {
        "Single searches": _single(result, systems),
        "Throughput": _throughput(systems),
        "Filtered searches": _filtered(result, systems),
        "Writing": _writing(systems),
        "Beside writes, after deletes": _beside(systems),
        "Opening, memory, disk": _held(result, systems),
        "This engine against the goals": _verdicts(result),
        "Systems": _about(systems),
    }
    parts = ["# Comparison\n", head(result)]
    parts += [f"## {title}\n\n{_NOTES[title]}\n\n{body}\n" for title, body in sections.items() if body]
    parts.append(_failures(result))
    return "\n".join(parts) + "\n"


def head(result: Result) -> str:
    """Data, machine, command."""
    data, machine = result["data"], result["machine"]
    rows, dim = data["shape"]
    kind = "real" if data["real"] else "GENERATED"
    lines = [
        f"{data['name']}: {rows:,} x {dim} ({kind}), {data['metric']}, limit {data['limit']}; ids and scores only.",
        f"{machine['processor']}, cores {machine.get('used_cores')}, load {machine['load_average'][0]:.1f}, "
        f"Python {machine['python']}, {machine['when']}.",
        f"`{result['command']}`",
    ]
    if "generated" in data:
        lines.append("Structure: " + ", ".join(f"{name} {value:.4g}" for name, value in data["generated"].items()))
    lines += [f"Part of it is from `{run['command']}` of {run['when']}." for run in result.get("runs", ())[:-1]]
    if result.get("interrupted"):
        lines.append("**Interrupted: incomplete.**")
    return "  \n".join(lines) + "\n"


def _single(result: Result, systems: Result) -> str:
    targets = [str(target) for target in result["plan"]["targets"]]
    rows = []
    for name, entry in systems.items():
        cells = []
        for target in targets:
            found = entry.get("search", {}).get(ALL, {}).get(target)
            if found is None:
                cells += ["-"] * 4
                continue
            spread = f"{found['p50_us']:,.0f} ({found['p50_min_us']:,.0f}-{found['p50_max_us']:,.0f})"
            cpu = f"{found['client_cpu_us']:,.0f} + {found['server_cpu_us']:,.0f}"
            cells += [spread, f"{found['p99_us']:,.0f}", _recall(found), cpu]
        rows.append([name, *cells])
    heads = [f"{what} @{target}" for target in targets for what in ("p50", "p99", "recall", "CPU")]
    return table(["system", *heads], rows)


def _recall(found: Mapping[str, Any]) -> str:
    width = "" if not found["width"] else f", {found['width']}"
    return f"{found['recall']:.4f}{'' if reached(found) else ' **below**'}{width}"


def _throughput(systems: Result) -> str:
    labels = ("batch 100", "batch 500", "8 clients")
    rows = []
    for name, entry in systems.items():
        found = entry.get("throughput", {})
        cells = [
            f"{found[one]['qps']:,.0f} ({found[one]['min']:,.0f}-{found[one]['max']:,.0f})" if one in found else "-"
            for one in labels
        ]
        rows.append([name, *cells, f"{found['batch 500']['recall']:.3f}" if "batch 500" in found else "-"])
    return table(["system", *labels, "recall"], rows)


def _filtered(result: Result, systems: Result) -> str:
    names = [one["name"] for one in result["data"]["conditions"]]
    rows = []
    for name, entry in systems.items():
        if not entry["can_filter"]:
            continue
        cells = []
        for condition in names:
            found = next(iter(entry.get("search", {}).get(condition, {}).values()), None)
            mark = "" if found is None or reached(found) else " **below**"
            cells.append("-" if found is None else f"{found['p50_us']:,.0f} @{found['recall']:.3f}{mark}")
        rows.append([name, *cells])
    return table(["system", *names], rows)


def _writing(systems: Result) -> str:
    rows = []
    for name, entry in systems.items():
        if "ingest" not in entry or entry["family"] == "raw":
            seconds = f"{entry['finish']['seconds']:.1f}" if "finish" in entry else "-"
            rows.append([name, "-", "-", seconds, "in memory" if entry["family"] == "raw" else "-"])
            continue
        one = entry["ingest"]
        total = f"{one['seconds'] + entry['finish']['seconds']:.1f}" if "finish" in entry else "-"
        rows.append([name, f"{one['rows_per_s']:,.0f}", f"{one['batch_p99_ms']:.0f}", total, entry["durable"]])
    return table(
        ["system", "rows/s", "p99 of a batch of 1,000, ms", "indexed after, s", "durable when acknowledged"], rows
    )


def _beside(systems: Result) -> str:
    rows = []
    for name, entry in systems.items():
        beside, deleted = entry.get("beside"), entry.get("delete")
        if beside is None and deleted is None:
            continue
        cells = ["-"] * 3 if beside is None else [
            f"{beside['p99_us'] / 1e3:.2f}", f"{beside['max_us'] / 1e3:.1f}", f"{beside['written']['rows_per_s']:,.0f}",
        ]  # fmt: skip
        cells += ["-"] * 2 if deleted is None else [
            f"{one['p50_us']:,.0f} @{one['recall']:.3f}" for one in (deleted["before"], deleted["after"])
        ]  # fmt: skip
        rows.append([name, *cells])
    return table(["system", "p99, ms", "greatest, ms", "rows/s written", "before deletes", "after"], rows)


def _held(result: Result, systems: Result) -> str:
    raw = 4 * result["data"]["shape"][0] * result["data"]["shape"][1]
    rows = []
    for name, entry in systems.items():
        held = less_empty(entry)
        first = f"{entry['reopen']['first_answer_s']:.3f}" if "reopen" in entry else "-"
        memory = ["-"] * 2 if held is None else [f"{held[part] / 1e6:,.0f}" for part in ("anonymous", "file")]
        disk = f"{entry['finish']['disk_bytes'] / raw:.2f}" if "finish" in entry else "-"
        rows.append([name, first, *memory, disk])
    return table(["system", "first answer, s", "anonymous, MB", "file-backed, MB", "disk / raw"], rows)


def _verdicts(result: Result) -> str:
    found = verdicts(result)
    return table(["row", "figure", "bound", "of", "holds"], [one.cells() for one in found]) if found else ""


def _about(systems: Result) -> str:
    rows = []
    for name, entry in systems.items():
        releases = ", ".join(f"{package} {release}" for package, release in entry["versions"].items())
        build = ", ".join(f"{key} {value}" for key, value in entry["build"].items())
        rows.append([name, releases, build, entry["width"] or "exact", entry["when"]])
    return table(["system", "release", "built with", "tuned by", "measured"], rows)


def _failures(result: Result) -> str:
    lines = [
        f"- {name}, {step}: {reason}"
        for name, entry in result["systems"].items()
        for step, reason in entry.get("failed", {}).items()
    ]
    lines += [f"- {name}: {reason}" for name, reason in result["absent"].items()]
    lines.append("- Qdrant's server: its binary is on no Python registry; Qdrant Edge is its shard as a library.")
    return "## Not measured\n\n" + "\n".join(lines) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, figures to the right."""
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) if len(lines) > 2 else ""
