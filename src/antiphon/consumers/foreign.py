"""Messages of a layer that is not ours, and only has ``receive``. Knows no consumer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from ..envelope import Envelope
from ..layer.mailbox import Mailbox

__all__ = ["ForeignEnvelope", "Pump"]


class ForeignEnvelope(Envelope):
    """A message of a foreign layer, which comes decoded."""

    __slots__ = ()

    @classmethod
    def of(cls, message: Any) -> ForeignEnvelope:
        """Wrap a message."""
        envelope = cls("", 0.0, b"")
        envelope._decoded = message
        return envelope

    def message(self) -> Any:
        """Return the message itself: there is one receiver."""
        return self._decoded


class Pump:
    """Brings the messages of ``channel`` into ``mailbox``, one at a time, in a task of its own.

    What waits stays in that layer, whose capacity and expiry are to hold.
    """

    def __init__(self, layer: Any, channel: str, mailbox: Mailbox, failed: Callable[[BaseException], None]) -> None:
        self._layer = layer
        self._channel = channel
        self._mailbox = mailbox
        self._failed = failed
        self._taken: asyncio.Future[None] | None = None
        self._task = mailbox.loop.create_task(self._run())

    def __repr__(self) -> str:
        return f"<Pump of {self._channel!r}>"

    def next(self) -> None:
        """Let it bring the next one: the last was taken."""
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    async def stop(self) -> None:
        """End it."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        try:
            while True:
                message = await self._layer.receive(self._channel)
                self._mailbox.queue.append(ForeignEnvelope.of(message))
                self._mailbox.wake()
                self._taken = self._mailbox.loop.create_future()
                await self._taken
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self._failed(exc)
