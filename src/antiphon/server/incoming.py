"""The client's events on their way to the application: awaited by it (ASGI), or pushed to one who takes them as they come."""

from __future__ import annotations

import asyncio

from ..types import Event
from ..wire.prebuilt import EventSink
from .outgoing import LOST, OPEN, Outgoing

__all__ = ["Incoming"]


class Incoming(Outgoing):
    """Both halves of a socket: bytes out, events in."""

    __slots__ = ("_events", "_reading", "_sink", "_wakeup")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_bytes: int) -> None:
        super().__init__(loop, limit_bytes)
        self._reading = True
        self._events: list[Event] | None = None
        self._wakeup: asyncio.Future[None] | None = None  # of receive()
        self._sink: EventSink | None = None

    async def receive(self) -> Event:
        """As ASGI: wait for the client's next event."""
        while not self._events:
            self._wakeup = self.loop.create_future()
            await self._wakeup
        event = self._events.pop(0)
        if not self._events:
            self._events = None
            self.go_on()
        return event

    def tell(self, event: Event) -> None:
        """Hand on an event."""
        if self._sink is not None:
            self._sink.client_event(event)
            return
        if self._events is None:
            self._events = []
        self._events.append(event)
        self.hold()  # until it was taken: an application that is busy has no use for more
        self._wake()

    def _wake(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)

    def attach(self, sink: EventSink) -> None:
        """Give the client's events to ``sink`` as they come, those that wait first; ``receive`` is over then."""
        self._sink = sink
        events, self._events = self._events, None
        self.go_on()
        for event in events or ():
            sink.client_event(event)

    @property
    def close_protocol(self) -> str:
        """Whose close codes the client knows, where whoever takes its events says so."""
        return getattr(self._sink, "close_protocol", "plain")

    def hold(self) -> None:
        """Read no more of the client until ``go_on``: whoever takes its events has enough."""
        if self._reading and self._state == OPEN:
            self._reading = False
            self.transport.pause_reading()

    def go_on(self) -> None:
        """Read on."""
        if not self._reading:
            self._reading = True
            if self._state < LOST and not self.transport.is_closing():
                self.transport.resume_reading()

    def detach(self) -> None:
        """Forget who takes the events: the application has ended."""
        self._sink = self._events = None
