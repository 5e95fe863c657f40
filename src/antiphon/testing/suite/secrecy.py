"""Encryption: who has a key hears and is heard; everybody else is refused, and counted."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio

from ...layer.layer import ChannelLayer
from .base import SuiteBase, needs, numbered, scenario, until


class SecrecyTests(SuiteBase):
    """Needs ``encryption``, and ``processes`` for layers to hear each other."""

    @needs("encryption")
    @scenario
    async def test_messages_of_every_kind_travel_encrypted(self) -> None:
        layer, other = (self.make_layer(symmetric_encryption_keys=["one key"]) for _ in range(2))
        mine, theirs = await self.member(layer, "g", "h"), await self.member(other, "g")
        await layer.group_send("g", numbered(1))
        await other.groups_send(["g", "h"], numbered(2), exclude=["specific.x!y"])
        await layer.send(theirs.channel, numbered(3))
        await asyncio.to_thread(layer.publish_blocking, ["g:g"], layer.encode(numbered(4)), None)
        assert sorted(await mine.hears(3)) == [1, 2, 4]
        assert sorted(await theirs.hears(4)) == [1, 2, 3, 4]
        await layer.group_add("far", theirs.channel)
        assert await other.group_channels("far") == [theirs.channel]
        assert await layer.group_count("g") == 2
        if "worker_channels" in self.capabilities:
            await layer.group_add("g", "worker")
            await layer.group_send("g", numbered(5))
            await layer.send("worker", numbered(6))
            assert sorted(await self.listen(other, "worker").hears(2)) == [5, 6]

    @needs("encryption")
    @scenario
    async def test_whoever_has_another_key_or_none_is_refused_and_counted(self) -> None:
        layer = self.make_layer(symmetric_encryption_keys=["one key"], timeout_s=1.0)
        wrong = self.make_layer(symmetric_encryption_keys=["another key"], timeout_s=1.0)
        bare = self.make_layer(timeout_s=1.0)
        listeners = [await self.member(each, "g") for each in (layer, wrong, bare)]
        for n, each in enumerate((layer, wrong, bare)):
            await each.group_send("g", numbered(n))
        for n, listener in enumerate(listeners):
            assert await listener.hears(1) == [n]
        await until(lambda: all(_refused(each, "g") == 2 for each in (layer, wrong, bare)))
        # Nor does it close anybody's connection, or join anybody's channel to a group.
        node, mailbox = layer.open_mailbox("Suite", capacity=None, overflow=None)
        node.hub.identify(mailbox, "7", None)
        for stranger in (wrong, bare):
            count = await stranger.close_user("7")
            assert (count, mailbox.closing) == (0, None)
        assert layer.revoked_since("7", None, 0.0) is None
        assert [len(listener.heard) for listener in listeners] == [1, 1, 1]

    @needs("encryption")
    @scenario
    async def test_keys_are_rotated_without_a_message_lost(self) -> None:
        old = self.make_layer(symmetric_encryption_keys=["old"])
        both = self.make_layer(symmetric_encryption_keys=["old", "new"])  # first everybody learns the new key
        turned = self.make_layer(symmetric_encryption_keys=["new", "old"])  # then everybody uses it
        new = self.make_layer(symmetric_encryption_keys=["new"])  # and then the old one is dropped
        listeners = [await self.member(each, "g") for each in (old, both, turned, new)]
        for n, each in enumerate((old, both, turned, new)):
            await each.group_send("g", numbered(n))
        heard = [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3], [2, 3]]
        for listener, numbers in zip(listeners, heard, strict=True):
            assert sorted(await listener.hears(len(numbers))) == numbers
        await until(lambda: [_refused(each, "g") for each in (old, both, turned, new)] == [2, 0, 0, 2])

    @needs("encryption")
    @scenario
    async def test_what_was_sealed_for_one_group_is_refused_by_another(self) -> None:
        layer = self.make_layer(symmetric_encryption_keys=["one key"])
        mine = await self.member(layer, "g", "h")
        ((_, payload, _),) = layer.pack(["g:g"], layer.encode(numbered(1)))
        await asyncio.to_thread(layer._engine.publish_blocking, "g:h", payload)
        await asyncio.to_thread(layer._engine.publish_blocking, "g:h", payload[:-1] + bytes([payload[-1] ^ 1]))
        await asyncio.to_thread(layer._engine.publish_blocking, "g:g", payload)
        assert await mine.hears(1) == [1]
        await until(lambda: _refused(layer, "h") == 2)
        assert mine.numbers == [1]


def _refused(layer: ChannelLayer, group: str) -> int:
    refused: int = layer.stats()["drops_by_group"].get(f"{group}:undecodable", 0)
    return refused
