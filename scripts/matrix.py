#!/usr/bin/env python3
"""Run the tests on each Python found here, each with the newest Django it can have and with Django 5.2.

    make matrix                         all of it
    make matrix ARGS="--only 3.12"      one Python
    PYTHONS="/opt/py/bin/python3.14" make matrix      Pythons to look at besides those found

Each pair has a virtual environment of its own under .matrix/, from the lock. Tests in a browser run with `make test`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
OLDEST_DJANGO = "requirements/django52.lock"
NEEDS_NEWEST_DJANGO = (3, 12)


def main() -> int:
    """Run what is asked for, and print a table of what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=VERSIONS, help="a Python; may be given again")
    parser.add_argument("pytest", nargs="*", help="what pytest gets, after --")
    arguments = parser.parse_args()
    rows = []
    for version in arguments.only or VERSIONS:
        python = find(version)
        if python is None:
            rows.append((version, "", "skipped: no such Python here", 0.0))
            continue
        # Django 6 needs Python 3.12: on 3.11 the lock itself has 5.2.
        both = tuple(map(int, version.split("."))) >= NEEDS_NEWEST_DJANGO
        rows += [run(version, python, oldest, arguments.pytest) for oldest in ((False, True) if both else (False,))]
    print("\nPython  Django   result")
    for version, django, result, seconds in rows:
        print(f"{version:<7} {django:<8} {result}{f' ({seconds:.0f} s)' if seconds else ''}")
    return int(any(result.startswith("FAILED") for _, _, result, _ in rows))


def find(version: str) -> str | None:
    """Return a Python of this version that starts: from PYTHONS, the path, or pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        *os.environ.get("PYTHONS", "").split(),
        shutil.which(f"python{version}"),
        *sorted(map(str, pyenv.glob(f"{version}.*/bin/python3")), reverse=True),
    ]
    for candidate in filter(None, candidates):
        try:
            # Asked, not believed: pyenv's shims exist for versions that are not switched on.
            said = subprocess.run(
                [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError:
            continue
        if said.stdout.strip() == version:
            return candidate
    return None


def run(version: str, python: str, oldest: bool, extra: list[str]) -> tuple[str, str, str, float]:
    """Run the tests in one environment; return a row of the table."""
    began = time.monotonic()
    home = ROOT / ".matrix" / f"py{version}-{'django52' if oldest else 'newest'}"
    inside = home / "bin" / "python"
    done = home / ".ok"
    locks = ["requirements/dev.lock", *([OLDEST_DJANGO] if oldest else [])]
    made_s = max((ROOT / path).stat().st_mtime for path in (*locks, "pyproject.toml"))
    if not done.exists() or done.stat().st_mtime < made_s:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(home)], check=True)
        pip = [str(inside), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        for lock in locks:
            subprocess.run([*pip, "--require-hashes", "-r", lock], cwd=ROOT, check=True)
        subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", "."], cwd=ROOT, check=True)
        done.touch()
    django = subprocess.run(
        [str(inside), "-c", "import django; print(django.__version__)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    print(f"\n== Python {version}, Django {django}", flush=True)
    command = [str(inside), "-m", "pytest", "-q", "-n", os.environ.get("WORKERS", "4"), "--dist", "worksteal"]
    tests = subprocess.run([*command, "-m", "not browser and not soak", *extra], cwd=ROOT, check=False)
    result = "passed" if tests.returncode == 0 else f"FAILED: pytest ended with {tests.returncode}"
    return version, django, result, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
