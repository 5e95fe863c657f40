"""Writes the tables of docs/performance.md from the results that are kept beside it, ``results/<benchmark>.json``.

    python benchmarks/tables.py           # write them
    python benchmarks/tables.py --keep    # before, keep the newest full run of each benchmark that was made here
    python benchmarks/tables.py --check   # only say what would change; exit code 1 when something would

Between ``<!-- bench: fanout -->`` and ``<!-- end -->`` of the document everything comes from here, its other text has
no measured number. Kept runs are full ones: never ``--quick``, and of at least ``ROUNDS_MIN`` rounds (but for those of
``ROUNDS_MIN_OF``). A run that missed a bound is kept like any other, and the document says so. What a record holds is
said in ``report.py``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import difflib
import fnmatch
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from report import HERE, ROOT, disturbed, losses, show

ROUNDS_MIN = 5
# A round of it is a whole test of its own, of 120,000 deliveries.
ROUNDS_MIN_OF: Mapping[str, int] = {"recovery": 1}


@dataclass(frozen=True, slots=True)
class Table:
    """Medians: the cases that ``cases`` matches, in rows; ``figures``, where a case has any of them, in columns."""

    figures: Sequence[str]
    cases: Sequence[str] = ("*",)


# What the document shows of each benchmark beside its ratios. One that is not here has all its figures in one table.
TABLES: Mapping[str, Sequence[Table]] = {
    "fanout": (Table(("deliveries_per_s", "cpu_us_per_delivery", "idle_bytes_per_consumer")),),
    "sync_consumers": (Table(("calls_per_s",)),),
    "engines": (
        Table(("deliveries_per_s", "messages_per_node_and_send", "publishes_per_send"), ("* 2x500",)),
        Table(("server_us_per_send", "server_commands_per_send"), ("* N=*",)),
    ),
    "publish": (
        Table(("sends_per_s", "server_us_per_send", "server_commands_per_send"), ("* 100 tasks", "* pipelines *")),
        Table(
            ("sends_per_s", "server_us_per_send", "connections_per_send", "lost"),
            ("* synchronous", "* async_to_sync", "* async_to_sync of nothing"),
        ),
        Table(("sends_per_s",), ("* memory, *",)),
    ),
    "broadcast": (
        Table(
            ("cpu_us_per_delivery", "deliveries_per_s", "single_us_per_delivery", "burst_us_per_delivery"),
        ),
        Table(("p50_ms", "p99_ms", "max_ms")),
    ),
    "connections": (Table(("connect_us", "close_us", "connects_per_s", "idle_kib", "held")),),
    "history": (
        Table(("sends_per_s", "server_us_per_send", "server_commands_per_send", "lost"), ("sends, *",)),
        Table(("join_p50_ms", "join_p99_ms"), ("recovery, *",)),
    ),
    "recovery": (
        Table(("delivered", "duplicated", "missed", "out_of_order", "told", "unaccounted")),
        Table(("p50_ms", "p99_ms", "join_p50_ms", "join_p99_ms", "return_p50_ms", "return_p99_ms")),
        Table(("cuts", "recovered", "unrecovered", "interrupted")),
    ),
    "stalled": (
        Table(("p99_ms", "p99_without_ms", "grown_kib")),
        Table(("sent_to_it", "read_by_it", "dropped_for_it", "unaccounted")),
    ),
}
# The figures in words. One that is not here has its own name.
WORDS: Mapping[str, str] = {
    "burst_us_per_delivery": "ten at once: CPU a delivery, µs",
    "calls_per_s": "calls a second",
    "close_us": "CPU to close, µs",
    "connect_us": "CPU to connect, µs",
    "connections_per_send": "new connections a send",
    "connects_per_s": "connects a second",
    "cpu_us_per_delivery": "CPU a delivery, µs",
    "cuts": "connections cut",
    "delivered": "delivered, share of all",
    "deliveries_per_s": "deliveries a second",
    "dropped_for_it": "dropped for the stalled client",
    "grown_kib": "growth of the process, KiB",
    "held": "connections held",
    "idle_bytes_per_consumer": "bytes of an idle consumer",
    "idle_kib": "KiB of an idle connection",
    "interrupted": "clients told `group.lost`",
    "join_p50_ms": "`join`, median, ms",
    "join_p99_ms": "`join`, p99, ms",
    "lost": "messages lost",
    "max_ms": "longest, ms",
    "messages_per_node_and_send": "messages of the engine a process and send",
    "missed": "lost: never delivered",
    "out_of_order": "out of order",
    "p50_ms": "median, ms",
    "p99_ms": "p99, ms",
    "p99_ratio": "p99 to that of the room without it",
    "p99_without_ms": "p99 of the room without it, ms",
    "publishes_per_send": "`PUBLISH` a send",
    "recovered": "messages recovered",
    "return_p50_ms": "to be whole again, median, ms",
    "return_p99_ms": "to be whole again, p99, ms",
    "single_us_per_delivery": "one at a time: CPU a delivery, µs",
    "read_by_it": "read by it in the end",
    "sends_per_s": "sends a second",
    "sent_to_it": "sent to the stalled client",
    "server_commands_per_send": "commands of the server a send",
    "server_us_per_send": "the server's CPU a send, µs",
    "told": "clients told of a loss, share",
    "unaccounted": "unaccounted for",
    "unrecovered": "joins told `recovered: false`",
}
PLACE = re.compile(
    r"(?<=^<!-- bench: )(?P<name>\w+)(?P<start> -->\n)(?P<text>.*?)(?=^<!-- end -->$)", re.DOTALL | re.MULTILINE
)
LOCAL = re.compile(r"(?P<name>\w+)-\d{8}T\d{6}Z\.local\.json")


# What is kept


def keep(results: Path) -> None:
    """Copy the newest full run of each benchmark to the file that the repository keeps, unless that is newer."""
    newest: dict[str, tuple[str, Path]] = {}
    for path in results.glob("*.local.json"):
        named = LOCAL.fullmatch(path.name)
        if named is None:
            continue
        record = json.loads(path.read_text())
        # A record of an older form cannot be shown.
        known = all("met" in ratio for ratio in record["ratios"].values())
        enough = len(record["rounds"]) >= ROUNDS_MIN_OF.get(named["name"], ROUNDS_MIN)
        if known and not record["quick"] and enough:
            newest[named["name"]] = max(newest.get(named["name"], ("", path)), (record["date"], path))
    for name, (date, path) in sorted(newest.items()):
        kept = results / f"{name}.json"
        if not kept.exists() or json.loads(kept.read_text())["date"] < date:
            kept.write_text(path.read_text())
            print(f"kept: {path.name} as {kept.name}")


def kept_records(results: Path) -> dict[str, dict[str, Any]]:
    """Return {benchmark: record}."""
    kept = [path for path in sorted(results.glob("*.json")) if re.fullmatch(r"\w+", path.stem)]
    return {path.stem: json.loads(path.read_text()) for path in kept}


# What is written


def section(name: str, record: Mapping[str, Any] | None) -> str:
    """Return what stands between the marks: the command, on what it ran, figures, ratios."""
    command = f"```\npython benchmarks/bench_{name}.py\n```"
    if record is None:
        return f"\n{command}\n\nNo full run of it is kept yet.\n\n"
    parts = [command, ran_on(record)]
    if said := disturbed(record["rounds"]):
        parts.append(said)
    shown = TABLES.get(name) or (Table(list(dict.fromkeys(f for row in record["medians"].values() for f in row))),)
    parts += [text for table in shown if (text := figures(table, record["medians"]))]
    parts.append(ratios(record["ratios"]))
    parts += [f"**LOST**: {count:g} messages of {case}." for case, count in losses(record["rounds"]).items()]
    # Empty lines beside the marks: to Markdown, what follows a comment at once may belong to it.
    return "\n" + "\n\n".join(part for part in parts if part) + "\n\n"


def ran_on(record: Mapping[str, Any]) -> str:
    """Return date, machine, commit, rounds and versions in words."""
    it, date = record["machine"], dt.datetime.fromisoformat(record["date"])
    commit = record["commit"] or "unknown"
    commit = f"{commit[:-1]} with changes" if commit.endswith("+") else commit
    machine = [it["cpu"], f"{it['cores']} cores"]
    if "memory_mib" in it:
        machine.append(f"{it['memory_mib'] / 1024:.0f} GiB")
    machine += [it["system"], it["python"]]
    rounds = len(record["rounds"])
    of = f"Medians of {rounds} rounds" if rounds > 1 else "One round"
    lines = [
        f"{date.day} {date:%B %Y}; {', '.join(machine)}; commit {commit}. {of}.",
        "",
    ]
    for side, versions in record["versions"].items():
        # Python is the machine's.
        packages = [f"{package} {version}" for package, version in versions.items() if package != "python"]
        lines.append(f"- {side}: {', '.join(packages)}")
    return "\n".join(lines).rstrip()


def figures(table: Table, medians: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table of medians; nothing when no case has what it shows."""
    rows = {
        case: found
        for case, found in medians.items()
        if any(fnmatch.fnmatchcase(case, pattern) for pattern in table.cases) and set(found) & set(table.figures)
    }
    columns = [figure for figure in table.figures if any(figure in found for found in rows.values())]
    return grid(
        ["", *(words(figure) for figure in columns)],
        [[case, *(show(row[figure]) if figure in row else "" for figure in columns)] for case, row in rows.items()],
    )


