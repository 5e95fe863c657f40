"""Which link a channel lives on, in a cluster: the owner of its slot. One link a primary.

A server says ``sunsubscribe`` when a slot leaves it, ``MOVED`` when it is asked for one that it has not; both make the
map be read anew at once, and it is read every second anyway, because a connection that only listens may hear
neither. Publishes that were refused keep their order: those of their slot wait until the old server has answered all
that it was sent, and then go to the new one together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from ...exceptions import EngineUnavailable
from ...types import Receipt
from .advice import advised
from .append import Publication
from .connection import ReplyError, look
from .hosts import Address, SingleHost
from .link import Link
from .outbox import WAITING_MAX, command_of
from .shards import together
from .topology import SLOTS, ClusterMap, parse_shards, read_cluster, slot_of

if TYPE_CHECKING:
    from .bus import RedisBus
    from .engine import RedisEngine

__all__ = ["ClusterRouter"]

logger = logging.getLogger("antiphon.engine")

# How often the map is read, seconds: while all is well, and while a link is down.
REFRESH_S = (0.7, 1.3)
REFRESH_DOWN_S = 0.3
ASK_S = 0.5
# What a server says that has not, or not yet, or not any more, what it was asked for.
_ELSEWHERE = ("MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "LOADING", "MASTERDOWN")


class ClusterRouter:
    """One link a primary of a cluster. Lives on one loop."""

    def __init__(self, engine: RedisEngine, bus: RedisBus) -> None:
        self.engine = engine
        self.bus = bus
        self.loop = asyncio.get_running_loop()
        self._links: dict[str, Link] = {}
        self._owners: list[Link | None] = [None] * SLOTS
        self._map: ClusterMap | None = None
        self.mapless = "it was not read yet"  # why the map cannot be read
        self._bound_slot = slot_of(bus.keys.bound)
        self._publish_limit_s = bus.settings(tracked=False).publish_limit_s
        # Publishes of slots whose owner is not known: slot -> [(publication, deadline, refused)], in order.
        self._held: dict[int, deque[tuple[Publication, float, bool]]] = {}
        self._releasing: dict[int, asyncio.Task[None]] = {}
        self._early: list[tuple[list[bytes], asyncio.Future[None]]] = []  # subscriptions before there is a map
        self._wake = asyncio.Event()
        self._map_read = asyncio.Event()  # set and cleared at each reading of the map
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self._task = self.loop.create_task(self._watch(), name="antiphon cluster map")

    def __repr__(self) -> str:
        return f"<ClusterRouter {list(self._links.values())!r}>"

    @property
    def links(self) -> list[Link]:
        """The links to the primaries."""
        return list(self._links.values())

    def link_of(self, key: bytes) -> Link:
        """Return the link to the owner of a key's slot. Raises EngineUnavailable while nobody is known to own it."""
        link = self._owners[slot_of(key)]
        if link is None:
            raise self._nobody(slot_of(key))
        return link

    def _nobody(self, slot: int) -> EngineUnavailable:
        why = f": the cluster's map cannot be read: {self.mapless}" if self.mapless else ""
        return EngineUnavailable(f"no server of the cluster is known to serve slot {slot}{why}")

    async def found(self, key: bytes) -> Link:
        """As ``link_of``; waits for the map up to ``timeout_s``."""
        deadline_s = monotonic() + self.bus.timeout_s
        while self._owners[slot_of(key)] is None and (left_s := deadline_s - monotonic()) > 0:
            self._wake.set()
            await self._next_reading(left_s)
        return self.link_of(key)

    def publish(self, channel: bytes, payload: bytes, wire: bytes) -> asyncio.Future[Receipt]:
        """Publish on the link of the channel's slot."""
        future: asyncio.Future[Receipt] = self.loop.create_future()
        self.send((future, channel, payload), wire)
        return future

    def send(self, publication: Publication, wire: bytes) -> None:
        """The same, for a publish that somebody waits for already."""
        future, slot = publication[0], slot_of(publication[1])
        link = self._owners[slot]
        if link is not None and slot not in self._held:
            link.send(publication, wire)
        elif self._closed:
            future.set_exception(EngineUnavailable("the layer was closed"))
        elif len(self._held.get(slot, ())) >= WAITING_MAX:
            future.set_exception(EngineUnavailable(f"too many publishes wait for an owner of slot {slot} already"))
        else:
            self._hold(slot, publication, None)

    def subscribe(self, channels: list[bytes]) -> asyncio.Future[None] | None:
        """Subscribe on the channels' links; None when all are already."""
        if self._map is None:
            early: asyncio.Future[None] = self.loop.create_future()
            early.add_done_callback(look)
            self._early.append((channels, early))
            self.loop.call_later(self.bus.timeout_s, self._give_up, early)
            return early
        return together(link.subscribe(part) for link, part in self._by_link(channels).items())

    def _give_up(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_exception(EngineUnavailable(f"the cluster's map cannot be read: {self.mapless}"))

    def unsubscribe(self, channels: list[bytes]) -> None:
        """End subscriptions."""
        for link, part in self._by_link(channels).items():
            link.unsubscribe(part)

    def _by_link(self, channels: Iterable[bytes]) -> dict[Link, list[bytes]]:
        parts: dict[Link, list[bytes]] = {}
        spare = next(iter(self._links.values()), None)
        for channel in channels:
            # A slot that nobody serves: any link keeps the channel until the map says whose it is.
            link = self._owners[slot_of(channel)] or spare
            if link is not None:
                parts.setdefault(link, []).append(channel)
        return parts

    # What servers refuse

    def refused(self, link: Link, publication: Publication, error: ReplyError) -> bool:
        """Take a refused publish, to send it where it belongs; False when that would be of no use."""
        if not str(error).startswith(_ELSEWHERE):
            return False
        self._hold(slot_of(publication[1]), publication, link)
        return True

    def _hold(self, slot: int, publication: Publication, refused_by: Link | None) -> None:
        held = self._held.setdefault(slot, deque())
        refused = refused_by is not None
        entry = (publication, monotonic() + self._publish_limit_s, refused)
        if refused and held and not held[-1][2]:
            # It was sent before those that were only held: its refusal took longer than theirs to come here.
            held.insert(next(place for place, other in enumerate(held) if not other[2]), entry)
        else:
            held.append(entry)
        self._start_release(slot, refused_by)

    def _start_release(self, slot: int, behind: Link | None) -> None:
        if slot not in self._releasing:
            self._wake.set()
            self._releasing[slot] = self.loop.create_task(self._release(slot, behind))

    async def _release(self, slot: int, behind: Link | None) -> None:
        """Send what is held of a slot, once the old owner has answered everything and the new one is known."""
        held = self._held[slot]
        pause = 0.01
        while True:
            if behind is not None:
                await behind.drain(self.bus.timeout_s)
                # What broke off there comes before everything that was only held.
                back = behind.outbox.take(lambda channel: slot_of(channel) == slot)
                held.extendleft((w.publication, w.deadline_s, True) for w in reversed(back))
            if self._owners[slot] in (None, behind):
                self._wake.set()
                await self._next_reading(1.0)
            now = monotonic()
            while held and (held[0][1] <= now or held[0][0][0].done()):
                future = held.popleft()[0][0]
                if not future.done():
                    future.set_exception(self._nobody(slot))
            link = self._owners[slot]
            if link is not None and (link is not behind or pause > 0.1):
                while held:
                    publication, _, _ = held.popleft()
                    link.send_again(publication, command_of(publication, sharded=True))
            if not held:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.4)
        # In one step: what is held a moment later needs a task of its own.
        self._held.pop(slot, None)
        self._releasing.pop(slot, None)

    async def _next_reading(self, limit_s: float) -> None:
        self._map_read.clear()
        await _wait(self._map_read, limit_s)

    async def follow(self, link: Link, key: bytes, error: ReplyError) -> bool:
        """Wait for a better map after a refused command; say whether to try again."""
        if not str(error).startswith(_ELSEWHERE):
            return False
        self._wake.set()
        await self._next_reading(1.0)
        await asyncio.sleep(0.05)
        return True

    def moved(self, link: Link, channel: bytes) -> None:
        """Learn that a channel's slot is elsewhere."""
        self._wake.set()

    def elsewhere(self, link: Link, channels: list[bytes], future: asyncio.Future[None]) -> None:
        """Take over who waits for channels that moved while they were being subscribed."""
        wanted = [c for c in channels if any(c in other.subscriptions.wanted for other in self._links.values())]
        _chain(self.subscribe(wanted), future)

    def link_down(self, link: Link) -> None:
        """Learn that a server went away: another may serve its slots soon."""
        self._wake.set()

    # The map

    async def _watch(self) -> None:
        pause = 0.02
        while True:
            self._wake.clear()
            before = self._map
            try:
                found = await self._read_map()
            except (OSError, EngineUnavailable) as exc:
                why = advised(str(exc), self.bus.keys.prefix)
                if self.mapless != why:
                    self.mapless = why
                    level = logging.WARNING if self._map is None else logging.INFO
                    logger.log(level, "The cluster's map cannot be read: %s", why)
            else:
                self.mapless = ""
                try:
                    if found.masters or self._map is None:  # of a server that has left its cluster: no map to go by
                        self._apply(found)
                except Exception:  # nobody foresaw it, and a router that ended here would never learn of a move
                    logger.exception("The cluster's map could not be used")
                self._map_read.set()
            # The same map again: whoever asked will not find what he looks for in a moment either.
            pause = 0.02 if self._map != before else min(pause * 2, 0.4)
            down = self._map is None or not all(link.up for link in self._links.values())
            refresh_s = REFRESH_DOWN_S if down else random.uniform(*REFRESH_S)  # noqa: S311  # jitter
            await _wait(self._wake, refresh_s)
            await asyncio.sleep(pause)  # many may ask at once

    async def _read_map(self) -> ClusterMap:
        """Ask one of the servers we are connected to; only when that is of no use, connect to one."""
        up = [link for link in self._links.values() if link.up]
        if up:
            link = random.choice(up)  # noqa: S311  # any: one of them may hang
            with contextlib.suppress(EngineUnavailable, ReplyError, TimeoutError):
                async with asyncio.timeout(ASK_S):
                    reply = await link.call("CLUSTER", "SHARDS")
                if link.address is not None:
                    return parse_shards(link.address, reply)
        return await read_cluster(self._seeds())

    def _seeds(self) -> list[Address]:
        known = [link.address for link in self._links.values() if link.address is not None and link.up]
        others = list(self._map.masters) if self._map is not None else []
        given = [host.address for host in self.bus.hosts if isinstance(host, SingleHost)]
        return list({address.name: address for address in [*known, *others, *given]}.values())

    def _apply(self, found: ClusterMap) -> None:
        """Make the links those of the map, and move what lives elsewhere now."""
        for address in found.masters:
            if address.name not in self._links:
                self._links[address.name] = self._link_to(address)
        first = self._map is None
        self._map = found
        moved: dict[Link, set[int]] = {}
        for slot, owner in enumerate(found.owners):
            link, before = (self._links[owner.name] if owner is not None else None), self._owners[slot]
            if before is not link and before is not None:
                moved.setdefault(before, set()).add(slot)
            self._owners[slot] = link
        for before, slots in moved.items():
            self._hold_behind(before, slots)
        self._track()
        masters = {address.name for address in found.masters}
        for name, link in tuple(self._links.items()):
            leaving = name not in masters
            if leaving:
                del self._links[name]
            self._move_from(link, leaving=leaving)
            if leaving:
                task = self.loop.create_task(link.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        if first:
            early, self._early = self._early, []
            for channels, future in early:
                _chain(self.subscribe(channels), future)

    def _link_to(self, address: Address) -> Link:
        async def find() -> Address:
            return address

        return Link(address.name, find, self.engine, self.bus.settings(tracked=False))

    def _track(self) -> None:
        """Have the server that owns the registry of worker channels announce its changes."""
        home = self._owners[self._bound_slot]
        for link in self._links.values():
            if link is home and link.settings.tracked is None:
                link.track(self.bus.keys.bound)
                self.engine.queues.bindings.invalidate()
            elif link is not home:
                link.track(None)

    def _hold_behind(self, link: Link, slots: set[int]) -> None:
        """Let the publishes of slots that left ``link`` wait until it has answered those that it was sent."""
        connection = link.connection
        under_way = (entry[1] for entry in connection.pending if isinstance(entry, tuple)) if connection else ()
        waiting = (waiting.publication[1] for waiting in link.outbox)
        for slot in {slot_of(channel) for channel in (*under_way, *waiting)} & slots:
            self._held.setdefault(slot, deque())
            self._start_release(slot, link)

    def _move_from(self, link: Link, *, leaving: bool) -> None:
        """Hand what does not live on ``link`` any more to the links where it does."""
        # What nobody serves stays where it is, but not on a link that ends: nobody would subscribe it again.
        moving = [
            c
            for c in link.channels
            if (owner := self._owners[slot_of(c)]) is not link and (owner is not None or leaving)
        ]
        if moving:
            gaps, joins = link.give_up(moving)
            for good_until in dict.fromkeys(gaps.values()):
                part = [channel for channel, good in gaps.items() if good == good_until]
                for other, channels in self._by_link(part).items():
                    other.subscribe(channels, good_until)
            for channels, future in joins:
                _chain(self.subscribe(channels), future)
        if leaving or not link.up:
            # At once, before anything newer goes to the new owner: who has heard that takes these for repetitions.
            if leaving:
                waiting = link.retire("it is primary of nothing any more")
            else:
                waiting = link.outbox.take(lambda channel: self._owners[slot_of(channel)] is not link)
            for publication, deadline_s, wire in waiting:
                owner = self._owners[slot_of(publication[1])]
                if owner is None:
                    self._hold(slot_of(publication[1]), publication, None)
                elif monotonic() < deadline_s and not publication[0].done():
                    owner.send_again(publication, wire)
        link.subscriptions.renew()

    async def close(self) -> None:
        """End the links."""
        self._closed = True
        self._task.cancel()
        early, self._early = self._early, []
        for task in tuple(self._releasing.values()):
            task.cancel()
        held = (publication[0] for each in self._held.values() for publication, _, _ in each)
        waiting: list[asyncio.Future[Any]] = [*(future for _, future in early), *held]
        for future in waiting:
            if not future.done():
                future.set_exception(EngineUnavailable("the layer was closed"))
        await asyncio.wait([self._task])
        await asyncio.gather(*(link.close() for link in self._links.values()), *self._closing)


async def _wait(event: asyncio.Event, limit_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):  # not wait_for(), which may swallow a cancellation on Python 3.11
            await event.wait()


def _chain(done: asyncio.Future[None] | None, future: asyncio.Future[None]) -> None:
    """Let ``future`` become what ``done`` becomes."""
    if done is None:
        if not future.done():
            future.set_result(None)
        return

    def copy(source: asyncio.Future[None]) -> None:
        if future.done():
            return
        error = None if source.cancelled() else source.exception()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(None)

    done.add_done_callback(copy)
