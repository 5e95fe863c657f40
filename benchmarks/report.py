"""What a run of the harness found: on which machine, each figure's median, each ratio, and whether it is in bounds.

A run is kept as one JSON object, which ``tables.py`` reads; whoever adds to it leaves what is there as it is:

- ``benchmark``, ``date``, ``quick``, ``commit``, ``machine``, ``versions`` {side: {package: version}}, ``cases``;
- ``rounds``: [{case: {figure: number}}], ``medians``: {case: {figure: number}};
- ``ratios``: {name: {``of``, ``to`` (a list), ``hardest``, ``figure``, ``median``, ``least``, ``most``, ``bound`` (words), ``met``}}.

A case may have any figures. What ``LOSSES`` names must be 0 in each round, or the run has failed. The figures' names in
words, and which of them are columns of ``docs/performance.md``, are in ``tables.py``.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

__all__ = [
    "BUSY_MIN",
    "LOSSES",
    "Ratio",
    "Round",
    "commit",
    "disturbed",
    "found",
    "losses",
    "machine",
    "measure",
    "medians",
    "save",
    "show",
    "tell",
]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# A block that says it was "busy" for less of its time shared its core with somebody.
BUSY_MIN = 0.92
# Messages that somebody should have had and had not, nor was told of: one of them fails a run, whatever its ratios.
LOSSES = ("lost", "unaccounted")

# {case: {figure: number}} of blocks that ran one after the other.
Round: TypeAlias = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A figure of one case over the same figure of another: the median of the rounds, with its floor and ceiling.

    ``to`` may name several cases: in each round, the one counts that makes it hardest, the largest figure under a floor
    and the smallest under a ceiling. Without it, the figure itself is what is bounded. Without bounds, it is only told.
    """

    name: str
    of: str
    to: str | tuple[str, ...]
    figure: str
    at_least: float | None = None
    at_most: float | None = None

    def hardest(self) -> str:
        """Return which figure of several counts: "largest" or "smallest"."""
        return "smallest" if self.at_least is None and self.at_most is not None else "largest"

    def bound(self) -> str:
        """Return the floor and ceiling in words."""
        floor = [] if self.at_least is None else [f">= {self.at_least:g}"]
        ceiling = [] if self.at_most is None else [f"<= {self.at_most:g}"]
        return ", ".join(floor + ceiling)

    def holds(self, value: float) -> bool:
        """Say whether ``value`` is within it."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


# What it ran on


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, system, Python, load."""
    found: dict[str, Any] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        # Not what a distributor puts behind the number.
        "system": f"{platform.system()} {re.split('[^0-9.]', platform.release())[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        found["cpu"] = models[0] if models else found["cpu"]
    if (meminfo := Path("/proc/meminfo")).exists():
        found["memory_mib"] = int(meminfo.read_text().split()[1]) // 1024
    if hasattr(os, "getloadavg"):
        # Much above the one core in use here, and others were at work.
        found["load_1min"] = round(os.getloadavg()[0], 2)
    return found


