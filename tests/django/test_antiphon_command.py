from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from antiphon import get_channel_layer
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.testing import WebsocketCommunicator
from antiphon.testing.faults import ValkeyServer

ROOT = Path(__file__).resolve().parents[2]
IN_MEMORY = "is in memory: this command sees its own process, and no other"


class Chat(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await self.join("lobby")
        await self.join(f"room_{self.scope['path'][1:]}")
        await self.accept()

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send_json(event)


class Said:
    """What a command wrote."""

    def __init__(self, out: str, err: str) -> None:
        self.out, self.err = out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(*args: str) -> Said:
    out, err = StringIO(), StringIO()
    call_command("antiphon", *args, stdout=out, stderr=err, no_color=True)
    return Said(out.getvalue(), err.getvalue())


async def run(*args: str) -> Said:
    return await asyncio.to_thread(command, *args)


async def connected(path: str) -> WebsocketCommunicator:
    client = WebsocketCommunicator(Chat.as_asgi(), path)
    assert (await client.connect())[0]
    return client


async def test_groups_counts_members_and_names_worker_channels() -> None:
    clients = [await connected(path) for path in ("/a", "/b", "/b")]
    layer = get_channel_layer()
    await layer.group_add("lobby", "thumbs")
    await layer.group_add("jobs", "mail")

    said = await run("groups")

    assert said.out.splitlines() == [
        "GROUP   MEMBERS  NODES  WORKER CHANNELS",
        "jobs          0      0  mail",
        "lobby         3      1  thumbs",
        "room_a        1      1",
        "room_b        2      1",
        "4 groups.",
    ]
    assert IN_MEMORY in said.err
    found = (await run("groups", "--json")).json
    assert found["lobby"] == {"members": 3, "nodes": 1, "worker_channels": ["thumbs"]}
    for client in clients:
        await client.disconnect()
    assert (await run("groups", "--json")).json.keys() == {"lobby", "jobs"}


async def test_connections_tells_who_is_connected_and_what_waits() -> None:
    client = await connected("/a")
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "waits"})

    said = await run("connections")

    head, columns, first, second, total = said.out.splitlines()
    assert re.fullmatch(rf"node \S+ \(\S+, pid {os.getpid()}, .+\): 2 channels, up \d+ (s|min)", head)
    assert columns.split() == ["CHANNEL", "CONSUMER", "USER", "WAITING", "GROUPS"]
    assert re.fullmatch(r"  specific\.\S+!1 +Chat +0/100 +lobby, room_a", first)
    assert re.fullmatch(r"  specific\.\S+!x2 +\(hand-made\) +1/100", second)
    assert total == "2 channels on 1 node."
    [node] = (await run("connections", "--json")).json
    assert [each["consumer"] for each in node["channels"]] == ["Chat", None]
    await client.disconnect()


async def test_a_limit_that_cuts_something_off_says_so() -> None:
    clients = [await connected(path) for path in ("/a", "/b")]
    said = await run("connections", "--limit", "1")
    assert "--limit" in said.err
    assert said.out.count("specific.") == 1
    for client in clients:
        await client.disconnect()


async def test_send_takes_json_and_parts_of_it() -> None:
    client = await connected("/a")
    said = await run("send", "room_a", '{"type": "chat.message", "text": "hello"}')
    assert await client.receive_json_from() == {"type": "chat.message", "text": "hello"}
    assert said.out.startswith("Sent to group 'room_a': ")
    await run("send", "room_a", "type=chat.message", "text=a=b", "n:=5", "tags:=[1, null]", "--json")
    assert await client.receive_json_from() == {"type": "chat.message", "text": "a=b", "n": 5, "tags": [1, None]}
    [node] = (await run("connections", "--json")).json
    await run("send", "--channel", node["channels"][0]["channel"], "type=chat.message")
    assert await client.receive_json_from() == {"type": "chat.message"}
    await client.disconnect()


async def test_send_reaches_a_user() -> None:
    class Personal(Chat):
        user_channel = True

    client = WebsocketCommunicator(Personal.as_asgi(), "/a")
    client.scope["user"] = type("User", (), {"pk": 42, "is_authenticated": True})()
    assert (await client.connect())[0]
    said = await run("send", "--user", "42", "type=chat.message", "text=for you")
    assert await client.receive_json_from() == {"type": "chat.message", "text": "for you"}
    assert "the connections of user '42'" in said.out
    await client.disconnect()


