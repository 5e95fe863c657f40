"""Who is in a group: joins, leaves, the grace between them, over one node and several."""

from __future__ import annotations

from typing import Any

import pytest

from antiphon.exceptions import OptionError
from tests.layer.presence.conftest import MakeNode
from tests.layer.presence.house import becomes
from tests.waiting import until


async def test_a_user_joins_with_the_first_connection_and_leaves_after_the_last_one_and_the_grace(
    make: MakeNode,
) -> None:
    node = await make()
    first = await node.enters("g", "7", {"name": "Ann"})
    second = await node.enters("g", "7", {"name": "Ann"})
    await until(lambda: node.told == [("join", "g", "7")])
    assert await node.rosters.stats("g") == (2, 1)
    node.presence.exit("g", first)
    await until(lambda: not node.presence._waiting)
    assert await node.rosters.stats("g") == (1, 1)
    node.presence.exit("g", second)
    await until(lambda: node.left())
    assert node.told == [("join", "g", "7"), ("leave", "g", "7")]
    said = {"user": "7", "channel": second.channel, "info": {"name": "Ann"}}
    assert node.messages[-1] == {"type": "presence.leave", "group": "g", "users": [said], **said}
    assert await node.rosters.stats("g") == (0, 0)
    assert await node.rosters.roster("g") == []


async def test_a_reload_within_the_grace_makes_no_noise_and_the_user_is_there_all_the_while(make: MakeNode) -> None:
    node = await make()
    before = await node.enters("long_g", "7")
    node.presence.exit("long_g", before)
    await until(lambda: not node.presence._waiting)
    assert await node.rosters.stats("long_g") == (0, 1)
    (away,) = await node.rosters.roster("long_g")
    assert (away.user, away.channel, away.away) == ("7", before.channel, True)
    after = await node.enters("long_g", "7")
    assert await node.rosters.stats("long_g") == (1, 1)
    (back,) = await node.rosters.roster("long_g")
    assert (back.user, back.channel, back.away) == ("7", after.channel, False)
    await node.enters("long_g", "8")
    await until(lambda: ("join", "long_g", "8") in node.told)
    assert node.told == [("join", "long_g", "7"), ("join", "long_g", "8")]


async def test_a_user_who_comes_back_on_another_node_has_not_left(make: MakeNode) -> None:
    here, there = await make(), await make()
    mailbox = await here.enters("long_g", "7")
    here.presence.exit("long_g", mailbox)
    await until(lambda: not here.presence._waiting)
    await there.enters("long_g", "7")
    assert await here.rosters.stats("long_g") == (1, 1)
    assert await here.store.finish("long_g", 10) == ([], None)  # no grace runs any more
    assert here.told == [("join", "long_g", "7")]


async def test_two_tabs_over_two_nodes_are_one_user(make: MakeNode) -> None:
    here, there = await make(), await make()
    first, second = await here.enters("g", "7"), await there.enters("g", "7")
    assert await here.rosters.stats("g") == (2, 1)
    here.presence.exit("g", first)
    await until(lambda: not here.presence._waiting)
    assert await here.rosters.stats("g") == (1, 1)
    assert await here.store.finish("g", 10) == ([], None)
    there.presence.exit("g", second)
    await until(lambda: here.left())
    assert here.told == [("join", "g", "7"), ("leave", "g", "7")]


async def test_each_anonymous_connection_is_a_user_of_its_own(make: MakeNode) -> None:
    node = await make()
    first, second = await node.enters("g", None), await node.enters("g", None)
    assert await node.rosters.stats("g") == (2, 2)
    assert [member.user for member in await node.rosters.roster("g")] == [None, None]
    node.presence.exit("g", first)
    await until(lambda: node.left())
    assert node.told == [("join", "g", first.channel), ("join", "g", second.channel), ("leave", "g", first.channel)]
    # A user whose key looks like a channel is not the connection of that name.
    await node.enters("g", second.channel)
    assert await node.rosters.stats("g") == (2, 2)


async def test_without_a_grace_a_leave_is_told_at_once(make: MakeNode) -> None:
    node = await make()
    mailbox = await node.enters("none_g", "7")
    node.presence.exit("none_g", mailbox)
    await until(lambda: node.told == [("join", "none_g", "7"), ("leave", "none_g", "7")])