def commit() -> str | None:
    """Return the commit of this checkout, with ``+`` when files differ from it; None where that is not known."""
    git = shutil.which("git")
    if git is None:
        return None
    head = subprocess.run([git, "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    dirty = subprocess.run([git, "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return head.stdout.strip() + ("+" if dirty.strip() else "")


# What it found


def medians(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Return {case: {figure: median over the rounds}}."""
    return {
        # A figure may be missing of a round: how busy a server was that another program has never kept waiting.
        case: {
            figure: statistics.median(each[case][figure] for each in rounds if figure in each[case])
            for figure in figures
        }
        for case, figures in rounds[0].items()
    }


def measure(ratio: Ratio, rounds: Sequence[Round]) -> tuple[float, float, float]:
    """Return a ratio's median over the rounds, its smallest and its largest. Both numbers are of the same round."""
    to = (ratio.to,) if isinstance(ratio.to, str) else ratio.to
    hardest = min if ratio.hardest() == "smallest" else max
    values = [
        each[ratio.of][ratio.figure] / (hardest(each[case][ratio.figure] for case in to) if to else 1)
        for each in rounds
    ]
    return statistics.median(values), min(values), max(values)


def found(ratios: Sequence[Ratio], rounds: Sequence[Round]) -> dict[str, dict[str, Any]]:
    """Return what is kept of the ratios, {name: what the module's first lines say}."""
    kept = {}
    for ratio in ratios:
        median, least, most = measure(ratio, rounds)
        kept[ratio.name] = {
            "of": ratio.of,
            "to": [ratio.to] if isinstance(ratio.to, str) else list(ratio.to),
            "hardest": ratio.hardest(),
            "figure": ratio.figure,
            "median": median,
            "least": least,
            "most": most,
            "bound": ratio.bound(),
            "met": ratio.holds(median),
        }
    return kept


def losses(rounds: Sequence[Round]) -> dict[str, float]:
    """Return {case: messages it lost, in the worst of its rounds}, of the cases that lost any."""
    worst: dict[str, float] = {}
    for each in rounds:
        for case, figures in each.items():
            for name in LOSSES:
                if figures.get(name, 0):
                    worst[case] = max(worst.get(case, 0), abs(figures[name]))
    return worst


def disturbed(rounds: Sequence[Round]) -> str:
    """Return how many blocks were, in words; nothing when none was."""
    blocks = [figures["busy"] for each in rounds for figures in each.values() if "busy" in figures]
    count = sum(busy < BUSY_MIN for busy in blocks)
    if not count:
        return ""
    return f"{count} of {len(blocks)} blocks shared the core with other programs: rates are too low, ratios uncertain."


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def show(value: float) -> str:
    """Return a figure with three or four digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def save(name: str, record: Mapping[str, Any], now: dt.datetime) -> Path:
    """Keep the raw samples of a run; git ignores them."""
    path = HERE / "results" / f"{name}-{now:%Y%m%dT%H%M%SZ}.local.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def tell(record: Mapping[str, Any], path: Path) -> int:
    """Print what was found; return the exit code, 1 when a ratio is outside its bound or a message was lost.

    The last line has all ratios.
    """
    name, raw, middle, ratios = record["benchmark"], record["rounds"], record["medians"], record["ratios"]
    print(
        f"{name}, {record['date']}, commit {record['commit']}, {len(raw)} rounds{', quick' if record['quick'] else ''}"
    )
    print(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    for side, packages in record["versions"].items():
        print(f"{side}: " + ", ".join(f"{package} {version}" for package, version in packages.items()))
    figures = list(dict.fromkeys(figure for case in middle.values() for figure in case))
    print()
    print(
        table(
            [
                ["median of the rounds", *figures],
                *(
                    [case, *(show(row[figure]) if figure in row else "" for figure in figures)]
                    for case, row in middle.items()
                ),
            ]
        )
    )
    print()
    rows = [["ratio", "median", "least", "most", "bound", ""]]
    for ratio, it in ratios.items():
        values = (f"{it[which]:.3g}" for which in ("median", "least", "most"))
        rows.append([ratio, *values, it["bound"], "ok" if it["met"] else "MISSED"])
    print(table(rows))
    if said := disturbed(raw):
        print(f"\n{said}")
    lost = losses(raw)
    for case, count in lost.items():
        print(f"\nLOST {count:g} messages: {case}")
    print(f"\nRaw samples: {path.relative_to(ROOT)}")
    failed = [*(ratio for ratio, it in ratios.items() if not it["met"]), *(f"messages of {case}" for case in lost)]
    summary = ", ".join(
        f"{ratio} {it['median']:.3g}" + (f" ({it['bound']})" if it["bound"] else "") for ratio, it in ratios.items()
    )
    print(f"{name}: {summary}: {'MISSED ' + ', '.join(failed) if failed else 'all met'}")
    return 1 if failed else 0
