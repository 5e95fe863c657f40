"""The suite finds what is wrong: each of these layers has one fault, and one test that must fail for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from antiphon.exceptions import ChannelFull
from antiphon.layers import Channels, Count, InMemoryChannelLayer
from antiphon.testing import EngineSuite
from antiphon.types import Message, Receipt


class Losing(InMemoryChannelLayer):
    """Loses a message now and then, and says nothing."""

    sends = itertools.count()

    async def group_send(self, group: str, message: Message, **options: Any) -> Receipt:
        if next(self.sends) % 7 == 6:
            return Receipt(1)
        return await super().group_send(group, message, **options)


class Repeating(Losing):
    """Delivers a message twice now and then."""

    async def group_send(self, group: str, message: Message, **options: Any) -> Receipt:
        if next(self.sends) % 7 == 6:
            await InMemoryChannelLayer.group_send(self, group, message, **options)
        return await InMemoryChannelLayer.group_send(self, group, message, **options)


class Overtaking(InMemoryChannelLayer):
    """Takes a message's place in line when it likes."""

    turns = itertools.count()

    async def groups_send(self, groups: Iterable[str], message: Message, **options: Any) -> Receipt:
        await asyncio.sleep(0.002 * (1 - next(self.turns) % 2))
        return await super().groups_send(groups, message, **options)


class Sticky(InMemoryChannelLayer):
    """Lets nobody out of a group."""

    async def group_discard(self, group: str, channel: str) -> None:
        pass


class Leaky(InMemoryChannelLayer):
    """Does not tell large letters from small ones."""

    async def group_add(self, group: str, channel: str) -> None:
        await super().group_add(group.lower(), channel)

    def _publish(self, topic: str, *args: Any) -> Receipt | Awaitable[Receipt]:
        return super()._publish(topic.lower(), *args)


class Blind(InMemoryChannelLayer):
    """Excludes nobody."""

    async def group_send(self, group: str, message: Message, **options: Any) -> Receipt:
        return await super().group_send(group, message)


class Silent(InMemoryChannelLayer):
    """Drops without counting."""

    def stats(self) -> dict[str, Any]:
        return {**super().stats(), "drops": {}, "drops_by_group": {}, "dropped": 0}


class Bottomless(InMemoryChannelLayer):
    """Takes into a worker channel what it has no room for."""

    async def send(self, channel: str, message: Message) -> Receipt:
        try:
            return await super().send(channel, message)
        except ChannelFull:
            return Receipt(1)


class Miscounting(InMemoryChannelLayer):
    """Forgets the worker channels of a group."""

    async def group_channels(self, group: str, *, scope: str = "all") -> Channels:
        return Channels(channel for channel in await super().group_channels(group, scope=scope) if "!" in channel)

    async def group_count(self, group: str, *, scope: str = "all") -> Count:
        return Count(len(await self.group_channels(group, scope=scope)))


class Hoarding(InMemoryChannelLayer):
    """Flushes nothing."""

    async def flush(self) -> None:
        pass


class Suite(EngineSuite):
    capabilities = frozenset({"worker_channels"})
    layer: type[InMemoryChannelLayer] = InMemoryChannelLayer

    def make_layer(self, space: str | None = None, **options: Any) -> Any:
        self._layers.append(self.layer(**options))
        return self._layers[-1]


FAULTS: list[tuple[type[InMemoryChannelLayer], Callable[[Suite], None]]] = [
    (Losing, Suite.test_a_message_to_a_group_reaches_every_member_once),
    (Losing, Suite.test_a_burst_from_many_tasks_arrives_whole),
    (Repeating, Suite.test_a_message_to_a_group_reaches_every_member_once),
    (Overtaking, Suite.test_each_lane_is_heard_in_its_order_whatever_the_program),
    (Sticky, Suite.test_joining_and_leaving_hold_from_the_call_that_returned),
    (Leaky, Suite.test_names_that_look_alike_are_kept_apart),
    (Blind, Suite.test_excluded_channels_do_not_get_the_message),
    (Silent, Suite.test_the_newest_is_dropped_where_that_is_the_policy),
    (Silent, Suite.test_what_nobody_took_in_time_is_dropped_and_counted),
    (Bottomless, Suite.test_a_full_worker_channel_refuses),
    (Miscounting, Suite.test_a_worker_channel_is_a_member_of_groups),
    (Hoarding, Suite.test_flush_forgets_groups_and_messages_of_this_space_alone),
]


@pytest.mark.parametrize(("layer", "test"), FAULTS, ids=lambda each: each.__name__)
def test_a_layer_with_a_fault_fails(
    layer: type[InMemoryChannelLayer], test: Callable[[Suite], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = Suite()
    suite.setup_method()
    test(suite)  # it passes where nothing is wrong
    suite.layer = layer
    monkeypatch.setattr(Suite, "limit_s", 2.0)
    suite.setup_method()
    # A group: hypothesis says so where the same program fails in more than one way.
    with pytest.raises((AssertionError, TimeoutError, ExceptionGroup)):
        test(suite)


def test_what_an_engine_cannot_do_is_skipped_with_a_word() -> None:
    suite = Suite()
    suite.setup_method()
    with pytest.raises(pytest.skip.Exception, match="Suite.capabilities has no 'processes'"):
        suite.test_two_processes_hear_each_other()
