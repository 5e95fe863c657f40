"""``LiveServer``: an ASGI application behind real sockets, in a thread of the test's process. Knows no framework.

Uvicorn is imported when a server starts, so that everything else of this package works without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..exceptions import MissingExtra

if TYPE_CHECKING:
    import uvicorn

__all__ = ["LiveServer"]

# How long connections may take to end by themselves, before they are cut; and the start and the end of the thread.
GRACE_S = 1
START_LIMIT_S = 10.0
STOP_LIMIT_S = 10.0


class LiveServer:
    """Serves ``application`` on ``host`` and ``port`` (0: a free one), from ``start()`` to ``stop()``.

    A context manager, too. ``port``, ``url`` and ``ws_url`` are those of the started server. It has an event loop of
    its own; layers of the process reach its connections.
    """

    def __init__(self, application: Any, host: str = "localhost", port: int = 0) -> None:
        self.application = application
        self.host = host
        self.port = port
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {'running' if self._thread else 'stopped'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The server's address, without a slash at the end."""
        return f"http://{self._netloc}"

    @property
    def ws_url(self) -> str:
        """The same for WebSockets."""
        return f"ws://{self._netloc}"

    @property
    def _netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def start(self) -> None:
        """Bind, start the thread, and return when the server answers.

        Raises MissingExtra without uvicorn, OSError when the address is taken, and RuntimeError when the application
        did not start.
        """
        if self._thread is not None:
            raise RuntimeError(f"{self!r} is running already")
        server = _uvicorn(self.application)
        listener = _bind(self.host, self.port)
        self.port = listener.getsockname()[1]
        self._ready, self._error = threading.Event(), None
        self._thread = threading.Thread(
            target=self._run, args=(server, listener), name="antiphon-live-server", daemon=True
        )
        self._thread.start()
        answers = self._ready.wait(START_LIMIT_S)
        if self._error is not None or not answers:
            self.stop()
            why = "" if answers else f" within {START_LIMIT_S} s: it does not answer lifespan.startup"
            raise RuntimeError(
                f"the application did not start on {self.url}{why}; the log of 'uvicorn.error' says more"
            ) from self._error

    def stop(self) -> None:
        """Close the open connections (WebSockets with 1012), and return when the thread has ended."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if thread.is_alive() and self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(STOP_LIMIT_S)
        if thread.is_alive():
            raise RuntimeError(f"the live server at {self.url} did not stop within {STOP_LIMIT_S} s: a handler blocks")

    def _run(self, server: uvicorn.Server, listener: socket.socket) -> None:
        try:
            with asyncio.Runner() as runner, listener:
                runner.run(self._serve(server, listener))
        except BaseException as exc:  # uvicorn ends with SystemExit where a lifespan fails
            self._error = exc
        finally:
            self._ready.set()

    async def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(self._stopping.wait())
        while not (server.started or serving.done() or stopping.done()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # uvicorn tells nobody when it has started
        if not serving.done():
            if server.started:
                self._ready.set()
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            # Uvicorn waits for peers to close their end. One that does not must not hold up the tests.
            _, late = await asyncio.wait({serving}, timeout=GRACE_S + 1)
            for connection in tuple(server.server_state.connections):
                transport: Any = getattr(connection, "transport", None)
                if transport is not None:
                    transport.abort()
            if late:
                server.force_exit = True
                await asyncio.wait({serving}, timeout=1)
                serving.cancel()
            await asyncio.sleep(0)  # the cut connections hear of it
        stopping.cancel()
        if serving.done():
            serving.result()


def _uvicorn(application: Any) -> uvicorn.Server:
    try:
        import uvicorn
    except ImportError as exc:
        raise MissingExtra.of("uvicorn", "server", "A live server") from exc
    from ..server import HTTPProtocol, WebSocketProtocol

    config = uvicorn.Config(
        application,
        http=HTTPProtocol,
        ws=WebSocketProtocol,
        access_log=False,
        log_config=None,  # the logging of the tests stays as it is
        timeout_graceful_shutdown=GRACE_S,
    )
    config.load()
    return uvicorn.Server(config)


def _bind(host: str, port: int) -> socket.socket:
    # One socket, IPv4 where there is a choice: for each further one port 0 would be another port.
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
