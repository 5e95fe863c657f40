"""One worker of the demo: an ordinary uvicorn, except that its connections come from the supervisor, not from a port."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import contextmanager

import uvicorn
from antiphon.server import HTTPProtocol, WebSocketProtocol


class Worker(uvicorn.Server):
    """Serves the connections that arrive over ``channel``, until that is closed."""

    def __init__(self, config, channel):
        super().__init__(config)
        self.channel = channel
        self.arriving = set()

    @contextmanager
    def capture_signals(self):
        """Leave Ctrl-C, which reaches the whole group of processes, to the supervisor."""
        with super().capture_signals():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            yield

    async def startup(self, sockets=None):
        """Begin without a port, and say so to the supervisor."""
        await super().startup(sockets=[])
        asyncio.get_running_loop().add_reader(self.channel, self.take)
        self.channel.send(b"ready\n")

    def take(self):
        """Take one connection, or end: the supervisor is gone."""
        _, descriptors, _, _ = socket.recv_fds(self.channel, 1, 1)
        loop = asyncio.get_running_loop()
        if not descriptors:
            loop.remove_reader(self.channel)
            self.should_exit = True
            return
        connection = socket.socket(fileno=descriptors[0])
        task = loop.create_task(loop.connect_accepted_socket(self.protocol, connection))
        self.arriving.add(task)
        task.add_done_callback(self.arriving.discard)

    def protocol(self):
        """Return what speaks HTTP on one connection."""
        return self.config.http_protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def one_request_each(app):
    """ASGI middleware: end each connection with its response, because the supervisor chooses a worker by connection.

    Else a page's event stream comes over whichever connection of the other window is idle.
    """

    async def closing(scope, receive, send):
        async def send_closing(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, send_closing if scope["type"] == "http" else send)

    return closing


def main(descriptor):
    """Serve the showcase, its static files included."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "showcase.settings")
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

    from showcase.asgi import application  # sets Django up
    from stage import breaking

    config = uvicorn.Config(
        one_request_each(ASGIStaticFilesHandler(application)),
        http=HTTPProtocol,
        ws=WebSocketProtocol,
        log_config=None,  # the project's LOGGING is in force
        access_log=False,
        timeout_graceful_shutdown=1,
        proxy_headers=False,
        server_header=False,
    )
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    breaking.supervisor = channel
    Worker(config, channel).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
