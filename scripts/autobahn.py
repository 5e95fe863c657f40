#!/usr/bin/env python3
"""Run the Autobahn test suite, a client that breaks every rule of RFC 6455 and 7692, against the server's classes.

    make autobahn
    make autobahn ARGS="--all"                       also those that take an hour
    make autobahn ARGS="--ws websockets-sansio"      another class of uvicorn's, to compare

The suite needs Python 2.7, from the path or from pyenv; without one nothing is run, and that is said. Its packages come
with the hashes of ``requirements/autobahn.lock`` into .autobahn/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "autobahn.lock"
HOME = ROOT / ".autobahn"
OURS = "antiphon.server:WebSocketProtocol"
# The cases of compression send a thousand messages each, of up to 128 KiB: an hour, all of them. These are of each kind
# some that are small.
SOME = [f"12.{kind}.{size}" for kind in range(1, 6) for size in (1, 2, 5)]
SOME += [f"13.{offer}.{size}" for offer in range(1, 8) for size in (1, 5)]
# (what it is about, cases, all of them, with compression). 9 is of sizes up to 16 MiB.
FRAMES = [f"{family}.*" for family in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
PARTS = (
    ("frames, closing, limits", FRAMES, FRAMES, False),
    ("compression", SOME, ["12.*", "13.*"], True),
)
LIMIT_S = 2 * 3600

# What the server runs: it sends back what it receives.
ECHO = """
async def application(scope, receive, send):
    while True:
        event = await receive()
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif event["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
        else:
            return
"""
# The suite does not install as its entry point believes.
WSTEST = """
import site, sys
site.addsitedir({home!r}); sys.path.insert(0, {home!r})
sys.argv = ["wstest", "-m", "fuzzingclient", "-s", {spec!r}]
from autobahntestsuite.wstest import run
run()
"""


def main() -> int:
    """Run both parts, and say what did not pass."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ws", default=OURS, help="the protocol class, as uvicorn takes it")
    parser.add_argument("--all", action="store_true", help="every case of compression: an hour")
    arguments = parser.parse_args()
    python = find()
    if python is None:
        print("autobahn: skipped, there is no Python 2.7 here (looked at PYTHON27, the path and pyenv)")
        return 0
    suite = install(python)
    failed = 0
    for about, some, every, deflate in PARTS:
        began = time.monotonic()
        found = run(python, suite, arguments.ws, every if arguments.all else some, deflate=deflate)
        counts = Counter(result["behavior"] for result in found.values())
        print(f"{about}: {', '.join(f'{n} {behavior}' for behavior, n in counts.most_common())}", end="")
        print(f" ({len(found)} cases, {time.monotonic() - began:.0f} s)")
        for case, result in found.items():
            bad = "FAILED" in (result["behavior"], result["behaviorClose"])
            failed += bad
            if result["behavior"] not in ("OK", "INFORMATIONAL") or bad:
                print(f"  {case}: {result['behavior']}, close {result['behaviorClose']}")
    print(f"autobahn, {arguments.ws}: {failed} failed")
    return int(failed > 0)


def find() -> str | None:
    """Return a Python 2.7 that starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (
        os.environ.get("PYTHON27"),
        shutil.which("python2.7"),
        *sorted(map(str, pyenv.glob("2.7.*/bin/python")), reverse=True),
    ):
        if candidate:
            said = subprocess.run(
                [candidate, "-c", "import sys; print(sys.version_info[:2] == (2, 7))"], capture_output=True, check=False
            )
            if said.stdout.strip() == b"True":
                return candidate
    return None


def install(python: str) -> Path:
    """Return the folder of the suite's packages, filled from the lock."""
    suite = HOME / f"suite-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:10]}"
    if not (suite / ".ok").exists():
        print(f"Installing the suite from {LOCK.relative_to(ROOT)} ...", flush=True)
        shutil.rmtree(suite, ignore_errors=True)
        pip = [python, "-W", "ignore", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*pip, "--require-hashes", "-r", str(LOCK), "--target", str(suite)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"autobahn: the suite could not be installed\n{done.stderr}")
        (suite / "zope" / "__init__.py").touch()
        (suite / ".ok").touch()
    return suite


def run(python: str, suite: Path, ws: str, cases: list[str], *, deflate: bool) -> dict[str, Any]:
    """Run cases against a server of their own; return {case: result}."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        here = Path(folder)
        (here / "echo.py").write_text(ECHO)
        (here / "serve.py").write_text(
            "import uvicorn\n"
            "from antiphon import framework\n"
            f"framework.install(framework.Framework(deflate={deflate}))\n"
            f"uvicorn.run('echo:application', port={port}, ws={ws!r}, log_level='error', lifespan='off',"
            f" ws_per_message_deflate={deflate})\n"
        )
        report = here / "report"
        spec = {
            "outdir": str(report),
            "servers": [{"agent": "server", "url": f"ws://127.0.0.1:{port}"}],
            "cases": cases,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (here / "spec.json").write_text(json.dumps(spec))
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        server = subprocess.Popen([sys.executable, "serve.py"], cwd=here, env=environment)
        try:
            wait_for(port, server)
            program = WSTEST.format(home=str(suite), spec=str(here / "spec.json"))
            done = subprocess.run(
                [python, "-W", "ignore", "-c", program],
                cwd=here,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        finally:
            server.terminate()
            server.wait(30)
        index = report / "index.json"
        if not index.exists():
            raise SystemExit(f"autobahn: the suite gave no report\n{done.stdout}\n{done.stderr}")
        results: dict[str, Any] = json.loads(index.read_text())["server"]
        return results


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if server.poll() is not None:
                raise SystemExit(f"autobahn: the server ended with {server.returncode}") from None
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
