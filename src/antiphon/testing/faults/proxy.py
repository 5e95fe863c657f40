"""``Proxy``: a wire between client and server that cuts, refuses, delays and swallows. Knows bytes, no protocol.

It runs on an event loop in a thread of its own, over plain sockets: nothing is read from a side while its direction
is blocked, so that buffers fill as they do on a link that lost its other end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from . import guard
from .process import ServerProcess
from .startable import Startable
from .valkey import HOST, free_port

__all__ = ["Proxy"]

Direction = Literal["both", "up", "down"]
_CHUNK = 64 * 1024
_AHEAD = 64  # chunks on their way in one direction while there is a delay
_CALL_LIMIT_S = 10.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time left: close() sends RST


class Proxy(Startable):
    """Listens, from ``start()`` to ``close()`` (a context manager, too), and forwards to ``target`` and back.

    ``target``: a server of this package, a URL (``redis://host:port/0``, ``unix:///path``), ``(host, port)`` or the
    path of a Unix socket; asked anew at each connection, so it may restart. The proxy listens on a port of 127.0.0.1,
    or on a Unix socket where the target does; that stays the same until ``close()``. Each call has taken effect when it
    returns.
    """

    def __init__(self, target: ServerProcess | tuple[str, int] | str) -> None:
        self.target_url, self.target = _resolve(target)
        self.accepted = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.address: tuple[str, int] | str = ""
        self._folder: Path | None = None
        self._delay_s = 0.0
        self._pairs: set[_Pair] = set()
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address} -> {self.target} {self.connections} open>"

    @property
    def url(self) -> str:
        """The target's URL with the proxy's address in place of the target's."""
        parts = urlsplit(self.target_url)
        credentials, at, _ = parts.netloc.rpartition("@")
        if isinstance(self.address, tuple):
            return urlunsplit(parts._replace(netloc=f"{credentials}{at}{HOST}:{self.address[1]}"))
        query = f"?{parts.query}" if parts.query else ""
        return f"unix://{credentials}{at}{self.address}{query}"

    @property
    def running(self) -> bool:
        """Whether it was started, and not closed; while it refuses connections, too."""
        return self._thread is not None

    @property
    def connections(self) -> int:
        """How many connections are open; ``accepted`` counts all there have been."""
        return len(self._pairs)

    @property
    def bytes(self) -> int:
        """How many bytes were forwarded, both ways; ``bytes_up`` counts those to the server."""
        return self.bytes_up + self.bytes_down

    def start(self) -> None:
        """Listen."""
        if self.running:
            raise RuntimeError(f"{self!r} is running already")
        if isinstance(self.target, tuple):
            self.address = (HOST, free_port())
        else:
            self._folder = guard.folder()
            self.address = str(self._folder / "p")
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="antiphon-proxy", daemon=True)
        self._thread.start()
        ready.wait(_CALL_LIMIT_S)
        self.refuse(False)

    def close(self) -> None:
        """Cut every connection and end."""
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return
        self.refuse()
        self.cut()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CALL_LIMIT_S)
        self._thread = self._loop = None
        if self._folder is not None:
            guard.remove(self._folder)

    def cut(self) -> None:
        """End every connection at once, on both sides, with RST (a Unix socket knows none: it is closed)."""
        self._call(self._cut())

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections, or accept them again. Open ones stay."""
        self._call(self._refuse() if on else self._listen())

    def delay(self, seconds: float) -> None:
        """Hold what is forwarded, in either direction, for so long; what is on its way keeps its time."""
        self._delay_s = seconds

    def black_hole(self, on: bool = True, *, direction: Direction = "both") -> None:
        """Forward nothing any more, or go on: a half-open link. Connections are kept, and new ones accepted.

        What was sent meanwhile arrives when it goes on, unless ``cut()`` came first. ``direction``: ``"up"`` is to the
        server, ``"down"`` from it.
        """
        self._call(self._black_hole(on, direction))

    def _run(self, ready: threading.Event) -> None:
        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        for each in self._open.values():
            each.set()
        loop.call_soon(ready.set)
        try:
            loop.run_forever()
        finally:
            loop.close()

    def _call(self, action: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            action.close()
            raise RuntimeError(f"{self!r} does not run: start() it")
        done: concurrent.futures.Future[None] = asyncio.run_coroutine_threadsafe(action, self._loop)
        done.result(_CALL_LIMIT_S)

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        if isinstance(self.address, tuple):
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            listener = socket.socket(socket.AF_UNIX)
            Path(self.address).unlink(missing_ok=True)  # noqa: ASYNC240 -- a loop of its own
        listener.setblocking(False)
        listener.bind(self.address)
        listener.listen(512)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _refuse(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()  # a Unix socket's file stays: connecting is refused, as with a dead server's
            self._listener = None

    async def _cut(self) -> None:
        for pair in tuple(self._pairs):
            await _ended(pair.task)

    async def _black_hole(self, on: bool, direction: Direction) -> None:
        for each in ("up", "down") if direction == "both" else (direction,):
            if on:
                self._open[each].clear()
            else:
                self._open[each].set()

    def _accept(self, listener: socket.socket) -> None:
        # Not sock_accept(): what it had accepted when its task is cancelled would never be closed.
        with suppress(BlockingIOError, ConnectionError):
            client, _ = listener.accept()
            client.setblocking(False)
            self.accepted += 1
            pair = _Pair(self, client)
            self._pairs.add(pair)
            pair.task = asyncio.create_task(pair.run())
            pair.task.add_done_callback(pair.close)  # no "finally" inside: it may be cut before it has begun


class _Pair:
    """One client's connection and its other half to the server."""

    task: asyncio.Task[None]

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self._reset = True  # how it ends, unless both sides end it themselves
        self.server = socket.socket(socket.AF_INET if isinstance(proxy.target, tuple) else socket.AF_UNIX)
        self.server.setblocking(False)
        for each in (client, self.server):
            if each.family == socket.AF_INET:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        try:
            with suppress(OSError):
                await asyncio.get_running_loop().sock_connect(self.server, self.proxy.target)
                async with asyncio.TaskGroup() as both:
                    self._pump(both, self.client, self.server, "up")
                    self._pump(both, self.server, self.client, "down")
                self._reset = False
        except* OSError:  # one side reset: so does the other
            pass

    def _pump(self, tasks: asyncio.TaskGroup, source: socket.socket, sink: socket.socket, direction: str) -> None:
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_AHEAD)
        tasks.create_task(self._read(source, chunks, direction))
        tasks.create_task(self._write(sink, chunks, direction))

    async def _read(self, source: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]], direction: str) -> None:
        loop = asyncio.get_running_loop()
        data = b"first"
        while data:
            await self.proxy._open[direction].wait()
            data = await loop.sock_recv(source, _CHUNK)
            await chunks.put((loop.time() + self.proxy._delay_s, data))

    async def _write(self, sink: socket.socket, chunks: asyncio.Queue[tuple[float, bytes]], direction: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await chunks.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            await self.proxy._open[direction].wait()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(sink, data)
            if direction == "up":
                self.proxy.bytes_up += len(data)
            else:
                self.proxy.bytes_down += len(data)

    def close(self, _: asyncio.Task[None]) -> None:
        for each in (self.client, self.server):
            if self._reset and each.family == socket.AF_INET:
                with suppress(OSError):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            each.close()
        self.proxy._pairs.discard(self)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _resolve(target: ServerProcess | tuple[str, int] | str) -> tuple[str, tuple[str, int] | str]:
    """Return a target's URL and address."""
    url = getattr(target, "url", None) or (target.address if isinstance(target, ServerProcess) else target)
    if isinstance(url, tuple):
        return f"tcp://{url[0]}:{url[1]}", (url[0], url[1])
    if not isinstance(url, str):
        raise TypeError(f"expected a server, a URL, (host, port) or a path, got {target!r}")
    parts = urlsplit(url)
    if not parts.scheme:
        return f"unix://{os.path.abspath(url)}", url  # noqa: PTH100 -- a path, but never resolved
    if parts.scheme == "unix":
        return url, parts.path
    return url, (parts.hostname or HOST, parts.port or 6379)
