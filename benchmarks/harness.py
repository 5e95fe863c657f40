"""Runs workloads side by side: a virtual environment per side from its lock, alternating rounds.

A workload is a program in ``workloads/`` (``workloads/sides.py`` says how it is spoken to). Each case has a process of its
own, all on the same core where the system can pin them, and one works at a time. ``report.py`` says what was found. Only
the standard library is imported.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from report import BUSY_MIN, Ratio, Round, commit, found, machine, medians, save, tell

__all__ = ["Case", "Ratio", "main"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TIMEOUT_S = 600.0
# A block that was less busy than ``BUSY_MIN`` is run again, so many times, and as long as the whole run has not taken so
# many seconds (quick, full).
ATTEMPTS = 5
PATIENCE_S = (30.0, 300.0)
# What a workload sees of the environment: nothing that another project set.
_KEPT = frozenset(("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH"))


@dataclass(frozen=True, slots=True)
class Case:
    """One side of one workload with one set of parameters; ``quick`` and ``full`` replace what differs."""

    name: str
    side: str  # a lock in peers/ has the same name
    workload: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)
    apart: bool = False  # on another core than what all cases share, where there is one


# Virtual environments


def side_python(side: str) -> Path:
    """Return the Python of a side's virtual environment, made from its lock when it is not there yet.

    The lock's hash is in the folder's name: a changed lock makes a new one. Packages come from the index that pip is
    set to use, and only with the hashes of the lock.
    """
    lock = HERE / "peers" / f"{side}.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:10]
    home = HERE / ".venvs" / f"{side}-{sys.implementation.cache_tag}-{digest}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / ".ok").exists():
        print(
            f"Making the virtual environment of {side} from {lock.relative_to(ROOT)} ...", file=sys.stderr, flush=True
        )
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, "--requirement", str(lock)], check=True)
        (home / ".ok").touch()
    return python


# Running


def pick_core(*, apart: bool = False) -> int | None:
    """Return the core that workloads are pinned to: the last that this process may use; None where none can be.

    ``apart``: the first instead, which may be the same.
    """
    if sys.platform != "linux":
        return None
    cores = os.sched_getaffinity(0)
    return min(cores) if apart else max(cores)


def stay_on(core: int) -> None:
    """Pin this process to a core."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {core})


class Worker:
    """A case's process, ready to run one block at each ``step``. All wait while one works."""

    def __init__(self, case: Case, parameters: Mapping[str, Any]) -> None:
        self.case = case
        self.once: dict[str, float] = {}
        self.versions: dict[str, str] = {}
        core = pick_core(apart=case.apart)
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by run(), when the last word was read
        env = {name: value for name, value in os.environ.items() if name in _KEPT}
        if case.side.startswith("antiphon"):
            env["PYTHONPATH"] = str(ROOT / "src")
        program = HERE / "workloads" / f"{case.workload}.py"
        self.process = subprocess.Popen(
            [str(side_python(case.side)), str(program), case.side, json.dumps(dict(parameters))],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            preexec_fn=None if core is None else lambda: stay_on(core),  # noqa: PLW1509  # no threads yet
        )

    def ready(self) -> None:
        """Wait until it is."""
        answer = self.read()
        # What is measured once, while making ready, belongs to every round.
        self.once = answer["figures"]
        self.versions = answer["versions"]

    def __repr__(self) -> str:
        return f"<Worker {self.case.name!r} {self.process.pid}>"

    def read(self) -> dict[str, Any]:
        """Wait for the next answer."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(TIMEOUT_S, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            self.fail()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def step(self, patient_until: float) -> dict[str, float]:
        """Run one block and return its figures; of several, those of the one that was disturbed the least."""
        best = self.block()
        for _ in range(ATTEMPTS - 1):
            if best.get("busy", 1.0) >= BUSY_MIN or time.monotonic() > patient_until:
                break
            best = max(best, self.block(), key=lambda figures: figures["busy"])
        return best

    def block(self) -> dict[str, float]:
        """Run one block and return its figures."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return {**self.once, **self.read()["figures"]}

    def ask_to_finish(self) -> None:
        """Let the workload check what it has to check, and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def finish(self) -> None:
        """Wait until it has."""
        if self.process.wait(TIMEOUT_S):
            self.fail()

    def fail(self) -> NoReturn:
        """Stop the run with what the workload said."""
        code = self.process.wait(TIMEOUT_S)
        self.errors.seek(0)
        raise SystemExit(f"{self.case.name}: {self.case.workload}.py ended with {code}\n{self.errors.read().strip()}")


def run(
    cases: Sequence[Case], count: int, quick: bool, common: Mapping[str, Any]
) -> tuple[list[Round], dict[str, dict[str, str]]]:
    """Make all cases ready, then let them take turns, ``count`` times over: all meet the same drift of the machine.

    ``common``: parameters of every case, beside its own. Returns the rounds and the versions, {side: {package: version}}.
    One round goes before, unmeasured.
    """
    patient_until = time.monotonic() + PATIENCE_S[0 if quick else 1]
    workers: list[Worker] = []
    try:
        # Those on the other core make ready while the rest does so one by one.
        for case in sorted(cases, key=lambda case: not case.apart):
            progress(f"making ready: {case.name}")
            parameters = {**common, **case.parameters, **(case.quick if quick else case.full)}
            worker = Worker(case, parameters)
            workers.append(worker)
            if not case.apart:
                worker.ready()
        for worker in workers:
            if worker.case.apart:
                worker.ready()
        workers.sort(key=lambda worker: cases.index(worker.case))
        rounds: list[Round] = []
        for number in range(count + 1):
            progress(f"round {number} of {count}")
            rounds.append({worker.case.name: worker.step(patient_until) for worker in workers})
        progress("checking")
        for worker in workers:
            worker.ask_to_finish()
        for worker in workers:
            worker.finish()
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
            worker.errors.close()
        progress("")
    versions: dict[str, dict[str, str]] = {}
    for worker in workers:
        versions.setdefault(worker.case.side, {}).update(worker.versions)
    return rounds[1:], versions


def progress(text: str) -> None:
    """Say on a terminal what goes on."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main(
    name: str,
    doc: str | None,
    cases: Sequence[Case],
    ratios: Sequence[Ratio],
    *,
    rounds: tuple[int, int],
    around: Callable[[int | None], AbstractContextManager[Mapping[str, Any]]] = lambda _: nullcontext({}),
) -> int:
    """Run a benchmark as its command line says; return the exit code, 1 when a ratio is outside its bound.

    ``rounds``: how many with ``--quick``, and how many without. ``around``: called with the core that is measured on,
    makes what all cases share (a server) and yields the parameters that tell of it. The last line on stdout has all
    ratios.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: for a look, or for CI")
    parser.add_argument("--rounds", type=int, help="how often each case runs")
    options = parser.parse_args()
    count = options.rounds or rounds[0 if options.quick else 1]

    now = dt.datetime.now(dt.UTC)
    where = machine()
    for side in dict.fromkeys(case.side for case in cases):
        side_python(side)
    with around(pick_core()) as common:
        raw, versions = run(cases, count, options.quick, common)
    record = {
        "benchmark": name,
        "date": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "quick": options.quick,
        "commit": commit(),
        "machine": where,
        "versions": versions,
        "cases": [asdict(case) for case in cases],
        "rounds": raw,
        "medians": medians(raw),
        "ratios": found(ratios, raw),
    }
    return tell(record, save(name, record, now))
