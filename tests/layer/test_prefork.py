"""Synchronous code in the processes it lives in: prefork workers, threads, commands, multiprocessing.

Each test runs a program of its own beside a receiver here: forking pytest, with its threads, would prove little.
"""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

import antiphon
from antiphon import group_send
from antiphon.layer.deferred import BATCH, Send, _Commit
from antiphon.layers import RedisChannelLayer, channel_layers
from antiphon.testing.faults import Proxy, ValkeyServer
from antiphon.types import Keep

SOURCE = Path(antiphon.__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

PRELUDE = """
import os, sys, threading, time, warnings
from asgiref.sync import async_to_sync
import antiphon
from antiphon import get_channel_layer, group_send, send, user_send
from antiphon.testing.faults import RespClient
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork beside threads, which is what we want to see
LAYERS = {"default": {
    "BACKEND": "antiphon.layers.RedisChannelLayer", "CONFIG": {"hosts": [sys.argv[1]], "prefix": sys.argv[2]}}}

def say(*values):
    os.write(1, (" ".join(map(str, values)) + "\\n").encode())

def tell(who, count, start=0):
    for n in range(start, start + count):
        group_send("g", {"type": "t", "who": who, "n": n})

def forked(work):
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException as exc:
        say("raised", repr(exc))
    finally:
        os._exit(status)

def ended_well(*pids):
    return all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
"""


class Receiver:
    """A node of this process, member of the group, and the server's count of connections."""

    def __init__(self, layer: RedisChannelLayer, channel: str, url: str, prefix: str) -> None:
        self.layer, self.channel, self.url, self.prefix = layer, channel, url, prefix
        self.messages: list[Any] = []

    async def run(self, program: str | Path, expected: int, *, prelude: str = "antiphon.configure(LAYERS)\n") -> str:
        """Run a program; return what it printed, once ``expected`` messages have come and no more do."""
        said = await self.output(program if isinstance(program, Path) else prelude + textwrap.dedent(program))
        self.messages = [await asyncio.wait_for(self.layer.receive(self.channel), 30) for _ in range(expected)]
        assert await self.rest() == []
        assert self.layer.stats()["dropped"] == 0
        return said

    async def output(self, program: str | Path) -> str:
        """Run a program, or a file; return what it printed."""
        start = [str(program)] if isinstance(program, Path) else ["-c", PRELUDE + program]
        env = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *start, self.url, self.prefix,
            env=env | {"PYTHONPATH": str(SOURCE)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(), 50)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def rest(self) -> list[Any]:
        """Return what still comes."""
        found: list[Any] = []
        with suppress(TimeoutError):
            while True:
                found.append(await asyncio.wait_for(self.layer.receive(self.channel), 0.3))
        return found

    def seen(self) -> dict[str, list[int]]:
        """Return the numbers that came, in order, by sender."""
        seen: dict[str, list[int]] = {}
        for message in self.messages:
            seen.setdefault(message["who"], []).append(message["n"])
        return seen


@pytest.fixture
async def receiver(valkey: ValkeyServer, fresh_prefix: str) -> AsyncIterator[Receiver]:
    layer = RedisChannelLayer(hosts=[valkey.url], prefix=fresh_prefix, capacity=100_000)
    channel: str = await layer.new_channel()
    await layer.group_add("g", channel)
    yield Receiver(layer, channel, valkey.url, fresh_prefix)
    await layer.close()


async def test_prefork_workers_send_and_no_call_but_the_first_connects(receiver: Receiver) -> None:
    said = await receiver.run(
        """
        client = RespClient(sys.argv[1].removeprefix("unix://"))
        def connections():
            return int(dict(line.split(":") for line in client.command("INFO", "stats").decode().split("\\r\\n")
                            if ":" in line)["total_connections_received"])

        tell("parent", 20)
        async_to_sync(get_channel_layer().group_send)("g", {"type": "t", "who": "parent", "n": 20})
        def worker(name):
            layer = get_channel_layer()
            for n in range(0, 40, 2):
                group_send("g", {"type": "t", "who": name, "n": n})
                async_to_sync(layer.group_send)("g", {"type": "t", "who": name, "n": n + 1})
        before = connections()
        for number in range(4):  # one after the other, so that the count is theirs
            assert ended_well(forked(lambda: worker(f"worker{number}")))
        say(connections() - before)
        before = connections()
        tell("parent", 20, start=21)
        for n in range(41, 50):
            async_to_sync(get_channel_layer().group_send)("g", {"type": "t", "who": "parent", "n": n})
        say(connections() - before)
        """,
        4 * 40 + 50,
    )
    of_children, of_parent = map(int, said.split())
    assert of_children == 4
    assert of_parent == 0
    assert receiver.seen() == {"parent": list(range(50)), **{f"worker{n}": list(range(40)) for n in range(4)}}


async def test_forks_in_the_middle_of_publishes_of_other_threads_hurt_neither_side(receiver: Receiver) -> None:
    said = await receiver.run(
        """
        turns = [threading.Event() for _ in range(3)]
        def publish(name, turn):
            for n in range(400):
                group_send("g", {"type": "t", "who": name, "n": n})
                if n == 20:
                    turn.set()
        threads = [threading.Thread(target=publish, args=(f"thread{n}", turn)) for n, turn in enumerate(turns)]
        [thread.start() for thread in threads]
        [turn.wait(30) for turn in turns]
        pids, amid = [], 0
        for number in range(8):
            amid += any(thread.is_alive() for thread in threads)
            pids.append(forked(lambda: tell(f"child{number}", 20)))
        assert ended_well(*pids)
        [thread.join() for thread in threads]
        say(amid)
        """,
        3 * 400 + 8 * 20,
    )
    assert int(said) >= 1
    assert receiver.seen() == {f"thread{n}": list(range(400)) for n in range(3)} | {
        f"child{n}": list(range(20)) for n in range(8)
    }


async def test_tasks_put_from_forked_workers_reach_a_worker_channel(receiver: Receiver) -> None:
    await receiver.run(
        """
        send("thumbs", {"type": "make", "n": -1})  # starts the parent's background loop, which no child inherits
        pids = [forked(lambda: [send("thumbs", {"type": "make", "n": number * 10 + n}) for n in range(10)])
                for number in range(3)]
        assert ended_well(*pids)
        """,
        0,
    )
    found = [(await asyncio.wait_for(receiver.layer.receive("thumbs"), 30))["n"] for _ in range(31)]
    assert sorted(found) == list(range(-1, 30))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_multiprocessing(receiver: Receiver, method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    body = """
        def work(name):
            tell(name, 20)

        if __name__ == "__main__":
            import multiprocessing
            context = multiprocessing.get_context(METHOD)
            tell("main", 20)
            workers = [context.Process(target=work, args=(f"p{n}",)) for n in range(2)]
            [worker.start() for worker in workers]
            [worker.join() for worker in workers]
            assert [worker.exitcode for worker in workers] == [0, 0]
    """
    program.write_text(PRELUDE + "antiphon.configure(LAYERS)\n" + textwrap.dedent(body).replace("METHOD", repr(method)))
    await receiver.run(program, 60)
    assert receiver.seen() == {name: list(range(20)) for name in ("main", "p0", "p1")}


DJANGO = """
import django
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
settings.configure(CHANNEL_LAYERS=LAYERS, INSTALLED_APPS=["antiphon"],
                   DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from django.db import transaction
"""


async def test_a_management_command_and_a_thread_pool_with_transactions(receiver: Receiver) -> None:
    said = await receiver.run(
        """
        from concurrent.futures import ThreadPoolExecutor

        class Command(BaseCommand):
            def handle(self, **options):
                tell("command", 20)
                with transaction.atomic():
                    tell("commit", 100)
                try:
                    with transaction.atomic():
                        tell("rollback", 10)
                        raise ZeroDivisionError
                except ZeroDivisionError:
                    pass

        call_command(Command())
        def in_thread(n):
            with transaction.atomic():
                tell(f"thread{n}", 20)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(in_thread, range(8)))
        say(get_channel_layer()._bus.publisher.connections_made)
        """,
        20 + 100 + 8 * 20,
        prelude=DJANGO,
    )
    assert int(said) <= 5
    seen = receiver.seen()
    assert seen.pop("commit") == list(range(100))
    assert seen == {"command": list(range(20)), **{f"thread{n}": list(range(20)) for n in range(8)}}


async def test_a_commit_over_a_killed_server_is_sent_once_when_it_is_back(fresh_prefix: str) -> None:
    with ValkeyServer(unix_socket=True) as server:
        layer = RedisChannelLayer(hosts=[server.url], prefix=fresh_prefix, capacity=10_000)
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        receiver = Receiver(layer, channel, server.url, fresh_prefix)

        async def kill_and_restart() -> None:
            client = redis.Redis.from_url(server.tcp_url)
            while client.info("commandstats").get("cmdstat_publish", {}).get("calls", 0) < 40:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            client.close()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)

        killing = asyncio.create_task(kill_and_restart())
        said = await receiver.output(
            DJANGO
            + textwrap.dedent("""
            settings.ANTIPHON = {"publish_retry_s": 10.0, "on_publish_error": lambda exc, send: say("failed", exc)}
            n = 0
            for _ in range(60):
                with transaction.atomic():
                    tell("commit", 20, start=n)
                n += 20
                time.sleep(0.01)
            """)
        )
        await killing
        numbers = [message["n"] for message in await receiver.rest()]
        assert said == ""
        assert len(set(numbers)) == len(numbers)  # never twice
        assert numbers == sorted(numbers)
        # What was published between the server's return and ours is told, not silent.
        assert len(numbers) == 1200 or layer.losses.count >= 1
        await layer.close()


async def test_a_server_that_hangs_holds_up_a_commit_once_however_many_sends_it_has(fresh_prefix: str) -> None:
    with ValkeyServer(unix_socket=True) as server:
        layer = RedisChannelLayer(hosts=[server.url], prefix=fresh_prefix)
        said = await Receiver(layer, "", server.url, fresh_prefix).output(
            DJANGO
            + textwrap.dedent("""
            import signal
            LAYERS["default"]["CONFIG"]["timeout_s"] = 1.0
            failed = []
            settings.ANTIPHON = {"publish_retry_s": 0.5, "on_publish_error": lambda exc, send: failed.append(send)}
            tell("before", 1)
            info = RespClient(sys.argv[1].removeprefix("unix://")).command("INFO", "server").decode()
            pid = int(info.partition("process_id:")[2].split()[0])
            os.kill(pid, signal.SIGSTOP)
            try:
                with transaction.atomic():
                    for n in range(30):
                        tell("hook", 2)
                        transaction.on_commit(lambda: None)
                    send("thumbs", {"type": "make"})
                    before = time.monotonic()
                took_s = time.monotonic() - before
            finally:
                os.kill(pid, signal.SIGCONT)
            say(len(failed), took_s)
            say(get_channel_layer().stats()["drops"])
            """)
        )
        counts, drops = said.splitlines()
        failed, took_s = counts.split()
        assert int(failed) == 61
        assert float(took_s) < 30  # and not 61 times the second
        assert drops == "{'publish_failed': 61}"


async def test_a_batch_whose_replies_were_lost_is_sent_again_and_delivered_once(
    valkey: ValkeyServer, receiver: Receiver
) -> None:
    with Proxy(valkey.url) as proxy:
        antiphon.configure(publish_retry_s=30.0)
        sender = RedisChannelLayer(hosts=[proxy.url], prefix=receiver.prefix, timeout_s=0.5)
        channel_layers.set("default", sender)
        sends = [
            Send("group", "g", ["g:g"], {"type": "t", "who": "commit", "n": n}, sender, alias="default")
            for n in range(150)
        ]
        await asyncio.to_thread(group_send, "g", {"type": "t", "who": "before", "n": 0})
        publisher = sender._bus.publisher
        publish = publisher.publish

        def publish_and_lose(topic: str, payload: bytes, keep: Keep | None = None) -> Any:
            reply = publish(topic, payload, keep)
            publisher.publish = publish  # type: ignore[method-assign]
            proxy.black_hole(direction="down")  # the rest of the batch is about to be written
            return reply

        publisher.publish = publish_and_lose  # type: ignore[method-assign]
        committing = asyncio.create_task(asyncio.to_thread(_Commit().publish, sends))
        await asyncio.sleep(1.2)
        proxy.black_hole(False)
        await committing
        receiver.messages = [await asyncio.wait_for(receiver.layer.receive(receiver.channel), 30) for _ in range(151)]
        assert await receiver.rest() == []
        assert receiver.seen() == {"before": [0], "commit": list(range(150))}
        assert receiver.layer.stats()["duplicates"] >= BATCH - 1
        assert sender.stats()["drops"] == {}
        await sender.close()
