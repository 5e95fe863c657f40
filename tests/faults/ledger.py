"""What was sent, what came, what was told: the accounts that every row of the table of faults must balance.

Of a member everything that the server confirmed has come, once; or it was sent within a span that was reported lost on
its topic; or its drop was counted. Times are of this machine's clock: all processes of a row run on it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from antiphon.exceptions import AntiphonError
from antiphon.generic.websocket import AsyncWebsocketConsumer
from antiphon.layer.losses import Loss
from antiphon.layer.redis import RedisChannelLayer
from antiphon.layers import channel_layers
from antiphon.testing.faults import LoopWatch
from tests.consumers.client import Client, until

FULL = os.environ.get("FAULTS") == "full"
# What is promised, where the machine is ours (make faults); where it is shared, what a freeze or a silence would be.
TOLD_LIMIT_S = 2.0 if FULL else 10.0
STALL_LIMIT_S = 0.1 if FULL else 2.0
# Short: the layer notices in a second what by default takes it ten. On a busy machine, too.
QUICK: dict[str, Any] = {} if FULL else {"ping_interval_s": 0.4, "timeout_s": 1.0}


def span(full_s: float, short_s: float) -> float:
    """How long a fault lasts: as in the table, or in proportion to the shortened time-outs."""
    return full_s if FULL else short_s


@dataclass(slots=True)
class Sent:
    """One ``group_send``: ``error`` is what the publisher got in place of a receipt."""

    group: str
    began_s: float
    ended_s: float = 0.0
    error: str | None = None


@dataclass(slots=True)
class Member:
    """One member of a group: what it got, in order."""

    group: str
    got: list[int] = field(default_factory=list)
    dropped: int = 0


@dataclass(slots=True)
class Row:
    """One line of the table. ``told_s``: from the engine's return to the last report, None when there was none."""

    row: str
    fault: str
    sent: int = 0
    acked: int = 0
    received: int = 0
    reported: int = 0
    dropped: int = 0
    silent: int = 0
    duplicates: int = 0
    told_s: float | None = None
    stall_ms: float = 0.0


def reconcile(row: Row, sends: dict[int, Sent], members: Iterable[Member], losses: Sequence[Loss]) -> list[str]:
    """Fill in ``row``, counted in deliveries to members; return what was lost in silence, one sentence a member."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for loss in losses:
        if loss.group is not None:
            spans.setdefault(loss.group, []).append((loss.since, loss.until))
    row.sent = len(sends)
    row.acked = sum(sent.error is None for sent in sends.values())
    complaints = []
    for member in members:
        counted = Counter(member.got)
        row.received += len(counted)
        row.duplicates += counted.total() - len(counted)
        assert counted.keys() <= sends.keys(), "something came that nobody sent"
        missing = [n for n, sent in sends.items() if sent.group == member.group and not sent.error and n not in counted]
        covered = [n for n in missing if _reported(sends[n], spans.get(member.group, ()))]
        row.reported += len(covered)
        row.dropped += member.dropped
        silent = len(missing) - len(covered) - member.dropped
        if silent > 0:
            row.silent += silent
            first = next(n for n in missing if n not in covered)
            complaints.append(
                f"{silent} of {member.group}, the first #{first} {sends[first]}; reported {spans.get(member.group)}"
            )
    return complaints


def _reported(sent: Sent, spans: Iterable[tuple[float, float]]) -> bool:
    # The server had it at some moment between the call and the receipt.
    return any(since <= sent.ended_s and sent.began_s <= until for since, until in spans)


class Reader(AsyncWebsocketConsumer):
    """A member: a real consumer, that stays connected or fails the row."""

    capacity = 100_000

    async def connect(self) -> None:
        await self.join(self.scope["member"].group)
        await self.accept()

    async def note(self, message: dict[str, Any]) -> None:
        if message["n"] >= 0:
            self.scope["member"].got.append(message["n"])
        else:
            self.scope["probes"].add(message["n"])


class Crowd:
    """Connections to a layer, which becomes this process's ``default``."""

    def __init__(self, layer: RedisChannelLayer, kind: type[AsyncWebsocketConsumer] = Reader) -> None:
        self.layer = layer
        self.members: list[Member] = []
        self.probes: list[set[int]] = []
        self.clients: list[Client] = []
        self._application = kind.as_asgi()

    async def join(self, group: str, count: int = 1) -> None:
        channel_layers.set("default", self.layer)
        for _ in range(count):
            member, probes = Member(group), set[int]()
            client = Client(self._application, {"member": member, "probes": probes})
            client.start()
            assert (await client.connect())["type"] == "websocket.accept"
            self.members.append(member)
            self.probes.append(probes)
            self.clients.append(client)

    def all_connected(self) -> bool:
        return not any(client.task.done() or client.events[1:] for client in self.clients)

    async def leave(self) -> None:
        for client in self.clients:
            if not client.task.done():
                client.vanish(1000)
        for client in self.clients:
            await client.ended()


class Talker:
    """Sends numbered notes to groups in turn, at a pace, whatever becomes of them."""

    def __init__(self, layer: RedisChannelLayer, groups: Sequence[str], pause_s: float = 0.02, pad: int = 0) -> None:
        self.layer = layer
        self.groups = groups
        self.pause_s = pause_s
        self.pad = "x" * pad
        self.sends: dict[int, Sent] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._first = 0

    def start(self, first: int = 0) -> None:
        self._first = first
        self._task = asyncio.create_task(self._talk())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _talk(self) -> None:
        n = self._first
        while True:
            self.say(n)
            n += 1
            await asyncio.sleep(self.pause_s)

    def say(self, n: int, group: str | None = None) -> asyncio.Task[None]:
        task = asyncio.create_task(self._send(n, group or self.groups[n % len(self.groups)]))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _send(self, n: int, group: str) -> None:
        sent = self.sends[n] = Sent(group, time.time())
        try:
            await self.layer.group_send(group, {"type": "note", "n": n, "pad": self.pad})
        except AntiphonError as exc:
            sent.error = f"{type(exc).__name__}: {exc}"
        finally:
            sent.ended_s = time.time()


