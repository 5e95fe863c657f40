"""Runs every benchmark, one after the other, with the options it is given; a failed one does not stop the others.

At the end: the last line of each, which has its ratios. The exit code is 1 when one of them failed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run(program: Path, options: list[str]) -> tuple[int, str]:
    """Run one, pass on what it prints, and return its exit code and its last line."""
    print(f"\n== {program.name}", flush=True)
    last = ""
    command = [sys.executable, str(program), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last


def main() -> int:
    """Run them all; return the exit code."""
    found = {program.name: run(program, sys.argv[1:]) for program in sorted(HERE.glob("bench_*.py"))}
    print()
    for name, (code, last) in found.items():
        print(f"{'FAILED' if code else 'ok':6} {name}: {last}")
    return int(any(code for code, _ in found.values()))


if __name__ == "__main__":
    sys.exit(main())
