"""Processes: what a fork keeps, and what the in-memory layer says where only another process could help.

Each test runs a program of its own: forking this one, with its threads, would prove little, and beside pytest the
layer keeps quiet about other processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import antiphon

SOURCE = Path(antiphon.__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork and no file locks on this system")

PRELUDE = """
import asyncio, os, sys, threading, time, warnings
from asgiref.sync import async_to_sync
import antiphon
from antiphon.exceptions import CrossProcessError
from antiphon.layers import get_channel_layer
layer = get_channel_layer()
HELLO = {"type": "hello"}

def attempt(call, *args):
    try:
        return call(*args)
    except CrossProcessError as exc:
        text = str(exc)
        assert "EmbeddedChannelLayer" in text and "RedisChannelLayer" in text, text
        return "CrossProcessError"

def in_child(call):
    reader, writer = os.pipe()
    warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside threads, which is what we want to see
    if os.fork() == 0:
        try:
            os.write(writer, repr(call()).encode())
        except BaseException as exc:
            os.write(writer, f"raised {exc!r}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.wait()
    return said
"""


def start(code: str, tmp_path: Path) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    env |= {"PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path), "PYTHONDEVMODE": ""}
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=tmp_path,
    )


def run(code: str, tmp_path: Path) -> list[str]:
    process = start(code, tmp_path)
    try:
        out, err = process.communicate(timeout=50)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, err
    return out.splitlines()


def test_a_forked_child_inherits_nothing_and_is_told_where_the_members_are(tmp_path: Path) -> None:
    out = run(
        """
        loop = asyncio.new_event_loop()
        channel = loop.run_until_complete(layer.new_channel())
        loop.run_until_complete(layer.group_add("g", channel))
        background = async_to_sync(layer.new_channel)()
        async_to_sync(layer.send)("worker", HELLO)

        def child():
            return (
                layer.stats()["nodes"],
                layer.stats().get("worker_channels"),
                async_to_sync(layer.group_channels)("g"),
                attempt(antiphon.group_send, "g", HELLO),
                attempt(antiphon.user_send, 7, HELLO),
                attempt(async_to_sync(layer.group_send), "g", HELLO),
                attempt(async_to_sync(layer.send), "worker", HELLO),
                attempt(async_to_sync(layer.send), channel, HELLO),
            )
        print(in_child(child))
        print(loop.run_until_complete(layer.group_send("g", HELLO)).delivered)
        print(async_to_sync(layer.receive)("worker"))
        """,
        tmp_path,
    )
    assert out[0] == "(0, {}, [], " + ", ".join(["'CrossProcessError'"] * 5) + ")"
    assert out[1:] == ["1", "{'type': 'hello'}"]  # the parent noticed nothing


def test_a_forked_child_that_makes_its_own_channels_works(tmp_path: Path) -> None:
    out = run(
        """
        parents = async_to_sync(layer.new_channel)()
        async_to_sync(layer.group_add)("g", parents)

        def child():
            mine = async_to_sync(layer.new_channel)()
            async_to_sync(layer.group_add)("g", mine)
            antiphon.group_send("g", HELLO)
            async_to_sync(layer.send)("worker", HELLO)
            assert mine.partition("!")[0] != parents.partition("!")[0]
            return (
                async_to_sync(layer.receive)(mine),
                async_to_sync(layer.receive)("worker"),
                async_to_sync(layer.group_count)("g"),
            )
        print(in_child(child))
        print(async_to_sync(layer.group_channels)("g") == [parents])
        """,
        tmp_path,
    )
    assert out == ["({'type': 'hello'}, {'type': 'hello'}, 1)", "True"]


def test_a_fork_in_the_middle_of_a_running_loop_and_of_held_locks_does_not_hang(tmp_path: Path) -> None:
    out = run(
        """
        stop = threading.Event()
        def busy():
            while not stop.is_set():
                antiphon.group_send("g", HELLO)
                time.sleep(0.0005)
        async def main():
            channel = await layer.new_channel()
            await layer.group_add("g", channel)
            thread = threading.Thread(target=busy)
            thread.start()
            said = []
            for _ in range(5):
                # As a thread would be found in the middle of its work: both locks held, and nobody to release them.
                with layer._lock, layer._bus._lock, layer.drops._lock:
                    said.append(in_child(child))
                await asyncio.sleep(0.005)
            stop.set()
            thread.join()
            await layer.close()
            return said
        def child():
            async def use():
                mine = await layer.new_channel()
                await layer.group_add("g", mine)
                for _ in range(102):
                    await layer.group_send("g", HELLO)
                await asyncio.sleep(0)
                return await layer.receive(mine), layer.stats()["drops"]["over_capacity"] > 1
            return asyncio.new_event_loop().run_until_complete(use())
        for text in asyncio.run(main()):
            print(text)
        """,
        tmp_path,
    )
    # The child stands inside the parent's running loop: asyncio itself refuses a second one only in the parent.
    assert out == ["({'type': 'hello'}, True)"] * 5


SERVER = """
import logging
logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
async def main():
    channel = await layer.new_channel()
    await layer.group_add("g", channel)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
asyncio.run(main())
"""


def test_a_second_serving_process_warns_and_one_without_channels_is_refused(tmp_path: Path) -> None:
    first = start(SERVER, tmp_path)
    try:
        assert first.stdout
        assert first.stdout.readline() == "ready\n"
        second_out, second_err = start(SERVER, tmp_path).communicate("\n", timeout=50)
        assert second_out.count("WARNING") == 1, second_out + second_err
        assert f"process {first.pid} of this project serves connections too" in second_out
        assert "EmbeddedChannelLayer" in second_out
        assert "RedisChannelLayer" in second_out
        command = run(
            """
            print(attempt(antiphon.group_send, "g", HELLO), attempt(async_to_sync(layer.group_send), "g", HELLO))
            """,
            tmp_path,
        )
        assert command == ["CrossProcessError CrossProcessError"]
    finally:
        rest, _ = first.communicate("\n", timeout=50)
    assert "WARNING" not in rest
    # With nobody left who serves, a send is what it is in any project without connections: to nobody.
    assert run('print(antiphon.group_send("g", HELLO).nodes)', tmp_path) == ["0"]


def test_a_serving_process_that_was_killed_is_forgotten(tmp_path: Path) -> None:
    first = start(SERVER, tmp_path)
    assert first.stdout
    assert first.stdout.readline() == "ready\n"
    first.kill()
    first.communicate(timeout=50)
    assert run('print(antiphon.group_send("g", HELLO).nodes)', tmp_path) == ["0"]


def test_another_project_is_no_sibling(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = start(SERVER.replace("import logging", "import logging, os\nos.chdir('a')"), tmp_path)
    try:
        assert first.stdout
        assert first.stdout.readline() == "ready\n"
        assert run('print(antiphon.group_send("g", HELLO).nodes)', tmp_path) == ["0"]
    finally:
        first.communicate("\n", timeout=50)


def test_the_files_are_private_to_the_user(tmp_path: Path) -> None:
    first = start(SERVER, tmp_path)
    try:
        assert first.stdout
        assert first.stdout.readline() == "ready\n"
        files = [path for path in tmp_path.rglob("*") if path.name.startswith("antiphon") or path.is_file()]
        assert files
        assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    finally:
        first.communicate("\n", timeout=50)