class Trial:
    """One row: a crowd that hears, a talker that talks through a fault, and the accounts at the end.

    As a context manager it begins with everything in order and ends when everything is again, balanced.
    """

    def __init__(
        self,
        row: Row,
        hearing: RedisChannelLayer,
        talking: RedisChannelLayer,
        *,
        groups: Sequence[str] = ("lobby", "garden"),
        each: int = 5,
        kind: type[AsyncWebsocketConsumer] = Reader,
        pad: int = 0,
        told_limit_s: float = TOLD_LIMIT_S,
    ) -> None:
        self.row = row
        self.crowd = Crowd(hearing, kind)
        self.talker = Talker(talking, groups, pad=pad)
        self.groups = groups
        self.told_limit_s = told_limit_s
        self.back_s: float | None = None
        self.more_sends: list[Talker] = []
        self._each = each
        self._watch = LoopWatch(STALL_LIMIT_S)
        self._probe = 0

    @property
    def losses(self) -> list[Loss]:
        return list(self.crowd.layer.losses.recent)

    async def __aenter__(self) -> Self:
        for group in self.groups:
            await self.crowd.join(group, self._each)
        await self.heard()
        self._watch.__enter__()
        self.talker.start()
        await asyncio.sleep(span(1.0, 0.3))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            self._watch.__exit__(None, None, None)
            await self.talker.stop()
            return
        await self.balance()

    def back(self) -> None:
        """Say that what was broken works again."""
        self.back_s = time.time()

    async def during(self, seconds: float) -> None:
        """Let the fault last."""
        await asyncio.sleep(seconds)

    async def heard(self, limit_s: float = 40) -> None:
        """Wait until every member hears what is sent now."""
        self._probe -= 1
        probe = self._probe
        async with asyncio.timeout(limit_s):
            for group in dict.fromkeys(self.groups):
                waiting = [p for m, p in zip(self.crowd.members, self.crowd.probes, strict=True) if m.group == group]
                while not _all_have(waiting, probe):
                    with suppress(AntiphonError):
                        await self.talker.layer.group_send(group, {"type": "note", "n": probe})
                    with suppress(TimeoutError):
                        await until(partial(_all_have, waiting, probe), 0.3)

    async def newcomers_hear(self, group: str) -> None:
        """Let connections come to a group of their own, hear what is sent to it, and go."""
        newcomers = Crowd(self.crowd.layer)
        await newcomers.join(group, 2)
        receipt = await self.talker.layer.group_send(group, {"type": "note", "n": 1})
        await until(lambda: all(member.got == [1] for member in newcomers.members))
        assert receipt.nodes == 1
        await newcomers.leave()

    async def balance(self) -> None:
        await self.heard()
        await asyncio.sleep(span(1.0, 0.3))
        for talker in (self.talker, *self.more_sends):
            await talker.stop()
        await self.heard()
        self._watch.__exit__(None, None, None)
        sends = dict(self.talker.sends)
        for talker in self.more_sends:
            assert not sends.keys() & talker.sends.keys()
            sends |= talker.sends
        for talker in (self.talker, *self.more_sends):
            for member in self.crowd.members:
                heard = [n for n in member.got if n in talker.sends]
                late = [n for n, after in pairwise(heard) if n > after]
                assert not late, f"out of order in {member.group}: after {late}, of {heard}; {self.losses}"
        complaints = reconcile(self.row, sends, self.crowd.members, self.losses)
        self.row.stall_ms = self._watch.longest_stall_s * 1000
        groups = [loss for loss in self.losses if loss.group is not None]
        if groups and self.back_s is not None:
            self.row.told_s = max(0.0, max(loss.until for loss in groups) - self.back_s)
        assert self.crowd.all_connected(), "a connection ended"
        await self.crowd.leave()
        assert not complaints, "\n".join(complaints)
        assert self.row.duplicates == 0
        assert self.row.received, "nothing was heard at all"
        if self.row.told_s is not None:
            assert self.row.told_s <= self.told_limit_s
        self._watch.check()


def _all_have(waiting: list[set[int]], probe: int) -> bool:
    return all(probe in probes for probes in waiting)


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the table of faults as lines."""
    names = "sent", "acked", "recvd", "reported", "drops", "silent", "dupl.", "told after", "stall"
    widths = 6, 6, 7, 8, 5, 6, 5, 10, 7
    lines = [f"{'row':>4}  {'fault':<60} " + " ".join(map(str.rjust, names, widths))]
    for row in sorted(rows, key=lambda row: (int("".join(filter(str.isdigit, row["row"])) or 99), row["row"])):
        told = "-" if row["told_s"] is None else f"{row['told_s']:.2f} s"
        lines.append(
            f"{row['row']:>4}  {row['fault']:<60.60} {row['sent']:>6} {row['acked']:>6} {row['received']:>7}"
            f" {row['reported']:>8} {row['dropped']:>5} {row['silent']:>6} {row['duplicates']:>5} {told:>10}"
            f" {row['stall_ms']:>4.0f} ms"
        )
    return lines


Opened = Callable[..., RedisChannelLayer]
as_dict = asdict