async def test_what_comes_and_goes_in_one_turn_of_the_loop_is_one_call_in_order(make: MakeNode) -> None:
    node = await make()
    mailbox = node.connection("7")
    node.presence.enter("g", mailbox)
    node.presence.exit("g", mailbox)
    await node.presence.enter("g", mailbox)
    assert await node.rosters.stats("g") == (1, 1)
    await until(lambda: node.told == [("join", "g", "7")])
    # Unknown ones and repetitions change nothing.
    node.presence.exit("h", mailbox)
    node.presence.exit("g", node.connection("9"))
    await node.presence.enter("g", mailbox)
    assert await node.rosters.stats("g") == (1, 1)


async def test_a_new_info_takes_the_place_of_the_old_one_without_noise(make: MakeNode) -> None:
    node = await make()
    mailbox = await node.enters("g", "7", {"name": "Ann"})
    await node.presence.enter("g", mailbox, {"name": "Anna"})
    (member,) = await node.rosters.roster("g")
    assert (member.info, member.away) == ({"name": "Anna"}, False)
    assert node.told == [("join", "g", "7")]


async def test_who_is_online_in_any_group_and_until_the_grace_is_over(make: MakeNode) -> None:
    here, there = await make(), await make()
    ann = type("User", (), {"pk": 7})()
    mailbox = await here.enters("g", "7")
    second = await here.enters("h", "7")
    await there.enters("other", "8")
    assert await here.rosters.online([ann, "8", 9]) == [ann, "8"]
    assert await there.rosters.online(["7"]) == ["7"]
    assert await there.rosters.online([]) == []
    here.presence.exit("g", mailbox)
    await until(lambda: here.left())
    assert await there.rosters.online(["7"]) == ["7"]
    here.presence.exit("h", second)
    await until(lambda: here.left("h"))

    await becomes(lambda: there.rosters.online(["7"]), [])


async def test_pages_hold_everybody_who_stays_once_whatever_comes_and_goes(make: MakeNode) -> None:
    here, there = await make(), await make()
    stay = [await node.enters("long_g", f"{n}") for n in range(20) for node in (here, there)]
    go = [await here.enters("long_g", f"go{n}") for n in range(20)]
    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = await there.rosters.roster("long_g", limit=7, cursor=cursor)
        assert len(page) <= 7
        seen += page
        cursor, pages = page.cursor, pages + 1
        here.presence.exit("long_g", go[pages])
        await here.enters("long_g", f"new{pages}")
    channels = [member.channel for member in seen]
    assert [channels.count(mailbox.channel) for mailbox in stay] == [1] * 40
    assert all(channels.count(mailbox.channel) >= 1 for mailbox in go)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("plain_g",), OptionError, "has no presence"),
        (("g", 0), ValueError, "limit: expected an int from 1 to 1000; got 0"),
        (("g", 1001), ValueError, "limit"),
        (("g", True), ValueError, "limit"),
        (("g", 10, "{x}"), ValueError, "cursor: expected that of a page"),
        (("g", 10, 5), ValueError, "cursor"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    make: MakeNode, arguments: Any, error: type[Exception], says: str
) -> None:
    node = await make()
    with pytest.raises(error, match=says):
        await node.rosters.roster(*arguments)


async def test_a_cursor_of_a_node_that_is_gone_leads_to_the_next(make: MakeNode) -> None:
    node = await make()
    await node.enters("g", "7")
    assert len(await node.rosters.roster("g", cursor="0:specific.0!1")) == 1
    assert len(await node.rosters.roster("g", cursor="zzz:specific.zzz!1")) == 0


async def test_an_info_that_everybody_would_have_to_carry_is_refused(make: MakeNode) -> None:
    node = await make()
    with pytest.raises(ValueError, match="1024 at most"):
        node.presence.enter("g", node.connection("7"), {"biography": "x" * 2000})
    with pytest.raises(TypeError, match="expected a dict"):
        node.presence.enter("g", node.connection("7"), ["Ann"])
    assert await node.rosters.stats("g") == (0, 0)