def ratios(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of the ratios, each with its bound and whether that is met."""
    rows = []
    for name, ratio in found.items():
        to = ratio["to"]
        what = f"{words(ratio['figure'])}: {ratio['of']}"
        if to:
            what += f" to {to[0]}" if len(to) == 1 else f" to the {ratio['hardest']} of {' and '.join(to)}"
        met = "" if not ratio["bound"] else "ok" if ratio["met"] else "**MISSED**"
        bound = ratio["bound"].replace(">= ", "≥ ").replace("<= ", "≤ ")
        least_most = f"{ratio['least']:.3g} to {ratio['most']:.3g}"
        rows.append([name, what, f"{ratio['median']:.3g}", least_most, bound, met])
    return grid(["ratio", "of what", "median", "all rounds", "bound", ""], rows)


def words(figure: str) -> str:
    """Return a figure's name for a reader."""
    return WORDS.get(figure, figure.replace("_", " "))


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of the document; nothing without rows."""
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def written(text: str, records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the document with each place filled in. Raises SystemExit when a kept result has none."""
    places = {place["name"] for place in PLACE.finditer(text)}
    if homeless := sorted(set(records) - places):
        raise SystemExit(f"no place in the document: expected <!-- bench: {homeless[0]} --> and <!-- end -->")
    return PLACE.sub(lambda it: f"{it['name']}{it['start']}{section(it['name'], records.get(it['name']))}", text)


def main() -> int:
    """Do as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the newest full runs first")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when something would change")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "performance.md")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if options.keep:
        keep(options.results)
    before = options.document.read_text()
    after = written(before, kept_records(options.results))
    if options.check:
        sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True), "is", "would be"))
        return int(before != after)
    options.document.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
