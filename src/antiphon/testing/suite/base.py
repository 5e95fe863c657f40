"""What the tests of an engine have in common: layers, listeners, loops and other processes. Tests nothing itself."""

# ruff: noqa: S101, D102 -- tests that are shipped are tests: they assert, and their names say what

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, ClassVar

from ...layer.layer import ChannelLayer
from ...layer.registry import channel_layers
from ..faults.child import ChildProcess
from .resident import ERRORS

__all__ = [
    "CAPABILITIES",
    "HELLO",
    "Listener",
    "Loop",
    "Resident",
    "SuiteBase",
    "needs",
    "numbered",
    "scenario",
    "until",
]

CAPABILITIES = frozenset({"encryption", "faults", "history", "presence", "processes", "worker_channels"})
HELLO = {"type": "hello"}


def numbered(n: int) -> dict[str, Any]:
    """Return a message that is told from others."""
    return {"type": "t", "n": n}


def needs(capability: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Skip a test of an engine that does not say it has ``capability``."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def run(self: SuiteBase, *args: Any, **kwargs: Any) -> Any:
            if capability not in self.capabilities:
                import pytest

                pytest.skip(f"{type(self).__name__}.capabilities has no {capability!r}")
            return test(self, *args, **kwargs)

        return run

    return decorate


def scenario(test: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """Make a plain test of a coroutine: on an event loop of its own, with everything that it opened closed after it."""

    def run(self: SuiteBase) -> None:
        asyncio.run(self.play(test(self)))

    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    return run


async def until(true: Callable[[], Any], limit_s: float = 20.0, what: str = "") -> None:
    """Wait until ``true()`` is, or an awaitable of it; fail after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while True:
        value = true()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, f"waited {limit_s} s in vain: {what or true}"
        await asyncio.sleep(0.01)


class Listener:
    """Reads a channel and keeps what it hears."""

    def __init__(self, layer: ChannelLayer, channel: str) -> None:
        self.channel = channel
        self.heard: list[dict[str, Any]] = []
        self._task = asyncio.get_running_loop().create_task(self._listen(layer))

    @property
    def numbers(self) -> list[int]:
        """The numbers of what it heard."""
        return [message["n"] for message in self.heard]

    async def hears(self, count: int, limit_s: float = 20.0) -> list[int]:
        """Wait for ``count`` messages in all; return their numbers."""
        await until(lambda: len(self.heard) >= count, limit_s, f"{count} messages; {len(self.heard)} came")
        return self.numbers

    async def _listen(self, layer: ChannelLayer) -> None:
        while True:
            self.heard.append(await layer.receive(self.channel))


class Loop:
    """An event loop in a thread of its own: another node of this process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    async def run(self, call: Awaitable[Any]) -> Any:
        """Await something there."""

        async def there() -> Any:
            return await call

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self.loop))

    def stop(self) -> None:
        """End it, with its tasks."""

        async def rest() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(rest(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


class Resident:
    """A layer in another process, told what to do: see ``resident.Home``."""

    def __init__(self) -> None:
        self.child = ChildProcess("antiphon.testing.suite.resident:reside")
        self.child.start()

    async def do(self, what: str, *args: Any) -> Any:
        """Have the resident do something; return the value or raise the error."""
        self.child.send([what, *args])
        answer = await self.child.receive_async(30)
        if "error" in answer:
            raise ERRORS.get(answer["error"], RuntimeError)(answer["text"])
        return answer["value"]


class SuiteBase:
    """Where an engine's author says what is tested: see ``EngineSuite``."""

    backend: ClassVar[str]
    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    limit_s: ClassVar[float] = 30.0
    _resident: ClassVar[Resident | None] = None

    def config(self, space: str) -> dict[str, Any]:
        """Return the options of a layer of ``space``: a name of letters and digits, new for each test."""
        raise NotImplementedError

    def kill_engine(self) -> None:
        """Kill the server, all of it, so that nothing can be published."""
        raise NotImplementedError

    def restart_engine(self) -> None:
        """Bring the server back, at the same address."""
        raise NotImplementedError

    # What tests use

    def setup_method(self) -> None:
        """Give each test a space of its own."""
        self.space = f"t{secrets.token_hex(4)}"
        self._layers: list[ChannelLayer] = []
        self._listeners: list[Listener] = []
        self._loops: list[Loop] = []

    @classmethod
    def teardown_class(cls) -> None:
        """End the other process."""
        resident, cls._resident = cls._resident, None
        if resident is not None:
            resident.child.close()

    def test_capabilities_are_names_that_the_suite_knows(self) -> None:
        assert self.capabilities <= CAPABILITIES

    def make_layer(self, space: str | None = None, **options: Any) -> ChannelLayer:
        """Return a new layer of this test's space, or another; closed after the test."""
        module, _, name = self.backend.rpartition(".")
        layer: ChannelLayer = getattr(importlib.import_module(module), name)(
            **{**self.config(space or self.space), **options}
        )
        self._layers.append(layer)
        return layer

    async def member(self, layer: ChannelLayer, *groups: str) -> Listener:
        """Return a listener on a new channel, a member of ``groups``."""
        channel = await layer.new_channel()
        for group in groups:
            await layer.group_add(group, channel)
        return self.listen(layer, channel)

    def listen(self, layer: ChannelLayer, channel: str) -> Listener:
        """Return a listener on a channel."""
        listener = Listener(layer, channel)
        self._listeners.append(listener)
        return listener

    def loop(self) -> Loop:
        """Return another loop of this process."""
        loop = Loop()
        self._loops.append(loop)
        return loop

    async def resident(self, **options: Any) -> Resident:
        """Return the other process, with a new layer of this test's space as its only one."""
        resident = type(self)._resident
        if resident is not None and not resident.child.running:
            resident.child.close()
            resident = None
        if resident is None:
            resident = type(self)._resident = await asyncio.to_thread(Resident)
        await resident.do("open", self.backend, {**self.config(self.space), **options})
        return resident

    async def settle(self, seconds: float = 0.1) -> None:
        """Wait for what should not arrive."""
        await asyncio.sleep(seconds)

    @contextlib.contextmanager
    def as_default(self, layer: ChannelLayer) -> Iterator[None]:
        """Put ``layer`` under the alias "default", where the plain functions look for it."""
        old = channel_layers.set("default", layer)
        try:
            yield
        finally:
            if old is None:
                channel_layers.backends.pop("default", None)
            else:
                channel_layers.set("default", old)

    async def play(self, test: Coroutine[Any, Any, None]) -> None:
        """Run one test, and close what it opened."""
        try:
            async with asyncio.timeout(self.limit_s):
                await test
        finally:
            for listener in self._listeners:
                listener._task.cancel()
            await asyncio.gather(*(listener._task for listener in self._listeners), return_exceptions=True)
            for layer in self._layers:
                await layer.close()
            for loop in self._loops:
                await asyncio.to_thread(loop.stop)
