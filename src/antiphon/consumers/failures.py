"""What becomes of an exception that a handler lets out, and of a message that no handler takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from ..envelope import Envelope
from ..exceptions import StopConsumer
from .handlers import layer_handler, log_refused
from .outlet import OPEN
from .steps import Steps
from .threads import run_sync

if TYPE_CHECKING:
    from .handling import Handling

__all__ = ["awaiting", "failed", "refused"]

logger = logging.getLogger("antiphon.consumer")


def refused(connection: Handling, envelope: Envelope, exc: Exception) -> None:
    """Report a message that no handler may or can take."""
    message: Any = None
    try:
        message = envelope.message()
        if not isinstance(exc, ValueError):  # no type, or no message at all: say which
            layer_handler(connection.consumer, message)
    except ValueError as second:
        if isinstance(exc, ValueError):
            # Bytes that no codec of ours made: counted, logged by the hub's rules, never seen by a handler.
            if connection.node is not None:
                connection.node.hub.refuse_body(envelope)
            return
        exc = second
    if connection.under_test:
        raise exc
    log_refused(type(connection.consumer), message, exc)


async def failed(connection: Handling, exc: Exception, handler: str) -> None:
    """Give a handler's exception to ``on_error``; unless it says otherwise, the connection ends."""
    kind = connection.kind
    # An application that does not serve a kind of scope (lifespan, say) tells the server by raising.
    if connection.under_test or kind not in ("websocket", "http", "channel"):
        raise exc
    if getattr(exc, "antiphon_bad_frame", False):
        # The client's mistake, not the application's: no traceback, and no flood of them.
        logger.info("%s: a frame of the client is not JSON: %s", type(connection.consumer).__qualname__, exc)
        connection.mailbox.ask_close("bad_frame")
        return
    try:
        keep = await _on_error(connection, exc, handler)
    except asyncio.CancelledError:
        if not connection.ran_out("on_error"):
            raise
        keep = False
    except Exception as second:
        logger.exception("%s.on_error() raised", type(connection.consumer).__qualname__, exc_info=second)
        keep = False
    if keep:
        return
    if connection.disconnected:
        raise StopConsumer
    if kind == "http" and connection.consumer._antiphon_streams and connection.outlet.started:
        connection.mailbox.ask_close("error")
        return
    if kind == "http":
        await _http_error(connection)
        raise StopConsumer
    if kind == "channel":
        delivery = connection.scope.get("antiphon.delivery")
        if delivery is not None:
            delivery.failed = True  # the worker gives the message back
        return
    connection.mailbox.ask_close("error")


async def _on_error(connection: Handling, exc: Exception, handler: str) -> Any:
    consumer = connection.consumer
    if consumer._sync and not iscoroutinefunction(consumer.on_error):
        # As a handler: it may send, and ask the database.
        return await run_sync(consumer.on_error, exc, handler, under_test=connection.under_test)
    keep = connection.context.run(consumer.on_error, exc, handler)
    return await Steps(connection.context, awaiting(keep)) if isinstance(keep, Awaitable) else keep


async def _http_error(connection: Handling) -> None:
    outlet = connection.outlet
    if not outlet.started and outlet.state == OPEN:
        body = b"Internal Server Error"
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await outlet.send({"type": "http.response.start", "status": 500, "headers": headers})
        await outlet.send({"type": "http.response.body", "body": body})


async def awaiting(value: Any) -> Any:
    """Await what is no coroutine."""
    return await value
