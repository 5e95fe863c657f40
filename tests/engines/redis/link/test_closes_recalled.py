"""Closes that a process could not hear of: when it is back it closes whom they were meant for, and nobody else."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from antiphon.exceptions import EngineUnavailable
from antiphon.layer.redis import RedisChannelLayer
from antiphon.testing.faults import Proxy, ValkeyServer
from tests.engines.redis.link.layers import MakeLayer, down, up
from tests.waiting import until


@dataclass
class Visitor:
    """A connection, as a consumer opens it, and the reasons it was closed for."""

    channel: str
    closes: list[str]


def visitor(layer: RedisChannelLayer, user: str | None, session: str | None, let_in_s: float | None = None) -> Visitor:
    node, mailbox = layer.open_mailbox("Chat", capacity=None, overflow=None)
    node.hub.identify(mailbox, user, session, let_in_s)
    closes: list[str] = []
    mailbox.on_close = closes.append
    return Visitor(mailbox.channel, closes)


@pytest.mark.parametrize("cut_off", ["broken", "silent"])
async def test_a_user_closed_while_a_process_was_cut_off_is_closed_there_unless_it_came_back_since(
    valkey: ValkeyServer, make_layer: MakeLayer, cut_off: str
) -> None:
    with Proxy(valkey.url) as proxy:
        here, there = make_layer(valkey.url, timeout_s=2.0), make_layer(proxy.url, ping_interval_s=0.5)
        await here.new_channel()
        before, bystander = visitor(there, "7", None), visitor(there, "8", None)
        await up(there)
        let_in_s = time.monotonic()  # somebody whose handshake goes on over there while the user is closed
        if cut_off == "broken":
            proxy.refuse()
            proxy.cut()
            await down(there)
        else:
            proxy.black_hole(True)
        assert await here.close_user("7") == 0
        await asyncio.sleep(0.1)
        in_between = visitor(there, "7", None, let_in_s)
        after = visitor(there, "7", None)
        if cut_off == "broken":
            proxy.refuse(False)
        else:
            await down(there)
            proxy.black_hole(False)
            proxy.cut()
        await until(lambda: before.closes)
        assert (before.closes, in_between.closes) == (["revoked"], ["revoked"])
        assert there.revoked_since("7", None, let_in_s) == "revoked"
        await up(there)
        # Once more, so that whatever the process still asks has been answered.
        assert await here.close_user("8") == 1
        assert bystander.closes == ["revoked"]
        assert after.closes == []
        assert await here.close_user("7")
        assert after.closes == ["revoked"]  # that was meant for it


async def test_a_session_closed_while_the_server_was_down_is_closed_elsewhere_unless_it_came_back_since(
    own_valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    here, there = make_layer(own_valkey.url, timeout_s=2.0), make_layer(own_valkey.url)
    mine = visitor(here, None, "s")
    before, bystander = visitor(there, None, "s"), visitor(there, None, "t")
    await asyncio.gather(up(here), up(there))
    own_valkey.kill()
    await asyncio.gather(down(here), down(there))
    with pytest.raises(EngineUnavailable):
        await here.close_session("s")
    assert mine.closes == ["unauthenticated"]  # this process's own at once
    assert before.closes == []
    await asyncio.sleep(0.05)
    after = visitor(there, None, "s")
    own_valkey.restart()
    await until(lambda: before.closes)
    await asyncio.gather(up(here), up(there))
    assert before.closes == ["unauthenticated"]
    assert await here.close_session("t") == 1
    assert bystander.closes == ["unauthenticated"]
    assert after.closes == []


async def test_of_two_closes_the_later_holds_whoever_tells_of_it_first(
    valkey: ValkeyServer, make_layer: MakeLayer
) -> None:
    with Proxy(valkey.url) as proxy:
        one, two, there = make_layer(valkey.url), make_layer(valkey.url), make_layer(proxy.url)
        await asyncio.gather(one.new_channel(), two.new_channel(), there.new_channel())
        await asyncio.gather(up(one), up(two), up(there))
        proxy.refuse()
        proxy.cut()
        await down(there)
        let_in_s = time.monotonic() - 0.2
        visitors = [visitor(there, user, None, let_in_s) for user in ("7", "8")]
        # Each of the others has missed one of the later closes itself.
        for user, knows, knew in (("7", one, two), ("8", two, one)):
            knows._revocations.add("user", user, "revoked")
            knew._revocations.add("user", user, "revoked", age_s=0.5)
        proxy.refuse(False)
        await up(there)
        await until(lambda: all(each.closes for each in visitors))
