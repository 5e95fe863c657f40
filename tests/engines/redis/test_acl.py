"""The account that SECURITY.md recommends: it suffices, and nothing else may be done with it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import RespError, ValkeyServer

SECURITY = Path(__file__).resolve().parents[3] / "SECURITY.md"


async def test_a_layer_does_all_it_can_do_with_the_rights_that_are_recommended(any_server: ValkeyServer) -> None:
    recipe = re.search(r"`ACL SETUSER antiphon ([^`]*)`", SECURITY.read_text())
    assert recipe is not None
    any_server.command("ACL", "SETUSER", "antiphon", *recipe[1].split())
    url = any_server.unix_url.replace("unix://", "unix://antiphon:secret@")
    layer = RedisChannelLayer(hosts=[url], groups={"log": {"history_size": 10}})
    channel = await layer.new_channel()
    for member in (channel, "a-worker-channel"):
        await layer.group_add("room", member)
    await layer.group_send("room", {"type": "t", "n": 1})
    await asyncio.to_thread(layer.publish_blocking, ["g:room"], layer.encode({"type": "t", "n": 2}), None)
    async with asyncio.timeout(30):
        for name in (channel, "a-worker-channel"):
            assert [(await layer.receive(name))["n"] for _ in range(2)] == [1, 2]
    assert await layer.group_count("room") == 2
    receipt = None
    for _ in range(65):  # so that the log is cut once, too
        await layer.group_send("log", {"type": "t", "n": 1}, idempotency_key="once", version=1)
        receipt = await layer.group_send("log", {"type": "t", "n": 2})
    assert [publication.message["n"] for publication in await layer.history("log", limit=2)] == [2, 2]
    assert receipt is not None
    assert receipt.position == (await asyncio.to_thread(layer.positions_blocking, ["log"]))["log"]
    assert (await layer.health())["ok"]
    await layer.flush()
    await layer.close()


def test_the_account_can_do_nothing_else(any_server: ValkeyServer) -> None:
    recipe = re.search(r"`ACL SETUSER antiphon ([^`]*)`", SECURITY.read_text())
    assert recipe is not None
    any_server.command("ACL", "SETUSER", "antiphon", *recipe[1].split())
    for command in (
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("GET", "other"),
        ("DEL", "other"),
        ("PUBLISH", "other", "x"),
    ):
        answer = any_server.command("ACL", "DRYRUN", "antiphon", *command)
        assert b"permissions" in answer or b"no permission" in answer.lower(), (command, answer)
    with pytest.raises(RespError):
        any_server.command("ACL", "DRYRUN", "nobody", "PING")
