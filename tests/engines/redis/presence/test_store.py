"""Presence on real servers: the same as in memory, within its keys, its rights, and its time."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from antiphon.engines.base import Change, PresenceStore, Present
from antiphon.engines.memory.presence import MemoryPresence
from antiphon.engines.redis.presence import RedisPresence
from antiphon.layer.group_options import GroupTable
from antiphon.layer.presence.rosters import Rosters, info_codec
from antiphon.testing.faults import ValkeyServer

SECURITY = Path(__file__).resolve().parents[4] / "SECURITY.md"
LONG_S = 600.0
CROWD = 100_000
NODES = ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(3))
async def test_every_answer_is_that_of_the_memory_engine(store: RedisPresence, seed: int) -> None:
    draw, model = random.Random(seed), MemoryPresence()
    presents = [Present(f"specific.{n}!{n}", f"u{n % 5}", b"%d" % n) for n in range(12)]

    async def both(call: str, *args: Any) -> Any:
        expected, found = [await getattr(each, call)(*args) for each in (model, store)]
        if call == "finish":  # how long is left differs by what the calls take
            expected, found = ((sorted(left), wait_s is None) for left, wait_s in (expected, found))
        assert found == expected, (call, args)
        return found

    joined: dict[tuple[str, str], bool] = {}
    for _ in range(250):
        group, node = draw.choice(["g", "h"]), draw.choice(NODES)
        what = draw.random()
        if what < 0.75:
            changes = [
                Change(draw.random() < 0.55, draw.choice(presents), draw.random() < 0.1)
                for _ in range(draw.randint(1, 4))
            ]
            # A channel belongs to one node.
            changes = [each for each in changes if presents.index(each.present) % 3 == NODES.index(node)]
            words = await both("change", group, node, changes, draw.choice([0.0, LONG_S]))
            for change, word in zip(changes, words, strict=True):
                key = group, change.present.user
                if word == "join":  # twice where it was sent again, because nobody heard the first answer
                    assert change.again or not joined.get(key)
                    joined[key] = True
        elif what < 0.9:
            left, _ = await both("finish", group, 100)
            for present in left:
                assert joined.pop((group, present.user))
        else:
            left, _ = await both("sweep", group, node, draw.randint(1, 5))
            for present in left:
                assert joined.pop((group, present.user))
        await both("stats", group, NODES)
        await both("page", group, [*NODES, ""], "", draw.randint(1, 20))


async def test_nothing_is_left_when_everybody_has_gone(
    make_store: Any, valkey: ValkeyServer, fresh_prefix: str
) -> None:
    store = await make_store(hosts=[valkey.url])
    present = Present("specific.a!1", "u1")
    await store.renew("a", LONG_S)
    await store.note("a", ["g"], (), ["1"], ())
    await store.change("g", "a", [Change(True, present)], LONG_S)
    await store.change("g", "a", [Change(False, present)], 0.0)
    keys = valkey.command("KEYS", f"{fresh_prefix}*")
    assert keys
    assert all(key.startswith(f"{fresh_prefix}:a1:{{".encode()) for key in keys)
    await store.finish("g", 10)
    await store.end("a")
    assert await store.claim("a", "b", 0.0)
    await store.swept("a")
    await store.forget("a")
    # Only that the name is dead is remembered.
    assert valkey.command("KEYS", f"{fresh_prefix}*") == [f"{fresh_prefix}:a1:{{leases}}:s".encode()]


async def test_the_rights_that_are_recommended_suffice(make_store: Any, any_server: ValkeyServer) -> None:
    recipe = re.search(r"`ACL SETUSER antiphon ([^`]*)`", SECURITY.read_text())
    assert recipe is not None
    any_server.command("ACL", "SETUSER", "antiphon", *recipe[1].split())
    url = any_server.unix_url.replace("unix://", "unix://antiphon:secret@")
    store = await make_store(hosts=[url], prefix="asgi")
    present = Present("specific.a!1", "u1")
    assert (await store.renew("a", LONG_S))[0] == "new"
    await store.note("a", ["g"], ["h"], ["1"], ["2"])
    assert await store.groups("a", 0) == (0, ["g"])
    assert await store.online(["1", "2"], ["a"]) == {"1"}
    assert await store.change("g", "a", [Change(True, present)], 0.0) == ["join"]
    assert await store.page("g", ["a", ""], "", 10) == [[present], []]
    assert await store.stats("g", ["a"]) == (1, 1)
    assert await store.change("g", "a", [Change(False, present), Change(True, present)], 0.0) == ["away", ""]
    await store.end("a")
    assert await store.claim("a", "b", 0.0)
    assert await store.sweep("g", "a", 10) == ([present], False)
    assert await store.finish("g", 10) == ([], None)
    await store.swept("a")
    await store.forget("a")


@pytest.mark.parametrize("where", ["memory", "valkey"])
async def test_a_hundred_thousand_members_are_counted_at_once_and_read_by_the_page(
    where: str, make_store: Any, valkey: ValkeyServer
) -> None:
    store: PresenceStore = MemoryPresence() if where == "memory" else await make_store(hosts=[valkey.url])
    for name in ("a", "b"):
        await store.renew(name, LONG_S)
    for start in range(0, CROWD, 500):
        changes = [
            Change(True, Present(f"specific.{start % 2}!{n:x}", f"u{n % 90_000}")) for n in range(start, start + 500)
        ]
        await store.change("g", "ab"[start // 500 % 2], changes, LONG_S)
    rosters = Rosters(store, GroupTable({"g": {"presence": True}}), info_codec(None)[1])
    valkey.command("CONFIG", "RESETSTAT")
    assert await rosters.stats("g") == (CROWD, 90_000)
    if where == "valkey":
        # The leases are read, as many as there are nodes; nothing that grows with the members is.
        asked = valkey.info("commandstats")
        assert asked["cmdstat_zrange"].startswith("calls=1,")
        assert asked.keys() >= {"cmdstat_hlen", "cmdstat_zcard"}
        growing = ("hgetall", "hkeys", "hvals", "hscan", "hmget", "zscan", "zrangebylex", "zrangebyscore", "zcount")
        assert not asked.keys() & {f"cmdstat_{name}" for name in growing}
    seen: set[str] = set()
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        page = await rosters.roster("g", 1000, cursor)
        seen.update(member.channel for member in page)
        cursor, pages = page.cursor, pages + 1
    assert pages in (CROWD // 1000, CROWD // 1000 + 1)
    assert len(seen) == CROWD
