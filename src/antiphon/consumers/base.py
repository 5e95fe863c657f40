"""``AsyncConsumer`` and ``SyncConsumer``: the object that handles one connection's events.

What they share with the consumers users know is in their names; how events reach them is in ``connection.py``.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, ClassVar

from asgiref.sync import async_to_sync, markcoroutinefunction

from ..exceptions import InvalidChannelLayerError, JoinDenied, OptionError
from ..layer.histories import checked_position
from ..layer.registry import DEFAULT_CHANNEL_LAYER
from ..names import group_topic, require_group
from ..types import Message, Position, Receive, Scope, Send
from .connection import Connection
from .entering import enter
from .handlers import from_layer, get_handler_name, layer_handler
from .join_result import JoinResult
from .position_tokens import token_position
from .relays import RelayTable
from .threads import run_sync

__all__ = ["AsyncConsumer", "JoinResult", "SyncConsumer", "get_handler_name"]

logger = logging.getLogger("antiphon.consumer")


class _Application:
    # Not a function: the routes of Starlette and FastAPI take one for a view of theirs, and an object for an application.

    def __init__(self, cls: type[AsyncConsumer], initkwargs: dict[str, Any]) -> None:
        self.consumer_class = cls
        self.consumer_initkwargs = initkwargs
        functools.update_wrapper(self, cls, updated=())

    def __repr__(self) -> str:
        return f"<ASGI application of {self.consumer_class.__qualname__}>"

    # Marked in place of "async": the connection's own coroutine is handed out, where awaiting it in one of ours would
    # keep one more for every idle connection.
    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        consumer = self.consumer_class(**self.consumer_initkwargs)
        if type(consumer).__call__ is AsyncConsumer.__call__:
            return consumer._antiphon_run(scope, receive, send)
        return consumer(scope, receive, send)


def _since(since: Position | str, group: str) -> Position:
    return token_position(since, group) if isinstance(since, str) else checked_position(since)


class AsyncConsumer:
    """Handles one connection: each event, from the client or the layer, calls the method that its type names.

    ``{"type": "chat.message"}`` calls ``chat_message(message)``. Handlers of one consumer run one at a time, in order.

    Class attributes: ``channel_layer_alias``; ``user_channel`` (True: ``user_send`` reaches it); ``layer_handlers``
    (message type -> method name, to open a framework's name to messages from the layer); ``capacity`` and
    ``overflow`` of its mailbox; ``shares_messages`` (decode once a node, on the promise that no handler changes a
    message); ``receive_limit`` ((frames, bytes) of the client that may wait); ``max_message_bytes``, ``rate_limit``
    ("20/s"), ``max_connections_per_user``, ``revalidate_interval_s``, ``disconnect_grace_s``, ``send_buffer_limit``
    (bytes that may wait for a slow client). None: as ``ANTIPHON`` says. ``close_protocol``: whose close codes clients are
    told: ``plain``, ``centrifuge`` or ``yjs``.
    """

    _sync: ClassVar[bool] = False
    _antiphon_streams: ClassVar[bool] = False  # its response lasts until somebody ends it
    channel_layer_alias: ClassVar[str] = DEFAULT_CHANNEL_LAYER
    user_channel: ClassVar[bool] = False
    layer_handlers: ClassVar[Mapping[str, str]] = {}
    capacity: ClassVar[int | None] = None
    overflow: ClassVar[str | None] = None
    shares_messages: ClassVar[bool] = False
    receive_limit: ClassVar[tuple[int, int] | None] = None
    max_message_bytes: ClassVar[int | None] = None
    rate_limit: ClassVar[str | tuple[int, float] | None] = None
    max_connections_per_user: ClassVar[int | None] = None
    revalidate_interval_s: ClassVar[float | None] = None
    disconnect_grace_s: ClassVar[float | None] = None
    send_buffer_limit: ClassVar[int | None] = None
    close_protocol: ClassVar[str] = "plain"

    # A consumer is the application's own class, so every name of ours that is not Channels' says whose it is:
    # an application may have a _connection, a _stop() or a _handling of its own.
    scope: Any
    channel_layer: Any
    channel_name: str
    base_send: Any
    _antiphon: Connection
    _antiphon_groups: set[str] | None = None
    _antiphon_relays: ClassVar[RelayTable | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find the relays of a class. Raises TypeError where one cannot be."""
        super().__init_subclass__(**kwargs)
        cls._antiphon_relays = RelayTable.of(cls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: an instance is an ASGI application."""
        await self._antiphon_run(scope, receive, send)

    def _antiphon_run(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        self.scope = scope
        connection = self._antiphon = Connection(self, scope, send)
        self.base_send = async_to_sync(connection.outlet.send) if self._sync else connection.outlet.send
        return connection.run(receive)

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {getattr(self, 'channel_name', 'not connected')}>"

    @property
    def channel_receive(self) -> Callable[[], Awaitable[Message]]:
        """Receive from this consumer's channel; the consumer does so itself."""
        return functools.partial(self.channel_layer.receive, self.channel_name)

    async def dispatch(self, message: Message) -> None:
        """Call the handler that a message's type names. Raises ValueError when there is none."""
        handler = getattr(self, self._antiphon_handler(message), None)
        if handler is None:
            raise ValueError(f"No handler for message type {message['type']}")
        await handler(message)

    _antiphon_stock: ClassVar[Any] = dispatch

    def _antiphon_handler(self, message: Message) -> str:
        return layer_handler(self, message) if from_layer.get() else get_handler_name(message)

    async def _antiphon_dispatch(self, message: Message) -> None:
        token = from_layer.set(True)
        try:
            await self.dispatch(message)
        finally:
            from_layer.reset(token)

    async def send(self, message: Message) -> None:
        """Send an ASGI event to the client."""
        await self.base_send(message)

    async def join(self, group: str, *, since: Position | str | None = None) -> JoinResult:
        """Join a group; it is left by itself, however the connection ends.

        ``since``: what the group was sent after that position of its history is handled first, all of it, in order,
        or none: the result says which. A str is what ``{% group_position %}`` printed; one that was not made here is
        the position of no history, so nothing is recovered. Raises JoinDenied when ``authorize_join`` says no (in ``connect()`` that denies
        the connection), TypeError for a wrong name or position, OptionError for ``since`` where the group has no
        history, EngineUnavailable when the engine does not confirm it.
        """
        require_group(group)
        position = None if since is None else _since(since, group)
        if not await self.authorize_join(group):
            raise JoinDenied(f"{type(self).__qualname__}.authorize_join({group!r}) said no")
        return await self._antiphon_appear(group, position)

    def position(self, group: str) -> Position | None:
        """Return the place in a group's history of the message that is being handled, else of the last one.

        Before the first message, of the join; None for a group without history. It is what the client presents when
        it comes back: ``join(group, since=position)``.
        """
        connection = self._antiphon
        return connection.positions.get(group) if connection.positions is not None else None

    async def leave(self, group: str) -> None:
        """Leave a group, if it was joined."""
        require_group(group)
        await self._antiphon_exit(group)

    async def authorize_join(self, group: str) -> bool:
        """Say whether this connection may join a group; override it. By default it may."""
        return True

    def presence_info(self, group: str) -> dict[str, Any]:
        """Return what others in a group with presence are told of this connection, beside its user; override it.

        At most 1024 bytes encoded. A plain function that may not wait.
        """
        return {}

    def on_error(self, exc: Exception, handler: str) -> Any:
        """Learn of an exception that escaped from a handler: by default, one log record.

        The connection is then closed with reason ``error`` (1011), unless this returns True. May be ``async``.
        ``handler``: the method's name, or the event's type.
        """
        logger.error(
            "%s.%s raised %r",
            type(self).__qualname__,
            handler.replace(".", "_"),
            exc,
            exc_info=exc,
            extra={"consumer": type(self).__qualname__, "handler": handler},
        )

    async def _antiphon_stop(self) -> None:
        """End what the consumer runs beside its handlers."""

    async def _antiphon_goodbye(self) -> None:
        """Call what must be called at the end, if no handler has."""

    def _antiphon_recheck(self) -> None:
        """Look again at what its user may do, where that was remembered."""

    async def _antiphon_farewell(self, reason: str) -> None:
        """Say why a response that is under way ends, where there are words for it."""

    async def _antiphon_appear(self, group: str, since: Position | None) -> JoinResult:
        result = await self._antiphon_enter(group, since)
        await self._antiphon.appeared()
        return result

    async def _antiphon_enter(self, group: str, since: Position | None = None) -> JoinResult:
        connection, layer = self._antiphon, self.channel_layer
        if connection.node is not None:
            return await enter(connection, group, since) if not connection.gone else JoinResult(group)
        if since is not None:
            raise OptionError(f"join({group!r}, since=…) needs a layer of Antiphon; this one is {type(layer).__name__}")
        if layer is None or not hasattr(layer, "group_add"):
            raise InvalidChannelLayerError("BACKEND is unconfigured or doesn't support groups")
        await layer.group_add(group, self.channel_name)
        if self._antiphon_groups is None:
            self._antiphon_groups = set()
        self._antiphon_groups.add(group)
        return JoinResult(group)

    async def _antiphon_exit(self, group: str) -> None:
        connection = self._antiphon
        if connection.node is not None:
            connection.node.leave(group_topic(group), connection.mailbox)
        elif self._antiphon_groups and group in self._antiphon_groups:
            self._antiphon_groups.discard(group)
            await self.channel_layer.group_discard(group, self.channel_name)

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Any:
        """Return an ASGI application that makes one instance for each connection, with ``initkwargs``."""
        return _Application(cls, initkwargs)


class SyncConsumer(AsyncConsumer):
    """As ``AsyncConsumer``, with plain functions as handlers, which run on a thread; never two of one connection."""

    _sync: ClassVar[bool] = True

    async def dispatch(self, message: Message) -> None:
        """Call the handler that a message's type names, on a thread. Raises ValueError when there is none."""
        handler = getattr(self, self._antiphon_handler(message), None)
        if handler is None:
            raise ValueError(f"No handler for message type {message['type']}")
        await run_sync(handler, message, under_test=self._antiphon.under_test)

    _antiphon_stock: ClassVar[Any] = dispatch

    def send(self, message: Message) -> None:  # type: ignore[override]  # the synchronous twin
        """Send an ASGI event to the client, and wait until the server took it."""
        self.base_send(message)

    def join(self, group: str, *, since: Position | str | None = None) -> JoinResult:  # type: ignore[override]  # the synchronous twin
        """Join a group; it is left by itself, however the connection ends. ``since`` and errors as of the async twin."""
        require_group(group)
        position = None if since is None else _since(since, group)
        if not self.authorize_join(group):
            raise JoinDenied(f"{type(self).__qualname__}.authorize_join({group!r}) said no")
        return async_to_sync(self._antiphon_appear)(group, position)

    def leave(self, group: str) -> None:  # type: ignore[override]  # the synchronous twin
        """Leave a group, if it was joined."""
        require_group(group)
        async_to_sync(self._antiphon_exit)(group)

    def authorize_join(self, group: str) -> bool:  # type: ignore[override]  # the synchronous twin
        """Say whether this connection may join a group; override it. By default it may."""
        return True
