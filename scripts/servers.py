#!/usr/bin/env python3
"""Make the table of docs/servers.md: what our consumers meet on each server, seen through raw sockets.

    make servers [ARGS="--only daphne"]

The probes are those of ``tests/server/test_behaviours.py``. The servers run in an environment of their own, made from
``requirements/servers.lock``. With ``--only`` the table is printed and the document is left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from antiphon.consumers.servers import GAPS  # noqa: E402  # found by the line above
from tests.server.behaviours.running import KINDS, Kind  # noqa: E402
from tests.server.behaviours.table import ROWS, Bench  # noqa: E402
from tests.server.behaviours.verdict import BAD, GOOD, Verdict  # noqa: E402

LOCK = ROOT / "requirements" / "servers.lock"
DOCUMENT = ROOT / "docs" / "servers.md"
BEGIN, END = "<!-- made by: make servers -->", "<!-- end of what is made -->"
# So long a probe waits before it says that nothing happens.
PATIENCE_S = 8.0
VERSIONS = "import importlib.metadata as m, sys; print(*[m.version(name) for name in sys.argv[1:]])"


def environment() -> str:
    """Return the Python of the servers' environment, made when it is not there or its lock has changed."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:10]
    home = ROOT / ".venv" / f"servers-{sys.implementation.cache_tag}-{digest}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / ".ok").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "--requirement", str(LOCK)], check=True)
        (home / ".ok").touch()
    return str(python)


async def column(kind: Kind, python: str) -> list[Verdict]:
    """Run every row on one server."""
    verdicts = []
    async with Bench(kind, python, PATIENCE_S) as bench:
        for row in ROWS:
            verdict = await bench.verdict(row, "consumer")
            print(f"{kind.name:10} {verdict.rank:8} {row.name}: {verdict}", flush=True)
            verdicts.append(verdict)
        warned = bench.warned()
    if warned is not (kind.module in GAPS and kind.name != "antiphon"):
        raise SystemExit(f"{kind.name}: expected {'no' if warned else 'a'} warning of gaps at its start")
    return verdicts


def _cell(verdict: Verdict) -> str:
    if verdict.rank == GOOD:
        return str(verdict)
    return f"**{verdict}**" if verdict.rank == BAD else f"*{verdict}*"


def table(columns: dict[str, list[Verdict]], versions: dict[str, str]) -> str:
    """Return the table, and a line on when and with what it was made."""
    kinds = [KINDS[name] for name in columns]
    lines = [
        "| | " + " | ".join(kind.title for kind in kinds) + " |",
        "|---|" + "---|" * len(kinds),
        *(
            f"| {row.title} | " + " | ".join(_cell(columns[kind.name][number]) for kind in kinds) + " |"
            for number, row in enumerate(ROWS)
        ),
    ]
    made = dt.datetime.now(dt.UTC).date()
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return "\n".join([*lines, "", f"Made on {made} with {named}, {python}, {platform.system()}; by `make servers`."])


def main() -> int:
    """Run the probes and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(KINDS), help="this server alone, and only print")
    chosen = parser.parse_args().only or list(KINDS)
    python = environment()
    modules = list(dict.fromkeys(KINDS[name].module for name in chosen))
    said = subprocess.run([python, "-c", VERSIONS, *modules], check=True, capture_output=True, text=True)
    versions = dict(zip(modules, said.stdout.split(), strict=True))
    made = table({name: asyncio.run(column(KINDS[name], python)) for name in chosen}, versions)
    print(made)
    if chosen == list(KINDS):
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            print(f"{DOCUMENT}: expected the lines {BEGIN!r} and {END!r}", file=sys.stderr)
            return 1
        DOCUMENT.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
