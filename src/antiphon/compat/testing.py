"""``channels.testing``: the communicators as applications written for Channels know them.

One thing differs from ``antiphon.testing``: a time-out cancels the application, and every later call says so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .. import testing
from ..types import Event

if TYPE_CHECKING:
    from ..testing import ChannelsLiveServerTestCase as ChannelsLiveServerTestCase  # noqa: PLC0414 - the alias exports it

__all__ = ["ApplicationCommunicator", "ChannelsLiveServerTestCase", "HttpCommunicator", "WebsocketCommunicator"]

# Channels' module has Daphne's class under this name. It may be named here, and is not used.
DaphneProcess = testing.LiveServer


class ApplicationCommunicator(testing.ApplicationCommunicator):
    """Runs an ASGI application for a test; a time-out cancels it."""

    async def send_input(self, message: Event) -> None:
        """Send one event. Raises what the application raised, CancelledError if a time-out ended it."""
        self._raise_cancelled()
        await super().send_input(message)

    async def receive_output(self, timeout: float | None = 1) -> Event:
        """Return the next event; cancel the application when none comes within ``timeout`` seconds."""
        self._raise_cancelled()
        try:
            return await super().receive_output(timeout)
        except TimeoutError:
            if not self.future.done():
                await self._cancel_future()
            raise

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Say whether nothing comes within ``timeout`` seconds."""
        self._raise_cancelled()
        return await super().receive_nothing(timeout, interval)

    async def wait(self, timeout: float | None = 1) -> None:
        """Wait for the application to end; cancel it without a word when it has not after ``timeout`` seconds."""
        done, _ = await asyncio.wait({self.future}, timeout=timeout)
        if done:
            self._raise_failure()
        else:
            await self._cancel_future()

    def stop(self, exceptions: bool = True) -> None:
        """Cancel the application, or raise what it raised."""
        if exceptions and self._future is not None:
            self._raise_cancelled()
        super().stop(exceptions)

    def _raise_cancelled(self) -> None:
        if self.future.cancelled():
            self.future.result()

    async def _cancel_future(self) -> None:
        self.future.cancel()
        await asyncio.wait({self.future})
        self._raise_failure()


class HttpCommunicator(ApplicationCommunicator, testing.HttpCommunicator):
    """Makes one HTTP request to an application; a time-out cancels it."""


class WebsocketCommunicator(ApplicationCommunicator, testing.WebsocketCommunicator):
    """Connects to an application as a WebSocket client does; a time-out cancels the application."""


def no_op() -> None:
    """Do nothing."""


def make_application(*, static_wrapper: Any) -> Any:
    """Return the project's application, wrapped to serve static files unless ``static_wrapper`` is None."""
    from ..django.routing import get_default_application

    application = get_default_application()
    return application if static_wrapper is None else static_wrapper(application)


def set_database_connection() -> None:
    """Do nothing: the live server is a thread of the test's process, and uses its database."""


def __getattr__(name: str) -> Any:
    if name == "ChannelsLiveServerTestCase":
        return testing.ChannelsLiveServerTestCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
