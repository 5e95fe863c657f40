"""The demo as a program: its processes, its layers, its end. Needs no browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import SHOWCASE, Demo

if sys.platform == "win32":
    pytest.skip("several workers need sockets that can be handed over", allow_module_level=True)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    demo.kill()
    assert "Traceback" not in demo.log(), demo.log()


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def workers(demo: Demo, count: int) -> list[int]:
    limit = time.monotonic() + 50
    while demo.log().count("is process") < count and time.monotonic() < limit:
        time.sleep(0.05)
    return [int(line.split()[-1].rstrip(".")) for line in demo.log().splitlines() if "is process" in line]


def test_ctrl_c_ends_every_process(demo: Demo) -> None:
    demo.start("--workers", "3")
    running = workers(demo, 3)
    assert len(set(running)) == 3
    assert demo.interrupt() == 0
    assert all(map(ended, running))


def test_workers_end_with_a_supervisor_that_was_killed(demo: Demo) -> None:
    demo.start()
    running = workers(demo, 2)
    demo.kill_supervisor()
    limit = time.monotonic() + 30
    while not all(map(ended, running)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert all(map(ended, running))


def test_a_worker_that_dies_again_and_again_is_started_less_and_less_often(demo: Demo) -> None:
    demo.start()
    for number in range(2, 5):
        os.kill(workers(demo, number)[-1], signal.SIGKILL)
    assert len(set(workers(demo, 5))) == 5
    with urllib.request.urlopen(demo.url, timeout=30) as answer:
        assert answer.status == 200


def test_the_memory_layer_is_served_by_one_process_and_says_what_cannot_be_broken(demo: Demo) -> None:
    demo.start(LAYER="memory")
    assert "is process" not in demo.log()
    with urllib.request.urlopen(demo.url, timeout=30) as landing:
        window = re.search(r'<iframe src="([^"]+)"', landing.read().decode())
    assert window is not None
    with urllib.request.urlopen(demo.url + window[1], timeout=30) as chat:
        text = chat.read().decode()
    assert "Drop my network for 5 s" in text
    assert "Kill this server process" not in text
    assert "Restart the engine" not in text
    assert "No engine to restart: the memory engine lives in this one process" in text
    assert demo.interrupt() == 0


def test_a_port_that_is_taken_is_told_in_a_line(demo: Demo, tmp_path: Path) -> None:
    demo.start()
    environment = {**os.environ, "SHOWCASE_DATA": str(tmp_path)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "manage.py", "demo", "--port", str(demo.port)]
    done = subprocess.run(
        command, cwd=SHOWCASE, env=environment, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"CommandError: Port {demo.port}: Address already in use"
