"""``ApplicationCommunicator``: an ASGI application in a task, its input and output in the hands of a test.

Needs no server and no framework. It marks the application's scope and context, so that consumers raise their errors
out of the application and database connections stay those of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import Context
from typing import Any

from asgiref.compatibility import guarantee_single_callable

from ..framework import keep_connections
from ..types import ASGIApplication, Event, Receive, Scope, Send

__all__ = ["ApplicationCommunicator"]

# What the communicators implement. Not "2.4": that version promises that send() raises once the client is gone, and
# a Starlette response would then no longer listen for the disconnect.
SPEC_VERSION = "2.3"


class _Output(asyncio.Queue[Event]):
    """What the application sent; ``stirred`` is set when something came, and when nothing more will."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self.stirred = asyncio.Event()

    def _put(self, item: Event) -> None:
        super()._put(item)
        self.stirred.set()


class ApplicationCommunicator:
    """Runs an ASGI application, sends it events and receives those it sends.

    ``application``: an ASGI application. ``scope``: the dict it is called with; ``"antiphon.test": True`` is added.
    The application starts at the first event, in an empty context. No time-out stops it: a test can catch
    TimeoutError and go on. What it raises is raised by the next call here. Once the communicator is collected or the
    event loop closed, the application is cancelled; ``stop()`` does it at once.
    """

    def __init__(self, application: Any, scope: Scope) -> None:
        self.application: ASGIApplication = guarantee_single_callable(application)  # type: ignore[no-untyped-call]
        self.scope: Any = scope
        self.input_queue: asyncio.Queue[Event] = asyncio.Queue()
        self.output_queue = _Output()
        self._future: asyncio.Task[None] | None = None
        self._told = False

    def __repr__(self) -> str:
        if self._future is None:
            state = "not started"
        else:
            state = "ended" if self._future.done() else "running"
        return f"<{type(self).__name__} {self.scope.get('path', self.scope.get('type'))!r} {state}>"

    @property
    def future(self) -> asyncio.Task[None]:
        """The application's task; started when first asked for."""
        if self._future is None:
            self.scope.setdefault("antiphon.test", True)
            # Empty, as under a server: what the test has set in its own context must not leak into the application.
            context = Context()
            context.run(keep_connections.set, True)
            call = _call(self.application, self.scope, self.input_queue.get, self.output_queue.put)
            self._future = asyncio.get_running_loop().create_task(call, context=context)
            stirred = self.output_queue.stirred  # not self: the task must not keep the communicator alive
            self._future.add_done_callback(lambda _: stirred.set())
        return self._future

    async def send_input(self, message: Event) -> None:
        """Send one event to the application. Raises what the application raised, if it failed before."""
        if self.future.done():
            self._raise_failure()
        await self.input_queue.put(message)

    async def receive_output(self, timeout: float | None = 1) -> Event:
        """Return the next event from the application.

        Raises what the application raised, if it failed; TimeoutError when nothing comes within ``timeout`` seconds
        (None: any time), or when nothing can come because the application has ended.
        """
        future, output = self.future, self.output_queue
        if future.done():
            self._raise_failure()
        try:
            async with asyncio.timeout(timeout):
                while output.empty() and not future.done():
                    output.stirred.clear()
                    await output.stirred.wait()
        except TimeoutError:
            pass
        if not output.empty():
            return output.get_nowait()
        if not future.done():
            raise TimeoutError(f"nothing received from the application within {timeout} s; it is still running")
        self._raise_failure()
        raise TimeoutError("nothing can be received: the application has ended")

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Say whether the application sends nothing for ``timeout`` seconds.

        ``interval`` is the least time that is waited, where ``timeout`` is not 0.
        """
        if self.future.done():
            self._raise_failure()
        output = self.output_queue
        if timeout > 0 and output.empty():
            try:
                async with asyncio.timeout(max(timeout, interval)):
                    while output.empty() and not self.future.done():
                        output.stirred.clear()
                        await output.stirred.wait()
            except TimeoutError:
                pass
        return output.empty()

    def drain(self) -> list[Event]:
        """Return all events that the application has sent and nobody received yet, without waiting."""
        events = []
        while not self.output_queue.empty():
            events.append(self.output_queue.get_nowait())
        return events

    async def wait(self, timeout: float | None = 1) -> None:
        """Wait for the application to end.

        Raises what it raised; TimeoutError when it has not ended after ``timeout`` seconds, and then it goes on.
        """
        done, _ = await asyncio.wait({self.future}, timeout=timeout)
        if not done:
            raise TimeoutError(f"the application did not end within {timeout} s; it is still running")
        self._raise_failure()

    def stop(self, exceptions: bool = True) -> None:
        """Cancel the application; if it has ended already, raise what it raised (unless ``exceptions`` is False)."""
        if self._future is None:
            return
        if not self._future.done():
            self._future.cancel()
        elif exceptions:
            self._raise_failure()

    def __del__(self) -> None:
        future = self.__dict__.get("_future")  # absent when __init__ failed
        if future is None or future.done():
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks with it
            # From whichever thread the collector ran on.
            future.get_loop().call_soon_threadsafe(future.cancel)

    def _raise_failure(self) -> None:
        """Raise what the ended application raised. One that was cancelled is one that ended."""
        if not self.future.cancelled():
            self._told = True
            self.future.result()


async def _call(application: ASGIApplication, scope: Scope, receive: Receive, send: Send) -> None:
    await application(scope, receive, send)
