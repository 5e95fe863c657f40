"""Who is in a group: what the store of an engine keeps of it, and that each change is told to one caller alone."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio

from ...engines.base import Change, PresenceEngine, PresenceStore, Present
from ...layer.layer import ChannelLayer
from .base import SuiteBase, needs, scenario, until

# A grace that tests can wait for, and one that they never do; likewise a time to live.
SOON_S, LONG_S = 0.1, 600.0


def connection(user: str, number: int = 1, info: bytes = b"") -> Present:
    """Return a connection of a user."""
    return Present(f"specific.{user}!{number:06}", user, info)


def enter(*presents: Present) -> list[Change]:
    """Return the changes by which connections enter."""
    return [Change(True, present) for present in presents]


def leave(*presents: Present) -> list[Change]:
    """Return the changes by which they leave."""
    return [Change(False, present) for present in presents]


class PresenceTests(SuiteBase):
    """Needs ``presence``."""

    def store(self, layer: ChannelLayer | None = None) -> PresenceStore:
        """Return the store of a node of a layer."""
        engine = (layer or self.make_layer())._node().engine
        assert isinstance(engine, PresenceEngine)
        return engine.presence

    async def finished(self, store: PresenceStore, group: str) -> list[Present]:
        """Wait until somebody's grace is over."""
        found: list[Present] = []

        async def look() -> bool:
            left, _ = await store.finish(group, 100)
            found.extend(left)
            return bool(found)

        await until(look)
        return found

    @needs("presence")
    @scenario
    async def test_the_first_connection_of_a_user_joins_and_the_last_one_goes_away(self) -> None:
        store = self.store()
        first, second = connection("u1", 1, b"info"), connection("u1", 2)
        assert await store.change("g", "a", enter(first, second), LONG_S) == ["join", ""]
        assert await store.change("g", "b", enter(connection("u2")), LONG_S) == ["join"]
        assert await store.stats("g", ["a", "b"]) == (3, 2)
        assert await store.change("g", "a", leave(second, first), LONG_S) == ["", "away"]
        assert await store.stats("g", ["a", "b"]) == (1, 2)
        left, wait_s = await store.finish("g", 10)
        assert left == []
        assert wait_s is not None and 0 < wait_s <= LONG_S  # noqa: PT018  # for types
        assert await store.stats("h", ["a"]) == (0, 0)
        assert await store.finish("h", 10) == ([], None)

    @needs("presence")
    @scenario
    async def test_who_comes_back_in_the_grace_has_not_left_and_who_does_not_leaves_once(self) -> None:
        store, other = self.store(layer := self.make_layer()), self.store(layer)
        stays, goes = connection("u1", 1), connection("u2", 1, b"info")
        await store.change("g", "a", enter(stays, goes), LONG_S)
        assert await store.change("g", "a", leave(stays), LONG_S) == ["away"]
        assert await store.change("g", "a", leave(goes), SOON_S) == ["away"]
        assert await other.change("g", "b", enter(connection("u1", 2)), LONG_S) == [""]
        assert await self.finished(store, "g") == [goes]
        found = await asyncio.gather(*(each.finish("g", 10) for each in (store, other)))
        assert found == [([], None), ([], None)]
        assert await store.stats("g", ["a", "b"]) == (1, 1)
        assert await store.change("g", "a", enter(goes), LONG_S) == ["join"]

    @needs("presence")
    @scenario
    async def test_a_change_that_is_sent_again_is_made_once(self) -> None:
        store = self.store()
        first, second = connection("u1", 1), connection("u1", 2)
        assert await store.change("g", "a", enter(first), LONG_S) == ["join"]
        assert await store.change("g", "a", enter(first), LONG_S) == [""]
        again = [Change(True, first, again=True)]
        assert await store.change("g", "a", again, LONG_S) == ["join"]  # nobody has heard the first answer
        await store.change("g", "a", enter(second), LONG_S)
        assert await store.change("g", "a", again, LONG_S) == [""]
        assert await store.stats("g", ["a"]) == (2, 1)
        assert await store.change("g", "a", leave(first, first), LONG_S) == ["", "missing"]
        assert await store.change("h", "a", leave(first), LONG_S) == ["missing"]
        assert await store.stats("g", ["a"]) == (1, 1)

    @needs("presence")
    @scenario
    async def test_any_text_is_a_user_and_any_bytes_are_an_info(self) -> None:
        store = self.store()
        odd = [
            Present(f"specific.n!{n}", user, info)
            for n, (user, info) in enumerate(
                [("u", b""), ("u:1", b"\0\xff"), ("u\0", b":"), ("u\0:", b"1:x"), ("=3:u", b"\r\n"), ("ü✓", bytes(256))]
            )
        ]
        assert await store.change("g", "a", enter(*odd), LONG_S) == ["join"] * len(odd)
        assert await store.page("g", ["a"], "", 10) == [odd]
        assert await store.change("g", "a", leave(*odd), 0.0) == ["away"] * len(odd)
        assert sorted(await self.finished(store, "g")) == sorted(odd)

    @needs("presence")
    @scenario
    async def test_a_lease_is_new_or_kept_and_ends(self) -> None:
        store = self.store()
        assert (await store.renew("a", LONG_S))[0] == "new"
        state, leases = await store.renew("a", LONG_S)
        assert state == "kept"
        assert [(lease.node, lease.swept_s) for lease in leases] == [("a", None)]
        assert -LONG_S <= leases[0].ended_s < 0
        await store.end("a")
        await store.end("nobody")
        _, (lease,) = await store.renew("", 0.0)
        assert lease.ended_s >= 0
        assert (await store.renew("a", LONG_S))[0] == "kept"  # nobody has swept it: it stood still

    @needs("presence")
    @scenario
    async def test_one_at_a_time_sweeps_a_dead_node_and_its_name_stays_dead(self) -> None:
        store = self.store()
        await store.renew("dead", LONG_S)
        assert not await store.claim("dead", "a", 0.0)
        assert not await store.claim("nobody", "a", 0.0)
        await store.end("dead")
        assert not await store.claim("dead", "a", LONG_S)
        claims = await asyncio.gather(*(store.claim("dead", node, 0.0) for node in ("a", "b", "c")))
        assert sorted(claims) == [False, False, True]
        winner = "abc"[claims.index(True)]
        assert await store.claim("dead", winner, 0.0)
        assert (await store.renew("dead", LONG_S))[0] == "over"
        await store.swept("dead")
        (lease,) = (await store.renew("", 0.0))[1]
        assert lease.swept_s is not None
        await store.forget("dead")
        assert await store.renew("dead", LONG_S) == ("over", [])

    @needs("presence")
    @scenario
    async def test_what_a_dead_node_left_is_returned_once_to_all_who_sweep(self) -> None:
        store, other = self.store(layer := self.make_layer()), self.store(layer)
        gone = [connection(f"u{n}", 1, b"info") for n in range(50)]
        tabs = [connection("tabs", n) for n in range(3)]
        await store.change("g", "dead", enter(*gone, *tabs, connection("both")), LONG_S)
        await store.change("g", "a", enter(connection("both", 2)), LONG_S)
        left: list[Present] = []

        async def sweep(which: PresenceStore) -> None:
            more = True
            while more:
                found, more = await which.sweep("g", "dead", 7)
                left.extend(found)

        await asyncio.gather(sweep(store), sweep(other))
        assert sorted(present.user for present in left) == sorted([*(f"u{n}" for n in range(50)), "tabs"])
        assert {present.info for present in left if present.user != "tabs"} == {b"info"}
        assert await store.stats("g", ["a", "dead"]) == (1, 1)
        assert await store.sweep("g", "dead", 7) == ([], False)

    @needs("presence")
    @scenario
    async def test_what_is_noted_of_a_node_is_found_until_it_is_forgotten(self) -> None:
        store = self.store()
        await store.renew("a", LONG_S)
        groups = [f"g{n}" for n in range(1200)]
        for start in range(0, 1200, 400):
            await store.note("a", groups[start : start + 400], (), (), ())
        await store.note("a", ["x", "g0"], ["g1"], ["1", "2"], ())
        await store.note("b", ["y"], (), ["3"], ())
        found, cursor = set(), 0
        while True:
            cursor, some = await store.groups("a", cursor)
            found.update(some)
            if cursor == 0:
                break
        assert found == {*groups, "x"} - {"g1"}
        assert await store.online(["1", "2", "3", "4"], ["a"]) == {"1", "2"}
        assert await store.online(["1", "3"], ["a", "b"]) == {"1", "3"}
        assert await store.online(["1"], []) == await store.online([], ["a"]) == set()
        await store.note("a", (), (), ["4"], ["1"])
        assert await store.online(["1", "4"], ["a"]) == {"4"}
        await store.forget("a")
        assert await store.groups("a", 0) == (0, [])
        assert await store.online(["4"], ["a"]) == set()

    @needs("presence")
    @scenario
    async def test_pages_are_in_the_order_of_channels_whatever_comes_and_goes(self) -> None:
        store = self.store()
        stay = [connection(f"u{n:03}") for n in range(0, 60, 2)]
        come = [connection(f"u{n:03}") for n in range(1, 60, 2)]
        await store.change("g", "a", enter(*stay[:20]), LONG_S)
        await store.change("g", "b", enter(*stay[20:]), LONG_S)
        seen: list[Present] = []
        nodes, after = ["a", "b", ""], ""
        while True:
            pages = await store.page("g", nodes, after, 7)
            seen += [present for page in pages for present in page]
            if sum(map(len, pages)) < 7:
                break
            nodes, after = nodes[len(pages) - 1 :], pages[-1][-1].channel
            if come:
                await store.change("g", "a", enter(*come[:3]), LONG_S)
                await store.change("g", "b", enter(*come[3:6]), LONG_S)
                await store.change("g", "a", leave(*come[:2]), LONG_S)
                del come[:6]
        channels = [present.channel for present in seen]
        assert [channels.count(present.channel) for present in stay] == [1] * len(stay)
        assert [present for present in seen if present in stay] == stay
        assert await store.page("nobody", ["a", ""], "", 5) == [[], []]
        assert await store.page("g", [], "", 5) == []

    @needs("presence")
    @scenario
    async def test_whose_grace_runs_is_on_the_page_of_no_node(self) -> None:
        store = self.store()
        presents = [connection(f"u{n}") for n in range(5)]
        await store.change("g", "a", enter(*presents), LONG_S)
        await store.change("g", "a", leave(*presents[:3]), LONG_S)
        assert await store.page("g", ["a", ""], "", 10) == [presents[3:], presents[:3]]
        assert await store.page("g", ["a", ""], "", 3) == [presents[3:], presents[:1]]
        assert await store.page("g", [""], presents[0].channel, 10) == [presents[1:3]]

    @needs("presence")
    @scenario
    async def test_ten_thousand_who_come_and_go_at_once_are_all_counted(self) -> None:
        store = self.store()
        presents = [connection(f"u{n}") for n in range(10_000)]
        for start in range(0, 10_000, 250):
            await store.change("g", "dead", enter(*presents[start : start + 250]), LONG_S)
        assert await store.stats("g", ["dead"]) == (10_000, 10_000)
        left, more = 0, True
        while more:
            found, more = await store.sweep("g", "dead", 250)
            left += len(found)
        assert left == 10_000
        assert await store.stats("g", ["dead"]) == (0, 0)

    @needs("presence")
    @scenario
    async def test_a_node_whose_engine_lost_everything_is_new(self) -> None:
        layer = self.make_layer()
        store = self.store(layer)
        await store.renew("a", LONG_S)
        await store.change("g", "a", enter(connection("u1")), LONG_S)
        assert (await store.renew("a", LONG_S))[0] == "kept"
        await layer.flush()
        assert (await store.renew("a", LONG_S))[0] == "new"
        assert await store.stats("g", ["a"]) == (0, 0)