async def test_the_receipt_is_json_for_programs() -> None:
    receipt = (await run("send", "nobody", "type=x", "--json")).json
    assert receipt["state"] == "sent"
    assert receipt.keys() == {"nodes", "position", "state", "delivered", "dropped"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["room"], 'needs a "type"'),
        (["room", "text=x"], 'needs a "type"'),
        (["room", '["type"]'], r"got '\[\"type\"\]'"),
        (["room", "{type: x}"], "not JSON"),
        (["room", "type=x", "n:=five"], "not JSON: 'five'"),
        (["room", "hello"], "key=text and key:=json; got 'hello'"),
        (["no room", "type=x"], "Group name"),
        (["--channel", "a", "--user", "b", "type=x"], "not allowed with"),
        (["--channel", "no channel", "type=x"], "Channel name"),
    ],
)
def test_what_cannot_be_sent_is_one_line(words: list[str], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        command("send", *words)


async def test_ping_says_how_fast_each_node_answers() -> None:
    client = await connected("/a")
    said = await run("ping")
    node, total = said.out.splitlines()
    assert re.fullmatch(rf"node \S+ \(\S+, pid {os.getpid()}, .+\): \d+\.\d ms", node)
    assert total == "All answered: 1 node."
    found = (await run("ping", "--json")).json
    assert (found["ok"], found["silent"], len(found["nodes"])) == (True, [], 1)
    assert found["health"] == {"ok": True, "engine": "memory", "links": [], "nodes": 1, "lost": 0}
    await client.disconnect()


def test_an_unknown_layer_names_those_there_are() -> None:
    with pytest.raises(CommandError, match="no channel layer 'other'; configured: 'default'"):
        command("ping", "--layer", "other")


class Foreign:
    """A layer written for Channels."""


def test_a_layer_of_others_cannot_be_looked_into(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.Foreign"}}
    with pytest.raises(CommandError, match=r"is .*\.Foreign; this command looks into layers of Antiphon alone"):
        command("groups")


@pytest.mark.parametrize("args", [["--timeout", "0"], ["--timeout", "soon"], ["--timeout", "nan"], ["--limit", "-1"]])
def test_numbers_are_above_zero(args: list[str]) -> None:
    with pytest.raises(CommandError, match="above 0; got"):
        command("groups", *args)


# Over processes

SETTINGS = """
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["antiphon"], SECRET_KEY="x", USE_TZ=True, DATABASES={{}},
    CHANNEL_LAYERS={{"default": {{
        "BACKEND": "antiphon.layers.RedisChannelLayer", "CONFIG": {{"hosts": [{url!r}], "timeout_s": 2}}
    }}}},
)
import django; django.setup()
"""
# A process that holds a connection and prints what reaches it.
MEMBER = """
import asyncio
from antiphon import get_channel_layer
from antiphon.generic.websocket import AsyncJsonWebsocketConsumer
from antiphon.testing import WebsocketCommunicator

class Chat(AsyncJsonWebsocketConsumer):
    groups = ["lobby"]
    async def chat_message(self, event):
        await self.send_json(event["text"])

async def main():
    client = WebsocketCommunicator(Chat.as_asgi(), "/")
    await client.connect()
    await get_channel_layer().group_add("lobby", "thumbs")
    print("ready", flush=True)
    while True:
        print(await client.receive_json_from(60), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as started:
        yield started


@pytest.fixture
def member(server: ValkeyServer) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SETTINGS.format(url=server.url) + MEMBER],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def elsewhere(server: ValkeyServer, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as somebody at a shell does."""
    program = SETTINGS.format(url=server.url) + (
        "import sys; from django.core.management import execute_from_command_line as run\n"
        f"run(['manage.py', 'antiphon', *{args!r}])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=50)  # noqa: PLW1510


def test_it_sees_and_reaches_the_connections_of_other_processes(
    server: ValkeyServer, member: subprocess.Popen[str]
) -> None:
    groups = elsewhere(server, "groups", "--json")
    assert json.loads(groups.stdout) == {"lobby": {"members": 1, "nodes": 1, "worker_channels": ["thumbs"]}}, groups
    assert groups.stderr == ""

    [node] = json.loads(elsewhere(server, "connections", "--json").stdout)
    assert node["pid"] == member.pid
    assert [channel["consumer"] for channel in node["channels"]] == ["Chat"]

    sent = elsewhere(server, "send", "lobby", "type=chat.message", "text=from a shell")
    assert sent.stdout == "Sent to group 'lobby': 1 node reached.\n", sent
    assert member.stdout is not None
    assert member.stdout.readline() == "from a shell\n"

    ping = elsewhere(server, "ping")
    assert ping.returncode == 0, ping
    assert re.search(rf"engine redis 127\.0\.0\.1:{server.port}: up, \d+\.\d ms", ping.stdout)
    assert re.search(rf"pid {member.pid}, .+\): \d+\.\d ms", ping.stdout)


def test_ping_fails_for_a_node_that_does_not_answer(server: ValkeyServer, member: subprocess.Popen[str]) -> None:
    import signal

    member.send_signal(signal.SIGSTOP)
    ping = elsewhere(server, "ping", "--timeout", "0.5")
    assert ping.returncode == 1
    assert "a node that listens and said nothing for 0.5 s" in ping.stderr


def test_ping_fails_when_the_engine_is_down(server: ValkeyServer) -> None:
    server.kill()
    ping = elsewhere(server, "ping", "--json")
    assert ping.returncode == 1
    assert f"127.0.0.1:{server.port}" in ping.stderr
    assert json.loads(ping.stdout)["ok"] is False
