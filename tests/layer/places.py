"""What stands for processes in the tests of one: layers that share an engine alone, each with a loop of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon.engines.memory import MemoryBus, MemoryEngine
from antiphon.layer.mailbox import Mailbox
from antiphon.layer.node import Node
from antiphon.layer.remote import RemoteChannelLayer
from antiphon.names import control_topic, group_topic
from tests.layer.loop_thread import LoopThread


class FarLayer(RemoteChannelLayer):
    """A layer as one of another process would be: it shares nothing with its likes but the engine."""

    part: type[MemoryEngine] = MemoryEngine

    def __init__(self, bus: MemoryBus, **options: Any) -> None:
        super().__init__(bus, **options)
        self._bus = bus

    def _make_node(self, loop: asyncio.AbstractEventLoop) -> Node:
        engine = self.part(self._bus)
        node = Node(loop, engine, self.drops, self.expiry)
        node.hub.on_lost = lambda *lost: self._on_lost(node, *lost)
        self._attach_control(node)
        engine.attach(node.hub, loop)
        engine.subscribe((node.inbox, control_topic()))
        return node

    async def _bound(self, topic: str) -> list[str]:
        return await self._bus.bound(topic)

    async def _flush_engine(self) -> None:
        self._bus.flush()


class Place(LoopThread):
    """A loop in a thread of its own, with the layer of "its process"."""

    def __init__(self, layer: FarLayer) -> None:
        super().__init__()
        self.layer = layer

    def member(self, *groups: str, user: str | None = None, session: str | None = None) -> tuple[Mailbox, list[str]]:
        """Open the mailbox of a connection here; return it with the list that its closes are added to."""

        async def open_it() -> tuple[Mailbox, list[str]]:
            node, mailbox = self.layer.open_mailbox("Chat", capacity=None, overflow=None)
            node.hub.identify(mailbox, user, session)
            closes: list[str] = []
            mailbox.on_close = closes.append
            for group in groups:
                await node.join(group_topic(group), mailbox)
            return mailbox, closes

        opened: tuple[Mailbox, list[str]] = self.run(open_it())
        return opened

    def stop(self) -> None:
        async def rest() -> None:
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

        self.run(rest())
        super().stop()
