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
        self._antiphon_told: dict[str, Position] = {}  # the places in the id that the client has

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
        places = {} if _beside.get() else self._antiphon_places()
        token = position_token(places) if places and places != self._antiphon_told else None
        await self._antiphon_write(encode_event(text, event=event, event_id=token))
        if token is not None:
            self._antiphon_told = places

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
                lost, places = await self._antiphon_enter_all()
            except JoinDenied:
                await self.send_response(403, b"", headers=[(b"cache-control", b"no-store")])
                return
            except EngineUnavailable:
                # An EventSource gives up for good at any status but 200; after an end of the stream it comes back.
                await self.send_headers(headers=_HEADERS)
                await self.send_body(encode_event(retry_ms=self._antiphon_retry_ms()))
                return
            await self.send_headers(headers=_HEADERS)
            self._antiphon_told = places
            token = position_token(places) if places else None
            # In one part: who has the id has been told what is gone before it.
            told = [encode_event(json.dumps({"group": group}), event="reset") for group in lost]
            await self._antiphon_write(
                b"".join([encode_event(event_id=token, retry_ms=self._antiphon_retry_ms()), *told])
            )
            self._antiphon_ready.set()
            await self.opened()
            while True:
                await asyncio.sleep(self.heartbeat_s)
                await self._antiphon_write(encode_comment())
        finally:
            self._antiphon_ready.set()

    async def _antiphon_enter_all(self) -> tuple[list[str], dict[str, Position]]:
        """Join the groups; return those of which the client missed what nobody has any more, and the places in all."""
        found = self.get_groups()
        found = await found if inspect.isawaitable(found) else found
        if isinstance(found, str):
            raise TypeError(f"{type(self).__qualname__}.groups: expected the names of groups; got one text: {found!r}")
        names = self._antiphon_names = tuple(dict.fromkeys(found))
        if len(names) > GROUPS_MAX:
            raise ValueError(f"{type(self).__qualname__}: expected at most {GROUPS_MAX} groups; got {len(names)}")
        since = self._antiphon_since(names)
        lost, places = [], {}
        for name in names:
            logged = self._antiphon_is_logged(name)
            result = await (self.join(name, since=since[name]) if name in since and logged else self.join(name))
            if result.recovered is False or (name in since and not logged):
                lost.append(name)
            # Now: while the next group is joined, handlers may begin with messages that are not sent before this.
            if (place := self.position(name)) is not None:
                places[name] = place
        return lost, places

    def _antiphon_is_logged(self, group: str) -> bool:
        options_of = getattr(self.channel_layer, "group_options", None)
        return options_of is not None and bool(options_of(group).history_size)

    def _antiphon_since(self, names: Sequence[str]) -> dict[str, Position]:
        """Return where the client left off, by group; NOWHERE for each group if what it says of that is not ours.

        An id that we sent is one of all groups: of one that it lacks the client has missed everything. What a page was
        rendered with names the groups that it had read; the others begin now.
        """
        token = _header(self.scope, b"last-event-id")
        lacking = dict.fromkeys(names, NOWHERE) if token else {}
        if not token:
            query = self.scope.get("query_string", b"").decode("latin-1")
            token = parse_qs(query).get("since", [""])[0]
        if not token:
            return {}
        try:
            return {**lacking, **positions_of(token, names)}
        except TokenInvalid:
            return dict.fromkeys(names, NOWHERE)

    def _antiphon_places(self) -> dict[str, Position]:
        return {name: place for name in self._antiphon_names if (place := self.position(name)) is not None}

    def _antiphon_retry_ms(self) -> int:
        low, high = self.retry_s
        return round(random.uniform(low, high) * 1000)  # noqa: S311  # jitter

    async def _antiphon_write(self, part: bytes) -> None:
        outlet = self._antiphon.outlet
        if outlet.started and not outlet.finished:
            await self.send_body(part, more_body=True)

    async def _antiphon_farewell(self, reason: str) -> None:
        outlet = self._antiphon.outlet
        if not outlet.started or outlet.finished:
            return
        last = b""
        if reason == "error" and self._antiphon_ready.is_set():
            # The message that a handler failed at would come again, and fail again: the client is sent past it, and told.
            places = self._antiphon_places()
            passed = [name for name, place in places.items() if place != self._antiphon_told.get(name)]
            last = b"".join(encode_event(json.dumps({"group": name}), event="reset") for name in passed)
            last = encode_event(event_id=position_token(places)) + last if passed else b""
        with contextlib.suppress(OSError):
            await self.send_body(last)

    async def http_disconnect(self, message: Event) -> None:
        """End the stream at once: ``handle`` has nothing left to do."""
        self._antiphon_ready.set()
        await self._antiphon_stop()
        await self._antiphon_goodbye()
        raise StopConsumer


def _header(scope: Mapping[str, Any], name: bytes) -> str:
    values = [value for key, value in scope.get("headers", ()) if key.lower() == name]
    return values[0].decode("latin-1") if values else ""
