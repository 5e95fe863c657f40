"""``SubscriptionConsumer``: what an application writes for clients of the Centrifuge protocol, version 2, JSON.

The protocol is in ``wire/centrifuge``, the conversation in ``client.py``. Here: the methods and limits of the application,
and how events reach the conversation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, ClassVar
from weakref import WeakSet

from .. import framework
from ..consumers.base import AsyncConsumer
from ..consumers.join_result import JoinResult
from ..exceptions import InvalidChannelLayerError, StopConsumer, TokenInvalid
from ..types import Event, Position
from ..wire.centrifuge.tables import DISCONNECTS, Disconnect
from ..wire.codes import close_code
from .client import Client
from .fallbacks import StreamClient, answer, opening_of, respond
from .permissions import Claims, Grant
from .pushes import OwnPushes, Pushes

__all__ = ["SubscriptionConsumer"]

logger = logging.getLogger("antiphon.consumer")
_told: WeakSet[type] = WeakSet()  # classes of which was said that they let nobody in


class SubscriptionConsumer(AsyncConsumer):
    """Serves one client of the Centrifuge protocol: one socket, many groups.

    A client subscribes to channels, which are groups of the layer; what a group is sent goes to its subscribers: a
    message {"type": "publication", "data": …} as that data, any other as a whole. Nobody may subscribe or publish
    until ``authorize_subscribe`` and ``authorize_publish`` say so. Methods may be ``async``; plain functions run on a
    thread, except ``group_for``.

    Class attributes: ``max_subscriptions`` of a client; ``command_rate_limit`` ("200/s"; None: no limit);
    ``subscribe_timeout_s``, within which a subscribe is answered (clients give up after 5 s);
    ``connect_timeout_s``, within which a client must say who it is; ``ping_interval_s`` and ``pong_timeout_s``;
    ``expiry_grace_s``, how late a new token may be; ``reauth_interval_s``, after which ``authorize_subscribe`` is asked
    again (None: never); ``history_limit``, how many publications one history reply holds.
    """

    overflow: ClassVar[str | None] = "close"  # a client with a position loses nothing by it
    capacity: ClassVar[int | None] = 1000
    max_message_bytes: ClassVar[int | None] = 65536
    close_protocol: ClassVar[str] = "centrifuge"
    max_subscriptions: ClassVar[int] = 128
    command_rate_limit: ClassVar[str | tuple[int, float] | None] = "200/s"
    subscribe_timeout_s: ClassVar[float] = 4.0
    connect_timeout_s: ClassVar[float] = 25.0
    ping_interval_s: ClassVar[float] = 25.0
    pong_timeout_s: ClassVar[float] = 8.0
    expiry_grace_s: ClassVar[float] = 25.0
    reauth_interval_s: ClassVar[float | None] = None
    history_limit: ClassVar[int] = 300

    _antiphon_streams: ClassVar[bool] = True
    _antiphon_client: Client | None = None
    _antiphon_pushes: ClassVar[Pushes]
    _antiphon_joined: frozenset[str] = frozenset()
    _antiphon_body: bytes = b""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make what a class's connections share. Raises TypeError for a class with relays, which would never be asked."""
        super().__init_subclass__(**kwargs)
        if cls._antiphon_relays is not None:
            raise TypeError(f"{cls.__qualname__} has relays: what a group is sent goes to its subscribers as it is")
        cls._antiphon_pushes = Pushes(cls.__qualname__)

    # What the application writes

    async def authenticate(self, token: str) -> Claims:
        """Return what a connection's token says; by default the framework reads it.

        Raise TokenExpired for one whose time is over (the client fetches a new one), TokenInvalid for any other that
        is not good.
        """
        read = getattr(framework.current(), "read_connection_token", None)
        if read is None:
            raise TokenInvalid("nobody here reads tokens: override authenticate()")
        claims: Claims = await read(token)
        return claims

    async def authorize_connect(self, data: Any) -> bool | Grant:
        """Say whether a client may connect, whose token, if it had one, is good. ``data``: what it sent along."""
        return True

    async def authorize_subscribe(self, group: str) -> bool | Grant:
        """Say whether this client may subscribe to a group: True, or a Grant with its terms. By default it may not."""
        cls = type(self)
        if cls.authorize_subscribe is SubscriptionConsumer.authorize_subscribe and cls not in _told:
            _told.add(cls)
            logger.warning(
                "%s lets nobody subscribe without a token: it has no authorize_subscribe()", cls.__qualname__
            )
        return False

    async def authorize_token(self, group: str, token: str) -> bool | Grant:
        """Say whether a token allows this client a group; by default the framework reads it. Raises as ``authenticate``."""
        read = getattr(framework.current(), "read_subscription_token", None)
        if read is None:
            raise TokenInvalid("nobody here reads tokens: override authorize_token()")
        claims = await read(token)
        user = framework.user_key(claims.user) if claims.user is not None else None
        if claims.group != group or user != self.user_id:
            raise TokenInvalid("it is for another user or group")
        return Grant(claims.expires_s, info=claims.info)

    async def authorize_publish(self, group: str, data: Any) -> bool:
        """Say whether this client may publish to a group. By default it may not."""
        return False

    async def authorize_history(self, group: str) -> bool:
        """Say whether this client may read a group's history. By default, where it is subscribed."""
        return group in self.subscriptions

    async def authorize_presence(self, group: str) -> bool:
        """Say whether this client may know who is in a group. By default, where it is subscribed."""
        return group in self.subscriptions

    def presence_info(self, group: str) -> dict[str, Any]:
        """Return what others in a group are told of this connection: what its token says."""
        return dict(self.claims.info or {}) if self._antiphon_client is not None else {}

    def group_for(self, channel: str) -> str | None:
        """Return the group behind a channel; None: there is none for this client. A plain function that may not wait.

        By default they have the same name.
        """
        return channel

    async def on_connect(self) -> None:
        """Learn that the client is connected."""

    async def on_subscribe(self, group: str) -> None:
        """Learn that the client is subscribed to a group."""

    async def on_unsubscribe(self, group: str) -> None:
        """Learn that it is no more, whoever ended it."""

    async def on_message(self, data: Any) -> None:
        """Take what the client sent and wants no answer to."""

    async def on_disconnect(self, code: int) -> None:
        """Learn that the connection ended, with its close code."""

    # What it may use

    @property
    def user_id(self) -> str | None:
        """The key of the user: of the token, else of the session; None: nobody we know."""
        return self._antiphon.mailbox.user

    @property
    def client_id(self) -> str:
        """What clients know this connection by."""
        return self._antiphon_now.id

    @property
    def claims(self) -> Claims:
        """What the connection's token said."""
        return self._antiphon_now.claims

    @property
    def subscriptions(self) -> frozenset[str]:
        """The groups that the client is subscribed to."""
        return frozenset(self._antiphon_now.groups)

    async def push(self, data: Any) -> None:
        """Send the client ``data``, outside of any channel: it hears a ``message``."""
        await self._antiphon_now.push(data)

    async def join(self, group: str, *, since: Position | str | None = None) -> JoinResult:
        """Join a group for handlers of this consumer: the client hears nothing of it. As ``AsyncConsumer.join``."""
        result = await super().join(group, since=since)
        self._antiphon_joined |= {group}
        self._antiphon.relay_by(OwnPushes(self._antiphon_now, self._antiphon_pushes), None)
        return result

    async def leave(self, group: str) -> None:
        """Leave a group that was joined; a subscription of the client's stays."""
        self._antiphon_joined -= {group}
        if group not in self.subscriptions:
            await super().leave(group)

    # Events

    def _antiphon_needs_layer(self) -> None:
        if self._antiphon.node is None:
            raise InvalidChannelLayerError(
                f"{type(self).__qualname__} needs a layer of Antiphon; this one is {type(self.channel_layer).__name__}"
            )

    @property
    def _antiphon_now(self) -> Client:
        if self._antiphon_client is None:
            raise RuntimeError(f"{type(self).__qualname__} has no client yet, or none any more")
        return self._antiphon_client

    async def websocket_connect(self, message: Event) -> None:
        """Accept the connection; who it is, its first command will say."""
        connection = self._antiphon
        self._antiphon_needs_layer()
        other = _other_offered(self.scope.get("subprotocols") or ())
        if other is not None:
            why = DISCONNECTS["inappropriate_protocol"]
            # As offered: clients take no socket without it, would hear no code, and come again and again.
            await self.send({"type": "websocket.accept", "subprotocol": other})
            await self.send({"type": "websocket.close", "code": why.code, "reason": why.reason})
            return
        client = self._antiphon_client = Client(self)
        connection.mailbox.every_copy = True
        # Where a channel may have another name, its pushes are made for each connection that has one.
        own_names = type(self).group_for is not SubscriptionConsumer.group_for
        connection.relay_by(OwnPushes(client, self._antiphon_pushes), None if own_names else self._antiphon_pushes)
        await self.send({"type": "websocket.accept", "subprotocol": None})

    async def websocket_receive(self, message: Event) -> None:
        """Handle a frame of the client."""
        if self._antiphon_client is not None:
            await self._antiphon_client.take(message.get("text"))

    async def subscription_frame(self, message: Event) -> None:
        """Handle a frame of a client whose connection is a stream."""
        await self.websocket_receive(message)

    async def subscription_due(self, message: Event) -> None:
        """See to a deadline."""
        if self._antiphon_client is not None:
            await self._antiphon_client.due()

    async def subscription_ended(self, message: Event) -> None:
        """Finish a subscription that was cut off."""
        if self._antiphon_client is not None:
            await self._antiphon_client.ended(message["group"])

    async def websocket_disconnect(self, message: Event) -> None:
        """End the subscriptions, and tell the application."""
        await self._antiphon_part(message["code"])
        raise StopConsumer

    async def _antiphon_part(self, code: int) -> None:
        client = self._antiphon_client
        if client is None or not client.end():
            return
        for group in tuple(client.groups):
            del client.groups[group]
            await client.tell("on_unsubscribe", group)
        if client.let_in:
            await client.tell("on_disconnect", code)

    # The same over HTTP

    async def http_request(self, message: Event) -> None:
        """Take a request, in parts: a stream of the client's, or commands for one."""
        self._antiphon_body += message.get("body") or b""
        if len(self._antiphon_body) > self._antiphon.limits.message_bytes:
            await respond(self, 413)
        if message.get("more_body"):
            return
        kind, content = opening_of(self.scope, self._antiphon_body)
        self._antiphon_body = b""
        if kind == "commands":
            await respond(self, await answer(self, content))
        if kind == "status":
            await respond(self, content)
        self._antiphon_needs_layer()
        client = self._antiphon_client = StreamClient(self, events=kind == "events")
        self._antiphon.mailbox.every_copy = True
        self._antiphon.relay_by(OwnPushes(client, self._antiphon_pushes), None)
        await client.open(content)

    async def http_disconnect(self, message: Event) -> None:
        """End the subscriptions, and tell the application."""
        await self._antiphon_goodbye()
        raise StopConsumer

    def _antiphon_recheck(self) -> None:
        if self._antiphon_client is not None:
            self._antiphon_client.recheck()

    async def _antiphon_farewell(self, reason: str) -> None:
        if self._antiphon_client is not None:
            await self._antiphon_client.farewell(Disconnect(close_code(reason, "centrifuge"), reason))

    async def _antiphon_goodbye(self) -> None:
        await self._antiphon_part(1006)


def _other_offered(subprotocols: Iterable[str]) -> str | None:
    return next((name for name in subprotocols if name.startswith("centrifuge-") and name != "centrifuge-json"), None)


SubscriptionConsumer._antiphon_pushes = Pushes(SubscriptionConsumer.__qualname__)
