"""Runs the server of one case: uvicorn or daphne on uvloop, one process, no compression, no access log, no pings.

``python serve.py <parameters as JSON>``; prints one line of JSON with its port once it listens. ``server``: "uvicorn",
"antiphon" (uvicorn with Antiphon's protocol classes) or "daphne". ``port``: one that several processes share; without it
any. The rest says which application.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys
from typing import Any

import uvloop


def listens(port: int) -> None:
    """Tell whoever started this that it may connect."""
    print(json.dumps({"port": port}), flush=True)


def application(parameters: dict[str, Any]) -> Any:
    """Import and make the application."""
    if parameters["side"] == "socketio":
        import socketio_chat

        return socketio_chat.application()
    given = {name: value for name, value in parameters.items() if name not in ("server", "port")}
    if "server_socket" in given:
        import recovery_room

        return recovery_room.application(**given)
    import chat

    return chat.application(**given)


def shared(port: int) -> socket.socket:
    """Return a socket on a port that other processes listen on, too: the kernel gives each its share."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind(("127.0.0.1", port))
    return found


def run_uvicorn(app: Any, *, ours: bool, port: int) -> None:
    """Serve until killed. ``ours``: with the protocol classes of Antiphon, else with uvicorn's own."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            listens(self.servers[0].sockets[0].getsockname()[1])

    config = uvicorn.Config(
        app,
        port=0,
        loop="uvloop",
        http="antiphon.server:HTTPProtocol" if ours else "httptools",
        ws="antiphon.server:WebSocketProtocol" if ours else "websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
    Server(config).run([shared(port)] if port else None)


def run_daphne(app: Any) -> None:
    """Serve until killed."""
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # before daphne makes its loop
    from daphne.server import Server

    server: Any = Server(
        app,
        endpoints=["tcp:0:interface=127.0.0.1:backlog=2048"],
        ping_interval=86400,
        ready_callable=lambda: listens(server.listening_addresses[0][1]),
    )
    server.run()


def main() -> None:
    """Serve what the command line says."""
    parameters = json.loads(sys.argv[1])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    app = application(parameters)
    if parameters["server"] == "daphne":
        run_daphne(app)
    else:
        run_uvicorn(app, ours=parameters["server"] == "antiphon", port=parameters.get("port", 0))


if __name__ == "__main__":
    main()
