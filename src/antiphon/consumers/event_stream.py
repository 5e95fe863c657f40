"""``EventStreamConsumer``: groups to an ``EventSource``, as server-sent events. Knows no WebSocket.

The id of each event is one signed token of the positions of all groups of the stream: a browser sends the last one it saw
when it comes back, to whichever process, and gets what it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import random
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar
from urllib.parse import parse_qs

from ..exceptions import EngineUnavailable, JoinDenied, StopConsumer, TokenInvalid
from ..types import Event, Message, Position
from ..wire.position_token import GROUPS_MAX
from ..wire.sse import encode_comment, encode_event
from .encoders import EncodesJson
from .http import AsyncHttpConsumer
from .position_tokens import NOWHERE, position_token, positions_of

__all__ = ["EventStreamConsumer"]

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events until it has a buffer of them
    (b"x-content-type-options", b"nosniff"),
]

# True in ``handle`` and what it calls: what is sent there stands beside the messages, and moves no position.
_beside: ContextVar[bool] = ContextVar("antiphon_beside", default=False)


class EventStreamConsumer(EncodesJson, AsyncHttpConsumer):
    """Sends what its groups are sent to a page's ``EventSource``, and what the page missed when it comes back.

    ``groups``: at most 32 names; override ``get_groups()`` where they depend on the request. A message ``{"type":
    "stream.event", "data": …, "event": name}`` is sent as it is; any other calls its handler, which calls
    ``send_event``. A group whose missed messages are gone, or whose history was lost, sends ``event: reset`` with
    ``{"group": name}``: the page loads that state anew. ``heartbeat_s``: seconds between comments that keep the line
    open. ``retry_s``: from and to, of which each client draws the seconds it waits before it comes back.
    """

    groups: Any = ()
    heartbeat_s: ClassVar[float] = 15.0
    retry_s: ClassVar[tuple[float, float]] = (1.0, 3.0)
    overflow: ClassVar[str | None] = "close"  # it comes back by itself, and says how far it had come
    layer_handlers: ClassVar[Mapping[str, str]] = {
        "stream.event": "stream_event",
        "html.fragment": "html_fragment",
        "group.lost": "group_lost",
    }

    _antiphon_streams: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._antiphon_names: tuple[str, ...] = ()
        self._antiphon_ready = asyncio.Event()
        self._antiphon_told = ""  # the id that the client has

    def get_groups(self) -> Any:
        """Return the names of the groups of this stream: ``groups``. Override it; may be ``async``."""
        return self.groups

    async def opened(self) -> None:
        """Learn that the stream is open; what it missed follows. Override it to send the first state."""

    async def send_event(self, data: Any, *, event: str | None = None) -> None:
        """Send one event: text as it is, line by line, anything else as JSON.

        ``event``: its name, which a page listens to; None: "message". Raises ValueError for a name of several lines.
        """
        text = data if isinstance(data, str) else type(self)._antiphon_encode(data)
        await self._antiphon_ready.wait()
        told = None if _beside.get() else self._antiphon_token()
        if told == self._antiphon_told:
            told = None
        await self._antiphon_write(encode_event(text, event=event, event_id=told), told)

    async def stream_event(self, message: Message) -> None:
        """Send ``message["data"]``."""
        await self.send_event(message.get("data"), event=message.get("event"))

    async def html_fragment(self, message: Message) -> None:
        """Send what ``broadcast_html`` rendered."""
        await self.send_event(str(message.get("html", "")), event=message.get("event"))

    async def group_lost(self, message: Message) -> None:
        """Tell the page that it must load a group's state anew."""
        await self.send_event({"group": message["group"]}, event="reset")

    # The stream

    async def handle(self, body: bytes) -> None:
        """Join the groups, begin the stream, and keep it open."""
        _beside.set(True)
        try:
            if self.scope.get("method", "GET") != "GET":
                await self.send_response(405, b"", headers=[(b"allow", b"GET")])
                return
            try:
                lost = await self._antiphon_enter_all()
            except JoinDenied:
                await self.send_response(403, b"", headers=[(b"cache-control", b"no-store")])
                return
            except EngineUnavailable:
                # An EventSource gives up for good at any status but 200; after an end of the stream it comes back.
                await self.send_headers(headers=_HEADERS)
                await self.send_body(encode_event(retry_ms=self._antiphon_retry_ms()))
                return
            await self.send_headers(headers=_HEADERS)
            token = self._antiphon_token()
            await self._antiphon_write(encode_event(event_id=token, retry_ms=self._antiphon_retry_ms()), token)
            for group in lost:
                await self.send_body(encode_event(json.dumps({"group": group}), event="reset"), more_body=True)
            self._antiphon_ready.set()
            await self.opened()
            while True:
                await asyncio.sleep(self.heartbeat_s)
                await self._antiphon_write(encode_comment(), None)
        finally:
            self._antiphon_ready.set()

    async def _antiphon_enter_all(self) -> list[str]:
        """Join the groups; return those of which the client missed what nobody has any more."""
        found = self.get_groups()
        names = tuple(await found if inspect.isawaitable(found) else found)
        if len(names) > GROUPS_MAX:
            raise ValueError(f"{type(self).__qualname__}: expected at most {GROUPS_MAX} groups; got {len(names)}")
        since = self._antiphon_since(names)
        lost = []
        for name in names:
            logged = self._antiphon_is_logged(name)
            result = (
                await self.join(name, since=since.get(name, NOWHERE)) if since and logged else await self.join(name)
            )
            if result.recovered is False or (since and not logged):
                lost.append(name)
        self._antiphon_names = names
        return lost

    def _antiphon_is_logged(self, group: str) -> bool:
        options_of = getattr(self.channel_layer, "group_options", None)
        return options_of is not None and bool(options_of(group).history_size)

    def _antiphon_since(self, names: Sequence[str]) -> dict[str, Position]:
        """Return where the client left off; NOWHERE for each group if what it says of that is not ours; {}: nothing."""
        token = _header(self.scope, b"last-event-id")
        if not token:
            query = self.scope.get("query_string", b"").decode("latin-1")
            token = parse_qs(query).get("since", [""])[0]
        if not token:
            return {}
        try:
            return {**dict.fromkeys(names, NOWHERE), **positions_of(token, names)}
        except TokenInvalid:
            return dict.fromkeys(names, NOWHERE)

    def _antiphon_token(self) -> str | None:
        positions = {name: position for name in self._antiphon_names if (position := self.position(name)) is not None}
        return position_token(positions) if positions else None

    def _antiphon_retry_ms(self) -> int:
        low, high = self.retry_s
        return round(random.uniform(low, high) * 1000)  # noqa: S311  # jitter

    async def _antiphon_write(self, part: bytes, told: str | None) -> None:
        outlet = self._antiphon.outlet
        if outlet.started and not outlet.finished:
            await self.send_body(part, more_body=True)
            if told is not None:
                self._antiphon_told = told

    async def _antiphon_farewell(self, reason: str) -> None:
        outlet = self._antiphon.outlet
        if outlet.started and not outlet.finished:
            with contextlib.suppress(OSError):
                await self.send_body(b"")

    async def http_disconnect(self, message: Event) -> None:
        """End the stream at once: ``handle`` has nothing left to do."""
        self._antiphon_ready.set()
        await self._antiphon_stop()
        await self._antiphon_goodbye()
        raise StopConsumer


def _header(scope: Mapping[str, Any], name: bytes) -> str:
    values = [value for key, value in scope.get("headers", ()) if key.lower() == name]
    return values[0].decode("latin-1") if values else ""
